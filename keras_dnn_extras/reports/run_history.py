"""The logs of a training, epoch by epoch, wherever they come from."""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._display import brief
from keras_dnn_extras.reports.csv_history import read_csv
from keras_dnn_extras.reports.epoch_numbers import Numbering, number_epochs
from keras_dnn_extras.reports.wording import listed, writable

_NAMED = 4  # columns in a note
_MISSING = ("", "NA")
_EPOCH_COLUMNS = ("epoch", "")  # that of CSVLogger, and the index that pandas writes


@dataclass(frozen=True)
class Series:
    """The values of one name in the logs, at the epochs that have one.

    Attributes:
        epochs: ints of shape `(n,)`, from 1, rising.
        values: floats of shape `(n,)`. NaN is a value that is not a number, not a missing one.
    """

    epochs: np.ndarray
    values: np.ndarray

    @property
    def last(self) -> float:
        """The value of the last epoch that has one."""
        return float(self.values[-1])

    def best(self, highest: bool = False) -> tuple[int, float] | None:
        """Return the epoch and value of the lowest or highest finite value, None where there is none."""
        finite = np.isfinite(self.values)
        if not finite.any():
            return None
        worst = -np.inf if highest else np.inf
        values = np.where(finite, self.values, worst)
        index = int(values.argmax() if highest else values.argmin())
        return int(self.epochs[index]), float(self.values[index])


@dataclass(frozen=True)
class RunHistory:
    """The logs of one training.

    Attributes:
        name: of the file, or empty.
        epochs: how many it had: the number of the last one.
        series: by the names in the logs, in their order.
        notes: sentences that tell what was left out or moved.
        later_fits: the first epochs of second and later fits in the same file.
    """

    name: str
    epochs: int
    series: dict[str, Series]
    notes: tuple[str, ...] = ()
    later_fits: tuple[int, ...] = ()


def read_history(argument: str, history: Any) -> RunHistory:
    """Return the logs in a Keras `History`, in its dict, or in a file that `CSVLogger` wrote.

    Args:
        argument: the name that the caller's argument has.

    Raises:
        ValueError: there is no epoch with a number in it, or the file is no text.
        TypeError: it is something else.
        OSError: the file cannot be read.
    """
    if isinstance(history, (str, os.PathLike)):
        path = pathlib.Path(history)
        columns, notes = read_csv(argument, path)
        return _run_history(argument, str(history), writable(path.name), columns, None, notes)
    if isinstance(history, Mapping):
        return _run_history(argument, history, "", history, None, [])
    logs, epochs = getattr(history, "history", None), getattr(history, "epoch", None)
    if not isinstance(logs, Mapping) or not isinstance(epochs, list):
        raise TypeError(
            f"Expected `{argument}` to be a Keras `History` as `fit` returns it, its dict, or the path of "
            f"a file of `CSVLogger`. Received: {argument}={history!r}"
        )
    return _run_history(argument, history, "", logs, epochs, [])


def _run_history(
    argument: str,
    received: Any,
    name: str,
    columns: Mapping[Any, Any],
    epochs: Sequence[Any] | None,
    notes: list[str],
) -> RunHistory:
    columns = {writable(str(key)): values for key, values in columns.items()}
    numbers = {key: _numbers(values) for key, values in columns.items()}
    for key in _EPOCH_COLUMNS:
        if key in numbers:
            column = numbers.pop(key)
            epochs = column if epochs is None else epochs
    series = {key: values for key, values in numbers.items() if any(v is not None for v in values)}
    if not series:
        raise ValueError(
            f"There is no epoch in `{argument}`, or none with a number in its logs. Pass what a `fit` of "
            f"at least one epoch has recorded. Received: {argument}={brief(received)}"
        )
    of_text = [key for key in numbers if key not in series and _has_content(columns[key])]
    if of_text:
        notes = [*notes, f"{listed(of_text, _NAMED)}: no numbers, left out."]
    total = max(map(len, series.values()))
    numbering = number_epochs(epochs, total)
    notes = [*notes, *numbering.notes, *_length_notes(series, total)]
    placed = {key: _series(key, values, numbering) for key, values in series.items()}
    return RunHistory(
        name,
        int(numbering.epochs[numbering.rows].max()),
        {key: one for key, one in placed.items() if len(one.values)},
        tuple(notes),
        numbering.later_fits,
    )


def _numbers(values: Any) -> list[float | None]:
    """Return `values` as floats, and None for those that are missing or no numbers."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        return []
    return [_number(value) for value in values]


def _has_content(values: Any) -> bool:
    """Return whether there is anything in a column. `CSVLogger` adds columns of NA for validation."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        return True
    return not all(value is None or (isinstance(value, str) and value in _MISSING) for value in values)


def _number(value: Any) -> float | None:
    if value is None or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # as of text, a list, an int of 400 digits
        return None


def _series(name: str, values: list[float | None], numbering: Numbering) -> Series:
    """Put `values` at their epochs, and leave out the missing ones and those of epochs trained again."""
    rows = np.array(_rows(name, len(values), len(numbering.epochs)), int)
    present = np.array([value is not None for value in values], bool) & np.isin(rows, numbering.rows)
    numbers = np.array([np.nan if value is None else value for value in values], float)
    return Series(numbering.epochs[rows[present]], numbers[present])


def _rows(name: str, length: int, total: int) -> range:
    """Return the epochs, from 0, that `length` values belong to, where there may be more epochs."""
    every = _validation_freq(name, length, total)
    return range(every - 1, every * length, every)


def _validation_freq(name: str, length: int, total: int) -> int:
    every = total // length if length and name.startswith("val_") else 1
    return every if every * length <= total < every * (length + 1) else 1


def _length_notes(series: dict[str, list[float | None]], total: int) -> list[str]:
    """Return a note for all names that have the same number of values, fewer than there are epochs."""
    groups: dict[tuple[int, int], list[str]] = {}
    for name, values in series.items():
        if len(values) < total:
            key = len(values), _validation_freq(name, len(values), total)
            groups.setdefault(key, []).append(name)
    notes = []
    for (length, every), names in groups.items():
        where = (
            f"at every {every}. epoch, as `validation_freq={every}` has it" if every > 1 else "at the first"
        )
        notes.append(
            f"{listed(names, _NAMED)}: {counted(length, 'value')} for {total} epochs, drawn {where}."
        )
    return notes
