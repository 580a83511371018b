"""What the names in logs stand for."""

import re
from collections.abc import Iterable

from keras_dnn_extras.reports.run_history import RunHistory, Series

RATE, MOMENTUM, CLIPPED = "learning_rate", "momentum", "clipped_fraction"
NORM, LARGEST_NORM = "gradient_norm", "gradient_norm_max"
OF_LAYER, RATIO_OF_LAYER = "gradient_norm/", "update_ratio/"
_OLD_RATE = "lr"  # as Keras 2 logged it
_NO_METRICS = {RATE, MOMENTUM, CLIPPED, NORM, LARGEST_NORM, _OLD_RATE}

# Parts of names, divided at underscores and where a lower letter meets a capital.
_LOWER_IS_BETTER = (
    "loss|error|mse|mae|mape|msle|rmse|nll|crossentropy|entropy|hinge|divergence|poisson|logcosh|"
    "perplexity|brier|ece|false"
)
_HIGHER_IS_BETTER = (
    "acc|accuracy|auc|precision|recall|specificity|sensitivity|f1|fbeta|f|iou|r2|dice|similarity|"
    "correlation|true"
)


def metric_names(*runs: RunHistory) -> list[str]:
    """Return the names of losses and metrics in the logs, the loss first, without `val_`, each once."""
    names = [name.removeprefix("val_") for run in runs for name in run.series]
    names = [name for name in dict.fromkeys(names) if _is_metric(name)]
    return sorted(names, key=lambda name: (name != "loss", not name.endswith("_loss")))


def _is_metric(name: str) -> bool:
    return name not in _NO_METRICS and not name.startswith((OF_LAYER, RATIO_OF_LAYER))


def learning_rate_of(run: RunHistory) -> Series | None:
    """Return the learning rate in the logs, or None."""
    return run.series.get(RATE) or run.series.get(_OLD_RATE)


def of_layers(run: RunHistory, prefix: str, order: Iterable[str] | None = None) -> dict[str, Series]:
    """Return the series of layers, by their paths, from the first layer to the last.

    Args:
        order: paths of the layers of the model, or None: as in the logs, those of files by their numbers,
            as `CSVLogger` sorts its columns.
    """
    series = {name.removeprefix(prefix): run.series[name] for name in run.series if name.startswith(prefix)}
    if order is not None:
        places = {path: place for place, path in enumerate(order)}
        return dict(sorted(series.items(), key=lambda item: places.get(item[0], len(places))))
    if run.name:
        return dict(sorted(series.items(), key=lambda item: _natural(item[0])))
    return series


def _natural(name: str) -> list[tuple[str, int]]:
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d{0,18})", name)]


def higher_is_better(name: str) -> bool | None:
    """Return whether higher values of the metric `name` are better, by its name. None: not known."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.removeprefix("val_")).lower()
    parts = re.split(r"[^a-z0-9]+", words)
    for pattern, answer in ((_LOWER_IS_BETTER, False), (_HIGHER_IS_BETTER, True)):
        if any(re.fullmatch(pattern, part) for part in parts):
            return answer
    return None


def logarithmic(name: str) -> bool | None:
    """Return whether the axis of the metric `name` is logarithmic. None: where its values span decades.

    That of a loss may be, whose lowest values matter. Those of an accuracy do not.
    """
    return None if higher_is_better(name) is False else False
