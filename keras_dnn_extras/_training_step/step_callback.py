"""The callback that takes part in the step."""

from typing import Any

import keras

from keras_dnn_extras._keras_internals import callbacks_of_fit, check_internals, is_built
from keras_dnn_extras._models import seen_batches, unscaled
from keras_dnn_extras._training_step.step import StepState


class StepCallback(keras.callbacks.Callback):
    """A callback that takes part in the step: it joins, keeps time with it and leaves.

    Subclasses override `set_up`, and `update_logs` where they have something to log.
    """

    step_state: StepState  # of the last fit

    @property
    def told_as(self) -> str:
        """The name of what the user called, for errors."""
        return type(self).__name__

    def set_up(self, others: list[keras.callbacks.Callback]) -> None:
        """Check the fit that begins, change nothing. `others`: the fit's other callbacks."""

    def take_part(self, step_state: StepState) -> None:
        """Tell `step_state` what to drive and to measure."""

    def update_logs(self, epoch: int, logs: dict) -> None:
        """Write what the epoch has brought into `logs`."""

    def __getstate__(self) -> dict[str, Any]:
        # A copy takes part in no fit: it has the records, and not the model.
        own = {name: value for name, value in vars(self).items() if name != "step_state"}
        return own | {"_model": None}

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # Before any callback restores anything: `BackupAndRestore` may come before this one.
        optimizer = unscaled(getattr(model, "optimizer", None))
        self._before = seen_batches(optimizer) if hasattr(optimizer, "_iterations") else 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        fit = callbacks_of_fit(self)
        others = _flat(fit)
        if fit:
            others.remove(self)
            if self in others:
                raise ValueError(
                    f"`{self.told_as}` is listed twice. Remove one of the two from `callbacks`. "
                    f"Received: callbacks={[self, *others]}"
                )
        check_internals(self.model, unscaled(getattr(self.model, "optimizer", None)), self.told_as)
        self.set_up(others)
        if is_built(self.model) and not self.model.trainable_variables:
            raise ValueError(
                f"The model has no trainable weights, so `{self.told_as}` would see no update. "
                "Set `trainable = True` for some layers, and compile the model again. "
                f"Received: model={self.model}"
            )
        # Loggers that stand before this one in the user's list have to see what it logs. Moving the
        # element that a loop is at to the front leaves the rest of the loop as it is.
        if fit:
            fit.remove(self)
            fit.insert(0, self)
        self.step_state = StepState.join(self, getattr(self, "step_state", None))
        self.take_part(self.step_state)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.step_state.begin_epoch(epoch, before=self._before, params=self.params or {})

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.step_state.begin_batch(batch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.step_state.end_epoch()
        self.update_logs(epoch, {} if logs is None else logs)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.step_state.leave(self)
        self._before = seen_batches(self.step_state.optimizer)  # a `CallbackList` may be used again


def _flat(callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    flat = []
    for callback in callbacks:
        nested = isinstance(callback, keras.callbacks.CallbackList)
        flat += _flat(callback.callbacks) if nested else [callback]
    return flat
