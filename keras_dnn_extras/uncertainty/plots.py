"""Pictures of uncertainty: what is right and wrong, how calibrated it is, and bands of regressions."""

from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from keras_dnn_extras._arguments import check_number, real_array
from keras_dnn_extras._plotting import Axes, axes
from keras_dnn_extras.uncertainty.metrics import expected_calibration_error, reliability

_MOST_BINS = 10_000  # each is a patch of its own in the picture


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
    edges = np.histogram_bin_edges(scores, bins)
    for name, own, colour in (("right", right, "C0"), ("wrong", ~right, "C1")):
        if own.any():
            label = f"{name} ({own.sum()})"
            ax.hist(scores[own], edges, density=True, alpha=0.6, color=colour, label=label)
    ax.set_xlabel("uncertainty")
    ax.set_ylabel("density")
    ax.legend()
    return ax


def plot_reliability(
    y_true: ArrayLike, probabilities: ArrayLike, *, bins: int = 15, ax: Axes | None = None
) -> Axes:
    """Draw accuracy by confidence. Points below the diagonal are of too high confidence.

    Args:
        y_true: int array of shape `(n,)`, labels from 0.
        probabilities: array of shape `(n, classes)`, or of the second of two classes `(n,)` or `(n, 1)`.
        bins: int > 0.
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.

    Returns:
        The `Axes`. The area of a point is the share of predictions in its bin.

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
    ax.plot(confidence, accuracy, color="C0", label=label)
    ax.scatter(confidence, accuracy, 400 * count / count.sum(), color="C0")
    ax.plot([0, 1], [0, 1], color="grey", linestyle="--", label="calibrated")
    ax.set_xlabel("confidence")
    ax.set_ylabel("accuracy")
    ax.legend()
    return ax


def plot_band(
    x: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    *,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a regression with bands of one and two standard deviations.

    Args:
        x: array of shape `(n,)` or `(n, 1)`, in any order.
        mean: array of as many.
        std: array of as many.
        data: tuple of arrays `(x, y)`, points to draw with it, or None.
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.

    Returns:
        The `Axes`.

    Raises:
        ValueError: the lengths differ.
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
    ax = axes(ax)
    for times, alpha in ((2, 0.2), (1, 0.3)):
        band = (middle - times * width, middle + times * width)
        ax.fill_between(
            places, *band, color="C0", alpha=alpha, linewidth=0, label=f"{times} standard deviations"
        )
    ax.plot(places, middle, color="C0", label="mean")
    if data is not None:
        ax.scatter(*(np.asarray(values).reshape(-1) for values in data), 8, color="black", label="data")
    ax.legend()
    return ax
