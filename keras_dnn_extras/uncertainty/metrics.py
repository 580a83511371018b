"""Entropies, moments and calibration of predictions: NumPy in, NumPy out.

The functions of `y_true` and `probabilities` take integer labels of shape `(n,)`, and probabilities
of shape `(n, classes)`, or those of the second of two classes, `(n,)` or `(n, 1)`. All compute in float64.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_dnn_extras._arguments import check_positive, real_array
from keras_dnn_extras._display import Displayed, Summary, mean_and_range

Floats = NDArray[np.float64]

_TOLERANCE = 1e-2  # of a sum of probabilities: 1000 of them in float16 are off by less


@dataclass(frozen=True, repr=False)
class Entropies(Displayed):
    """What `entropy_decomposition` returns, each of shape `(n,)`, in nats.

    Attributes:
        total: entropy of the mean of the samples.
        aleatoric: mean of the entropies of the samples, what more data would not change.
        epistemic: `total - aleatoric`, the mutual information of class and sample, at least 0.
    """

    total: Floats
    aleatoric: Floats
    epistemic: Floats

    def _summary(self) -> Summary:
        parts = {"total": self.total, "aleatoric": self.aleatoric, "epistemic": self.epistemic}
        rows = [(name, *mean_and_range(values)) for name, values in parts.items()]
        facts = {"shape": str(np.shape(self.total)), "unit": "nats"}
        return Summary("Entropies", facts, rows, ("part", "mean", "least", "most"))


def entropy_decomposition(probabilities: ArrayLike) -> Entropies:
    """Divide the uncertainty of sampled class probabilities into what data can reduce, and what it cannot.

    Of few samples the total is too small, as the mean of few fluctuates and entropy is concave, and with it
    the epistemic part: where samples differ little its expectation is `1 - 1 / samples` of that of many.
    The aleatoric part has no such bias.

    Args:
        probabilities: array of shape `(samples, n, classes)`, as `MCPrediction.samples`, or of the second
            of two classes `(samples, n, 1)`. There may be more axes between the first and the last one.

    Returns:
        `Entropies`, of shape `(n,)`.

    Raises:
        ValueError: the shape is another one, or the last axis does not hold probabilities.

    Example:

    >>> sure = [[1.0, 0.0], [0.0, 1.0]]  # of two samples, which disagree
    >>> unsure = [[0.5, 0.5], [0.5, 0.5]]
    >>> entropies = entropy_decomposition(np.stack([sure, unsure], axis=1))
    >>> entropies.total.round(3).tolist(), entropies.epistemic.round(3).tolist()
    ([0.693, 0.693], [0.693, 0.0])

    Reference:
        Depeweg et al., Decomposition of Uncertainty in Bayesian Deep Learning, 2018
        (https://arxiv.org/abs/1710.07283).
    """
    samples = real_array("probabilities", probabilities)
    if samples.ndim < 3 or 0 in samples.shape:
        raise ValueError(
            "Expected `probabilities` to be of shape `(samples, n, classes)`, none of them 0. "
            f"Received: shape {samples.shape}"
        )
    if samples.shape[-1] == 1:
        samples = both_classes(samples[..., 0])
    _check_probabilities(samples)
    total = predictive_entropy(samples.mean(axis=0))
    aleatoric = predictive_entropy(samples).mean(axis=0)
    return Entropies(total, aleatoric, np.maximum(total - aleatoric, 0))


def expected_calibration_error(y_true: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """Return how far confidence is from accuracy, on average.

    Predictions are put into `bins` of equal width by the probability of their class: the lower edge belongs
    to a bin, and 1 to the last. The error is the mean over the predictions of the difference between
    accuracy and mean probability of their bin.

    Args:
        y_true: int array of shape `(n,)`, labels from 0.
        probabilities: array of shape `(n, classes)`, or of the second of two classes `(n,)` or `(n, 1)`.
        bins: int > 0.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: shapes do not fit, there is no label, labels are out of range, or these are no
            probabilities.
        TypeError: labels or `bins` are no integers.

    Example:

    >>> probabilities = [[0.9, 0.1], [0.9, 0.1]]
    >>> round(expected_calibration_error([0, 1], probabilities), 3)  # sure by 0.9, right in half
    0.4

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, 2017 (https://arxiv.org/abs/1706.04599).
    """
    count, accuracy, confidence = reliability(y_true, probabilities, bins)
    return float(np.sum(count * np.abs(accuracy - confidence)) / count.sum())


def brier_score(y_true: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean squared distance between probabilities and labels, summed over the classes.

    Args:
        y_true: int array of shape `(n,)`, labels from 0.
        probabilities: array of shape `(n, classes)`, or of the second of two classes `(n,)` or `(n, 1)`.

    Returns:
        A float from 0 to 2.

    Raises:
        ValueError: shapes do not fit, there is no label, labels are out of range, or these are no
            probabilities.
        TypeError: labels are no integers.

    Example:

    >>> round(brier_score([0, 1], [[1.0, 0.0], [0.5, 0.5]]), 3)
    0.25

    Reference:
        Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    labels, rows = _checked(y_true, probabilities)
    return float(np.sum(np.square(rows - np.eye(rows.shape[1])[labels])) / len(rows))


def negative_log_likelihood(y_true: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean of minus the logarithm of the probability of the true class.

    Args:
        y_true: int array of shape `(n,)`, labels from 0.
        probabilities: array of shape `(n, classes)`, or of the second of two classes `(n,)` or `(n, 1)`.

    Returns:
        A float from 0, in nats. Infinity if a true class has probability 0.

    Raises:
        ValueError: shapes do not fit, there is no label, labels are out of range, or these are no
            probabilities.
        TypeError: labels are no integers.

    Example:

    >>> round(negative_log_likelihood([0, 1], [[1.0, 0.0], [0.5, 0.5]]), 3)
    0.347

    Reference:
        Gneiting & Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, 2007.
    """
    labels, rows = _checked(y_true, probabilities)
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(rows[np.arange(len(rows)), labels]))) + 0.0


