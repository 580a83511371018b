"""When the tables of the step are exchanged with Python."""

from collections.abc import Iterable

import keras
import numpy as np

from keras_dnn_extras._training_step.step_part import StepPart
from keras_dnn_extras._training_step.timeline import Timeline

_ROWS = 4096  # of the tables, each an update
_NUMBERS = 2**18  # in what is measured, 1 MiB: where it is more, there are fewer rows


class Exchange:
    """Has the parts of a step download and upload before their rows are over, and no earlier.

    Each exchange waits for the device, so there is one in thousands of updates, and one in each epoch.
    """

    def __init__(self, model: keras.Model, timeline: Timeline):
        self._model = model
        self._timeline = timeline
        self._rows = 0
        self._first_update = 0  # `iterations` at the last exchange
        self._batch = self._next_batch = 0  # of the last exchange, and of the next one
        self._updates_in_a_call = 0  # as far as they can be counted

    def begin(self, parts: Iterable[StepPart]) -> None:
        """Choose the number of rows when the first epoch begins."""
        numbers = max((part.numbers_per_update for part in parts), default=0)
        self._rows = max(min(_ROWS, _NUMBERS // max(numbers, 1)), self._steps_in_a_call())
        self._first_update = self._timeline.updates

    def request(self) -> None:
        """Have an exchange before the next step."""
        self._next_batch = 0

    def is_due(self, batch: int) -> bool:
        """Return whether there has to be an exchange before `batch`."""
        return batch >= self._next_batch

    def run(self, parts: Iterable[StepPart], batch: int) -> None:
        """Download and upload, before `batch`."""
        first = self._timeline.read_updates()
        self._check_rows()
        for part in parts:
            part.download()
            part.upload(np.arange(first, first + self._rows))
        self._first_update, self._batch = first, batch
        self._set_next_batch()

    def end_epoch(self, parts: Iterable[StepPart]) -> None:
        """Download what the rest of the epoch has brought, after the updates were read."""
        self._check_rows()
        for part in parts:
            part.download()

    def note_updates(self, count: int) -> None:
        """Note how many updates the last call of the step applied, for the next exchange to be in time."""
        if count > self._updates_in_a_call:
            self._updates_in_a_call = count
            self._set_next_batch()

    def _set_next_batch(self) -> None:
        batches = self._rows // max(self._updates_in_a_call, 1) - self._steps_in_a_call() + 1
        self._next_batch = self._batch + max(batches, 1)

    def _steps_in_a_call(self) -> int:
        return getattr(self._model, "steps_per_execution", 1)

    def _check_rows(self) -> None:
        """Raise if there were more updates than rows since the last exchange."""
        updates = self._timeline.updates - self._first_update
        if updates > self._rows:
            raise RuntimeError(
                f"{updates} updates were applied where at most {self._rows} were expected, and had "
                "values that were not theirs. Apply gradients fewer times in a training step. "
                f"Received: model={self._model}"
            )
