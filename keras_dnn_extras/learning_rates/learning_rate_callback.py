"""The callback that sets the learning rate of every update by a curve, inside the compiled step."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import check_positive, check_verbose, config_of
from keras_dnn_extras._keras_internals import callbacks_of_fit
from keras_dnn_extras._models import innermost_optimizer, learning_rate, momentum_names, unscaled
from keras_dnn_extras._plotting import axes
from keras_dnn_extras._training_step import StepCallback, StepState
from keras_dnn_extras.learning_rates.curves import Curve

_POINTS = 10_000  # of a line that is drawn, a few for each pixel


@dataclass(frozen=True)
class FitToCome:
    """What curves go by before there is a fit. Told in the words of `StepState`."""

    total: int | None = None
    updates_per_epoch: float | None = None

    def epoch_at(self, i: Any) -> Any:
        return i / self.updates_per_epoch


class LearningRateCallback(StepCallback):
    """A callback that sets the learning rate of every update by a curve, and the momentum maybe.

    Subclasses say what the curves are, in `curves_for`, and which momenta follow them, in `driven_momenta`.

    Attributes:
        history: dict of lists with one float per update of the last `fit`, under `"learning_rate"`
            and, where the optimizer has one, `"momentum"`. It begins where this `fit` did, in the middle of
            the curve if it went on after an interruption; so does the plot.
    """

    _scale = "linear"  # of the axis of the learning rate

    def __init__(self, verbose: int = 0):
        super().__init__()
        check_verbose(verbose)
        self.verbose: int = verbose
        self.history: dict[str, list[float]] = {}
        self._curves: dict[str, Curve] = {}

    def curves_for(self, fit: StepState | FitToCome, initial: Callable[[], float]) -> dict[str, Curve]:
        """Return `"learning_rate"`, and `"momentum"` if it may move, as functions of the update.

        Args:
            fit: tells its `total` number of updates, its `updates_per_epoch` and `epoch_at(update)`.
            initial: returns the learning rate to begin with, or raises where it is not known.
        """
        raise NotImplementedError

    def driven_momenta(self, optimizer: keras.optimizers.Optimizer) -> list[str]:
        """Return the hyperparameters of `optimizer` that follow the curve `"momentum"`."""
        return []

    def needs_length(self) -> str | None:
        """Return what to pass in place of the length of an epoch, or None where that is not needed."""
        return None

    def get_config(self) -> dict[str, Any]:
        return config_of(self, "verbose")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRateCallback":
        return cls(**config)

    def __getstate__(self) -> dict[str, Any]:
        # Curves are functions made in functions, which are no more than what a fit goes by.
        return super().__getstate__() | {"_curves": {}}

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # Before any callback restores anything: what is restored is the rate of the middle of the curve.
        self._own_rate = learning_rate(unscaled(getattr(model, "optimizer", None)))

    def set_up(self, others: list[keras.callbacks.Callback]) -> None:
        optimizer = innermost_optimizer(self.model)
        _refuse_second_writer(self, optimizer, others)
        self._refuse_unknown_length(optimizer)
        self.history = {"learning_rate": []}
        if momentum_names(optimizer):
            self.history["momentum"] = []
        self._curves = {}

    def _refuse_unknown_length(self, optimizer: keras.optimizers.Optimizer) -> None:
        instead = self.needs_length()
        if instead is None:
            return
        params = self.params or {}
        steps, epochs = params.get("steps"), params.get("epochs")
        if steps is None or epochs is None:
            raise ValueError(
                f"`{self.told_as}` needs to know how many batches an epoch has, which the data does "
                f"not tell. Pass `steps_per_epoch` to `fit`, or {instead} to `{self.told_as}`. "
                f"Received: steps_per_epoch={steps}, epochs={epochs}"
            )
        accumulation = optimizer.gradient_accumulation_steps or 1
        if steps * epochs < accumulation:
            raise ValueError(
                f"This `fit` is shorter than an update. Train for more epochs, pass {instead} to "
                f"`{self.told_as}`, or lower `gradient_accumulation_steps`. Received: "
                f"steps_per_epoch={steps}, epochs={epochs}, gradient_accumulation_steps={accumulation}"
            )

    def take_part(self, step_state: StepState) -> None:
        refuse = self._refuse_other_writer
        step_state.drive("learning_rate", lambda i: self._curves["learning_rate"](i), refuse)
        for name in self.driven_momenta(step_state.optimizer):
            step_state.drive(name, lambda i: self._curves["momentum"](i), refuse)

    def _refuse_other_writer(self, name: str) -> None:
        hyperparameter = "learning rate" if name == "learning_rate" else f"`{name}`"
        raise ValueError(
            f"`{self.told_as}` sets the {hyperparameter} of each update, and something else set it in this "
            "`fit` too: another callback, or the `train_step`. Remove one of them. "
            f"Received: callbacks={callbacks_of_fit(self)}"
        )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if not self._curves:
            self._curves = self._curves_of_fit()
        self._first = self.step_state.position()

    def _curves_of_fit(self) -> dict[str, Curve]:
        found = self.curves_for(self.step_state, lambda: self.step_state.initial_rate(self._own_rate))
        optimizer = self.step_state.optimizer
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

    def plot(self, ax: Any = None, *, epochs: int | None = None, steps_per_epoch: int | None = None) -> Any:
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
        ax = axes(ax)
        rates = values["learning_rate"]
        lines = ax.plot(updates, rates, color="C0", label="learning rate")
        ax.set_xlabel("update")
        ax.set_ylabel("learning rate")
        if self._scale == "log" and rates.min() > 0 and rates.max() > 3 * rates.min():
            ax.set_yscale("log")
        momentum = values.get("momentum")
        if momentum is not None and np.ptp(momentum) > 0:
            right = ax.twinx()
            lines += right.plot(updates, momentum, color="C1", linestyle="--", label="momentum")
            right.set_ylabel("momentum")
            ax.legend(handles=lines, loc="center right")  # where neither line goes
        return ax

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
        found = self.curves_for(fit, _unknown)
        updates = np.round(np.linspace(0, total - 1, min(total, _POINTS)))
        return updates, {name: curve(updates) for name, curve in found.items()}


def _refuse_second_writer(
    callback: LearningRateCallback,
    optimizer: keras.optimizers.Optimizer,
    others: list[keras.callbacks.Callback],
) -> None:
    name = callback.told_as
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
        if isinstance(other, writers):
            raise ValueError(
                f"`{name}` and `{type(other).__name__}` would both set the learning rate. Remove one "
                f"of them from `callbacks`. Received: callbacks={[callback, *others]}"
            )


def _unknown() -> float:
    raise ValueError(
        "The learning rate to begin with is not known before `fit`. Pass `initial_learning_rate`, or plot "
        "afterwards. Received: initial_learning_rate=None"
    )
