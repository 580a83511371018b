"""The callback for 1cycle: learning rate up and down, momentum down and up."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np

from keras_dnn_extras._arguments import PACKAGE, check_number, config_of
from keras_dnn_extras._models import innermost_optimizer, momentum_names, recovers_weights_by_momentum
from keras_dnn_extras._training_step import Timeline, UpdateFreq
from keras_dnn_extras.learning_rates.curves import Anneal, Curve
from keras_dnn_extras.learning_rates.learning_rate_callback import FitToCome, LearningRateCallback
from keras_dnn_extras.learning_rates.range_test_result import LearningRateSearch
from keras_dnn_extras.learning_rates.schedules import OneCycle
from keras_dnn_extras.learning_rates.suggested_rate import rate_of


@keras.saving.register_keras_serializable(package=PACKAGE)
class OneCycleScheduler(LearningRateCallback):
    """Train on the 1cycle policy: the learning rate up and down again, the momentum the other way.

    The rate in force in update `i` is `OneCycle(...)(i)`, the momentum goes from `max_momentum` to
    `base_momentum` at the peak of the rate and back. Both act inside the compiled step, update by
    update, on every backend, and go on where they stood when a `fit` is resumed.

    Args:
        max_learning_rate: float > 0, the rate at the peak, or a `LearningRateSearch` for its `suggestion`.
        total_steps: int > 0, the number of updates of the cycle, or None: all updates of the `fit`,
            epochs times updates per epoch. Past it, the last values.
        warmup_fraction, three_phase, anneal, div_factor, final_div_factor: as in `OneCycle`.
        cycle_momentum: `"auto"`: cycle the momentum if the optimizer has one in use, as `momentum` of
            SGD and RMSprop or `beta_1` of Adam and its like; True: require it; False: leave it alone.
        base_momentum: float in [0, 1), the momentum at the peak of the rate.
        max_momentum: float in [0, 1), the momentum at both ends.
        update_freq: `"epoch"`, `"batch"` or an int > 0. With the latter two the logs of each batch, as
            `TensorBoard(update_freq="batch")` writes them, have `learning_rate` and `momentum` of the last
            update, read after each batch or so many batches; those before the first reading of an epoch
            have none. `"epoch"` costs the least.
        verbose: 1 prints rate and momentum after each epoch.

    Attributes:
        history: dict of lists with one float per update of the last `fit`, under `"learning_rate"`
            and, where the optimizer has one, `"momentum"`. Epoch logs have the last of each epoch.
            After a resume, it begins there; so does the plot.

    Raises:
        ValueError: a value is out of its range, or the search has no suggestion: the message has its
            `reason`. When `fit` begins: the model is not compiled, or its optimizer has no single learning
            rate, or a schedule for it; another callback sets the rate too; `cycle_momentum=True` and there
            is no momentum that can be cycled; `total_steps=None` and the length of an epoch is unknown.
        TypeError: a value is of the wrong type.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(momentum=0.9), loss="mse")
    >>> one_cycle = OneCycleScheduler(0.1)
    >>> x, y = np.ones((64, 2)), np.ones((64, 1))
    >>> history = model.fit(x, y, batch_size=16, epochs=5, callbacks=[one_cycle], verbose=0)
    >>> [round(m, 2) for m in one_cycle.history["momentum"][::4]]
    [0.95, 0.9, 0.85, 0.9, 0.95]

    Reference:
        Smith & Topin, Super-Convergence, 2018 (https://arxiv.org/abs/1708.07120).
    """

    def __init__(
        self,
        max_learning_rate: float | LearningRateSearch,
        total_steps: int | None = None,
        *,
        warmup_fraction: float = 0.45,
        three_phase: bool = True,
        anneal: Anneal = "linear",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        cycle_momentum: bool | Literal["auto"] = "auto",
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        update_freq: UpdateFreq = "epoch",
        verbose: int = 0,
    ):
        super().__init__(verbose, update_freq)
        self.max_learning_rate = rate_of("max_learning_rate", max_learning_rate)
        self.total_steps = total_steps
        self.warmup_fraction = warmup_fraction
        self.three_phase = three_phase
        self.anneal = anneal
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.cycle_momentum = cycle_momentum
        self.base_momentum = base_momentum
        self.max_momentum = max_momentum
        self._schedule(1 if total_steps is None else total_steps)  # checks its arguments
        _check_cycled_momentum(self)

    def _schedule(self, total_steps: int) -> OneCycle:
        return OneCycle(
            self.max_learning_rate,
            total_steps,
            warmup_fraction=self.warmup_fraction,
            three_phase=self.three_phase,
            anneal=self.anneal,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
        )

    def get_config(self) -> dict[str, Any]:
        of_schedule = self._schedule(1).get_config()
        of_schedule.pop("name")
        names = ("total_steps", "cycle_momentum", "base_momentum", "max_momentum")
        return {**super().get_config(), **of_schedule, **config_of(self, *names)}

    def _instead_of_length(self) -> str | None:
        return "`total_steps`" if self.total_steps is None else None

    def _curves_for(self, fit: Timeline | FitToCome, initial: Callable[[], float]) -> dict[str, Curve]:
        schedule = self._schedule(self.total_steps or fit.total or 1)
        curves = {"learning_rate": schedule.curve}
        if self.cycle_momentum:
            curves["momentum"] = schedule.cycle(self.max_momentum, self.base_momentum, self.max_momentum)
        return curves

    def _scheduled_momenta(self, optimizer: keras.optimizers.Optimizer) -> list[str]:
        if not self.cycle_momentum or recovers_weights_by_momentum(optimizer):
            return []
        return momentum_names(optimizer)

    def _set_up(self, callbacks: list[keras.callbacks.Callback]) -> None:
        optimizer = innermost_optimizer(self.model)
        if self.cycle_momentum is True and not self._scheduled_momenta(optimizer):
            reason = (
                "recovers the weights by its `beta_1`, which must not change"
                if recovers_weights_by_momentum(optimizer)
                else "has no momentum in use"
            )
            raise ValueError(
                f"`cycle_momentum=True` needs a momentum to cycle, but `{type(optimizer).__name__}` "
                f"{reason}. Compile the model with `SGD(momentum=0.9)`, Adam or the like, or use "
                f"`cycle_momentum=False`. Received: cycle_momentum=True, optimizer={optimizer}"
            )
        super()._set_up(callbacks)
        _warn_of_early_stopping(callbacks, (self.params or {}).get("epochs"))


def _warn_of_early_stopping(callbacks: list[keras.callbacks.Callback], epochs: int | None) -> None:
    stopping = [each for each in callbacks if isinstance(each, keras.callbacks.EarlyStopping)]
    if any(epochs is None or getattr(each, "patience", 0) < epochs for each in stopping):
        warnings.warn(
            "`EarlyStopping` may end this `fit` in the middle of the cycle of `OneCycleScheduler`, while "
            "the learning rate is high. Most of the gain comes at the end of the cycle, where the rate is "
            "low. Remove `EarlyStopping` and train the whole cycle. To train less, lower `epochs`; to keep "
            "the best weights, use `ModelCheckpoint(save_best_only=True)`.",
            stacklevel=2,
        )


def _check_cycled_momentum(cycle: OneCycleScheduler) -> None:
    if not (isinstance(cycle.cycle_momentum, bool) or cycle.cycle_momentum == "auto"):
        raise ValueError(
            'Expected `cycle_momentum` to be True, False or "auto". '
            f"Received: cycle_momentum={cycle.cycle_momentum!r}"
        )
    for name in ("base_momentum", "max_momentum"):
        # Adam and its like divide by `1 - beta_1`.
        expected = "in [0, 1), in float32 too"
        check_number(name, getattr(cycle, name), expected, lambda v: v >= 0 and float(np.float32(v)) < 1)
    if cycle.base_momentum > cycle.max_momentum:
        raise ValueError(
            "Expected `base_momentum` to be at most `max_momentum`. Received: "
            f"base_momentum={cycle.base_momentum}, max_momentum={cycle.max_momentum}"
        )
