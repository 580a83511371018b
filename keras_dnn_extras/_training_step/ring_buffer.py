"""A ring buffer of rows that the training step writes and Python reads as rarely as it can."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._backends import modulo, write_row

TAGS = 2**24  # float32 holds integers up to this

Rows = tuple[np.ndarray, list[np.ndarray]]  # updates of shape `(rows,)`, tables of shape `(rows, width)`


class RingBuffer:
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

    def read(self) -> Rows:
        """Return what was written since the last time.

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
            return no_rows(self._widths)
        indices = np.arange(self._read_until, count) % self._rows
        self._read_until = count
        first, *further = (ops.convert_to_numpy(v)[indices].astype("float64") for v in self._tables)
        updates = np.array([self._untagged(tag) for tag in first[:, 0]])
        return updates, [first[:, 1:], *further]

    def _untagged(self, tag: float) -> int:
        """Return the update of the next row, of which `tag` is the remainder."""
        self._update += int(tag - self._update) % TAGS
        return self._update


class Readers:
    """Keeps what was read from a ring buffer until each of its readers has asked for it."""

    def __init__(self) -> None:
        self._rows: dict[Any, list[Rows]] = {}

    def add(self, reader: Any) -> None:
        """Keep what is read from now on for `reader`."""
        self._rows[reader] = []

    def put(self, rows: Rows) -> None:
        """Keep `rows` for all readers."""
        updates, _ = rows
        if not len(updates):  # `take` joins tables of one width, and the next ones may have another
            return
        for unread in self._rows.values():
            unread.append(rows)

    def take(self, reader: Any, widths: list[int]) -> Rows:
        """Return what `reader` has not asked for yet, joined.

        Args:
            widths: of the tables, should there be no rows.
        """
        blocks, self._rows[reader] = [no_rows(widths), *self._rows[reader]], []
        updates, tables = zip(*blocks, strict=True)
        return np.concatenate(updates), [np.concatenate(table) for table in zip(*tables, strict=True)]


def no_rows(widths: list[int]) -> Rows:
    """Return no rows of tables of these widths."""
    return np.empty(0, int), [np.empty((0, width)) for width in widths]
