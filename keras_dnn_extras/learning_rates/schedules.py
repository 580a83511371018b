"""Learning-rate schedules: what is passed to an optimizer in place of a learning rate."""

import math
from numbers import Integral, Real
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._arguments import (
    PACKAGE,
    check_bool,
    check_choice,
    check_in_float32,
    check_number,
    check_positive,
    check_rate,
    config_of,
)
from keras_dnn_extras._display import Displayed, Summary, call_text
from keras_dnn_extras.learning_rates import curves
from keras_dnn_extras.learning_rates.curves import Anneal, Curve
from keras_dnn_extras.learning_rates.range_test_result import LearningRateSearch
from keras_dnn_extras.learning_rates.suggested_rate import rate_of


@keras.saving.register_keras_serializable(package=PACKAGE)
class OneCycle(Displayed, keras.optimizers.schedules.LearningRateSchedule):
    """The 1cycle learning-rate schedule: a long rise, as long a fall, and a short last descent.

    With `low = max_learning_rate / div_factor` and `final = low / final_div_factor` the rate goes
    `low -> max_learning_rate -> low -> final` in three phases, or `low -> max_learning_rate -> final`
    in two. It equals `torch.optim.lr_scheduler.OneCycleLR` at every update. To cycle the momentum as
    well, which a schedule inside an optimizer cannot, use the callback `OneCycleScheduler`.

    Args:
        max_learning_rate: float > 0, the rate at the peak, or a `LearningRateSearch` for its `suggestion`.
        total_steps: int > 0, the number of updates of the cycle. Past it, the last value. Keras asks
            a schedule once per batch, so count batches here with `gradient_accumulation_steps`.
        warmup_fraction: float in [0, 1], the share of the updates up to the peak. With three phases
            the way down takes as much again, so that more than 0.5 leaves no room for the end.
        three_phase: bool. False goes from the peak straight to the final rate.
        anneal: `"linear"` or `"cosine"`, the shape of each phase.
        div_factor: float > 0, the peak divided by the first rate.
        final_div_factor: float > 0, the first rate divided by the last.
        name: str or None, the name of the schedule.

    Call arguments:
        step: int or scalar tensor, the update's number, from 0.

    Returns:
        A scalar float32 tensor, exact to a few units in its last place up to update 2**24.

    Attributes:
        curve: the same as a function of NumPy arrays of update numbers, in float64.

    Raises:
        ValueError: a value is out of its range, or the search has no suggestion.
        TypeError: a value is of the wrong type.

    Example:

    >>> schedule = OneCycle(0.1, total_steps=100)
    >>> [round(float(schedule(i)), 4) for i in (0, 44, 88, 99)]
    [0.004, 0.1, 0.004, 0.0]

    Reference:
        Smith & Topin, Super-Convergence, 2018 (https://arxiv.org/abs/1708.07120).
    """

    def __init__(
        self,
        max_learning_rate: float | LearningRateSearch,
        total_steps: int,
        *,
        warmup_fraction: float = 0.45,
        three_phase: bool = True,
        anneal: Anneal = "linear",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        name: str | None = None,
    ):
        super().__init__()
        self.max_learning_rate = max_learning_rate = rate_of("max_learning_rate", max_learning_rate)
        self.total_steps = total_steps
        self.warmup_fraction = warmup_fraction
        self.three_phase = three_phase
        self.anneal = anneal
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.name = name
        check_in_float32("max_learning_rate", max_learning_rate)
        check_in_float32("total_steps", total_steps, Integral)
        check_number("warmup_fraction", warmup_fraction, "in [0, 1]", lambda value: 0 <= value <= 1)
        check_bool("three_phase", three_phase)
        check_choice("anneal", anneal, Anneal)
        check_positive("div_factor", div_factor)
        check_positive("final_div_factor", final_div_factor)
        low, _, final = self._corners()
        for divisor, rate in (("div_factor", low), ("final_div_factor", final)):
            if rate > float(np.finfo("float32").max):
                raise ValueError(
                    f"Expected `{divisor}` to give a learning rate in the range of float32, not {rate:g}. "
                    f"Received: {divisor}={getattr(self, divisor)}, max_learning_rate={max_learning_rate}"
                )

    @property
    def curve(self) -> Curve:
        return self.cycle(*self._corners())

    def _corners(self) -> tuple[float, float, float]:
        low = self.max_learning_rate / self.div_factor
        return low, self.max_learning_rate, low / self.final_div_factor

    def cycle(self, begin: float, peak: float, end: float) -> Curve:
        """Return a curve of the same shape, between other values: a momentum's for instance."""
        return curves.one_cycle(
            begin,
            peak,
            end,
            self.total_steps,
            warmup_fraction=self.warmup_fraction,
            three_phase=self.three_phase,
            anneal=self.anneal,
        )

    def __call__(self, step: Any) -> Any:
        with keras.name_scope(self.name or "OneCycle"):
            return self.curve(ops.cast(step, "float32"), ops)

    def get_config(self) -> dict[str, Any]:
        return config_of(
            self,
            "max_learning_rate",
            "total_steps",
            "warmup_fraction",
            "three_phase",
            "anneal",
            "div_factor",
            "final_div_factor",
            "name",
        )

    def _summary(self) -> Summary:
        peak = max(round(self.warmup_fraction * self.total_steps) - 1, 0)
        return _summary_of(self, [0, peak, self.total_steps - 1])


