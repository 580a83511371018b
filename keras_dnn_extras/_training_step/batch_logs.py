"""The step callback whose values reach Python in the middle of an epoch, where a user asks for it."""

from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

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

    if TYPE_CHECKING:  # a method, which subclasses may override

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None: ...

    else:

        @property
        def on_train_batch_end(self):
            # Keras waits for every step where a callback overrides this: only if it was asked for.
            return super().on_train_batch_end if self.update_freq == "epoch" else self._end_batch

    def _end_batch(self, batch: int, logs: dict | None = None) -> None:
        every = self.update_freq if isinstance(self.update_freq, Integral) else 1
        if batch + 1 - self._batches_read >= every:
            self._batches_read = batch + 1
            self._read_batches()
        if logs is not None:
            logs.update(self._batch_logs())
        super().on_train_batch_end(batch, logs)  # calls the `on_batch_end` of a subclass


def _check_update_freq(update_freq: Any) -> None:
    is_name = isinstance(update_freq, str)
    is_number = isinstance(update_freq, Integral) and not isinstance(update_freq, bool)
    if (is_name and update_freq in ("epoch", "batch")) or (is_number and update_freq > 0):
        return
    error = ValueError if is_name or is_number else TypeError
    raise error(
        'Expected `update_freq` to be "epoch", "batch" or a positive int. '
        f"Received: update_freq={update_freq!r}"
    )
