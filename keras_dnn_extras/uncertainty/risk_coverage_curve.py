"""Risk-coverage curves: the error of a model that may abstain."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from keras_dnn_extras._arguments import real_array
from keras_dnn_extras._display import Displayed, Summary
from keras_dnn_extras._plotting import BLACK, BLUE, VERMILLION, Axes, add_title, axes
from keras_dnn_extras.uncertainty.metrics import Floats


@dataclass(frozen=True, repr=False)
class RiskCoverage(Displayed):
    """What `risk_coverage` returns: the mean error among the most certain predictions.

    Attributes:
        coverage: the share of predictions that are kept, `1 / n` to 1.
        risk: the mean error of those.
        aurc: the area under the curve, the mean of the risks. Lower is better.
        ideal_risk: the risk of an order that knows the errors, the smallest first, or None where it was not
            computed. Nothing is below it. The risk of a random order is `risk[-1]` at every coverage.
    """

    coverage: Floats
    risk: Floats
    aurc: float
    ideal_risk: Floats | None = field(default=None, compare=False)

    def _summary(self) -> Summary:
        facts = {"predictions": f"{len(self.risk):,}", "AURC": f"{self.aurc:.3g}"}
        if self.ideal_risk is not None:
            facts["ideal AURC"] = f"{np.mean(self.ideal_risk):.3g}"
        facts["random AURC"] = f"{self.risk[-1]:.3g}"
        return Summary("RiskCoverage", facts | {"risk": self._risks()})

    def _risks(self) -> str:
        """Return the risk at some coverages."""
        at = {share: self.risk[max(round(share * len(self.risk)), 1) - 1] for share in (0.5, 0.8, 1.0)}
        return ", ".join(f"{risk:.3g} at {share:.0%} coverage" for share, risk in at.items())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the risk by coverage, between that of a random order and that of an ideal one.

        The random order knows nothing of the errors, the ideal one knows them all.

        Args:
            ax: matplotlib `Axes` to draw on, or None for those of a new figure.

        Returns:
            The `Axes`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        ax = axes(ax)
        ax.plot(self.coverage, self.risk, color=BLUE, label=f"AURC {self.aurc:.3g}")
        random = self.risk[-1]
        ax.plot([0, 1], [random, random], "--", color=VERMILLION, label=f"random {random:.3g}")
        if self.ideal_risk is not None:
            ideal = f"ideal {np.mean(self.ideal_risk):.3g}"
            ax.plot(self.coverage, self.ideal_risk, ":", color=BLACK, label=ideal)
        ax.set_xlabel("coverage: share of predictions kept, the most certain first")
        ax.set_ylabel("risk: their mean error")
        ax.set_xlim(0, 1)
        if self.risk.min() >= 0:
            ax.set_ylim(bottom=0)
        add_title(ax, "Risk-coverage curve")
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
    ideal = np.cumsum(np.sort(losses)) / number
    return RiskCoverage(number / len(losses), risk, float(risk.mean()), ideal)
