"""Risk-coverage curves: the error of a model that may abstain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keras_dnn_extras._arguments import real_array
from keras_dnn_extras._plotting import Axes, axes
from keras_dnn_extras.uncertainty.metrics import Floats


@dataclass(frozen=True)
class RiskCoverage:
    """What `risk_coverage` returns: the mean error among the most certain predictions.

    Attributes:
        coverage: the share of predictions that are kept, `1 / n` to 1.
        risk: the mean error of those.
        aurc: the area under the curve, the mean of the risks. Lower is better.
    """

    coverage: Floats
    risk: Floats
    aurc: float

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the risk by coverage.

        Args:
            ax: matplotlib `Axes` to draw on, or None for those of a new figure.

        Returns:
            The `Axes`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        ax = axes(ax)
        ax.plot(self.coverage, self.risk, label=f"AURC {self.aurc:.3g}")
        ax.set_xlabel("coverage: share of predictions kept, the most certain first")
        ax.set_ylabel("risk: their mean error")
        ax.set_xlim(0, 1)
        ax.set_ylim(bottom=0)
        ax.legend()
        return ax


def risk_coverage(errors: ArrayLike, uncertainty: ArrayLike) -> RiskCoverage:
    """Return the mean error of the most certain predictions, by how many of them are kept.

    Predictions of equal uncertainty are taken in any order: each stands for their mean error.

    Args:
        errors: array of shape `(n,)`: 0 or 1, or any loss of each prediction.
        uncertainty: array of shape `(n,)`: higher is less certain.

    Returns:
        A `RiskCoverage`, whose `plot()` draws it.

    Raises:
        ValueError: the shapes differ or are none of `(n,)`, n is 0, or a value is NaN.

    Example:

    >>> curve = risk_coverage(errors=[0, 0, 1, 0], uncertainty=[0.1, 0.2, 0.9, 0.3])
    >>> curve.risk.tolist(), curve.aurc
    ([0.0, 0.0, 0.0, 0.25], 0.0625)

    Reference:
        Geifman & El-Yaniv, Selective Classification for Deep Neural Networks, 2017
        (https://arxiv.org/abs/1705.08500).
    """
    losses, scores = real_array("errors", errors), real_array("uncertainty", uncertainty)
    if losses.ndim != 1 or losses.shape != scores.shape or not len(losses):
        raise ValueError(
            "Expected `errors` and `uncertainty` to be of one shape `(n,)`, n above 0. "
            f"Received: shapes {losses.shape} and {scores.shape}"
        )
    for name, values in (("errors", losses), ("uncertainty", scores)):
        if np.isnan(values).any():
            raise ValueError(f"Expected `{name}` to have no NaN. Received: {name}={values}")
    _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(group, losses) / size
    number = np.arange(1, len(losses) + 1)
    risk = np.cumsum(np.repeat(means, size)) / number
    return RiskCoverage(number / len(losses), risk, float(risk.mean()))
