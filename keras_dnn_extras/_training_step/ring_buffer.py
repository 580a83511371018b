"""A ring of rows that the training step writes and Python reads as rarely as it can."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._backends import modulo, write_row

TAGS = 2**24  # float32 holds integers up to this


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
        self._widths = widths
        self._rows = rows
        self._update = first
        self._read_until = 0
        # The first column of the first table is the update.
        self._tables = [variable((rows, width + (i == 0)), "float32") for i, width in enumerate(widths)]
        self._count = variable((), "int32")
        self.variables: list[keras.Variable] = [*self._tables, self._count]

    def next_row(self) -> Any:
        """Return, in the step, which row is written next."""
        return modulo(self._count.value, self._rows)

    def append(self, update: Any, *values: Any) -> None:
        """Write vectors, one after the other, as the next row of the first table, in the step.

        Args:
            update: the one that the row belongs to, an int32 tensor.
        """
        tag = ops.reshape(ops.cast(modulo(update, TAGS), "float32"), (1,))
        write_row(self._tables[0], self.next_row(), ops.concatenate([tag, *values]))
        self._count.assign(self._count.value + 1)

    def write(self, table: int, row: Any, *values: Any) -> None:
        """Write vectors, one after the other, into `row` of a further table, in the step."""
        write_row(self._tables[table], row, ops.concatenate(values))

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
            return np.empty(0, int), [np.empty((0, width)) for width in self._widths]
        places = np.arange(self._read_until, count) % self._rows
        self._read_until = count
        first, *others = (ops.convert_to_numpy(v)[places].astype("float64") for v in self._tables)
        updates = []
        for tag in first[:, 0]:
            self._update += int(tag - self._update) % TAGS
            updates.append(self._update)
        return np.array(updates), [first[:, 1:], *others]
