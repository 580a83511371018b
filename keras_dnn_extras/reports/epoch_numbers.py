"""Numbers of epochs, where one file holds several fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_dnn_extras._arguments import counted


@dataclass(frozen=True)
class Numbering:
    """Which epoch each row of the logs is.

    Attributes:
        epochs: ints of shape `(rows,)`, from 1.
        rows: indices of the rows that count, their epochs rising: an epoch that was trained again after a
            resumption counts once.
        later_fits: the first epochs of second and later fits.
        notes: sentences about these.
    """

    epochs: np.ndarray
    rows: np.ndarray
    later_fits: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def number_epochs(epochs: Sequence[Any] | None, total: int) -> Numbering:
    """Number the epochs of `total` rows from 1, those of fits that were appended one after the other.

    Args:
        epochs: as Keras counts them, from 0, begun again by each fit. None, or others than `total` ints at
            least 0: the rows are numbered.
    """
    if epochs is None or len(epochs) != total or not all(map(_is_epoch, epochs)):
        return Numbering(np.arange(1, total + 1), np.arange(total))
    return _of_fits([int(epoch) for epoch in epochs])


def _is_epoch(epoch: Any) -> bool:
    return epoch is not None and 0 <= epoch < 2**53 and epoch == int(epoch)


def _of_fits(epochs: list[int]) -> Numbering:
    numbers, rows, later_fits = list[int](), list[int](), list[int]()
    offset, repeated = 1, 0
    for row, epoch in enumerate(epochs):
        if row and epoch <= epochs[row - 1]:
            if epoch <= epochs[0]:  # from the beginning: another fit
                offset = numbers[-1] + 1 - epoch
                later_fits.append(epoch + offset)
            else:  # from the middle: what came after the backup was lost
                kept_before = len(rows)
                rows = [earlier for earlier in rows if numbers[earlier] < epoch + offset]
                repeated += kept_before - len(rows)
        numbers.append(epoch + offset)
        rows.append(row)
    notes = _notes(later_fits, repeated)
    return Numbering(np.array(numbers), np.array(rows), tuple(later_fits), tuple(notes))


def _notes(later_fits: list[int], repeated: int) -> list[str]:
    notes = []
    if later_fits:
        begins = ", ".join(map(str, later_fits[:5])) + (", ..." if len(later_fits) > 5 else "")
        notes.append(
            f"The logs hold {len(later_fits) + 1} fits, numbered as one. New fits begin at epoch {begins}."
        )
    if repeated:
        notes.append(f"{counted(repeated, 'epoch')} trained again after a resumption: the last run counts.")
    return notes
