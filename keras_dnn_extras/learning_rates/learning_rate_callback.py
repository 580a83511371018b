"""The callback that sets the learning rate of every update by a curve, inside the compiled step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import check_positive, check_verbose, config_of, counted
from keras_dnn_extras._display import brief, values_range
from keras_dnn_extras._keras_internals import callbacks_of_fit
from keras_dnn_extras._models import (
    innermost_optimizer,
    learning_rate,
    momentum_names,
    schedule_of,
    unscaled,
)
from keras_dnn_extras._plotting import Axes
from keras_dnn_extras._training_step import (
    BatchLogsCallback,
    ScheduledHyperparameters,
    Timeline,
    TrainingStep,
    UpdateFreq,
)
from keras_dnn_extras.learning_rates.curves import Curve
from keras_dnn_extras.learning_rates.plotting import POINTS, draw_schedule


@dataclass(frozen=True)
class FitToCome:
    """The length of a fit that has not begun, in the words of `Timeline`."""

    total: int | None = None
    updates_per_epoch: float | None = None

    def epoch_at(self, i: Any) -> Any:
        return i / self.updates_per_epoch


class LearningRateCallback(BatchLogsCallback):
    """A callback that sets the learning rate of every update by a curve, and the momentum maybe.

    Subclasses of this package say what the curves are, in `_curves_for`, and which momenta follow them, in
    `_scheduled_momenta`.

    Attributes:
        history: dict of lists with one float per update of the last `fit`, under `"learning_rate"`
            and, where the optimizer has one, `"momentum"`. It begins where this `fit` did, in the middle of
            the curve if it went on after an interruption; so does the plot.
    """

    _scale = "linear"  # of the axis of the learning rate

    def __init__(self, verbose: int = 0, update_freq: UpdateFreq = "epoch"):
        super().__init__(update_freq)
        check_verbose(verbose)
        self.verbose: int = verbose
        self.history: dict[str, list[float]] = {}
        # The hyperparameter that has the values, by its name in `history`.
        self._scheduled: dict[str, str] = {}
        self._constant_momentum = math.nan  # where it follows no curve
        self._last_values: dict[str, float] = {}  # of the epoch, by their names in `history`

    def _curves_for(self, fit: Timeline | FitToCome, initial: Callable[[], float]) -> dict[str, Curve]:
        """Return `"learning_rate"`, and `"momentum"` if it may move, as functions of the update.

        Args:
            fit: tells its `total` number of updates, its `updates_per_epoch` and `epoch_at(update)`.
            initial: returns the learning rate to begin with, or raises where it is not known.
        """
        raise NotImplementedError

    def _scheduled_momenta(self, optimizer: keras.optimizers.Optimizer) -> list[str]:
        """Return the hyperparameters of `optimizer` that follow the curve `"momentum"`."""
        return []

    def _has_steps(self) -> bool:
        """Return whether the learning rate changes in some updates alone."""
        return False

    def _instead_of_length(self) -> str | None:
        """Return what to pass in place of the length of an epoch, or None where that is not needed."""
        return None

    def get_config(self) -> dict[str, Any]:
        return config_of(self, "update_freq", "verbose")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRateCallback":
        return cls(**config)

    def _facts(self) -> dict[str, str]:
        series = {name.replace("_", " "): values for name, values in self.history.items() if values}
        if not series:
            return {}
        updates = counted(len(self.history["learning_rate"]), "update")
        return {"last fit": updates} | {name: values_range(values) for name, values in series.items()}

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # Before any callback restores anything: what is restored is the rate of the middle of the curve.
        self._rate_before = learning_rate(unscaled(getattr(model, "optimizer", None)))

    def _set_up(self, callbacks: list[keras.callbacks.Callback]) -> None:
        optimizer = innermost_optimizer(self.model)
        _refuse_second_writer(self._display_name, optimizer, [self, *callbacks])
        _refuse_unknown_length(self._display_name, self.params or {}, optimizer, self._instead_of_length())
        self.history = {"learning_rate": []}
        if momentum_names(optimizer):
            self.history["momentum"] = []
        self._scheduled = {}

    def _join_step(self, step: TrainingStep) -> None:
        step.part(ScheduledHyperparameters)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._last_values = {}
        if not self._scheduled:
            self._schedule_hyperparameters()

    def _schedule_hyperparameters(self) -> None:
        """Hand over the curves when the first epoch begins: from then on the length of the fit is known."""
        optimizer, timeline = self._step.optimizer, self._step.timeline
        hyperparameters = self._step.part(ScheduledHyperparameters)
        curves = self._curves_for(timeline, lambda: timeline.initial_rate(self._rate_before))
        momenta = self._scheduled_momenta(optimizer)
        self._scheduled = {"learning_rate": "learning_rate"}
        if momenta:
            self._scheduled["momentum"] = momenta[0]
        elif "momentum" in self.history:
            self._constant_momentum = float(vars(optimizer)[momentum_names(optimizer)[0]])
        for name in ("learning_rate", *momenta):
            curve = curves["learning_rate" if name == "learning_rate" else "momentum"]
            hyperparameters.add(name, curve, self._refuse_other_writer)
        hyperparameters.begin()

    def _refuse_other_writer(self, name: str) -> None:
        hyperparameter = "learning rate" if name == "learning_rate" else f"`{name}`"
        raise ValueError(
            f"`{self._display_name}` sets the {hyperparameter} of each update, and something else set it "
            "in this `fit` too: another callback, or the `train_step`. Remove one of them. "
            f"Received: callbacks={brief(callbacks_of_fit(self))}"
        )

    def _read_batches(self) -> None:
        self._last_values = {name: self._last_value(name) for name in self.history}

    def _batch_logs(self) -> dict[str, float]:
        return self._last_values

    def _last_value(self, name: str) -> float:
        """Return the value of the last update in this epoch, or before it the one to come."""
        if name not in self._scheduled:
            return self._constant_momentum
        value = self._step.part(ScheduledHyperparameters).last_applied(self._scheduled[name])
        return self._value_to_come(name) if value is None else value

    def _update_logs(self, epoch: int, logs: dict) -> None:
        for name, history in self.history.items():
            values = self._applied(name)
            history.extend(values.tolist())
            logs[name] = float(values[-1]) if len(values) else self._value_to_come(name)
        if self.verbose:
            ends = ", ".join(f"{name.replace('_', ' ')} {logs[name]:.6g}" for name in self.history)
            print(f"\nEpoch {epoch + 1}: {type(self).__name__} ended at {ends}.")

    def _applied(self, name: str) -> np.ndarray:
        """Return the values that the updates of the epoch had."""
        hyperparameters = self._step.part(ScheduledHyperparameters)
        if name in self._scheduled:
            return hyperparameters.applied(self._scheduled[name])
        return np.full(len(hyperparameters.applied("learning_rate")), self._constant_momentum)

    def _value_to_come(self, name: str) -> float:
        """Return the value of the next update, for an epoch that is shorter than an update."""
        if name not in self._scheduled:
            return self._constant_momentum
        return self._step.part(ScheduledHyperparameters).first_of_epoch(self._scheduled[name])

    def plot(
        self, ax: Axes | None = None, *, epochs: int | None = None, steps_per_epoch: int | None = None
    ) -> Axes:
        """Draw the learning rate, and the momentum where it moves, over the updates.

        After a `fit`, what was in force in it, as in `history`; before, what will be.

        Args:
            ax: matplotlib `Axes` to draw on, or None for those of a new figure.
            epochs, steps_per_epoch: the length of a `fit` to come, as `fit` takes them. Not needed after
                a `fit`, or where the callback knows its number of updates itself.

        Returns:
            The `Axes` with the learning rate.

        Raises:
            ValueError: there was no `fit` yet, and the number of updates or the learning rate to begin
                with is not known.
            ImportError: matplotlib is not installed.
        """
        values = {name: np.array(v) for name, v in self.history.items() if v}
        if not values or epochs is not None:
            updates, values = self._values_to_come(epochs, steps_per_epoch)
        else:
            updates = np.arange(len(values["learning_rate"]))
        title = f"Learning rate by {type(self).__name__}"
        return draw_schedule(ax, updates, values, self._scale, title=title, steps=self._has_steps())

    def _values_to_come(
        self, epochs: int | None, steps_per_epoch: int | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the numbers of updates, of many no more than can be seen, and the values there."""
        total = getattr(self, "total_steps", None)
        if epochs is not None and steps_per_epoch is not None:
            check_positive("epochs", epochs, Integral)
            check_positive("steps_per_epoch", steps_per_epoch, Integral)
            total = epochs * steps_per_epoch
        if total is None:
            raise ValueError(
                "Cannot plot before `fit`, which tells the number of updates. Plot afterwards, or pass "
                f"both `epochs` and `steps_per_epoch` to `plot`. Received: epochs={epochs}, "
                f"steps_per_epoch={steps_per_epoch}"
            )
        fit = FitToCome(total, steps_per_epoch)
        curves = self._curves_for(fit, _unknown)
        updates = np.round(np.linspace(0, total - 1, min(total, POINTS)))
        return updates, {name: curve(updates) for name, curve in curves.items()}


