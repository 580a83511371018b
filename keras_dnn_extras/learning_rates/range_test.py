"""The learning-rate range test: which rate to train with, found in about a hundred batches."""

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import keras
import numpy as np

# Private, as Keras checks the data of `fit` nowhere else, and there when the model is built already.
from keras.src.trainers.data_adapters import get_data_adapter

from keras_dnn_extras._arguments import (
    PACKAGE,
    check_bool,
    check_number,
    check_positive,
    check_verbose,
    config_of,
    counted,
    real_array,
)
from keras_dnn_extras._models import built, innermost_optimizer, rolled_back_training
from keras_dnn_extras._plotting import axes
from keras_dnn_extras._training_step import StepCallback, StepState
from keras_dnn_extras.learning_rates import suggestions
from keras_dnn_extras.learning_rates.decay_callbacks import ExponentialLR

_SKIPPED = 50  # updates in a row that loss scaling may skip before it is given up
# The training step has the learning rate in float32.
_LOWEST, _HIGHEST = float(np.finfo("float32").tiny), float(np.finfo("float32").max)
_UNIT = float(np.finfo("float32").eps)  # neighbours that are so far apart, or more, are different floats


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
                f"Received: {counted(len(self.losses), 'loss')}, {counted(len(rates), 'learning rate')}"
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
        if self.steps is None or count >= self.steps:
            return told
        if count and suggestions.diverges(self.smoothed_losses, self.divergence_factor):
            return told
        return told + (
            f" The test ended after {count} of {counted(self.steps, 'step')}: there was no more data, or "
            "loss scaling skipped all updates."
        )

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
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
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
        min_learning_rate: float of 1.2e-38 or more, the rate of the first update.
        max_learning_rate: float > `min_learning_rate`, to 3.4e38, the rate of the last.
        steps: int >= 2, the number of updates. With `gradient_accumulation_steps` each has several
            batches, whose mean loss is taken. No more than there are float32 rates, which is 150 million
            from 1e-7 to 10.
        divergence_factor: float > 1. The test ends when the smoothed loss is so many times its least.
        shuffle, class_weight, sample_weight: as in `fit`. Pass what you train with.
        verbose: 1 shows a progress bar, 0 does not.

    Returns:
        A `LearningRateSearch`: `learning_rates` and `losses`, arrays of up to `steps` floats, `suggestion`
        and the `reason` for it.

    Raises:
        ValueError: a value is out of its range, the model is not compiled or has no trainable weights, or
            `fit` would not take the data. Where that is seen, the model is not even built.
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
    _check_range(min_learning_rate, max_learning_rate, steps)
    _check_factor(divergence_factor)
    check_bool("shuffle", shuffle)
    check_verbose(verbose)
    class_weight = _checked_class_weight(class_weight)
    accumulation = innermost_optimizer(model).gradient_accumulation_steps or 1
    _check_data(x, y, sample_weight, class_weight)
    watch = _Watch(steps, accumulation, divergence_factor, verbose)
    low, high = float(min_learning_rate), float(max_learning_rate)
    growth = ExponentialLR((high / low) ** (1 / (steps - 1)), initial_learning_rate=low)

    # An epoch may have a single batch. A generator has one epoch: where it ends, another one would be its
    # first two batches, which Keras keeps.
    epochs = 1 if isinstance(x, types.GeneratorType) else steps * accumulation + _SKIPPED
    x = built(model, x, batch_size)
    if model.built and not model.trainable_variables:
        raise ValueError(
            "Expected a model with trainable weights. Unfreeze some, and compile the model anew. "
            f"Received: model={model}"
        )
    with rolled_back_training(model, low):
        model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            callbacks=[growth, watch],
            verbose=0,
        )
    if not watch.batches:
        raise _no_batch(x)
    return LearningRateSearch(
        _rates(low, high, steps, watch.losses), watch.losses, divergence_factor, steps
    )


def _rates(low: float, high: float, steps: int, losses: list[float]) -> np.ndarray:
    """Return the rate of each of the `losses`: rates of all `steps` may be too many for an array."""
    rates = low * (high / low) ** (np.arange(len(losses)) / (steps - 1))
    rates[steps - 1 :] = high  # which it is except for rounding
    return rates


