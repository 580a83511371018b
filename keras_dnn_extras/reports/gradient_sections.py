"""Gradients layer by layer, and the share of clipped updates."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_dnn_extras._plotting import BLUE, VERMILLION
from keras_dnn_extras.reports.blocks import LeftOut, Picture, Section
from keras_dnn_extras.reports.figures import Line, draw_lines, finish_axes
from keras_dnn_extras.reports.layer_map import LayerMap, common_columns, common_folder
from keras_dnn_extras.reports.metric_names import (
    CLIPPED,
    LARGEST_NORM,
    NORM,
    OF_LAYER,
    RATIO_OF_LAYER,
    of_layers,
)
from keras_dnn_extras.reports.sources import Sources
from keras_dnn_extras.reports.wording import number, percent

_VANISHING, _EXPLODING = 1e-7, 1e3  # the thresholds of `GradientNormMonitor` where none is passed
_NO_LOGS = "the logs have none: train with `GradientNormMonitor` in `callbacks`"


def gradient_section(sources: Sources) -> Section | LeftOut:
    """Return the pictures of gradient norms, of each update where the monitor has them."""
    pictures = (_norms(sources), _map(sources, OF_LAYER), _map(sources, RATIO_OF_LAYER))
    present = tuple(picture for picture in pictures if picture is not None)
    if not present:
        return LeftOut("Gradients", _NO_LOGS)
    lead = "Gradients vanish where their norms fall by decades from the last layer to the first."
    return Section("gradients", "Gradients by layer", present, lead)


def clipping_section(sources: Sources) -> Section | LeftOut:
    """Return the picture of the share of updates that clipping changed."""
    series = sources.run.series.get(CLIPPED)
    if series is None:
        return LeftOut("Clipped share", "the logs have no `clipped_fraction`")
    line = Line(series.epochs, series.values)

    def draw(ax: Any) -> None:
        ax.fill_between(line.x, 0, line.values, color=BLUE, alpha=0.15, linewidth=0)
        draw_lines(ax, [line], logarithmic=False)
        _as_share(ax)

    finite = series.values[np.isfinite(series.values)]
    mean = float(finite.mean()) if len(finite) else math.nan
    text = f"Clipping changed {percent(mean)} of the updates on average over the epochs"
    picture = Picture(draw, "Updates changed by clipping", text, f"{text}.", height=0.45)
    return Section("clipping", "Clipped share", (picture,))


def _as_share(ax: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    ax.set_ylim(-0.03, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    finish_axes(ax, "epoch", "")


# -- the norm of all gradients ---------------------------------------------------------------------


def _norms(sources: Sources) -> Picture | None:
    recorded = sources.monitor.history if sources.monitor is not None else {}
    if recorded.get(NORM):
        return _norms_by_update(recorded)
    names = {"mean": (NORM, BLUE), "largest": (LARGEST_NORM, VERMILLION)}
    series = {label: (sources.run.series.get(name), colour) for label, (name, colour) in names.items()}
    lines = [Line(one.epochs, one.values, label, colour) for label, (one, colour) in series.items() if one]
    if not lines:
        return None
    text = "; ".join(f"{line.label} norm {_range(line.values)}" for line in lines)
    return _norm_picture(lines, "epoch", f"Norm of all gradients by epoch: {text}")


def _norms_by_update(recorded: dict[str, list[float]]) -> Picture:
    norms, clipped = (np.asarray(recorded.get(name, []), float) for name in (NORM, "clipped_gradient_norm"))
    lines = [Line(np.arange(len(norms)), norms, "before clipping")]
    if len(clipped) == len(norms) and (clipped < norms).any():
        lines.append(Line(lines[0].x, clipped, "after clipping", VERMILLION))
    else:
        lines = [Line(lines[0].x, norms)]
    text = f"Norm of all gradients of each of {len(norms)} updates: {_range(norms)}"
    return _norm_picture(lines, "update", text)


def _norm_picture(lines: list[Line], unit: str, text: str) -> Picture:
    def draw(ax: Any) -> None:
        draw_lines(ax, lines, unit=unit, logarithmic=True)

    return Picture(draw, "Norm of all gradients", text)


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"from {number(finite.min())} to {number(finite.max())}" if len(finite) else "never finite"


# -- layers ----------------------------------------------------------------------------------------


def _map(sources: Sources, prefix: str) -> Picture | None:
    layers, x, values, unit = _layer_values(sources, prefix)
    if not layers:
        return None
    is_norm = prefix == OF_LAYER
    limits = _limits(sources) if is_norm else {"usual": 1e-3}
    drawing = LayerMap(layers, x, values, limits)
    what = "gradient norm" if is_norm else "norm of the change / norm of the weights"
    title = "Gradient norm of each layer" if is_norm else "Relative change of the weights of each layer"
    text = f"{title} by {unit}, {len(layers)} layers: {_range(values)}"
    return Picture(
        _drawing(drawing, unit, what),
        title,
        text,
        _caption(limits, values, common_folder(layers)),
        drawing.height,
    )


def _drawing(drawing: LayerMap, unit: str, label: str) -> Callable[[Any], None]:
    return lambda ax: drawing.draw(ax, unit, label)


def _layer_values(sources: Sources, prefix: str) -> tuple[list[str], np.ndarray, np.ndarray, str]:
    """Return the layers, the places of the columns, values `(layers, columns)`, and what is counted."""
    recorded = sources.monitor.history if sources.monitor is not None else {}
    norms = {name.removeprefix(prefix): recorded[name] for name in recorded if name.startswith(prefix)}
    if any(norms.values()):
        values = np.array(list(norms.values()), float)
        return list(norms), np.arange(values.shape[1]), values, "update"
    series = of_layers(sources.run, prefix, sources.layer_order())
    if not series:
        return [], np.empty(0), np.empty((0, 0)), "epoch"
    x, values = common_columns([(one.epochs, one.values) for one in series.values()])
    return list(series), x, values, "epoch"


def _limits(sources: Sources) -> dict[str, float]:
    return {
        "vanishing": getattr(sources.monitor, "vanishing_threshold", _VANISHING),
        "exploding": getattr(sources.monitor, "exploding_threshold", _EXPLODING),
    }


def _caption(limits: dict[str, float], values: np.ndarray, folder: str) -> str:
    if "usual" in limits:
        caption = "About 0.001 is usual: a black line where the scale has it."
    else:
        below, above = number(limits["vanishing"]), number(limits["exploding"])
        caption = f"Vanishing below {below}, exploding above {above}: black lines where the scale has them."
    if folder:
        caption += f" All layers are in `{folder.rstrip('/')}`."
    if (values == 0).any():
        caption += " Black: exactly 0."
    if np.isinf(values).any():
        caption += " Red: infinite."
    if np.isnan(values).any():
        caption += " Grey: not measured, or not a number."
    return caption
