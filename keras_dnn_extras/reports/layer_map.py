"""The map of layers by epochs or updates, in colours on a logarithmic scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import numpy as np

from keras_dnn_extras._plotting import shortened
from keras_dnn_extras.reports.figures import finish_axes, plain_decades
from keras_dnn_extras.reports.svg import FAINT

_LABELS = 40  # layers on the axis
_LONGEST = 26  # characters of a label
_CELLS = 400  # across, before neighbours share one
_DECADES = 4  # that the colours have at least
_ROW = 0.034  # of the width of a picture, that a label is high
_MARK = "#111111"  # dark on any page
NOT_MEASURED = "#c9ced6"


@dataclass(frozen=True)
class LayerMap:
    """Values of layers.

    Attributes:
        layers: their names.
        x: where the columns are, shape `(columns,)`.
        values: of shape `(layers, columns)`. NaN where nothing was measured.
        limits: values to be marked on the scale, by what they mean.
    """

    layers: list[str]
    x: np.ndarray
    values: np.ndarray
    limits: dict[str, float]

    @property
    def height(self) -> float:
        """Of a picture, in parts of its width."""
        return max(0.6, 0.2 + _ROW * min(len(self.layers), _LABELS))

    def draw(self, ax: Any, unit: str, label: str) -> None:
        """Draw the map, with its scale below it."""
        from matplotlib import colormaps, colors

        x, cells = _cells(self.x, self.values)
        low, high = colour_range(cells)
        norm = colors.LogNorm(low, high)
        colormap = colormaps["viridis"].with_extremes(bad=NOT_MEASURED, under="black", over="red")
        shown = np.where(cells == 0, low / 10, cells)  # a logarithm would have none
        shown = np.ma.masked_invalid(np.where(np.isposinf(cells), high * 10, shown))
        half = 0.5 * (x[1] - x[0]) if len(x) > 1 else 0.5
        extent = (x[0] - half, x[-1] + half, len(self.layers), 0)
        mesh = ax.imshow(
            shown, norm=norm, cmap=colormap, extent=extent, aspect="auto", interpolation="none"
        )
        self._draw_scale(ax, mesh, label)
        self._label_rows(ax)
        finish_axes(ax, unit, "")

    def _draw_scale(self, ax: Any, mesh: Any, label: str) -> None:
        bar = ax.figure.colorbar(
            mesh, ax=ax, location="top", label=label, fraction=0.05, pad=0.02, aspect=40
        )
        plain_decades(bar.ax.xaxis, np.array([mesh.norm.vmin, mesh.norm.vmax]))
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
        for limit in self.limits.values():
            if mesh.norm.vmin <= limit <= mesh.norm.vmax:
                bar.ax.axvline(limit, color="white", linewidth=4)
                bar.ax.axvline(limit, color=_MARK, linewidth=1.6)

    def _label_rows(self, ax: Any) -> None:
        every = -(-len(self.layers) // _LABELS)
        common = len(common_folder(self.layers))
        names = [shortened(name[common:], _LONGEST) for name in self.layers[::every]]
        ax.set_yticks(np.arange(0, len(self.layers), every) + 0.5, names, fontsize="small")
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False)
        ax.spines[:].set_color(FAINT)


def colour_range(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of the colours: powers of ten around the values, at least four decades apart."""
    positive = values[(values > 0) & np.isfinite(values)]
    if not len(positive):
        return 1e-4, 1.0
    low = math.floor(math.log10(max(positive.min(), 1e-300)))
    high = max(math.ceil(math.log10(positive.max())), low + 1)
    missing = max(0, _DECADES - (high - low))
    return 10.0 ** (low - (missing + 1) // 2), 10.0 ** (high + missing // 2)


def common_folder(layers: list[str]) -> str:
    """Return the nested model that all layers are in, as `backbone/`, or nothing."""
    folders = zip(*(layer.split("/")[:-1] for layer in layers), strict=False)
    common = takewhile(lambda names: len(set(names)) == 1, folders)
    return "".join(f"{names[0]}/" for names in common)


def _cells(x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `values` with medians of neighbours where there are too many columns to see."""
    if len(x) <= _CELLS:
        return x, values
    edges = np.linspace(0, len(x), _CELLS + 1).astype(int)
    cells = np.stack([_medians(values[:, a:b]) for a, b in pairwise(edges)], axis=1)
    return x[edges[:-1]], cells


def _medians(values: np.ndarray) -> np.ndarray:
    measured = ~np.isnan(values)
    rows = zip(values, measured, strict=True)
    return np.array([np.median(row[there]) if there.any() else math.nan for row, there in rows])


def common_columns(series: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the places that any of the series has, and the values of each there, NaN where it has none."""
    x = np.unique(np.concatenate([places for places, _ in series]))
    values = np.full((len(series), len(x)), math.nan)
    for row, (places, measured) in enumerate(series):
        values[row, np.searchsorted(x, places)] = measured
    return x, values
