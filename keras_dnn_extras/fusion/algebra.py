"""Scales and shifts of channels folded into the weights of linear layers, in float64."""

from typing import NamedTuple

import numpy as np


class Affine(NamedTuple):
    """`scale * x + shift`: one of each for every channel, float64.

    Attributes:
        scale, shift: arrays of shape `(channels,)`.
    """

    scale: np.ndarray
    shift: np.ndarray


# How many times its spread the mean of a channel may be before its scale goes into the weights behind it.
# They then make two large numbers of which a small difference is left, and each is rounded: at 32 the
# error of float32 is 2e-6 of the result, at 1,000 that of float64 is 1e-13.
LARGEST_CANCELLATION = {"float64": 1000.0, "float32": 32.0, "float16": 8.0, "bfloat16": 4.0}


def batch_norm_affine(
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
) -> Affine:
    """Return what a batch normalization does at inference.

    That is `gamma * (x - mean) / sqrt(variance + epsilon) + beta`.

    Args:
        gamma, beta: of shape `(channels,)`; None is 1 and 0.
        mean, variance: the moving statistics, of shape `(channels,)`.
        epsilon: what is added to the variance.
    """
    mean, variance = _float64(mean), _float64(variance)
    scale = np.ones_like(mean) if gamma is None else _float64(gamma)
    with np.errstate(all="ignore"):  # of a negative variance: not finite, and refused for that
        scale = scale / np.sqrt(variance + epsilon)
        shift = -mean * scale
    return Affine(scale, shift if beta is None else shift + _float64(beta))


def batch_norm_cancellation(
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
) -> float:
    """Return how many times what comes out the two terms `scale * x` and `-scale * mean` are.

    The largest term of a channel, over the largest `|gamma| + |beta|`: channels that are 0 do no harm.
    """
    scale = batch_norm_affine(gamma, beta, mean, variance, epsilon).scale
    spread = np.ones_like(scale) if gamma is None else np.abs(_float64(gamma))
    out = spread if beta is None else spread + np.abs(_float64(beta))
    terms = np.abs(scale * _float64(mean))
    return float(np.max(terms) / np.max(out)) if np.any(terms) else 0.0


def fold_outputs(
    kernel: np.ndarray, bias: np.ndarray | None, affine: Affine, axis: int = -1
) -> tuple[np.ndarray, np.ndarray | None]:
    """Fold what comes after a linear layer into it.

    Args:
        kernel: its weights, with the channels that come out along `axis`.
        bias: of shape `(channels,)`, or None.

    Returns:
        The kernel and the bias of a layer that computes `scale * layer(x) + shift`. The bias stays None
        where it would be 0.
    """
    shape = [1] * kernel.ndim
    shape[axis] = -1
    return kernel * affine.scale.reshape(shape), _after(bias, affine)


def fold_depthwise_outputs(
    kernel: np.ndarray, bias: np.ndarray | None, affine: Affine
) -> tuple[np.ndarray, np.ndarray | None]:
    """Fold what comes after a depthwise convolution into it.

    Its kernel of shape `(..., channels, multiplier)` makes the output `channel * multipliers + multiplier`.
    """
    return kernel * affine.scale.reshape(kernel.shape[-2:]), _after(bias, affine)


