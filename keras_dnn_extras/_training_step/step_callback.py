"""The callback that takes part in the training step."""

from typing import Any

import keras

from keras_dnn_extras._display import Displayed, Summary, brief, call_text
from keras_dnn_extras._keras_internals import (
    callbacks_of_fit,
    check_internals,
    counts_batches,
    is_built,
    without_model,
)
from keras_dnn_extras._models import seen_batches, unscaled
from keras_dnn_extras._training_step.step import TrainingStep, join_step


class StepCallback(Displayed, keras.callbacks.Callback):
    """A callback that takes part in the training step: it joins it, tells it the time, and leaves it.

    Subclasses of this package override `_set_up` and `_join_step`, `_update_logs` where they have
    something to log, and `_facts`. None of these is meant for users.
    """

    _step: TrainingStep  # of the last fit

    @property
    def _display_name(self) -> str:
        """The name of what the user called, for errors."""
        return type(self).__name__

    def _set_up(self, callbacks: list[keras.callbacks.Callback]) -> None:
        """Check the fit that begins, change nothing. `callbacks`: all others of the fit."""

    def _join_step(self, step: TrainingStep) -> None:
        """Ask `step` for the parts that this callback uses."""

    def _update_logs(self, epoch: int, logs: dict) -> None:
        """Write what the epoch has brought into `logs`."""

    def _facts(self) -> dict[str, str]:
        """Return what there is to say about the last fit."""
        return {}

    def _summary(self) -> Summary:
        return Summary(call_text(self), self._facts())

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes part in no fit: it has the records, and not the model.
        return without_model({name: value for name, value in vars(self).items() if name != "_step"})

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # Before any callback restores anything: `BackupAndRestore` may come before this one.
        optimizer = unscaled(getattr(model, "optimizer", None))
        self._batches_before = seen_batches(optimizer) if counts_batches(optimizer) else 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        callbacks = callbacks_of_fit(self)
        others = self._others_in(callbacks)
        check_internals(self.model, unscaled(getattr(self.model, "optimizer", None)), self._display_name)
        self._set_up(others)
        if is_built(self.model) and not self.model.trainable_variables:
            raise ValueError(
                f"The model has no trainable weights, so `{self._display_name}` would see no update. "
                "Set `trainable = True` for some layers, and compile the model again. "
                f"Received: model={self.model}"
            )
        # Loggers that stand before this one in the user's list have to see what it logs. Moving the
        # element that a loop is at to the front leaves the rest of the loop as it is.
        if callbacks:
            callbacks.remove(self)
            callbacks.insert(0, self)
        self._step = join_step(self, getattr(self, "_step", None))
        self._join_step(self._step)

    def _others_in(self, callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        """Return `callbacks` and those of lists within them, without this one."""
        others = _flat(callbacks)
        if callbacks:
            others.remove(self)
        if self in others:
            raise ValueError(
                f"`{self._display_name}` is listed twice. Remove one of the two from `callbacks`. "
                f"Received: callbacks={brief([self, *others])}"
            )
        return others

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._step.begin_epoch(epoch, before=self._batches_before, params=self.params or {})

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._step.begin_batch(batch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._step.end_epoch()
        self._update_logs(epoch, {} if logs is None else logs)

    def on_train_end(self, logs: dict | None = None) -> None:
        self._step.leave(self)
        self._batches_before = seen_batches(self._step.optimizer)  # a `CallbackList` may be used again


def _flat(callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    flat = []
    for callback in callbacks:
        nested = isinstance(callback, keras.callbacks.CallbackList)
        flat += _flat(callback.callbacks) if nested else [callback]
    return flat
