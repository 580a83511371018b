"""The table that `fine_tune` prints: which layers train when, and how fast."""

from dataclasses import dataclass

import keras
import numpy as np

from keras_dnn_extras._models import is_batch_norm, layers_by_path, weights_of
from keras_dnn_extras.transfer.fine_tune_schedule import FineTuneSchedule

_MOST_ROWS = 20  # of the table, before layers are put together


@dataclass(frozen=True)
class _Row:
    """One layer: its path, how many weights it has, and its largest rate in both cycles.

    Attributes:
        first_rate: None where the layer is frozen.
    """

    path: str
    weights: int
    first_rate: float | None
    second_rate: float

    @property
    def rates(self) -> tuple[float | None, float]:
        return self.first_rate, self.second_rate


def training_plan(model: keras.Model, schedule: FineTuneSchedule, later: list[keras.layers.Layer]) -> str:
    """Return which layers train in which epochs, and their largest learning rates there.

    Args:
        later: the layers that are frozen in the first cycle.
    """
    titles, has_cycle = _titles(schedule)
    lines = [titles]
    for group in _groups(_rows(model, schedule, later)):
        rates = _range([row.first_rate for row in group]), _range([row.second_rate for row in group])
        paths, weights = _span([row.path for row in group]), sum(row.weights for row in group)
        lines.append(
            [paths, f"{weights:,}", *(rate for rate, has in zip(rates, has_cycle, strict=True) if has)]
        )
    layers = layers_by_path(model).values()
    frozen_norms = sum(is_batch_norm(layer) and not layer.trainable for layer in layers)
    if frozen_norms:
        modes = ["inference mode"] * sum(has_cycle)
        lines.append([f"BatchNormalization ({frozen_norms} of the body)", "", *modes])
    return _table(lines)


def _rows(model: keras.Model, schedule: FineTuneSchedule, later: list[keras.layers.Layer]) -> list[_Row]:
    paths = {id(layer): path for path, layer in layers_by_path(model).items()}
    frozen = set(map(id, later))
    first, second = schedule.rates
    return [
        _Row(
            paths[id(layer)],
            sum(int(np.prod(variable.shape)) for variable in weights_of(layer)),
            None if id(layer) in frozen else first * multiplier,
            second * multiplier,
        )
        for layer, multiplier in schedule.multipliers
    ]


def _groups(rows: list[_Row]) -> list[list[_Row]]:
    """Return rows one after the other that are alike together: of the same rates, if there are few."""
    groups: list[list[_Row]] = []
    for row in rows:
        if groups and _are_alike(groups[-1][-1], row, len(rows) > _MOST_ROWS):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _are_alike(before: _Row, row: _Row, at_any_rates: bool) -> bool:
    both_or_none_frozen = (before.first_rate is None) == (row.first_rate is None)
    return both_or_none_frozen and (at_any_rates or before.rates == row.rates)


def _titles(schedule: FineTuneSchedule) -> tuple[list[str], tuple[bool, bool]]:
    """Return the titles of the columns, and which of the two cycles have epochs, and so a column."""
    frozen_epochs, epochs = schedule.frozen_epochs, schedule.epochs
    has_cycle = frozen_epochs > 0, frozen_epochs < epochs
    spans = _epochs(1, frozen_epochs), _epochs(frozen_epochs + 1, epochs)
    return ["layers", "weights", *(s for s, has in zip(spans, has_cycle, strict=True) if has)], has_cycle


def _epochs(first: int, last: int) -> str:
    return f"epoch {last}" if first == last else f"epochs {first}-{last}"


def _table(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)})"


def _range(rates: list[float | None]) -> str:
    of_training = [rate for rate in rates if rate is not None]
    if not of_training:
        return "frozen"
    low, high = min(of_training), max(of_training)
    return f"{high:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