def fold_inputs(
    kernel: np.ndarray, bias: np.ndarray | None, affine: Affine, groups: int = 1
) -> tuple[np.ndarray, np.ndarray | None]:
    """Fold what comes before a dense layer or a convolution into it.

    Where the shift is not 0 this is right only if the convolution does not pad.

    Args:
        kernel: of shape `(..., inputs / groups, outputs)`.
        bias: of shape `(outputs,)`, or None.
        groups: of a convolution: each has its own inputs and makes its own outputs, in order.

    Returns:
        The kernel and the bias of a layer that computes `layer(scale * x + shift)`.
    """
    scale, shift = (
        np.repeat(of_inputs.reshape(groups, -1).T, kernel.shape[-1] // groups, axis=1)
        for of_inputs in affine
    )
    return kernel * scale, _plus(bias, _over_taps(kernel * shift).sum(axis=0))


def fold_depthwise_inputs(
    kernel: np.ndarray, bias: np.ndarray | None, affine: Affine
) -> tuple[np.ndarray, np.ndarray | None]:
    """Fold what comes before a depthwise convolution into it: as `fold_inputs`."""
    scale, shift = (of_inputs[:, None] for of_inputs in affine)
    return kernel * scale, _plus(bias, _over_taps(kernel * shift).reshape(-1))


def fold_separable_inputs(
    depthwise: np.ndarray, pointwise: np.ndarray, bias: np.ndarray | None, affine: Affine
) -> tuple[np.ndarray, np.ndarray | None]:
    """Fold what comes before a separable convolution into its depthwise kernel and its bias."""
    depthwise, between = fold_depthwise_inputs(depthwise, None, affine)
    if between is None:
        return depthwise, bias
    return depthwise, _plus(bias, between @ _over_taps(pointwise))


def fold_first_axis(
    kernel: np.ndarray, bias: np.ndarray | None, affine: Affine
) -> tuple[np.ndarray, np.ndarray | None]:
    """Fold what comes before a layer with a kernel of shape `(inputs, ...)` into it: attention."""
    scale = affine.scale.reshape(-1, *[1] * (kernel.ndim - 1))
    return kernel * scale, _plus(bias, np.tensordot(affine.shift, kernel, axes=(0, 0)))


def fold_einsum_outputs(
    kernel: np.ndarray, bias: np.ndarray | None, affine: Affine, labels: tuple[str, str], channel: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Fold what comes after an einsum of inputs and `kernel` into it.

    Args:
        bias: with an axis for each label of the outputs, of length 1 where it does not depend on it.
        labels: those of the kernel, which has that of the channel, and those of the outputs.
        channel: the label of the channels, among the outputs.
    """
    of_kernel, of_outputs = labels
    shift, scale = (_along(of_outputs, channel, a) for a in (affine.shift, affine.scale))
    if bias is not None:
        bias = bias * scale + shift
    elif np.any(affine.shift):
        bias = shift
    return kernel * _along(of_kernel, channel, affine.scale), bias


def fold_einsum_inputs(
    kernel: np.ndarray, bias: np.ndarray | None, affine: Affine, labels: tuple[str, str], channel: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Fold what comes before an einsum of inputs and `kernel` into it: as `fold_einsum_outputs`.

    The channels are a label of the inputs and of the kernel. All labels of the kernel that the outputs do
    not have are summed over.
    """
    of_kernel, of_outputs = labels
    remaining = "".join(label for label in of_outputs if label in of_kernel)
    shift = np.einsum(f"{of_kernel},{channel}->{remaining}", kernel, affine.shift)
    sizes = dict(zip(of_kernel, kernel.shape, strict=True))
    shift = shift.reshape([sizes[label] if label in remaining else 1 for label in of_outputs])
    return kernel * _along(of_kernel, channel, affine.scale), _plus(bias, shift)


def fits(array: np.ndarray, dtype: str) -> bool:
    """Return whether `array` is finite in float64 and in the `dtype` that it is computed with."""
    largest = {"float16": 65504.0, "float64": np.inf}.get(dtype, float(np.finfo("float32").max))
    return bool(np.all(np.isfinite(array)) and np.all(np.abs(array) <= largest))


def _after(bias: np.ndarray | None, affine: Affine) -> np.ndarray | None:
    if bias is not None:
        return bias * affine.scale + affine.shift
    return affine.shift if np.any(affine.shift) else None


def _plus(bias: np.ndarray | None, more: np.ndarray) -> np.ndarray | None:
    if bias is not None:
        return bias + more
    return more if np.any(more) else None


def _over_taps(kernel: np.ndarray) -> np.ndarray:
    """Return the sum over all axes of a kernel but the last two."""
    return kernel.sum(axis=tuple(range(kernel.ndim - 2)))


def _along(labels: str, label: str, values: np.ndarray) -> np.ndarray:
    return values.reshape([-1 if a == label else 1 for a in labels])


def _float64(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, "float64")
