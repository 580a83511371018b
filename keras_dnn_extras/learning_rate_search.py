"""The learning-rate range test: which rate to train with, found in about a hundred batches."""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_dnn_extras import suggestions
from keras_dnn_extras.arguments import PACKAGE, check_number, check_positive, check_verbose, config_of
from keras_dnn_extras.model_state import built, rehearsal
from keras_dnn_extras.optimizers import innermost_optimizer
from keras_dnn_extras.plotting import axes
from keras_dnn_extras.schedulers import ExponentialLR
from keras_dnn_extras.step_callback import StepCallback
from keras_dnn_extras.step_state import StepState

_SKIPPED = 50  # updates in a row that loss scaling may skip before it is given up


@keras.saving.register_keras_serializable(package=PACKAGE)
@dataclass(frozen=True, eq=False)
class LearningRateSearch:
    """What a learning-rate range test has found: rates, losses, and which rate to take.

    `find_learning_rate` returns one. It can be made from any rates and losses, such as those that the
    callback `ExponentialLR` has recorded.

    Args:
        learning_rates: floats > 0, increasing.
        losses: as many floats, the loss of the batch that the update at each rate was computed from.
        divergence_factor: float > 1. A smoothed loss that is so many times the least one is divergence.
        steps: int or None, how many losses there would be if the test had not ended earlier.

    Attributes:
        smoothed_losses: array, the losses' running mean that forgets 10% a step, without a bias at the
            beginning.
        suggestions: dict of floats, or None where the loss does not tell. `"valley"`: the middle of the
            longest descent. `"slide"`: the left end of a window that slides down from the right until its
            ends are alike steep. `"steep"`: where the loss falls fastest. `"minimum"`: a tenth of the
            rate of the least loss.
        suggestion: float or None, the valley's: a rate to train with, or the peak of 1cycle.
        reason: str, a sentence or two about why it is this one, or none.

    Raises:
        ValueError: the rates do not increase, or there are not as many losses.
        TypeError: a value is of the wrong type.

    Example:

    >>> rates = np.geomspace(1e-4, 1, 50)
    >>> losses = 1 / (1 + 100 * rates) + rates**4
    >>> search = LearningRateSearch(rates, losses)
    >>> 0.01 < search.suggestion < 1
    True
    >>> LearningRateSearch(rates, np.ones(50)).suggestion is None
    True

    Reference:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2017
        (https://arxiv.org/abs/1506.01186). The suggestions are those of fastai's `lr_find`.
    """

    learning_rates: Any
    losses: Any
    divergence_factor: float = 4.0
    steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("learning_rates", "losses"):
            object.__setattr__(self, name, _vector(name, getattr(self, name)))
        rates = self.learning_rates
        if len(rates) != len(self.losses):
            raise ValueError(
                "Expected as many `losses` as `learning_rates`. "
                f"Received: {len(self.losses)} losses, {len(rates)} learning rates"
            )
        if not np.all(np.diff(rates, prepend=0) > 0) or not np.all(np.isfinite(rates)):
            raise ValueError(
                "Expected `learning_rates` to be positive and to increase. "
                f"Received: learning_rates={rates}"
            )
        _check_factor(self.divergence_factor)
        if self.steps is not None:
            check_positive("steps", self.steps, Integral)

    @cached_property
    def smoothed_losses(self) -> np.ndarray:
        return suggestions.smoothed(self.losses)

    @cached_property
    def _verdict(self) -> tuple[dict[str, float | None], str]:
        return suggestions.suggest(self.learning_rates, self.losses, self.divergence_factor)

    @property
    def suggestions(self) -> dict[str, float | None]:
        return dict(self._verdict[0])

    @property
    def suggestion(self) -> float | None:
        return self._verdict[0]["valley"]

    @property
    def reason(self) -> str:
        told, count = self._verdict[1], len(self.losses)
        early = self.steps is not None and count < self.steps
        if early and not (count and suggestions.diverges(self.smoothed_losses, self.divergence_factor)):
            told += (
                f" The test ended after {count} of {self.steps} steps: there was no more data, or loss "
                "scaling skipped all updates."
            )
        return told

    def get_config(self) -> dict[str, Any]:
        return config_of(self, "learning_rates", "losses", "divergence_factor", "steps")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRateSearch":
        return cls(**config)

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses over the learning rates, smoothed and not, and mark the suggestions.

        Args:
            ax: matplotlib `Axes` to draw on, or None for those of a new figure.

        Returns:
            The `Axes`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        ax = axes(ax)
        ax.plot(self.learning_rates, self.losses, color="C7", linewidth=0.8, alpha=0.6, label="loss")
        ax.plot(self.learning_rates, self.smoothed_losses, color="C0", label="smoothed")
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
        found = {name: rate for name, rate in self.suggestions.items() if rate is not None}
        for i, (name, rate) in enumerate(found.items(), start=1):
            height = np.interp(np.log(rate), np.log(self.learning_rates), self.smoothed_losses)
            marker = {"zorder": 3, "markersize": 10 if name == "valley" else 6}
            ax.plot(rate, height, "o", color=f"C{i}", label=f"{name}: {rate:.2g}", **marker)
        _limit(ax, self.losses, self.smoothed_losses)
        ax.legend()
        return ax