@keras.saving.register_keras_serializable(package=PACKAGE)
class PowerDecay(Displayed, keras.optimizers.schedules.LearningRateSchedule):
    """Power scheduling: the rate falls fast at first, then ever more slowly.

    The rate of update `i` is `initial_learning_rate / (1 + i / decay_steps) ** power`. With `power=1` it
    is half the initial rate after `decay_steps` updates, a third after twice as many, and so on.

    Args:
        initial_learning_rate: float > 0, the rate of update 0, or a `LearningRateSearch` for its
            `suggestion`.
        decay_steps: float > 0, in updates.
        power: float >= 0. 0 is a constant rate.
        name: str or None, the name of the schedule.

    Call arguments:
        step: int or scalar tensor, the update's number, from 0.

    Returns:
        A scalar float32 tensor.

    Attributes:
        curve: the same as a function of NumPy arrays of update numbers, in float64.

    Raises:
        ValueError: a value is out of its range, or the search has no suggestion.
        TypeError: a value is of the wrong type.

    Example:

    >>> schedule = PowerDecay(0.1, decay_steps=10)
    >>> [round(float(schedule(i)), 4) for i in (0, 10, 20)]
    [0.1, 0.05, 0.0333]

    Reference:
        Géron, Hands-On Machine Learning, the chapter "Training Deep Neural Networks".
    """

    def __init__(
        self,
        initial_learning_rate: float | LearningRateSearch,
        decay_steps: float,
        power: float = 1.0,
        *,
        name: str | None = None,
    ):
        super().__init__()
        self.initial_learning_rate = rate_of("initial_learning_rate", initial_learning_rate)
        self.decay_steps = decay_steps
        self.power = power
        self.name = name
        check_in_float32("initial_learning_rate", self.initial_learning_rate)
        check_in_float32("decay_steps", decay_steps)
        check_number("power", power, "at least 0 and finite", lambda value: 0 <= value < math.inf)

    @property
    def curve(self) -> Curve:
        return curves.power(self.initial_learning_rate, self.decay_steps, self.power)

    def __call__(self, step: Any) -> Any:
        with keras.name_scope(self.name or "PowerDecay"):
            return self.curve(ops.cast(step, "float32"), ops)

    def get_config(self) -> dict[str, Any]:
        return config_of(self, "initial_learning_rate", "decay_steps", "power", "name")

    def _summary(self) -> Summary:
        return _summary_of(self, [0, round(self.decay_steps), 10 * round(self.decay_steps)])


@keras.saving.register_keras_serializable(package=PACKAGE)
class Warmup(Displayed, keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, and then any schedule from its own beginning.

    With `begin` the value that `schedule` starts with, the rate of update `i < warmup_steps` is
    `start + (begin - start) * i / warmup_steps`; that of a later one is `schedule(i - warmup_steps)`.

    Args:
        schedule: a `LearningRateSchedule`, or a float for a constant rate.
        warmup_steps: int >= 0, the number of updates of the warm-up.
        start: float >= 0, the rate of update 0.
        name: str or None, the name of the schedule.

    Call arguments:
        step: int or scalar tensor, the update's number, from 0.

    Returns:
        A scalar float32 tensor.

    Raises:
        ValueError: a value is out of its range.
        TypeError: a value is of the wrong type.

    Example:

    >>> schedule = Warmup(PowerDecay(0.1, decay_steps=10), warmup_steps=5)
    >>> [round(float(schedule(i)), 4) for i in (0, 4, 5, 15)]
    [0.0, 0.08, 0.1, 0.05]

    Reference:
        Goyal et al., Accurate, Large Minibatch SGD, 2017 (https://arxiv.org/abs/1706.02677).
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule | float,
        warmup_steps: int,
        *,
        start: float = 0.0,
        name: str | None = None,
    ):
        super().__init__()
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.start = start
        self.name = name
        if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
            if not isinstance(schedule, Real):
                raise TypeError(
                    "Expected `schedule` to be a `LearningRateSchedule` or a float. "
                    f"Received: schedule={schedule!r}"
                )
            check_in_float32("schedule", schedule)
        expected = "at least 0 and below 2**31"
        check_number("warmup_steps", warmup_steps, expected, lambda v: 0 <= v < 2**31, Integral)
        check_rate("start", start)

    def __call__(self, step: Any) -> Any:
        with keras.name_scope(self.name or "Warmup"):
            step = ops.convert_to_tensor(step)
            following = self._following(ops.maximum(step - self.warmup_steps, 0))
            if not self.warmup_steps:
                return following
            rising = curves.line(self.start, self._following(ops.zeros_like(step)), self.warmup_steps)
            return ops.where(step < self.warmup_steps, rising(ops.cast(step, "float32"), ops), following)

    def _following(self, step: Any) -> Any:
        rate = self.schedule(step) if callable(self.schedule) else self.schedule
        return ops.cast(rate, "float32")

    def get_config(self) -> dict[str, Any]:
        schedule = config_of(self, "schedule")["schedule"]
        return {
            "schedule": keras.saving.serialize_keras_object(schedule),
            **config_of(self, "warmup_steps", "start", "name"),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Warmup":
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(**{**config, "schedule": schedule})

    def _summary(self) -> Summary:
        return Summary(call_text(self))


def _summary_of(schedule: OneCycle | PowerDecay, updates: list[int]) -> Summary:
    rates = {update: float(schedule.curve(np.float64(update))) for update in updates}
    told = ", ".join(f"{rate:.3g} in update {update}" for update, rate in rates.items())
    return Summary(call_text(schedule), {"learning rate": told})
