"""The step callback whose values reach Python in the middle of an epoch, where a user asks for it."""

from numbers import Integral
from typing import Any, Literal

from keras_dnn_extras._arguments import check_number
from keras_dnn_extras._training_step.step_callback import StepCallback

UpdateFreq = Literal["epoch", "batch"] | int


class BatchLogsCallback(StepCallback):
    """A callback that writes into the logs of batches, unless its `update_freq` is `"epoch"`.

    Subclasses of this package override `_read_batches` and `_batch_logs`.

    Args:
        update_freq: `"epoch"`, `"batch"` or an int > 0: after each epoch, each batch or so many batches.
    """

    def __init__(self, update_freq: UpdateFreq):
        super().__init__()
        _check_update_freq(update_freq)
        self.update_freq: UpdateFreq = update_freq
        self._batches_read = 0  # in this epoch

    def _read_batches(self) -> None:
        """Read what the last batches have brought. It asks the device."""

    def _batch_logs(self) -> dict[str, float]:
        """Return the logs of a batch, by what was read last."""
        return {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._batches_read = 0

    @property
    def on_train_batch_end(self) -> Any:
        # Keras waits for every step where a callback overrides this: only if it was asked for.
        return super().on_train_batch_end if self.update_freq == "epoch" else self._end_batch

    def _end_batch(self, batch: int, logs: dict | None = None) -> None:
        every = self.update_freq if isinstance(self.update_freq, Integral) else 1
        if batch + 1 - self._batches_read >= every:
            self._batches_read = batch + 1
            self._read_batches()
        if logs is not None:
            logs.update(self._batch_logs())


def _check_update_freq(update_freq: Any) -> None:
    if isinstance(update_freq, str) and update_freq not in ("epoch", "batch"):
        raise ValueError(
            'Expected `update_freq` to be "epoch", "batch" or a positive int. '
            f"Received: update_freq={update_freq!r}"
        )
    if not isinstance(update_freq, str):
        check_number("update_freq", update_freq, "a positive int", lambda v: v > 0, Integral)