def find_learning_rate(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    batch_size: int = 32,
    min_learning_rate: float = 1e-7,
    max_learning_rate: float = 10.0,
    steps: int = 100,
    divergence_factor: float = 4.0,
    sample_weight: Any = None,
    verbose: int = 1,
) -> LearningRateSearch:
    """Train for some batches at a growing learning rate, see where the loss falls, and undo it all.

    In update `i` of the test the rate is
    `min_learning_rate * (max_learning_rate / min_learning_rate) ** (i / (steps - 1))`. The loss of each
    batch is that of the batch itself, before its update. The test ends early where the loss diverges.

    Afterwards the model is as it was, bit for bit, also after an exception or Ctrl-C: weights,
    BatchNormalization statistics, optimizer, learning rate, seed generators and metrics; and so are the
    global random generators. A model that was not built yet is built. What cannot be put back is the
    data: a generator has been advanced, and a dataset that shuffles anew each time has done so.

    Args:
        model: a compiled model. Its optimizer may have a schedule, which the test replaces by its own.
        x, y: data as `fit` takes it: arrays, `tf.data.Dataset`, `PyDataset`, generator, torch
            `DataLoader`. It is gone through as often as is needed.
        batch_size: int > 0, for arrays.
        min_learning_rate: float > 0, the rate of the first update.
        max_learning_rate: float > `min_learning_rate`, the rate of the last.
        steps: int >= 2, the number of updates. With `gradient_accumulation_steps` each has several
            batches, whose mean loss is taken.
        divergence_factor: float > 1. The test ends when the smoothed loss is so many times its least.
        sample_weight: as in `fit`.
        verbose: 1 shows a progress bar, 0 does not.

    Returns:
        A `LearningRateSearch`: `learning_rates` and `losses`, arrays of up to `steps` floats, `suggestion`
        and the `reason` for it.

    Raises:
        ValueError: a value is out of its range, or the model is not compiled.
        TypeError: a value is of the wrong type.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(256, 4))
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss="mse")
    >>> search = find_learning_rate(model, x, x.sum(axis=1), verbose=0)
    >>> 1e-3 < search.suggestion < 1
    True

    Reference:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2017
        (https://arxiv.org/abs/1506.01186).
    """
    check_positive("batch_size", batch_size, Integral)
    check_positive("min_learning_rate", min_learning_rate)
    check_positive("max_learning_rate", max_learning_rate)
    if min_learning_rate >= max_learning_rate:
        raise ValueError(
            "Expected `max_learning_rate` to be above `min_learning_rate`. Received: "
            f"min_learning_rate={min_learning_rate}, max_learning_rate={max_learning_rate}"
        )
    check_number("steps", steps, "at least 2", lambda value: value >= 2, Integral)
    _check_factor(divergence_factor)
    check_verbose(verbose)
    rates = np.geomspace(min_learning_rate, max_learning_rate, steps)
    if not (np.all(np.diff(rates) > 0) and np.isfinite(max_learning_rate / min_learning_rate)):
        raise ValueError(
            "Expected between `min_learning_rate` and `max_learning_rate` room for as many floats as "
            "`steps`, and a quotient that is one. "
            f"Received: min_learning_rate={min_learning_rate}, max_learning_rate={max_learning_rate}, "
            f"steps={steps}"
        )
    accumulation = innermost_optimizer(model).gradient_accumulation_steps or 1
    factor = float(max_learning_rate / min_learning_rate) ** (1 / (steps - 1))
    watch = _Watch(steps, accumulation, divergence_factor, verbose)
    growth = ExponentialLR(factor, initial_learning_rate=float(min_learning_rate))

    # An epoch may have a single batch. A generator has one epoch: where it ends, another one would be its
    # first two batches, which Keras keeps.
    epochs = 1 if isinstance(x, types.GeneratorType) else steps * accumulation + _SKIPPED
    x = built(model, x, batch_size)
    if model.built and not model.trainable_variables:
        raise ValueError(
            "Expected a model with trainable weights. Unfreeze some, and compile the model anew. "
            f"Received: model={model}"
        )
    with rehearsal(model, float(min_learning_rate)):
        model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            sample_weight=sample_weight,
            callbacks=[growth, watch],
            verbose=0,
        )
    return LearningRateSearch(rates[: len(watch.losses)], watch.losses, divergence_factor, steps)


