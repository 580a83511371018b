"""A ring of rows that the training step writes and Python reads as rarely as it can."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras.in_step import write_row

_TAGS = 2**24  # float32 holds integers up to this


class Ring:
    """Rows of one or more tables, written one after the other, each with the update it belongs to.

    Args:
        widths: of the tables.
        rows: how many are kept. The reader has to come in time.
        first: the update of the first row, or one before it.
        variable: makes a variable by `variable(shape, dtype)`.
    """

    def __init__(
        self,
        widths: list[int],
        rows: int,
        first: int,
        variable: Callable[[tuple[int, ...], str], keras.Variable],
    ):
        self._rows = rows
        self._update = first
        self._read_until = 0
        self._tags = variable((rows, 1), "float32")
        self._tables = [variable((rows, width), "float32") for width in widths]
        self._count = variable((), "int32")
        self.variables: list[keras.Variable] = [self._tags, *self._tables, self._count]

    def next_row(self) -> Any:
        """Return, in the step, which row is written next."""
        return ops.mod(self._count.value, self._rows)

    def write(self, table: int, row: Any, values: Any) -> None:
        """Write `values` into `row` of a table, in the step."""
        write_row(self._tables[table], row, values)

    def advance(self, row: Any, update: Any) -> None:
        """End `row`, in the step: it belongs to `update`, an int32 tensor."""
        write_row(self._tags, row, ops.reshape(ops.cast(ops.mod(update, _TAGS), "float32"), (1,)))
        self._count.assign(self._count.value + 1)

    def read(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return what was written since the last time: the updates, and a block of rows of each table.

        Raises:
            RuntimeError: rows were overwritten before they were read.
        """
        count = int(ops.convert_to_numpy(self._count))
        if count - self._read_until > self._rows:
            raise RuntimeError(
                f"{count - self._read_until} rows were written where at most {self._rows} were expected. "
                "Apply gradients fewer times in a training step. Received: "
                f"rows={count - self._read_until}"
            )
        if count == self._read_until:
            return np.empty(0, int), [np.empty((0, table.shape[1])) for table in self._tables]
        places = np.arange(self._read_until, count) % self._rows
        self._read_until = count
        tags, *blocks = (ops.convert_to_numpy(v)[places] for v in (self._tags, *self._tables))
        updates = []
        for tag in tags[:, 0]:
            self._update += int(tag - self._update) % _TAGS
            updates.append(self._update)
        return np.array(updates), [block.astype("float64") for block in blocks]
