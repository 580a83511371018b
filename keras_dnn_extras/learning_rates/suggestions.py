"""Learning rates picked from the rates and losses of a range test: no model and no Keras in sight.

The four suggestions are those of fastai's `lr_find`, made safe for curves without noise, which fall a
little everywhere: what counts is the part of the curve where the loss really falls.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_dnn_extras._arguments import counted

Floats = NDArray[np.float64]

BETA = 0.9  # more would be smoother, and come later: the mean is 1 / (1 - BETA) steps behind
FEWEST = 10  # losses that a suggestion needs
_SIGNIFICANT = 4.0  # standard errors: pure noise reaches it in less than 1 of 100 range tests
_NOTABLE = 1e-3  # of the loss at the beginning
_WINDOW = 16.0  # how much the rate grows in the window of `slide`: 15 of 100 steps from 1e-7 to 10


@dataclass(frozen=True)
class Smoothing:
    """The running mean after some losses, loss by loss, and the least of the means up to there."""

    total: float = 0.0
    weight: float = 0.0
    least: float = math.inf

    def after(self, loss: float) -> "Smoothing":
        """Return the running mean after one more loss."""
        total, weight = BETA * self.total + loss, BETA * self.weight + 1.0
        return Smoothing(total, weight, min(self.least, total / weight))

    @property
    def mean(self) -> float:
        return self.total / self.weight


def smoothed(losses: ArrayLike) -> Floats:
    """Return the running mean that forgets by `BETA` a step, without a bias at the beginning.

    `sum(BETA ** (i - j) * losses[j]) / sum(BETA ** (i - j))` over `j <= i`. After a loss that is not finite
    there is none that is.
    """
    state, means = Smoothing(), []
    for loss in np.asarray(losses, "float64").tolist():
        state = state.after(loss)
        means.append(state.mean)
    return np.array(means)


def diverges(losses: Floats, factor: float) -> bool:
    """Return whether the last of the smoothed `losses` is not finite, or `factor` times the least.

    A least loss below 0 is exceeded by `factor - 1` times its size.
    """
    least, last = np.min(losses), losses[-1]
    return not (np.isfinite(last) and (np.isinf(factor) or last <= least + (factor - 1) * abs(least)))


def valley(rates: Floats, losses: Floats) -> float | None:
    """Return the rate in the middle of the longest run of falling losses, not always neighbours."""
    start, end = _fall(losses)
    first, last = _longest_descent(losses[start : end + 1])
    return float(rates[start + (first + last) // 2])


def steep(rates: Floats, losses: Floats) -> float | None:
    """Return the rate where the loss falls fastest, per step of the logarithm of the rate."""
    start, end = _fall(losses)
    slopes = np.diff(losses[start : end + 1]) / np.diff(np.log(rates[start : end + 1]))
    return float(rates[start + np.argmin(slopes)])


def minimum(rates: Floats, losses: Floats) -> float | None:
    """Return a tenth of the rate where the loss is least: at that rate itself it is about to rise."""
    return float(rates[_fall(losses)[1]] / 10)


def slide(rates: Floats, losses: Floats) -> float | None:
    """Return the rate at the left end of a window that slides down from the right, to where it rests.

    The window starts at the least loss, and rests where its ends are alike steep.
    """
    losses = losses[: _end(losses) + 1]
    growth = np.diff(np.log(rates)).mean()
    width = min(max(round(np.log(_WINDOW) / growth), 1), len(losses) // 3)
    if len(losses) < width + 2:
        return None
    slopes = np.gradient(losses)
    steeper = slopes[width:] - slopes[:-width]  # the right end's slope, less the left end's
    rests = np.flatnonzero(steeper * steeper[-1] <= 0)
    return float(rates[rests[-1]]) if len(rests) else None


SUGGESTIONS = {"valley": valley, "slide": slide, "steep": steep, "minimum": minimum}


def suggest(rates: ArrayLike, losses: ArrayLike, factor: float) -> tuple[dict[str, float | None], str]:
    """Return the four suggestions by name, all None where there is nothing to go by, and the reason.

    Args:
        rates: the learning rates, increasing, of shape `(n,)`.
        losses: the losses at these rates, before the update, of the same shape.
        factor: as in `diverges`.
    """
    finite = int(np.argmin([*np.isfinite(losses), False]))  # how many, up to the first that is not
    rates, losses = np.asarray(rates, "float64")[:finite], np.asarray(losses, "float64")
    nothing = dict.fromkeys(SUGGESTIONS)
    not_finite = finite < len(losses)
    losses = losses[:finite]
    if finite < FEWEST:
        return nothing, _too_few(finite, not_finite)
    means = smoothed(losses)
    diverging = not_finite or diverges(means, factor)
    begin, least = _level(means), means[_end(means)]
    if not begin - least > max(_SIGNIFICANT * _standard_error(losses), _NOTABLE * abs(begin)):
        return nothing, _no_fall(rates, begin, least, diverging)
    return {name: pick(rates, means) for name, pick in SUGGESTIONS.items()}, _fell(rates, means, diverging)


def _too_few(count: int, not_finite: bool) -> str:
    if not_finite and not count:
        return (
            "No suggestion: the loss is not finite at the smallest learning rate. Look for NaN in the "
            "data, and for a loss that does not fit the last activation."
        )
    if not_finite:
        return (
            f"No suggestion: the loss is not finite after {counted(count, 'batch')}. Lower "
            "`min_learning_rate`, and look for NaN in the data."
        )
    return (
        f"No suggestion: there {'is' if count == 1 else 'are'} {counted(count, 'loss')}, and at least "
        f"{FEWEST} are needed. Give more data or "
        "more `steps`; if training diverged at once, lower `min_learning_rate`."
    )


def _no_fall(rates: Floats, begin: float, least: float, diverging: bool) -> str:
    text = f"{begin:.4g} at the smallest rates, {least:.4g} at its least"
    if diverging:
        return (
            f"No suggestion: the loss diverges, up to a learning rate of {rates[-1]:.2g}, without having "
            f"fallen before ({text}). Lower `min_learning_rate`; if the loss is noisy, raise `batch_size`."
        )
    return (
        f"No suggestion: the loss is flat ({text}), or falls by no more than its noise. Raise "
        "`max_learning_rate`, `steps` or `batch_size`."
    )


def _fell(rates: Floats, losses: Floats, diverging: bool) -> str:
    start, end = _fall(losses)
    text = (
        f"The loss falls from {_level(losses):.4g} to {losses[end]:.4g} between learning rates of "
        f"{rates[start]:.2g} and {rates[end]:.2g}; the suggestion is in the middle of its longest descent."
    )
    if not diverging and end == len(losses) - 1:
        text += " It still falls at the largest rate: a larger `max_learning_rate` may be worth a try."
    return text


def _level(losses: Floats) -> float:
    """Return the loss at the beginning, before it falls."""
    return float(np.median(losses[: max(len(losses) // 5, 3)]))


def _end(losses: Floats) -> int:
    """Return where the loss is least, the first tenth aside: a mean of few losses is not smooth yet."""
    first = len(losses) // 10
    return first + int(np.argmin(losses[first:]))


def _fall(losses: Floats) -> tuple[int, int]:
    """Return the first and the last index of the part in which the smoothed `losses` really fall."""
    end = _end(losses)
    high = losses[end] + 0.9 * (_level(losses) - losses[end])
    above = np.flatnonzero(losses[:end] >= high)
    return (int(above[-1]) if len(above) else max(end - 1, 0)), end


def _longest_descent(losses: Floats) -> tuple[int, int]:
    """Return the ends of the longest strictly decreasing subsequence; of several, the first to end."""
    # Group k has the losses at which the longest descent that ends there has k + 1 members, in their
    # order. They never fall, or a later one would be in the next group: so each group is sorted, and so
    # are the last ones of the groups. With bisection 100,000 losses take a fraction of a second.
    groups: list[list[float]] = []
    starts: list[list[int]] = []  # where these descents begin
    negated_last: list[float] = []  # of each group, as bisection needs them to rise
    last = 0
    for i, loss in enumerate(losses.tolist()):
        k = bisect_left(negated_last, -loss)
        start = starts[k - 1][bisect_right(groups[k - 1], loss)] if k else i
        if k == len(groups):
            groups.append([])
            starts.append([])
            negated_last.append(-loss)
            last = i
        groups[k].append(loss)
        starts[k].append(start)
        negated_last[k] = -loss
    return starts[-1][0], last


def _standard_error(losses: Floats) -> float:
    """Return that of the difference between `_level` and a smoothed loss, were the losses noise alone."""
    # A curve may be quiet at the beginning and noisy where the loss is least.
    end = _end(smoothed(losses))
    deviation = max(_deviation(losses), _deviation(losses[max(end - 10, 0) : end + 1]))
    level = 1.57 / max(len(losses) // 5, 3)  # pi / 2 / n: the variance of a median
    return float(deviation * np.sqrt(level + (1 - BETA) / (1 + BETA)))


def _deviation(losses: Floats) -> float:
    """Return the standard deviation of noise, told by neighbours: by a median, which no trend moves."""
    if len(losses) < 3:
        return 0.0
    differences = np.diff(losses)
    return float(np.median(np.abs(differences - np.median(differences))) / 0.6745 / np.sqrt(2))