class _Watch(StepCallback):
    """Ends the test: after its steps, or where the loss diverges."""

    def __init__(self, steps: int, accumulation: int, divergence_factor: float, verbose: int):
        super().__init__()
        self.steps = steps
        self.accumulation = accumulation
        self.divergence_factor = divergence_factor
        self.losses: list[float] = []  # of each update
        self.means: list[suggestions.Smoothing] = []  # after each of them
        self.batches: dict[int, list[float]] = {}  # the losses of the batches of each update
        self.bar = keras.utils.Progbar(steps, verbose=verbose, stateful_metrics=["loss"])

    def take_part(self, step_state: StepState) -> None:
        step_state.record_losses(self)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        for update, loss in zip(*self.step_state.recorded_losses(self), strict=True):
            self.batches.setdefault(int(update), []).append(float(loss))
            if len(self.batches[update]) >= self.accumulation:  # more, where loss scaling tries again
                self.record(update, float(np.mean(self.batches[update])))
        del self.losses[self.steps :]
        if self.losses:
            self.bar.update(len(self.losses), [("loss", self.losses[-1])], finalize=False)
        if len(self.losses) == self.steps or self.diverges() or self.is_stuck():
            self.model.stop_training = True

    def record(self, update: int, loss: float) -> None:
        del self.losses[update:], self.means[update:]
        before = self.means[-1] if self.means else suggestions.Smoothing()
        self.losses.append(loss)
        self.means.append(before.after(loss))

    def diverges(self) -> bool:
        if not self.means:
            return False
        last = self.means[-1]
        return suggestions.diverges(np.array([last.least, last.mean]), self.divergence_factor)

    def is_stuck(self) -> bool:
        return len(self.batches[max(self.batches)]) > self.accumulation + _SKIPPED

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        self.bar.update(len(self.losses), finalize=True)


def _vector(name: str, values: Any) -> np.ndarray:
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, str):
        raise TypeError(f"Expected `{name}` to be a list of floats. Received: {name}={values!r}")
    vector = real_array(name, values)
    if vector.ndim != 1:
        raise ValueError(f"Expected `{name}` to have one dimension. Received: {name}={values!r}")
    return vector.copy()


def _check_range(low: Any, high: Any, steps: Any) -> None:
    limits = f"from {_LOWEST:.2g} to {_HIGHEST:.2g}, as the training step has it in float32"
    for name, rate in (("min_learning_rate", low), ("max_learning_rate", high)):
        check_number(name, rate, limits, lambda value: _LOWEST <= float(value) <= _HIGHEST)
    check_number("steps", steps, "at least 2", lambda value: value >= 2, Integral)
    if low >= high:
        raise ValueError(
            "Expected `max_learning_rate` to be above `min_learning_rate`. Received: "
            f"min_learning_rate={low}, max_learning_rate={high}"
        )
    most = int(math.log(float(high) / float(low)) / math.log1p(_UNIT)) + 1
    if steps > most:
        raise ValueError(
            f"Expected `steps` to be at most {most:,}: from `min_learning_rate` to `max_learning_rate` "
            "float32 has no room for more different rates. "
            f"Received: min_learning_rate={low}, max_learning_rate={high}, steps={steps}"
        )


def _checked_class_weight(class_weight: Any) -> dict[int, float] | None:
    """Return the weights by int. `fit` would leave out without a word what is none."""
    if class_weight is None:
        return None
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            "Expected `class_weight` to be a dict of a weight for each class index. "
            f"Received: class_weight={class_weight!r}"
        )
    for label, weight in class_weight.items():
        if not isinstance(label, Real) or label % 1:
            raise TypeError(
                "Expected the keys of `class_weight` to be class indices. "
                f"Received: class_weight={class_weight}"
            )
        check_number(f"class_weight[{label}]", weight, "finite", math.isfinite)
    return {int(label): weight for label, weight in class_weight.items()}


def _check_data(x: Any, y: Any, sample_weight: Any, class_weight: Any) -> None:
    """Raise what `fit` would raise of such data, and before the model is built."""
    if x is None or not keras.tree.flatten(x):
        raise ValueError(f"Expected `x` to be data: arrays, a dataset or a generator. Received: x={x}")
    for name, arrays in {"x": x, "y": y, "sample_weight": sample_weight}.items():
        if any(hasattr(array, "shape") and not len(array.shape) for array in keras.tree.flatten(arrays)):
            raise ValueError(f"Expected `{name}` to be arrays of rows. Received: {name} of scalars")
    if class_weight is not None and y is None and hasattr(keras.tree.flatten(x)[0], "shape"):
        raise ValueError("`class_weight` weighs rows by their labels. Pass `y`. Received: y=None")
    # A generator is asked for batches there, unless there is something beside it, which is an error.
    beside = (y, sample_weight, class_weight)
    if not isinstance(x, types.GeneratorType) or any(value is not None for value in beside):
        adapter = get_data_adapter(x, y, sample_weight, class_weight=class_weight)
        if adapter.num_batches == 0:
            raise _no_batch(x)


def _no_batch(x: Any) -> ValueError:
    received = f"x of shape {tuple(x.shape)}" if hasattr(x, "shape") else f"x={x}"
    return ValueError(f"Expected `x` to have at least one batch. Received: {received}")


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
