"""Pictures of gradient norms: layers by updates in colours, or the norm of all gradients as a line."""

import math
from itertools import pairwise
from typing import Any

import numpy as np

from keras_dnn_extras._plotting import axes

_LABELS = 40  # layers on the axis
_CELLS = 1000  # updates, before neighbours share a cell
_HEIGHT = 0.16  # inches of a label


def draw_history(ax: Any, history: dict[str, list[float]], measured: dict[str, np.ndarray]) -> Any:
    """Draw the norms of layers that `history` has, or if it has none the norm of all gradients.

    Args:
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.
        history: as of `GradientNormMonitor`.
        measured: by layer, bools of shape `(updates,)`: whether each update measured it. All did where the
            layer is missing.

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
    if ax is None:
        _make_room(drawn.figure, len(norms))
    masks = [measured.get(name, np.ones(len(values), bool)) for name, values in norms.items()]
    _draw_map(drawn, np.array(list(norms.values())), np.array(masks), list(norms))
    return drawn


def _make_room(figure: Any, layers: int) -> None:
    """Make `figure` high enough for the names of the layers."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, max(height, _HEIGHT * min(layers, _LABELS)))


def _draw_lines(ax: Any, norms: list[float], clipped_norms: list[float]) -> None:
    """Draw the norm of all gradients, and where clipping changed it, what it made of it."""
    before, after = np.array(norms), np.array(clipped_norms)
    ax.plot(before, color="C0", label="before clipping")
    smaller = after < before
    if smaller.any():
        # with dots, as a line of one update is not seen
        style = {"color": "C1", "linestyle": "--", "marker": ".", "label": "after clipping"}
        ax.plot(np.where(smaller, after, math.nan), **style)
        ax.legend()
    if (before > 0).any():  # one may be NaN
        ax.set_yscale("log")
    ax.set_ylabel("gradient norm")


def _draw_map(ax: Any, norms: np.ndarray, measured: np.ndarray, names: list[str]) -> None:
    """Draw the norms of layers by updates.

    Args:
        norms: of shape `(layers, updates)`.
        measured: bools of the same shape: which of them mean something.
        names: of the layers.
    """
    from matplotlib import colormaps, colors

    layers, updates = norms.shape
    norms = np.where(np.isfinite(norms), norms, math.nan)
    edges = np.unique(np.linspace(0, updates, min(updates, _CELLS) + 1).astype(int))
    cells = np.stack([_medians(norms[:, a:b], measured[:, a:b]) for a, b in pairwise(edges)], 1)
    positive = cells[(cells > 0) & (cells < math.inf)]
    least, most = (positive.min(), positive.max()) if len(positive) else (1e-7, 1.0)
    if least == most:
        least, most = least / 10, most * 10
    colormap = colormaps["viridis"].with_extremes(bad="red", under="black", over="white")
    cells = np.where(cells == 0, least / 10, cells)  # a logarithm would have none
    cells = np.where(cells == math.inf, most * 10, cells)  # matplotlib takes infinity for bad
    mesh = ax.pcolormesh(
        edges, np.arange(layers + 1), cells, norm=colors.LogNorm(least, most), cmap=colormap
    )
    label = "gradient norm (red: not finite, black: 0, white: not measured)"
    ax.figure.colorbar(mesh, ax=ax, label=label)
    every = -(-layers // _LABELS)
    ax.set_yticks(np.arange(0, layers, every) + 0.5, names[::every], fontsize="small")
    ax.set_ylim(layers, 0)


def _medians(norms: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return the median of each row over what was `measured`: infinity where nothing was."""
    if measured.all():
        return np.median(norms, axis=1)
    rows = zip(norms, measured, strict=True)
    return np.array([np.median(row[there]) if there.any() else math.inf for row, there in rows])
