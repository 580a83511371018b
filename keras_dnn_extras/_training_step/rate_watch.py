"""Notices when something else than the schedule sets the learning rate."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._backends import modulo
from keras_dnn_extras._keras_internals import batch_counter, learning_rate_or_schedule
from keras_dnn_extras._models import seen_batches
from keras_dnn_extras._training_step.ring_buffer import TAGS
from keras_dnn_extras._training_step.step_part import step_variable


class RateWatch:
    """Sets the learning rate in the step, and looks each time whether it is the one set before.

    A rate that came with another count of batches is no setting: the optimizer was restored.
    """

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer):
        self._model = model
        self._optimizer = optimizer
        self._at_start: tuple[float, int] | None = None  # the rate and the batches when the fit began
        # Of shape `(3,)`: the rate that the last update set, how many batches there were then, as a
        # remainder, and how many updates found another rate although there was no batch in between.
        self._last: Any = None
        self._batches_at_last = 0  # of them, the batches, and no remainder

    @property
    def variables(self) -> list[keras.Variable]:
        """The variable of the step, once it is built."""
        return [] if self._last is None else [self._last]

    def begin(self) -> None:
        """Look at the rate when the fit begins, before other callbacks see its first epoch begin."""
        self._at_start = self._rate(), self._batches()

    def build(self) -> None:
        """Make the variable of the step before the first one."""
        if self._last is None:
            self._batches_at_last = seen_batches(self._optimizer)
            now = self._rate(), self._batches()
            rate, batches = self._at_start or now
            self._last = step_variable(self._model, (3,), "float32")
            self._last.assign(np.array([*now, rate != now[0] and batches == now[1]], "float32"))

    def set_rate(self, value: Any) -> None:
        """Set the learning rate in the step, and count if another one is there than this method set.

        Args:
            value: a float tensor of shape `()`.
        """
        rate, last = self._optimizer.learning_rate, self._last
        batches = batch_counter(self._optimizer).value
        last_rate, last_batches, others = (last.value[i] for i in range(3))
        same_batches = ops.equal(last_batches, ops.cast(modulo(batches, TAGS), "float32"))
        differs = ops.not_equal(last_rate, ops.cast(rate.value, "float32"))
        others = others + ops.cast(ops.logical_and(same_batches, differs), "float32")
        rate.assign(value)
        now = ops.cast(modulo(batches + 1, TAGS), "float32")
        last.assign(ops.stack([ops.cast(rate.value, "float32"), now, others]))

    def last_update(self) -> int:
        """Return the `iterations` before the last update, less than those of this fit before its first.

        Between two steps; it asks the device.
        """
        since = int(ops.convert_to_numpy(self._last)[1]) - self._batches_at_last
        # Less than 0 where the optimizer was set back.
        self._batches_at_last += (since + TAGS // 2) % TAGS - TAGS // 2
        return self._batches_at_last // (self._optimizer.gradient_accumulation_steps or 1) - 1

    def has_other_writer(self) -> bool:
        """Return whether something else set the rate. Between two steps.

        The step looks at the rate before it overwrites it; what came after the last step is seen here.
        """
        if self._last is None:
            return False
        rate, batches, others = ops.convert_to_numpy(self._last).tolist()
        return bool(others) or (self._rate() != rate and self._batches() == batches)

    def _rate(self) -> float:
        rate = learning_rate_or_schedule(self._optimizer)
        return float(ops.convert_to_numpy(ops.cast(rate.value, "float32")))

    def _batches(self) -> int:
        return seen_batches(self._optimizer) % TAGS
