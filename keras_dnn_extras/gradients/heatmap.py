"""Pictures of gradient norms: layers by updates in colours, or the norm of all gradients as a line."""

import math
from typing import Any

import numpy as np

from keras_dnn_extras._plotting import (
    BLACK,
    BLUE,
    COLOUR_MAP,
    GREY,
    SKY,
    VERMILLION,
    add_title,
    axes,
    shortened,
)
from keras_dnn_extras.gradients.findings import Thresholds
from keras_dnn_extras.gradients.heatmap_cells import Cells

_LABELS = 40  # layers on the axis
_LONGEST = 40  # characters of a label
_HEIGHT = 0.16  # inches of a label
_SCALE = (1e-7, 1e3)  # of the colours, where a threshold does not say
_DECADES = 4  # that the colours span at least
_NOT_FINITE = "#BDBDBD"  # a quiet colour: after the first update that is not finite all are alike


def draw_history(
    ax: Any,
    history: dict[str, list[float]],
    measured: dict[str, np.ndarray],
    thresholds: Thresholds,
    layers: set[str] | None = None,
) -> Any:
    """Draw the norms of layers that `history` has, or if it has none the norm of all gradients.

    Args:
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.
        history: as of `GradientNormMonitor`.
        measured: by layer, bools of shape `(updates,)`: whether each update measured it. All did where the
            layer is missing.
        thresholds: where gradients vanish and explode.
        layers: the only ones to draw, or None for all.

    Returns:
        The `Axes`.
    """
    drawn = axes(ax)
    drawn.set_xlabel("update")
    prefix = "gradient_norm/"
    norms = {name.removeprefix(prefix): history[name] for name in history if name.startswith(prefix)}
    if not norms:
        _draw_lines(drawn, history["gradient_norm"], history["clipped_gradient_norm"])
        return drawn
    norms = {name: norms[name] for name in norms if layers is None or name in layers}
    if ax is None:
        _make_room(drawn.figure, len(norms))
    masks = [measured.get(name, np.ones(len(values), bool)) for name, values in norms.items()]
    cells = Cells.of(np.array(list(norms.values())), np.array(masks), thresholds.exploding)
    _draw_map(drawn, cells, list(norms), thresholds)
    return drawn


def _make_room(figure: Any, layers: int) -> None:
    """Make `figure` high enough for the names of the layers."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, max(height, _HEIGHT * min(layers, _LABELS)))


def _draw_lines(ax: Any, norms: list[float], clipped_norms: list[float]) -> None:
    """Draw the norm of all gradients, and where clipping changed it, what it made of it."""
    before, after = np.array(norms), np.array(clipped_norms)
    lines = ax.plot(before, color=BLUE, label="before clipping")
    smaller = after < before
    if smaller.any():
        # with dots, as a line of one update is not seen
        style = {"color": VERMILLION, "linestyle": "--", "marker": ".", "label": "after clipping"}
        lines += ax.plot(np.where(smaller, after, math.nan), **style)
    if (before > 0).any():  # one may be NaN
        ax.set_yscale("log")
    ax.set_ylabel("gradient norm")
    add_title(ax, "Gradient norm of each update", lines if len(lines) > 1 else [])


def _draw_map(ax: Any, cells: Cells, names: list[str], thresholds: Thresholds) -> None:
    """Draw the norms of layers by updates, and what the colours mean."""
    from matplotlib import colormaps, colors

    low, high = _scale(thresholds)
    colour_map = colormaps[COLOUR_MAP].with_extremes(bad="white", under=SKY, over=VERMILLION)
    rows, finite = np.arange(len(names) + 1), ~np.isinf(cells.norms)
    norms = np.where(finite, cells.norms, math.nan)
    norms = np.where(norms == 0, low / 10, norms)  # a logarithm would have none
    mesh = ax.pcolormesh(cells.edges, rows, norms, norm=colors.LogNorm(low, high), cmap=colour_map)
    _draw_colour_bar(ax, mesh, thresholds)
    _label_layers(ax, names)
    handles = _draw_not_finite(ax, cells, rows, finite) + _draw_marks(ax, cells, thresholds)
    if (np.isnan(cells.norms)).any():
        handles.append(_patch("white", "not measured"))
    add_title(ax, "Gradient norm of each layer", handles)


def _scale(thresholds: Thresholds) -> tuple[float, float]:
    """Return the ends of the colours: the thresholds, no matter what the norms are, or more."""
    high = thresholds.exploding
    high = high if math.isfinite(high) else max(_SCALE[1], thresholds.vanishing * 10**_DECADES)
    low = thresholds.vanishing if thresholds.vanishing > 0 else min(_SCALE[0], high)
    widening = math.pow(10.0, max(_DECADES - math.log10(high / low), 0.0) / 2)
    return low / widening, high * widening


def _draw_colour_bar(ax: Any, mesh: Any, thresholds: Thresholds) -> None:
    """Draw the colour bar, with both thresholds among its ticks and as lines."""
    bar = ax.figure.colorbar(mesh, ax=ax, extend="both")
    names = {thresholds.vanishing: "vanishing", thresholds.exploding: "exploding"}
    marked = {value: name for value, name in names.items() if 0 < value < math.inf}
    ticks = {value: f"{_short(value)} {name}" for value, name in marked.items()}
    first, last = (math.log10(end) for end in (mesh.norm.vmin, mesh.norm.vmax))
    every = max(round((last - first) / 8), 1)
    for exponent in range(math.ceil(first), math.floor(last) + 1, every):
        if all(abs(exponent - math.log10(value)) > 0.4 for value in marked):
            ticks[10.0**exponent] = _short(10.0**exponent)
    bar.ax.set_title("norm", fontsize="small")
    bar.ax.minorticks_off()
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    for value in marked:
        bar.ax.axhline(value, color="black", linewidth=2)


def _short(value: float) -> str:
    """Return `value` as on an axis: 1e-7, 0.1, 1000."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _draw_not_finite(ax: Any, cells: Cells, rows: np.ndarray, finite: np.ndarray) -> list:
    """Draw the cells that are not finite, and return what the legend says of them."""
    if finite.all():
        return []
    from matplotlib.colors import ListedColormap

    ax.pcolormesh(cells.edges, rows, np.where(finite, math.nan, 1.0), cmap=ListedColormap([_NOT_FINITE]))
    return [_patch(_NOT_FINITE, "not finite")]


def _draw_marks(ax: Any, cells: Cells, thresholds: Thresholds) -> list:
    """Mark in each layer the first update that explodes and the first that is not finite.

    A cell of many updates does not show a single one of them: its mark does.
    """
    marks = {
        f"first above {_short(thresholds.exploding)}": (cells.first_above, "^", VERMILLION),
        "first not finite": (cells.first_not_finite, "X", BLACK),
    }
    handles = []
    for label, (firsts, marker, colour) in marks.items():
        layers = np.flatnonzero(~np.isnan(firsts))
        style = {"color": colour, "markeredgecolor": "white", "markersize": 7, "label": label}
        if len(layers):
            handles += ax.plot(firsts[layers] + 0.5, layers + 0.5, marker, **style)
    return handles


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor=GREY, label=label)


def _label_layers(ax: Any, names: list[str]) -> None:
    """Write the names of the layers, of many not all, with the first at the top."""
    every = -(-len(names) // _LABELS)
    labels = [shortened(name, _LONGEST) for name in names[::every]]
    places = np.arange(0, len(names), every) + 0.5
    ax.set_yticks(places, labels, fontsize="small", parse_math=False)  # a `$` in a name is a `$`
    ax.set_ylim(len(names), 0)
