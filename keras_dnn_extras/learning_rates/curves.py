"""Values as functions of the update: no model and no Keras in sight.

Every formula is written once, for NumPy arrays and for tensors alike: a curve is a function of the
update's number `i` and of the module `xp` to compute it with, NumPy or `keras.ops`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

Curve = Callable[..., Any]
Anneal = Literal["linear", "cosine"]

# The weight that the far end of a segment has, `x` being the share of the segment gone by. Both ends
# are weighted by the same function of their own distance: `end + (start - end) * w` would lose a small
# `end` in the rounding of a large `start`. (1 - cos(pi x)) / 2 equals sin(pi x / 2) ** 2.
ANNEALS: dict[Anneal, Callable[[Any, Any], Any]] = {
    "linear": lambda x, xp: x,
    "cosine": lambda x, xp: xp.square(xp.sin(x * (math.pi / 2))),
}


def one_cycle(
    begin: float,
    peak: float,
    end: float,
    total_steps: int,
    *,
    warmup_fraction: float,
    three_phase: bool,
    anneal: Anneal,
) -> Curve:
    """Return the 1cycle curve `i -> value` for updates `i` from 0 to `total_steps - 1`.

    From `begin` to `peak` in `warmup_fraction` of the updates. With three phases, as fast back to
    `begin` and then on to `end`; with two, straight to `end`. Past the last update: `end`; before the
    first: `begin`.

    Reference: Smith & Topin, 2018 (https://arxiv.org/abs/1708.07120). The corners lie where
    `torch.optim.lr_scheduler.OneCycleLR` has them.
    """
    last = float(total_steps - 1)  # JAX computes with no int beyond int32
    rise = warmup_fraction * total_steps - 1
    if three_phase:
        return _joined([rise, 2 * rise, last], [begin, peak, begin, end], anneal)
    return _joined([rise, last], [begin, peak, end], anneal)


def exponential(initial: float, rate: float, steps: float, *, staircase: bool = False) -> Curve:
    """Return `initial * rate ** (i / steps)`; with `staircase`, by the whole part of the exponent."""

    def curve(i: Any, xp: Any = np) -> Any:
        # A quotient that is an integer but for rounding counts as that integer: 0.3 / 0.1 is below 3.
        exponent = xp.floor(i / steps * (1 + 1e-12)) if staircase else i / steps
        return initial * xp.power(float(rate), exponent)  # NumPy's own float would make a float64 tensor

    return curve


def power(initial: float, steps: float, exponent: float) -> Curve:
    """Return `initial / (1 + i / steps) ** exponent`."""
    return lambda i, xp=np: initial / xp.power(1 + i / steps, float(exponent))


def piecewise_constant(boundaries: Sequence[float], values: Sequence[float]) -> Curve:
    """Return `values[0]` before `boundaries[0]`, `values[1]` from there on, and so on."""

    def curve(i: Any, xp: Any = np) -> Any:
        value = xp.zeros_like(i) + values[0]
        for boundary, following in zip(boundaries, values[1:], strict=True):
            # 3 * 0.1 is above 3 / 10, which is where it is meant to be.
            value = xp.where(i >= boundary * (1 - 1e-12), following, value)
        return value

    return curve


def line(first: Any, last: Any, steps: float) -> Curve:
    """Return `first + (last - first) * i / steps`, which is `last` at update `steps`."""
    return lambda i, xp=np: first + (last - first) * (i / steps)


def _joined(ends: Sequence[float], values: Sequence[float], anneal: Anneal) -> Curve:
    """Join segments: the first, up to `ends[0]`, goes from `values[0]` to `values[1]`, and so on."""
    segments = [
        _segment(start, stop, first, final, ANNEALS[anneal])
        for start, stop, first, final in zip([0, *ends[:-1]], ends, values[:-1], values[1:], strict=True)
    ]

    def curve(i: Any, xp: Any = np) -> Any:
        i = xp.maximum(xp.minimum(i, ends[-1]), 0)
        value = segments[-1](i, xp)
        for stop, segment in reversed(list(zip(ends[:-1], segments[:-1], strict=True))):
            value = xp.where(i <= stop, segment(i, xp), value)
        return value

    return curve


def _segment(start: float, stop: float, first: float, final: float, weight: Any) -> Curve:
    length = stop - start
    if length == 0:  # a corner right at update 0: its value is the far end's
        return lambda i, xp: xp.zeros_like(i) + final
    return lambda i, xp: first * weight((stop - i) / length, xp) + final * weight((i - start) / length, xp)
