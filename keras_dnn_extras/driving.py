"""Hyperparameters of the optimizer that follow curves, update by update, in the training step."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras.attributes import replaced
from keras_dnn_extras.curves import Curve
from keras_dnn_extras.in_step import REMEDY, depending_on, stand_in, table_dtype


class Driving:
    """A table of the values of the updates to come, of which the step looks up the row of its update."""

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self._optimizer = optimizer
        self._curves: dict[str, Curve] = {}
        self._numbers: dict[str, float] = {}
        self._table: Any = None

    def __bool__(self) -> bool:
        return bool(self._curves)

    @property
    def variables(self) -> list[keras.Variable]:
        return [] if self._table is None else [self._table]

    def add(self, name: str, curve: Curve) -> None:
        """Let `curve(i)` be the hyperparameter `name` in update `i` of the fit."""
        if name in self._curves:
            raise ValueError(f"`{name}` is driven by another callback of this fit already.")
        if name != "learning_rate":
            self._numbers[name] = vars(self._optimizer)[name]
        self._curves[name] = curve

    def upload(self, coming: np.ndarray, origin: int, variable: Callable) -> None:
        """Write the values of the updates to come, each in the row `iterations % rows`.

        Args:
            coming: their `iterations`, as many as the table has rows.
            origin: the `iterations` at update 0 of the fit.
            variable: makes a variable by `variable(shape, dtype)`.
        """
        rows, columns = len(coming), []
        for name, curve in self._curves.items():
            with np.errstate(over="ignore"):  # in rows past the end of the fit: 1.2 ** 4096
                values = np.asarray(curve(coming - origin), "float64")
            # `1 - beta_1` would not be the nearest float32 if the step computed it in float32.
            columns += [values] if name == "learning_rate" else [values, 1.0 - values]
        table = np.empty((rows, len(columns)))
        table[coming % rows] = np.stack(columns, axis=1)
        if self._table is None:
            self._table = variable(table.shape, table_dtype())
        with np.errstate(over="ignore"):
            self._table.assign(table.astype(table_dtype()))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Drive the optimizer while the step is traced or runs."""
        apply = self._driven(self._optimizer._backend_apply_gradients)
        with replaced(self._optimizer, _backend_apply_gradients=apply):
            yield

    def _driven(self, apply_gradients: Callable) -> Callable:
        def drive(gradients: list, variables: list) -> Any:
            with depending_on(gradients):
                in_step = self._look_up()
            own = vars(self._optimizer)
            own.update(in_step)
            try:
                return apply_gradients(gradients, variables)
            except TypeError as error:
                if in_step:
                    error.add_note(
                        f"{', '.join(in_step)}: driven by a callback, tensors in this step. {REMEDY}"
                    )
                raise
            finally:
                # The known numbers, not those found: replicas of a MirroredStrategy come and go in
                # threads of their own, and find each other's.
                own.update(self._numbers)

        return drive

    def _look_up(self) -> dict[str, Any]:
        rows, width = self._table.shape
        update = ops.mod(ops.cast(self._optimizer.iterations, "int32"), rows)
        row = ops.take(self._table.value, update, axis=0)
        values = [row[i] for i in range(width)]
        in_step = {}
        for name in self._curves:
            if name == "learning_rate":
                self._optimizer.learning_rate.assign(values.pop(0))
            else:
                in_step[name] = stand_in(self._numbers[name], values.pop(0), values.pop(0))
        return in_step
