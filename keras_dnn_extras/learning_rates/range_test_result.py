"""What a learning-rate range test finds: rates, losses, and which rate to train with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dnn_extras._arguments import PACKAGE, check_positive, config_of, counted, real_array
from keras_dnn_extras._display import Displayed, Summary, values_range
from keras_dnn_extras._plotting import Axes
from keras_dnn_extras.learning_rates import suggestions
from keras_dnn_extras.learning_rates.plotting import draw_search
from keras_dnn_extras.learning_rates.range_test_arguments import check_divergence_factor
from keras_dnn_extras.learning_rates.suggestions import Floats


@keras.saving.register_keras_serializable(package=PACKAGE)
@dataclass(frozen=True, eq=False, init=False, repr=False)
class LearningRateSearch(Displayed):
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
        suggestion: float or None, the valley's: a rate to train with, or the peak of 1cycle, which
            `OneCycleScheduler(search)` takes from here.
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

    learning_rates: Floats
    losses: Floats
    divergence_factor: float = 4.0
    steps: int | None = None

    def __init__(
        self,
        learning_rates: Sequence[float] | NDArray[Any],
        losses: Sequence[float] | NDArray[Any],
        divergence_factor: float = 4.0,
        steps: int | None = None,
    ):
        arrays = {"learning_rates": learning_rates, "losses": losses}
        fields = {name: _vector(name, values) for name, values in arrays.items()}
        # The class is frozen.
        vars(self).update(fields, divergence_factor=divergence_factor, steps=steps)
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
        check_divergence_factor(self.divergence_factor)
        if self.steps is not None:
            check_positive("steps", self.steps, Integral)

    @cached_property
    def smoothed_losses(self) -> Floats:
        return suggestions.smoothed(self.losses)

    @cached_property
    def _suggested(self) -> tuple[dict[str, float | None], str]:
        return suggestions.suggest(self.learning_rates, self.losses, self.divergence_factor)

    @property
    def suggestions(self) -> dict[str, float | None]:
        return dict(self._suggested[0])

    @property
    def suggestion(self) -> float | None:
        return self._suggested[0]["valley"]

    @property
    def reason(self) -> str:
        reason, count = self._suggested[1], len(self.losses)
        if self.steps is None or count >= self.steps:
            return reason
        if count and suggestions.diverges(self.smoothed_losses, self.divergence_factor):
            return reason
        return reason + (
            f" The test ended after {count} of {counted(self.steps, 'step')}: there was no more data, or "
            "loss scaling skipped all updates."
        )

    def _summary(self) -> Summary:
        facts = {"suggestion": _rate_text(self.suggestion), "reason": self.reason}
        if self.suggestion is not None:
            rates = self.suggestions.items()
            facts["other rates"] = ", ".join(
                f"{name} {_rate_text(r)}" for name, r in rates if name != "valley"
            )
        count = len(self.learning_rates)
        span = f", from {values_range(self.learning_rates.tolist())}" if count else ""
        return Summary("LearningRateSearch", facts | {"tried": counted(count, "learning rate") + span})

    def get_config(self) -> dict[str, Any]:
        return config_of(self, "learning_rates", "losses", "divergence_factor", "steps")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRateSearch":
        return cls(**config)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses over the learning rates, smoothed and not, and mark the suggestions.

        Where there is no suggestion, the picture says why. Losses that diverge leave it at the top.

        Args:
            ax: matplotlib `Axes` to draw on, or None for those of a new figure.

        Returns:
            The `Axes`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return draw_search(ax, self)


def _rate_text(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:.2g}"


def _vector(name: str, values: Any) -> Floats:
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, str):
        raise TypeError(f"Expected `{name}` to be a list of floats. Received: {name}={values!r}")
    vector = real_array(name, values)
    if vector.ndim != 1:
        raise ValueError(f"Expected `{name}` to have one dimension. Received: {name}={values!r}")
    return vector.copy()
