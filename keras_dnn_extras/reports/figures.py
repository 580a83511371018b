"""Drawing on matplotlib's `Axes`: lines over epochs or updates, and maps of layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_dnn_extras._plotting import BLUE
from keras_dnn_extras.reports.svg import FAINT, RED

_POINTS = 600  # of a line, before neighbours share one
_LARGEST = 1e300  # that is drawn: beyond it matplotlib finds no ticks
_MARKERS = 30  # points, up to which each is marked
_DECADES = 30  # the factor between values from which the axis is logarithmic
_MANY_DECADES = 1e3  # and from which it needs no labels between powers of ten


@dataclass(frozen=True)
class Line:
    """Values at places of the x axis.

    Attributes:
        label: in the legend, or empty.
        mark: the place of a value to be marked, or None.
    """

    x: np.ndarray
    values: np.ndarray
    label: str = ""
    colour: str = BLUE
    style: str = "-"
    mark: float | None = None


def draw_lines(
    ax: Any,
    lines: Sequence[Line],
    *,
    unit: str = "epoch",
    label: str = "",
    logarithmic: bool | None = None,
    breaks: Sequence[float] = (),
) -> None:
    """Draw `lines` with a legend above them.

    Args:
        unit: what the x axis counts.
        label: of the y axis.
        logarithmic: whether the y axis is. None: where all values are positive and differ by a factor of
            more than 30.
        breaks: places between which lines belong to different fits.
    """
    handles = [_draw_line(ax, line) for line in lines]
    _mark_not_finite(ax, lines)
    values = np.concatenate([line.values[np.isfinite(line.values)] for line in lines])
    if spans_decades(values) if logarithmic is None else logarithmic and (values > 0).any():
        ax.set_yscale("log")
        plain_decades(ax.yaxis, values)
    if not len(values):
        ax.text(0.5, 0.5, "no finite value", ha="center", va="center", transform=ax.transAxes, color=FAINT)
        ax.set_yticks([])
    for place in breaks:
        ax.axvline(place - 0.5, color=FAINT, linestyle=":", linewidth=1)
    _legend(ax, handles, [line.label for line in lines])
    finish_axes(ax, unit, label)


def finish_axes(ax: Any, unit: str, label: str) -> None:
    """Name the axes, and put whole numbers on the x axis."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(unit)
    ax.set_ylabel(label)
    if unit in ("epoch", "update"):
        ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    ax.grid(visible=False, axis="x")


def plain_decades(axis: Any, values: np.ndarray) -> None:
    """Label a logarithmic axis by plain numbers, also between powers of ten where these are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    positive = values[values > 0]
    few = not len(positive) or positive.max() < _MANY_DECADES * positive.min()
    axis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0) if few else (1.0,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def spans_decades(values: np.ndarray) -> bool:
    """Return whether `values` are best seen on a logarithmic axis."""
    return bool(len(values) and values.min() > 0 and values.max() > _DECADES * values.min())


def _draw_line(ax: Any, line: Line) -> Any:
    drawn = np.where(np.isfinite(line.values), line.values.clip(-_LARGEST, _LARGEST), math.nan)
    x, values = thinned(line.x, drawn)
    marker = "o" if len(values) <= _MARKERS else None
    (handle,) = ax.plot(
        x, values, color=line.colour, linestyle=line.style, marker=marker, markersize=3.5, zorder=2
    )
    if line.mark is not None:
        at = line.x == line.mark
        ax.plot(line.x[at], drawn[at], "o", color=line.colour, markersize=9, fillstyle="none", zorder=3)
    return handle


def _mark_not_finite(ax: Any, lines: Sequence[Line]) -> None:
    """Mark where a line has no value to be drawn, at the bottom, so that a gap there is no accident."""
    x = np.unique(np.concatenate([line.x[~np.isfinite(line.values)] for line in lines]))
    if len(x):
        x, bottom = thinned(x, np.full(len(x), 0.03))
        ax.plot(x, bottom, "x", color=RED, markersize=6, transform=ax.get_xaxis_transform(), clip_on=False)
        ax.text(1, 1.02, "x: NaN or infinite", color=RED, ha="right", va="bottom", transform=ax.transAxes)


def _legend(ax: Any, handles: list[Any], labels: list[str]) -> None:
    named = [(handle, label) for handle, label in zip(handles, labels, strict=True) if label]
    if named:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        ax.legend(*zip(*named, strict=True), ncols=len(named), **place, columnspacing=1.4, handlelength=1.6)


def thinned(x: np.ndarray, values: np.ndarray, points: int = _POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Return about `points` points of a line: of neighbours the lowest and the highest value."""
    if len(values) <= points:
        return x, values
    edges = np.linspace(0, len(values), points // 2 + 1).astype(int)[:-1]
    bins = np.repeat(np.arange(len(edges)), np.diff([*edges, len(values)]))
    order = np.lexsort((values, bins))  # NaN last
    finite = np.bincount(bins, np.isfinite(values)).astype(int)
    highest = order[edges + np.maximum(finite - 1, 0)]
    chosen = np.unique(np.concatenate([order[edges], highest]))
    return x[chosen], values[chosen]
