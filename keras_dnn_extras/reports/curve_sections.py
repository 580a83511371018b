"""Loss and metrics, learning rate and momentum, over the epochs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_dnn_extras._plotting import BLUE, VERMILLION
from keras_dnn_extras.reports.blocks import LeftOut, Picture, Section
from keras_dnn_extras.reports.figures import Line, draw_lines, spans_decades
from keras_dnn_extras.reports.metric_names import (
    MOMENTUM,
    RATE,
    higher_is_better,
    learning_rate_of,
    logarithmic,
    metric_names,
)
from keras_dnn_extras.reports.run_history import RunHistory, Series
from keras_dnn_extras.reports.sources import Sources
from keras_dnn_extras.reports.wording import number

_PICTURES = 8  # of metrics


def metrics_section(sources: Sources) -> Section | LeftOut:
    """Return the pictures of the loss and the metrics."""
    names = metric_names(sources.run)
    if not names:
        return LeftOut("Loss and metrics", "the logs have none")
    pictures = tuple(_metric_picture(sources.run, name) for name in names[:_PICTURES])
    lead = "A circle marks the best epoch."
    if len(names) > _PICTURES:
        lead += f" These are the first {_PICTURES} of {len(names)}; the summary has all of them in numbers."
    return Section("metrics", "Loss and metrics", pictures, lead)


def _metric_picture(run: RunHistory, name: str) -> Picture:
    names = {"training": (name, BLUE), "validation": (f"val_{name}", VERMILLION)}
    present = {
        label: (*where, run.series[where[0]]) for label, where in names.items() if where[0] in run.series
    }
    decisive = list(present)[-1]  # validation, where there is any
    lines = [
        Line(one.epochs, one.values, label, colour, mark=_best(name, one) if label == decisive else None)
        for label, (_, colour, one) in present.items()
    ]

    def draw(ax: Any) -> None:
        draw_lines(ax, lines, breaks=run.later_fits, logarithmic=logarithmic(name))

    text = f"{name} by epoch: " + "; ".join(_in_words(label, one) for label, (*_, one) in present.items())
    return Picture(draw, name, text)


def _best(name: str, series: Series) -> float | None:
    best = series.best(bool(higher_is_better(name)))
    return None if best is None or higher_is_better(name) is None else best[0]


def _in_words(label: str, series: Series) -> str:
    return f"{label} from {number(series.values[0])} to {number(series.last)}"


# -- learning rate and momentum --------------------------------------------------------------------


def rate_section(sources: Sources) -> Section | LeftOut:
    """Return the pictures of learning rate and momentum, of each update where the scheduler has them."""
    recorded = sources.scheduler.history if sources.scheduler is not None else {}
    names = {RATE: "Learning rate", MOMENTUM: "Momentum"}
    pictures = [
        _by_update(title, recorded[name]) if recorded.get(name) else _by_epoch(sources.run, name, title)
        for name, title in names.items()
    ]
    present = tuple(picture for picture in pictures if picture is not None)
    if not present:
        reason = "the logs have no `learning_rate`, which the schedulers of this package and Keras's write"
        return LeftOut("Learning rate and momentum", reason)
    title = "Learning rate" if len(present) == 1 and pictures[1] is None else "Learning rate and momentum"
    return Section("rates", title, present)


def _by_update(title: str, values: list[float]) -> Picture:
    array = np.asarray(values, float)
    line = Line(np.arange(len(array)), array)
    text = f"{title} of each of {len(array)} updates, from {number(array.min())} to {number(array.max())}"
    return Picture(_drawing(line, "update"), title, text)


def _by_epoch(run: RunHistory, name: str, title: str) -> Picture | None:
    series = learning_rate_of(run) if name == RATE else run.series.get(name)
    if series is None:
        return None
    line = Line(series.epochs, series.values)
    text = f"{title} by epoch: {_in_words('the last of each', series)}"
    return Picture(_drawing(line, "epoch"), title, text, "The values of the last update of each epoch.")


def _drawing(line: Line, unit: str) -> Callable[[Any], None]:
    # A cycle ends at next to nothing: by decades its two straight sides would not be seen.
    values = line.values[np.isfinite(line.values)]
    peak_within = len(values) > 2 and 0 < int(values.argmax()) < len(values) - 1
    by_decades = spans_decades(values) and not peak_within
    return lambda ax: draw_lines(ax, [line], unit=unit, logarithmic=by_decades)
