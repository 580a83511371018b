"""Hyperparameters of the optimizer that follow curves, update by update, in the training step."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._backends import depending_on, modulo, table_dtype
from keras_dnn_extras._keras_internals import wrapped_methods
from keras_dnn_extras._training_step.hyperparameter_proxy import REMEDY, proxy, without_zeros
from keras_dnn_extras._training_step.rate_watch import RateWatch
from keras_dnn_extras._training_step.step_part import StepPart, step_variable
from keras_dnn_extras._training_step.timeline import Timeline

_RATE = "learning_rate"


class ScheduledHyperparameters(StepPart):
    """A table of the values for the coming updates, in which the step looks up the row of its update.

    Keras bakes `momentum`, `beta_1` and the like into the traced step as Python floats. In the step, and
    nowhere else, the optimizer has a proxy in their place.
    """

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, timeline: Timeline):
        super().__init__(model, optimizer, timeline)
        self._curves: dict[str, Callable[[np.ndarray], Any]] = {}
        self._numbers: dict[str, float] = {}  # what the user compiled, of all but the learning rate
        self._refusals: dict[str, Callable[[str], None]] = {}
        self._overwritten: set[str] = set()  # what others wrote, and updates overwrote
        self._watch = RateWatch(model, optimizer)
        self._table: Any = None
        # What was uploaded in this epoch: the `iterations` of the first row, and the values of all.
        self._uploads: list[tuple[int, dict[str, np.ndarray]]] = []
        self._epoch_of_uploads = -1
        self._downloaded_until = 0  # in `iterations`

    def add(
        self, name: str, curve: Callable[[np.ndarray], Any], refuse_other_writer: Callable[[str], None]
    ) -> None:
        """Let `curve(i)` be the optimizer's hyperparameter `name` in update `i` of the fit.

        Args:
            name: `"learning_rate"`, or a float attribute of the optimizer.
            curve: takes update numbers of shape `(rows,)`, returns the values. Called first when the first
                batch begins.
            refuse_other_writer: called with `name`, between two steps, if anything else wrote it. It
                raises.
        """
        if name in self._curves:
            raise ValueError(f"`{name}` follows the curve of another callback of this fit already.")
        if name != _RATE:
            self._numbers[name] = vars(self._optimizer)[name]
        self._curves[name] = curve
        self._refusals[name] = refuse_other_writer

    def begin(self) -> None:
        """Look at the learning rate when the fit begins: whoever sets it later is refused."""
        self._watch.begin()

    def applied(self, name: str) -> np.ndarray:
        """Return the values that updates of this epoch had, as far as they were downloaded."""
        begin = self._timeline.epoch_began_at
        values = np.empty(max(self._downloaded_until - begin, 0))
        was_uploaded = np.zeros(values.shape, bool)
        for first, uploaded in self._uploads:
            rows = np.arange(first, first + len(uploaded[name])) - begin
            reached = (rows >= 0) & (rows < len(values))
            values[rows[reached]] = uploaded[name][reached]
            was_uploaded[rows[reached]] = True
        return values[was_uploaded]

    def last_applied(self, name: str) -> float | None:
        """Return the value that the last update of this epoch had, or None where there was none yet.

        Between two steps, also before `download`; it asks the device.
        """
        if self._epoch_of_uploads != self._timeline.epoch:
            return None
        update = self._watch.last_update()
        for first, uploaded in reversed(self._uploads):
            if first <= update < first + len(uploaded[name]):
                return float(uploaded[name][update - first])
        return None

    def first_of_epoch(self, name: str) -> float:
        """Return the value of the epoch's first update, to which a short epoch may not come."""
        return float(self._curves[name](np.array(self._timeline.epoch_began_at - self._timeline.origin)))

    # -- the table --------------------------------------------------------------------------------

    @property
    def variables(self) -> list[keras.Variable]:
        return ([] if self._table is None else [self._table]) + self._watch.variables

    def upload(self, updates: np.ndarray) -> None:
        if self._epoch_of_uploads != self._timeline.epoch:
            self._uploads, self._epoch_of_uploads = [], self._timeline.epoch
        numbers = updates - self._timeline.origin
        with np.errstate(over="ignore"):  # in rows past the end of the fit: 1.2 ** 4096
            values = {name: np.asarray(curve(numbers), "float64") for name, curve in self._curves.items()}
        self._uploads.append((int(updates[0]), values))
        self._downloaded_until = int(updates[0])
        self._write(updates, values)
        if _RATE in self._curves:
            self._watch.build()

    def _write(self, updates: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Write the values of each update into the row `iterations % rows`."""
        columns = [column for name in values for column in _columns(name, values[name])]
        table = np.empty((len(updates), len(columns)))
        table[updates % len(updates)] = np.stack(columns, axis=1)
        if self._table is None:
            self._table = step_variable(self._model, table.shape, table_dtype())
        with np.errstate(over="ignore"):
            self._table.assign(table.astype(table_dtype()))

    def download(self) -> None:
        """Note how many updates there were. Raises if anything else wrote what follows a curve."""
        if self._table is None:
            return
        self._downloaded_until = self._timeline.updates
        if self._watch.has_other_writer():
            self._overwritten.add(_RATE)
        for name in self._curves:
            if name in self._overwritten:
                self._refusals[name](name)

    # -- in the step ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        attributes = vars(self._optimizer)
        self._overwritten |= {name for name, number in self._numbers.items() if attributes[name] != number}
        try:
            with wrapped_methods(self._optimizer, apply_gradients=self._with_values):
                yield
        finally:  # an interrupt may have come before the step did it
            attributes.update(self._numbers)

    def _with_values(self, apply_gradients: Callable) -> Callable:
        def apply_with_values(gradients: list, variables: list) -> Any:
            with depending_on(gradients):
                proxies = self._look_up()
            attributes = vars(self._optimizer)
            try:
                attributes.update(proxies)
                return apply_gradients(gradients, variables)
            except TypeError as error:
                if proxies:
                    error.add_note(
                        f"{', '.join(proxies)}: scheduled by a callback, tensors in this step. {REMEDY}"
                    )
                raise
            finally:
                # The compiled numbers, not those from before: replicas of a MirroredStrategy come and go
                # in threads of their own, and see each other's.
                attributes.update(self._numbers)

        return apply_with_values

    def _look_up(self) -> dict[str, Any]:
        """Set the learning rate of this update, and return proxies of all else that follows a curve."""
        rows, width = self._table.shape
        row = ops.take(self._table.value, modulo(self._optimizer.iterations, rows), axis=0)
        values = [row[i] for i in range(width)]
        proxies = {}
        for name in self._curves:
            if name == _RATE:
                self._watch.set_rate(values.pop(0))
            else:
                proxies[name] = proxy(self._numbers[name], values.pop(0), values.pop(0))
        return proxies


def _columns(name: str, values: np.ndarray) -> list[np.ndarray]:
    """Return the columns of the table that the step computes with: of a momentum, its complement too."""
    # `1 - beta_1` would not be the nearest float32 if the step computed it in float32.
    return [values] if name == _RATE else [without_zeros(values), 1.0 - values]
