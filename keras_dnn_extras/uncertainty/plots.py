"""Pictures of uncertainty: what is right and wrong, how calibrated it is, and bands of regressions."""

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_dnn_extras._arguments import check_number, real_array
from keras_dnn_extras._plotting import BLACK, BLUE, SKY, VERMILLION, Axes, add_title, axes, histogram_edges
from keras_dnn_extras.uncertainty.metrics import expected_calibration_error, reliability

_MOST_BINS = 10_000  # each is a patch of its own in the picture
_BARS = 0.25  # of the height, for how many predictions each bin has
_CAPTION = "Bands: how uncertain the curve is. The noise of a next point comes on top."


def plot_uncertainty(
    correct: ArrayLike, uncertainty: ArrayLike, *, bins: int = 30, ax: Axes | None = None
) -> Axes:
    """Draw histograms of the uncertainty of right and of wrong predictions.

    Where uncertainty is of use, the wrong ones are further to the right.

    Args:
        correct: bool array of shape `(n,)`.
        uncertainty: array of shape `(n,)`, such as `MCPrediction.mutual_information`.
        bins: int from 1 to 10,000.
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.

    Returns:
        The `Axes`. Each histogram has an area of 1.

    Raises:
        ValueError: the shapes differ or are none of `(n,)`, a value is not finite, or `bins` is out of its
            range.
        TypeError: `bins` is no integer.
        ImportError: matplotlib is not installed.

    Example:

    >>> ax = plot_uncertainty([True, True, False], [0.1, 0.2, 0.9])
    >>> ax.get_legend_handles_labels()[1]
    ['right (2)', 'wrong (1)']

    Reference:
        Hendrycks & Gimpel, A Baseline for Detecting Misclassified Examples, 2017
        (https://arxiv.org/abs/1610.02136).
    """
    right, scores = np.asarray(correct, bool), real_array("uncertainty", uncertainty)
    if right.ndim != 1 or right.shape != scores.shape or not np.isfinite(scores).all():
        raise ValueError(
            "Expected `correct` and `uncertainty` to be finite and of one shape `(n,)`. "
            f"Received: shapes {right.shape} and {scores.shape}"
        )
    check_number("bins", bins, f"from 1 to {_MOST_BINS}", lambda value: 0 < value <= _MOST_BINS, Integral)
    ax = axes(ax)
    edges = histogram_edges(scores, int(bins))
    for name, rows, colour in (("right", right, BLUE), ("wrong", ~right, VERMILLION)):
        if rows.any():
            label = f"{name} ({rows.sum()})"
            ax.hist(scores[rows], edges, density=True, alpha=0.6, color=colour, label=label)
    ax.set_xlabel("uncertainty")
    ax.set_ylabel("density (each of area 1)")
    add_title(ax, "Uncertainty of right and wrong predictions")
    return ax


def plot_reliability(
    y_true: ArrayLike, probabilities: ArrayLike, *, bins: int = 15, ax: Axes | None = None
) -> Axes:
    """Draw accuracy by confidence, and how many predictions each point stands for.

    Points below the diagonal are of too high confidence. Those of few predictions are far from it by
    chance alone.

    Args:
        y_true: int array of shape `(n,)`, labels from 0.
        probabilities: array of shape `(n, classes)`, or of the second of two classes `(n,)` or `(n, 1)`.
        bins: int > 0.
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.

    Returns:
        The `Axes` of the accuracy. The bars, on an axis of their own, count the predictions.

    Raises:
        ValueError: shapes do not fit, labels are out of range, or the probabilities are none.
        TypeError: labels or `bins` are no integers.
        ImportError: matplotlib is not installed.

    Example:

    >>> ax = plot_reliability([0, 1], [[0.9, 0.1], [0.9, 0.1]])
    >>> ax.get_legend_handles_labels()[1]
    ['expected calibration error 0.4', 'calibrated']

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, 2017 (https://arxiv.org/abs/1706.04599).
    """
    count, accuracy, confidence = reliability(y_true, probabilities, bins)
    error = expected_calibration_error(y_true, probabilities, bins)
    ax = axes(ax)
    label = f"expected calibration error {error:.3g}"
    lines = ax.plot(confidence, accuracy, "o-", color=BLUE, label=label)
    lines += ax.plot([0, 1], [0, 1], color=BLACK, linestyle="--", label="calibrated")
    bars = _draw_counts(ax, confidence, count, bins)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    add_title(ax, "Reliability diagram", [*lines, bars])
    return ax


