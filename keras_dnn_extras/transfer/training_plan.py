"""The table that `fine_tune` prints: which layers train when, and how fast."""

import keras
import numpy as np

from keras_dnn_extras._models import is_batch_norm, layers_by_path, weights_of
from keras_dnn_extras.transfer.fine_tune_schedule import FineTuneSchedule

_ROWS = 20  # of the table


def training_plan(model: keras.Model, schedule: FineTuneSchedule, later: list[keras.layers.Layer]) -> str:
    """Return which layers train in which epochs, and their largest learning rates there."""
    paths = {id(layer): path for path, layer in layers_by_path(model).items()}
    frozen = set(map(id, later))
    first, second = schedule.rates
    rows = []
    for layer, share in schedule.shares:
        count = sum(int(np.prod(variable.shape)) for variable in weights_of(layer))
        rate = None if id(layer) in frozen else first * share
        rows.append((paths[id(layer)], count, rate, second * share))
    groups: list[list[tuple]] = []
    for row in rows:
        alike = groups and (row[2] is None) == (groups[-1][-1][2] is None)
        if alike and (len(rows) > _ROWS or row[2:] == groups[-1][-1][2:]):
            groups[-1].append(row)
        else:
            groups.append([row])
    n, m = schedule.frozen_epochs, schedule.epochs
    titles = ["layers", "weights", *(["epoch 1" if n == 1 else f"epochs 1-{n}"] if n else [])]
    titles += [f"epoch {m}" if m == n + 1 else f"epochs {n + 1}-{m}"] if n < m else []
    lines = [titles]
    for group in groups:
        cells = [_span([row[0] for row in group]), f"{sum(row[1] for row in group):,}"]
        cells += [_rates([row[2] for row in group])] if n else []
        lines.append(cells + ([_rates([row[3] for row in group])] if n < m else []))
    norms = [
        layer for layer in layers_by_path(model).values() if is_batch_norm(layer) and not layer.trainable
    ]
    if norms:
        still = ["inference mode"] * (len(titles) - 2)
        lines.append([f"BatchNormalization ({len(norms)} of the body)", "", *still])
    wide = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    told = ["  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip() for line in lines]
    return "\n".join([*told[:1], "-" * max(map(len, told)), *told[1:]])


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)})"


def _rates(rates: list[float | None]) -> str:
    known = [rate for rate in rates if rate is not None]
    if not known:
        return "frozen"
    low, high = min(known), max(known)
    return f"{high:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