def _refuse_second_writer(
    name: str,
    optimizer: keras.optimizers.Optimizer,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Raise if the optimizer or another callback than the first of `callbacks`, `name`, sets the rate."""
    schedule = schedule_of(optimizer)
    if schedule is not None:
        raise ValueError(
            f"`{name}` and the schedule `{getattr(schedule, '__name__', type(schedule).__name__)}` of the "
            "optimizer would both set the learning rate. Compile the model with a float learning "
            f"rate, or remove `{name}` from `callbacks`. Received: learning_rate={brief(schedule)}"
        )
    writers = (
        LearningRateCallback,
        keras.callbacks.LearningRateScheduler,
        keras.callbacks.ReduceLROnPlateau,
    )
    for other in callbacks[1:]:
        if isinstance(other, writers):
            raise ValueError(
                f"`{name}` and `{type(other).__name__}` would both set the learning rate. Remove one "
                f"of them from `callbacks`. Received: callbacks={brief(callbacks)}"
            )


def _refuse_unknown_length(
    name: str, params: dict[str, Any], optimizer: keras.optimizers.Optimizer, instead: str | None
) -> None:
    """Raise where the length of a fit is needed and not known.

    Args:
        params: of the fit, as Keras tells them to callbacks.
        instead: what to pass in its place, or None where it is not needed.
    """
    if instead is None:
        return
    steps, epochs = params.get("steps"), params.get("epochs")
    if steps is None or epochs is None:
        raise ValueError(
            f"`{name}` needs to know how many batches an epoch has, which the data does not tell. Pass "
            f"`steps_per_epoch` to `fit`, or {instead} to `{name}`. "
            f"Received: steps_per_epoch={steps}, epochs={epochs}"
        )
    accumulation = optimizer.gradient_accumulation_steps or 1
    if steps * epochs < accumulation:
        raise ValueError(
            f"This `fit` is shorter than an update. Train for more epochs, pass {instead} to `{name}`, or "
            "lower `gradient_accumulation_steps`. Received: "
            f"steps_per_epoch={steps}, epochs={epochs}, gradient_accumulation_steps={accumulation}"
        )


def _unknown() -> float:
    raise ValueError(
        "The learning rate to begin with is not known before `fit`. Pass `initial_learning_rate`, or plot "
        "afterwards. Received: initial_learning_rate=None"
    )