def _draw_counts(ax: Axes, confidence: np.ndarray, count: np.ndarray, bins: int) -> Any:
    """Draw a bar for each bin, behind the lines, and return the bars."""
    right, bins = ax.twinx(), min(int(bins), 2**53)
    edges = np.floor(confidence * bins).clip(max=bins - 1) / bins
    style = {"align": "edge", "color": SKY, "alpha": 0.5, "label": "predictions"}
    bars = right.bar(edges, count, 1 / bins, **style)
    right.set_ylabel("predictions")
    right.set_ylim(0, count.max() / _BARS)
    right.set_yticks([0, count.max()])
    ax.set_zorder(right.get_zorder() + 1)
    ax.patch.set_visible(False)  # or it would hide the bars
    return bars


def plot_band(
    x: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    *,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    caption: str | None = _CAPTION,
    ax: Axes | None = None,
) -> Axes:
    """Draw a regression with bands of one and two standard deviations.

    With `std` of `mc_predict` the bands tell how uncertain the curve is, and not where the next point will
    be: the noise of the data comes on top of it.

    Args:
        x: array of shape `(n,)` or `(n, 1)`, in any order.
        mean: array of as many.
        std: array of as many.
        data: tuple of arrays `(x, y)`, points to draw with it, or None.
        caption: str or None, what the bands are. Pass your own where `std` is another one.
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.

    Returns:
        The `Axes`.

    Raises:
        ValueError: the lengths differ.
        TypeError: `data` is no tuple of two, or `caption` no string.
        ImportError: matplotlib is not installed.

    Example:

    >>> ax = plot_band([0.0, 1.0], mean=[1.0, 2.0], std=[0.1, 0.3], data=([0.5], [1.4]))
    >>> len(ax.collections)  # two bands, and the points
    3

    Reference:
        Gal & Ghahramani, Dropout as a Bayesian Approximation, 2016 (https://arxiv.org/abs/1506.02142).
    """
    arrays = {"x": x, "mean": mean, "std": std}
    places, middle, width = (real_array(name, values).reshape(-1) for name, values in arrays.items())
    if not len(places) == len(middle) == len(width):
        raise ValueError(
            "Expected `x`, `mean` and `std` to be of one length. "
            f"Received: lengths {len(places)}, {len(middle)}, {len(width)}"
        )
    order = np.argsort(places)
    places, middle, width = places[order], middle[order], width[order]
    points = None if data is None else _points(data)
    if not isinstance(caption, str | None):
        raise TypeError(f"Expected `caption` to be a string or None. Received: caption={caption!r}")
    ax = axes(ax)
    for times, alpha in ((2, 0.2), (1, 0.3)):
        band = (middle - times * width, middle + times * width)
        label = f"{times} standard deviation{'s' if times > 1 else ''}"
        ax.fill_between(places, *band, color=BLUE, alpha=alpha, linewidth=0, label=label)
    ax.plot(places, middle, color=BLUE, label="mean")
    if points is not None:
        ax.scatter(*points, 8, color=BLACK, label="data")
    ax.set(xlabel="x", ylabel="y")
    add_title(ax, "Regression with its uncertainty", caption=caption)
    return ax


def _points(data: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"Expected `data` to be a tuple of two arrays, `(x, y)`. Received: data={data!r}")
    x, y = (real_array("data", values).reshape(-1) for values in data)
    if len(x) != len(y):
        raise ValueError(f"Expected the arrays of `data` to be of one length. Received: {len(x)}, {len(y)}")
    return x, y
