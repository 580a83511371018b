"""Learning-rate schedules, and the callbacks that follow the same curves."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras import curves
from keras_dnn_extras.curves import Curve
from keras_dnn_extras.optimizers import (
    innermost_optimizer,
    momentum_names,
    recovers_weights_by_momentum,
)
from keras_dnn_extras.plotting import axes
from keras_dnn_extras.step_callback import StepCallback
from keras_dnn_extras.step_state import StepState

_PACKAGE = "keras_dnn_extras"

# The arguments that the schedule and the callback share.
_CYCLE = (
    "max_learning_rate",
    "total_steps",
    "warmup_fraction",
    "three_phase",
    "anneal",
    "div_factor",
    "final_div_factor",
)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """The 1cycle learning-rate schedule: a long rise, as long a fall, and a short last descent.

    With `low = max_learning_rate / div_factor` and `final = low / final_div_factor` the rate goes
    `low -> max_learning_rate -> low -> final` in three phases, or `low -> max_learning_rate -> final`
    in two. It equals `torch.optim.lr_scheduler.OneCycleLR` at every update. To cycle the momentum as
    well, which a schedule inside an optimizer cannot, use the callback `OneCycleScheduler`.

    Args:
        max_learning_rate: float > 0, the rate at the peak.
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

    Raises:
        ValueError: a value is out of its range.
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
        max_learning_rate: float,
        total_steps: int,
        *,
        warmup_fraction: float = 0.45,
        three_phase: bool = True,
        anneal: str = "linear",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        name: str | None = None,
    ):
        super().__init__()
        self.max_learning_rate = max_learning_rate
        self.total_steps = total_steps
        self.warmup_fraction = warmup_fraction
        self.three_phase = three_phase
        self.anneal = anneal
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.name = name
        if total_steps is None:
            raise TypeError("Expected `total_steps` to be an int. Received: total_steps=None")
        _check_cycle(self)
        self._curve = _learning_rate_curve(self, total_steps)

    def __call__(self, step: Any) -> Any:
        with keras.name_scope(self.name or "OneCycle"):
            return self._curve(ops.cast(step, "float32"), ops)

    def get_config(self) -> dict[str, Any]:
        return {**_arguments(self, _CYCLE), "name": self.name}


class LearningRateCallback(StepCallback):
    """A callback that sets the learning rate of every update by a curve, and the momentum maybe.

    Subclasses say what the curves are, in `curves_for`, and which momenta follow them, in `driven_momenta`.

    Attributes:
        history: dict of lists with one float per update of the last `fit`, under `"learning_rate"`
            and, where the optimizer has one, `"momentum"`.
    """

    def __init__(self, verbose: int = 0):
        super().__init__()
        if not isinstance(verbose, Integral):
            raise TypeError(f"Expected `verbose` to be 0 or 1. Received: verbose={verbose!r}")
        self.verbose: int = verbose
        self.history: dict[str, list[float]] = {}
        self._curves: dict[str, Curve] = {}

    def curves_for(self, total: int | None) -> dict[str, Curve]:
        """Return `"learning_rate"`, and `"momentum"` if it may move, as functions of the update.

        Args:
            total: the number of updates in the fit, or None if it is unknown.
        """
        raise NotImplementedError

    def driven_momenta(self, optimizer: keras.optimizers.Optimizer) -> list[str]:
        """Return the hyperparameters of `optimizer` that follow the curve `"momentum"`."""
        return []

    def known_total(self) -> int | None:
        """Return the number of updates where it is known without a fit."""
        return None

    def get_config(self) -> dict[str, Any]:
        return {"verbose": self.verbose}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRateCallback":
        return cls(**config)

    def __getstate__(self) -> dict[str, Any]:
        # Curves are functions made in functions, which are no more than what a fit goes by.
        return {k: v for k, v in vars(self).items() if k != "step_state"} | {"_curves": {}}

    def set_up(self, others: list[keras.callbacks.Callback]) -> None:
        optimizer = innermost_optimizer(self.model)
        _refuse_second_writer(self, optimizer, others)
        self.history = {"learning_rate": []}
        if momentum_names(optimizer):
            self.history["momentum"] = []
        self._curves = {}

    def take_part(self, step_state: StepState) -> None:
        step_state.drive("learning_rate", lambda i: self._curves["learning_rate"](i))
        for name in self.driven_momenta(step_state.optimizer):
            step_state.drive(name, lambda i: self._curves["momentum"](i))

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if not self._curves:
            self._curves = self._curves_of_fit()
        self._first = self.step_state.position()

    def _curves_of_fit(self) -> dict[str, Curve]:
        optimizer = self.step_state.optimizer
        found = self.curves_for(self.step_state.total)
        if "momentum" in self.history and not self.driven_momenta(optimizer):
            constant = float(vars(optimizer)[momentum_names(optimizer)[0]])
            found["momentum"] = lambda i: np.full(np.shape(i), constant)
        return found

    def update_logs(self, epoch: int, logs: dict) -> None:
        end = self.step_state.position()
        for name, values in self.history.items():
            values.extend(self._curves[name](np.arange(self._first, end)).tolist())
            # An epoch that is shorter than an update logs what would have been in force.
            logs[name] = float(self._curves[name](np.array(max(end - 1, self._first))))
        if self.verbose:
            told = ", ".join(f"{name.replace('_', ' ')} {logs[name]:.6g}" for name in self.history)
            print(f"\nEpoch {epoch + 1}: {type(self).__name__} ended at {told}.")

    def plot(self, ax: Any = None) -> Any:
        """Draw the learning rate, and the momentum where it moves, over the updates.

        After a `fit`, what was in force in it; before, what will be.

        Args:
            ax: matplotlib `Axes` to draw on, or None for those of a new figure.

        Returns:
            The `Axes` with the learning rate.

        Raises:
            ValueError: there was no `fit` yet and the number of updates is not known.
            ImportError: matplotlib is not installed.
        """
        values = {name: np.array(v) for name, v in self.history.items() if v}
        if not values:
            total = self.known_total()
            if total is None:
                raise ValueError(
                    "Cannot plot before `fit`, which tells the number of updates. Pass "
                    "`total_steps`, or plot afterwards. Received: total_steps=None"
                )
            values = {name: curve(np.arange(total)) for name, curve in self.curves_for(total).items()}
        ax = axes(ax)
        lines = ax.plot(values["learning_rate"], color="C0", label="learning rate")
        ax.set_xlabel("update")
        ax.set_ylabel("learning rate")
        momentum = values.get("momentum")
        if momentum is not None and np.ptp(momentum) > 0:
            right = ax.twinx()
            lines += right.plot(momentum, color="C1", linestyle="--", label="momentum")
            right.set_ylabel("momentum")
            ax.legend(handles=lines, loc="center")  # where neither line goes
        return ax