def predictive_entropy(probabilities: Floats) -> Floats:
    """Return the entropy of the last axis, in nats."""
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -np.sum(probabilities * logarithms, axis=-1) + 0.0


def both_classes(second: Floats) -> Floats:
    """Return the probabilities of two classes, on a new last axis, by those of the second."""
    return np.stack([1 - second, second], axis=-1)


def reliability(y_true: ArrayLike, probabilities: ArrayLike, bins: int) -> tuple[Floats, Floats, Floats]:
    """Return, of each bin of confidence that has any, its predictions, their accuracy and confidence."""
    check_positive("bins", bins, Integral)
    labels, rows = _checked(y_true, probabilities)
    confidence, right = rows.max(axis=1), rows.argmax(axis=1) == labels
    bins = min(int(bins), 2**53)  # more than float64 can tell apart
    # Not one array entry for each bin: most are empty where there are many.
    own = np.floor(confidence * bins)
    own -= confidence < own / bins  # where the product was rounded over an edge
    own += confidence >= (own + 1) / bins
    own = np.minimum(own, bins - 1)
    _, group, sizes = np.unique(own, return_inverse=True, return_counts=True)
    count = sizes.astype("float64")
    return count, np.bincount(group, right) / count, np.bincount(group, confidence) / count


class Moments:
    """Mean and variance of samples that come in chunks, stable where they differ little from a large mean.

    Reference:
        Chan et al., Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self._squares: Any = 0.0

    def add(self, count: int, mean: Floats, squares: Floats) -> None:
        """Add `count` samples by their mean and the sum of their squared deviations from it."""
        change = mean - self.mean
        total = self.count + count
        self.mean = self.mean + change * (count / total)
        self._squares = self._squares + squares + np.square(change) * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> Floats:
        """The mean squared deviation."""
        return np.maximum(self._squares / self.count, 0)

    @property
    def standard_error(self) -> Floats:
        """Of the mean."""
        return np.sqrt(self.variance / self.count)


def _checked(y_true: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    """Return labels of shape `(n,)` and probabilities of shape `(n, classes)`."""
    rows = real_array("probabilities", probabilities)
    real_array("y_true", y_true)  # raises where lists differ in length
    labels = np.asarray(y_true, None if np.size(y_true) else "int64")
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(
            "Expected `y_true` to be integer labels of shape `(n,)`. Those of one-hot labels are "
            f"`y_true.argmax(axis=-1)`. Received: y_true of shape {labels.shape}"
        )
    if labels.dtype.kind not in "iub":
        raise TypeError(f"Expected `y_true` to be integer labels. Received: dtype {labels.dtype}")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if rows.ndim == 1:
        rows = both_classes(rows)
    if labels.ndim != 1 or rows.ndim != 2 or len(labels) != len(rows) or 0 in rows.shape:
        raise ValueError(
            "Expected `y_true` to be of shape `(n,)` and `probabilities` of shape `(n, classes)`, n above "
            f"0. Received: shapes {np.shape(y_true)} and {np.shape(probabilities)}"
        )
    _check_probabilities(rows)
    if labels.min() < 0 or labels.max() >= rows.shape[1]:
        raise ValueError(
            f"Expected `y_true` to be from 0 to {rows.shape[1] - 1}, as `probabilities` has "
            f"{rows.shape[1]} classes. Received: labels from {labels.min()} to {labels.max()}"
        )
    return labels.astype("int64"), rows


def _check_probabilities(rows: Floats) -> None:
    sums = rows.sum(axis=-1)
    if not (rows.min() >= 0 and np.abs(sums - 1).max() <= _TOLERANCE):  # also where they are NaN
        raise ValueError(
            "Expected `probabilities` to be at least 0, with a sum of 1 over the last axis. Logits need a "
            f"softmax first. Received: values from {rows.min()} to {rows.max()}, sums from {sums.min()} to "
            f"{sums.max()}"
        )