class _Watch(StepCallback):
    """Ends the test: after its steps, or where the loss diverges."""

    def __init__(self, steps: int, accumulation: int, divergence_factor: float, verbose: int):
        super().__init__()
        self.steps = steps
        self.accumulation = accumulation
        self.divergence_factor = divergence_factor
        self.losses: list[float] = []  # of each update
        self.batches: dict[int, list[float]] = {}  # the losses of the batches of each update
        self.bar = keras.utils.Progbar(steps, verbose=verbose, stateful_metrics=["loss"])

    def take_part(self, step_state: StepState) -> None:
        step_state.record_losses(self)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        for update, loss in zip(*self.step_state.recorded_losses(self), strict=True):
            self.batches.setdefault(int(update), []).append(float(loss))
            if len(self.batches[update]) >= self.accumulation:  # more, where loss scaling tries again
                self.losses[update:] = [float(np.mean(self.batches[update]))]
        del self.losses[self.steps :]
        if self.losses:
            self.bar.update(len(self.losses), [("loss", self.losses[-1])], finalize=False)
        if len(self.losses) == self.steps or self.diverges() or self.is_stuck():
            self.model.stop_training = True

    def diverges(self) -> bool:
        means = suggestions.smoothed(self.losses)
        return len(means) > 0 and suggestions.diverges(means, self.divergence_factor)

    def is_stuck(self) -> bool:
        return len(self.batches[max(self.batches)]) > self.accumulation + _SKIPPED

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        self.bar.update(len(self.losses), finalize=True)


def _vector(name: str, values: Any) -> np.ndarray:
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, str):
        raise TypeError(f"Expected `{name}` to be a list of floats. Received: {name}={values!r}")
    vector = np.array(values, "float64")
    if vector.ndim != 1:
        raise ValueError(f"Expected `{name}` to have one dimension. Received: {name}={values!r}")
    return vector


def _check_factor(divergence_factor: float) -> None:
    check_number("divergence_factor", divergence_factor, "above 1", lambda value: value > 1)


def _limit(ax: Any, losses: np.ndarray, means: np.ndarray) -> None:
    """Leave divergence out of the picture, which would make a line of all the rest."""
    finite = np.flatnonzero(np.isfinite(means))
    if len(finite):
        means = means[finite]
        low, high = losses[: np.argmin(means) + 1].min(), max(means[0], np.median(means))
        margin = 0.3 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)