@keras.saving.register_keras_serializable(package=_PACKAGE)
class OneCycleScheduler(LearningRateCallback):
    """Train on the 1cycle policy: the learning rate up and down again, the momentum the other way.

    The rate in force in update `i` is `OneCycle(...)(i)`, the momentum goes from `max_momentum` to
    `base_momentum` at the peak of the rate and back. Both act inside the compiled step, update by
    update, on every backend, and go on where they stood when a `fit` is resumed.

    Args:
        max_learning_rate: float > 0, the rate at the peak.
        total_steps: int > 0, the number of updates of the cycle, or None: all updates of the `fit`,
            epochs times updates per epoch. Past it, the last values.
        warmup_fraction, three_phase, anneal, div_factor, final_div_factor: as in `OneCycle`.
        cycle_momentum: `"auto"`: cycle the momentum if the optimizer has one in use, as `momentum` of
            SGD and RMSprop or `beta_1` of Adam and its like; True: require it; False: leave it alone.
        base_momentum: float in [0, 1), the momentum at the peak of the rate.
        max_momentum: float in [0, 1), the momentum at both ends.
        verbose: 1 prints rate and momentum after each epoch.

    Attributes:
        history: dict of lists with one float per update of the last `fit`, under `"learning_rate"`
            and, where the optimizer has one, `"momentum"`. Epoch logs have the last of each epoch.

    Raises:
        ValueError: a value is out of its range. When `fit` begins: the model is not compiled, or its
            optimizer has no single learning rate, or a schedule for it; another callback sets the
            rate too; `cycle_momentum=True` and there is no momentum that can be cycled;
            `total_steps=None` and the length of an epoch is unknown.
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
        max_learning_rate: float,
        total_steps: int | None = None,
        *,
        warmup_fraction: float = 0.45,
        three_phase: bool = True,
        anneal: str = "linear",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        cycle_momentum: bool | str = "auto",
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        self.max_learning_rate = max_learning_rate
        self.total_steps = total_steps
        self.warmup_fraction = warmup_fraction
        self.three_phase = three_phase
        self.anneal = anneal
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.cycle_momentum = cycle_momentum
        self.base_momentum = base_momentum
        self.max_momentum = max_momentum
        _check_cycle(self)
        _check_cycled_momentum(self)

    def get_config(self) -> dict[str, Any]:
        momentum = _arguments(self, ("cycle_momentum", "base_momentum", "max_momentum"))
        return {**super().get_config(), **_arguments(self, _CYCLE), **momentum}

    def known_total(self) -> int | None:
        return self.total_steps

    def curves_for(self, total: int | None) -> dict[str, Curve]:
        total = self.total_steps or total
        found = {"learning_rate": _learning_rate_curve(self, total)}
        if self.cycle_momentum:
            ends = self.max_momentum, self.base_momentum, self.max_momentum
            found["momentum"] = _cycle(self, *ends, total)
        return found

    def driven_momenta(self, optimizer: keras.optimizers.Optimizer) -> list[str]:
        if not self.cycle_momentum or recovers_weights_by_momentum(optimizer):
            return []
        return momentum_names(optimizer)

    def set_up(self, others: list[keras.callbacks.Callback]) -> None:
        optimizer = innermost_optimizer(self.model)
        if self.cycle_momentum is True and not self.driven_momenta(optimizer):
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
        if self.total_steps is None:
            self._refuse_unknown_total(optimizer)
        super().set_up(others)

    def _refuse_unknown_total(self, optimizer: keras.optimizers.Optimizer) -> None:
        params = self.params or {}
        steps, epochs = params.get("steps"), params.get("epochs")
        if steps is None or epochs is None:
            raise ValueError(
                "The number of updates is unknown, because the data does not tell its length. Pass "
                "`total_steps` to `OneCycleScheduler` or `steps_per_epoch` to `fit`. "
                f"Received: total_steps=None, steps_per_epoch={steps}, epochs={epochs}"
            )
        accumulation = optimizer.gradient_accumulation_steps or 1
        if steps * epochs < accumulation:
            raise ValueError(
                "This `fit` is shorter than an update, so that there is no cycle to go through. Train "
                "for more epochs, pass `total_steps`, or lower `gradient_accumulation_steps`. Received: "
                f"steps_per_epoch={steps}, epochs={epochs}, gradient_accumulation_steps={accumulation}"
            )


def _cycle(cycle: "OneCycle | OneCycleScheduler", *values: Any) -> Curve:
    return curves.one_cycle(
        *values,
        warmup_fraction=cycle.warmup_fraction,
        three_phase=cycle.three_phase,
        anneal=cycle.anneal,
    )


def _learning_rate_curve(cycle: "OneCycle | OneCycleScheduler", total_steps: int | None) -> Curve:
    low = cycle.max_learning_rate / cycle.div_factor
    return _cycle(cycle, low, cycle.max_learning_rate, low / cycle.final_div_factor, total_steps)


def _refuse_second_writer(
    callback: LearningRateCallback,
    optimizer: keras.optimizers.Optimizer,
    others: list[keras.callbacks.Callback],
) -> None:
    name = type(callback).__name__
    own = optimizer._learning_rate
    if not isinstance(own, keras.Variable):
        raise ValueError(
            f"`{name}` and the schedule `{getattr(own, '__name__', type(own).__name__)}` of the "
            "optimizer would both set the learning rate. Compile the model with a float learning "
            f"rate, or remove `{name}` from `callbacks`. Received: learning_rate={own}"
        )
    writers = (
        LearningRateCallback,
        keras.callbacks.LearningRateScheduler,
        keras.callbacks.ReduceLROnPlateau,
    )
    for other in others:
        if other is callback:
            raise ValueError(
                f"`{name}` is listed twice. Remove one of the two from `callbacks`. "
                f"Received: callbacks={[callback, *others]}"
            )
        if isinstance(other, writers):
            raise ValueError(
                f"`{name}` and `{type(other).__name__}` would both set the learning rate. Remove one "
                f"of them from `callbacks`. Received: callbacks={[callback, *others]}"
            )


def _arguments(of: Any, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(of, name) for name in names}
    return {n: v.item() if isinstance(v, np.generic) else v for n, v in values.items()}


def _check_cycle(cycle: "OneCycle | OneCycleScheduler") -> None:
    for name in ("max_learning_rate", "div_factor", "final_div_factor"):
        _check_number(cycle, name, "positive and finite", lambda value: 0 < value < math.inf)
    _check_number(cycle, "warmup_fraction", "in [0, 1]", lambda value: 0 <= value <= 1)
    if cycle.total_steps is not None:
        _check_number(cycle, "total_steps", "a positive int", lambda value: value > 0, Integral)
    if not isinstance(cycle.three_phase, bool):
        raise TypeError(f"Expected `three_phase` to be a bool. Received: three_phase={cycle.three_phase!r}")
    if cycle.anneal not in curves.ANNEALS:
        raise ValueError(f'Expected `anneal` to be "linear" or "cosine". Received: anneal={cycle.anneal!r}')


def _check_cycled_momentum(cycle: OneCycleScheduler) -> None:
    if not (isinstance(cycle.cycle_momentum, bool) or cycle.cycle_momentum == "auto"):
        raise ValueError(
            'Expected `cycle_momentum` to be True, False or "auto". '
            f"Received: cycle_momentum={cycle.cycle_momentum!r}"
        )
    for name in ("base_momentum", "max_momentum"):
        _check_number(cycle, name, "in [0, 1)", lambda value: 0 <= value < 1)
    if cycle.base_momentum > cycle.max_momentum:
        raise ValueError(
            "Expected `base_momentum` to be at most `max_momentum`. Received: "
            f"base_momentum={cycle.base_momentum}, max_momentum={cycle.max_momentum}"
        )


def _check_number(
    of: Any, name: str, expected: str, holds: Callable[[Any], bool], kind: type = Real
) -> None:
    value = getattr(of, name)
    if isinstance(value, bool) or not isinstance(value, kind):
        expected = "a number" if kind is Real else "an int"
        raise TypeError(f"Expected `{name}` to be {expected}. Received: {name}={value!r}")
    if not holds(value):
        raise ValueError(f"Expected `{name}` to be {expected}. Received: {name}={value!r}")
