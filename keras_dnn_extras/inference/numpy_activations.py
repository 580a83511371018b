"""Activations of arrays, by their names in Keras: in place, in few passes, for numbers of any size.

Each takes `x` and writes into `out`, which may be `x` itself. What overflows becomes infinite or 0, and the
result what it tends to; whoever calls turns NumPy's warnings off.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Kernel = Callable[[np.ndarray, np.ndarray], Any]

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def relu(x: np.ndarray, out: np.ndarray) -> None:
    np.maximum(x, 0, out=out)


def relu6(x: np.ndarray, out: np.ndarray) -> None:
    np.minimum(np.maximum(x, 0, out=out), 6, out=out)


def leaky(slope: Any) -> Kernel:
    """Return the kernel of `max(x, 0) + slope * min(x, 0)`; `slope` is a number or an array."""

    def kernel(x: np.ndarray, out: np.ndarray) -> None:
        below = np.minimum(x, 0)
        below *= slope
        np.maximum(x, 0, out=out)
        out += below

    return kernel


def bent(slope: float, largest: float | None, threshold: float) -> Kernel:
    """Return the kernel of Keras's `relu(x, slope, largest, threshold)`."""

    def kernel(x: np.ndarray, out: np.ndarray) -> None:
        below = np.minimum(x - threshold, 0) * slope
        out[...] = np.where(x > threshold, x, 0)
        if largest is not None:
            np.minimum(out, largest, out=out)
        out += below

    return kernel


def exponential_unit(alpha: float = 1.0, scale: float = 1.0) -> Kernel:
    """Return the kernel of `scale * (max(x, 0) + alpha * (exp(min(x, 0)) - 1))`."""

    def kernel(x: np.ndarray, out: np.ndarray) -> None:
        below = np.minimum(x, 0)
        np.expm1(below, out=below)
        if alpha != 1:
            below *= alpha
        np.maximum(x, 0, out=out)
        out += below
        if scale != 1:
            out *= scale

    return kernel


def sigmoid(x: np.ndarray, out: np.ndarray) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)


def silu(x: np.ndarray, out: np.ndarray) -> None:
    share = np.empty_like(x)
    sigmoid(x, share)
    np.multiply(x, share, out=out)


def softplus(x: np.ndarray, out: np.ndarray) -> None:
    """Compute `max(x, 0) + log(1 + exp(-|x|))`."""
    rest = np.abs(x)
    np.negative(rest, out=rest)
    np.log1p(np.exp(rest, out=rest), out=rest)
    np.maximum(x, 0, out=out)
    out += rest


def log_sigmoid(x: np.ndarray, out: np.ndarray) -> None:
    np.negative(x, out=out)
    softplus(out, out)
    np.negative(out, out=out)


def mish(x: np.ndarray, out: np.ndarray) -> None:
    share = np.empty_like(x)
    softplus(x, share)
    np.multiply(x, np.tanh(share, out=share), out=out)


def softsign(x: np.ndarray, out: np.ndarray) -> None:
    size = np.abs(x)
    size += 1
    np.divide(x, size, out=out)


def hard_sigmoid(x: np.ndarray, out: np.ndarray) -> None:
    np.add(x, 3, out=out)
    relu6(out, out)
    out /= 6


def hard_silu(x: np.ndarray, out: np.ndarray) -> None:
    share = np.empty_like(x)
    hard_sigmoid(x, share)
    np.multiply(x, share, out=out)


def hard_tanh(x: np.ndarray, out: np.ndarray) -> None:
    np.minimum(np.maximum(x, -1, out=out), 1, out=out)


def tanh_shrink(x: np.ndarray, out: np.ndarray) -> None:
    np.subtract(x, np.tanh(x), out=out)


def soft_shrink(x: np.ndarray, out: np.ndarray) -> None:
    np.subtract(x, np.minimum(np.maximum(x, -0.5), 0.5), out=out)


def hard_shrink(x: np.ndarray, out: np.ndarray) -> None:
    np.multiply(x, np.abs(x) > 0.5, out=out)


def sparse_plus(x: np.ndarray, out: np.ndarray) -> None:
    out[...] = np.where(x <= -1, 0, np.where(x < 1, (x + 1) ** 2 / 4, x))


def sparse_sigmoid(x: np.ndarray, out: np.ndarray) -> None:
    np.add(x, 1, out=out)
    out *= 0.5
    np.minimum(np.maximum(out, 0, out=out), 1, out=out)


def squareplus(x: np.ndarray, out: np.ndarray) -> None:
    root = np.square(x)
    root += 4
    np.add(x, np.sqrt(root, out=root), out=out)
    out *= 0.5


def softmax_along(axis: int | tuple[int, ...]) -> Kernel:
    """Return the kernel of the softmax along one axis or several."""

    def kernel(x: np.ndarray, out: np.ndarray) -> None:
        np.subtract(x, np.maximum.reduce(x, axis=axis, keepdims=True), out=out)
        np.exp(out, out=out)
        out /= np.add.reduce(out, axis=axis, keepdims=True)

    return kernel


def log_softmax(x: np.ndarray, out: np.ndarray) -> None:
    np.subtract(x, np.maximum.reduce(x, axis=-1, keepdims=True), out=out)
    out -= np.log(np.add.reduce(np.exp(out), axis=-1, keepdims=True))


# Not here: `gelu`, as NumPy has no error function, and `glu`, `sparsemax`, which are rarely met.
KERNELS: dict[str, Kernel] = {
    "relu": relu,
    "relu6": relu6,
    "leaky_relu": leaky(0.2),
    "elu": exponential_unit(),
    "celu": exponential_unit(),
    "selu": exponential_unit(_SELU_ALPHA, _SELU_SCALE),
    "sigmoid": sigmoid,
    "silu": silu,
    "softplus": softplus,
    "log_sigmoid": log_sigmoid,
    "mish": mish,
    "softsign": softsign,
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": hard_silu,
    "hard_tanh": hard_tanh,
    "hard_shrink": hard_shrink,
    "soft_shrink": soft_shrink,
    "tanh": lambda x, out: np.tanh(x, out=out),
    "tanh_shrink": tanh_shrink,
    "exponential": lambda x, out: np.exp(x, out=out),
    "sparse_plus": sparse_plus,
    "sparse_sigmoid": sparse_sigmoid,
    "squareplus": squareplus,
    "softmax": softmax_along(-1),
    "log_softmax": log_softmax,
}
