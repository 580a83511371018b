"""Hyperparameters of the optimizer that follow curves, update by update, in the training step."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._backends import depending_on, modulo, table_dtype
from keras_dnn_extras._keras_internals import replaced
from keras_dnn_extras._models import seen_batches
from keras_dnn_extras._training_step.hyperparameter_proxy import REMEDY, stand_in, without_zeros
from keras_dnn_extras._training_step.ring_buffer import TAGS


class Driving:
    """A table of the values of the updates to come, of which the step looks up the row of its update."""

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self._optimizer = optimizer
        self._curves: dict[str, Callable[[np.ndarray], Any]] = {}
        self._numbers: dict[str, float] = {}
        self._writers: dict[str, Callable[[str], None]] = {}
        self._overwritten: set[str] = set()  # what others wrote, and updates overwrote
        self._table: Any = None
        self._at_start: tuple[float, int] | None = None  # the rate and the batches when the fit began
        # The rate that the last update set, how many batches there were then, as a remainder, and how
        # many updates found another rate although there was none in between.
        self._last: Any = None

    def __bool__(self) -> bool:
        return bool(self._curves)

    @property
    def variables(self) -> list[keras.Variable]:
        return [variable for variable in (self._table, self._last) if variable is not None]

    def add(
        self, name: str, curve: Callable[[np.ndarray], Any], refuse_other_writer: Callable[[str], None]
    ) -> None:
        """Let `curve(i)` be the hyperparameter `name` in update `i` of the fit.

        Args:
            refuse_other_writer: called with `name` if another one writes it too. It raises.
        """
        if name in self._curves:
            raise ValueError(f"`{name}` is driven by another callback of this fit already.")
        if name != "learning_rate":
            self._numbers[name] = vars(self._optimizer)[name]
        self._curves[name] = curve
        self._writers[name] = refuse_other_writer

    def begin(self) -> None:
        """Look at the rate, before any callback of the user's own sees the first epoch begin."""
        if "learning_rate" in self._curves:
            self._at_start = self._rate(), self._batches()

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
            columns += [values] if name == "learning_rate" else [without_zeros(values), 1.0 - values]
        table = np.empty((rows, len(columns)))
        table[coming % rows] = np.stack(columns, axis=1)
        if self._table is None:
            self._table = variable(table.shape, table_dtype())
            if "learning_rate" in self._curves:
                now = self._rate(), self._batches()
                rate, batches = self._at_start or now
                self._last = variable((3,), "float32")
                self._last.assign(np.array([*now, rate != now[0] and batches == now[1]], "float32"))
        with np.errstate(over="ignore"):
            self._table.assign(table.astype(table_dtype()))

    def refuse_other_writers(self) -> None:
        """Raise if anything else has written what follows a curve. Between two steps.

        The next step looks at the rate before it overwrites it; here it is that after the last one. A rate
        that came with another count of batches is no setting: the optimizer was restored.
        """
        if self._last is not None:
            last, batches, others = ops.convert_to_numpy(self._last).tolist()
            if others or (self._rate() != last and self._batches() == batches):
                self._overwritten.add("learning_rate")
        for name in self._curves:
            if name in self._overwritten:
                self._writers[name](name)

    def _rate(self) -> float:
        return float(ops.convert_to_numpy(ops.cast(self._optimizer._learning_rate.value, "float32")))

    def _batches(self) -> int:
        return seen_batches(self._optimizer) % TAGS

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Drive the optimizer while the step is traced or runs."""
        own = vars(self._optimizer)
        self._overwritten |= {name for name, number in self._numbers.items() if own[name] != number}
        apply = self._driven(self._optimizer._backend_apply_gradients)
        try:
            with replaced(self._optimizer, _backend_apply_gradients=apply):
                yield
        finally:  # an interrupt may have come before the step did it
            own.update(self._numbers)

    def _driven(self, apply_gradients: Callable) -> Callable:
        def drive(gradients: list, variables: list) -> Any:
            with depending_on(gradients):
                in_step = self._look_up()
            own = vars(self._optimizer)
            try:
                own.update(in_step)
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
        row = ops.take(self._table.value, modulo(self._optimizer.iterations, rows), axis=0)
        values = [row[i] for i in range(width)]
        in_step = {}
        for name in self._curves:
            if name == "learning_rate":
                self._set_rate(values.pop(0))
            else:
                in_step[name] = stand_in(self._numbers[name], values.pop(0), values.pop(0))
        return in_step

    def _set_rate(self, value: Any) -> None:
        rate = self._optimizer.learning_rate
        batches = self._optimizer._iterations.value
        last, then, others = (self._last.value[i] for i in range(3))
        same = ops.equal(then, ops.cast(modulo(batches, TAGS), "float32"))
        differs = ops.not_equal(last, ops.cast(rate.value, "float32"))
        others = others + ops.cast(ops.logical_and(same, differs), "float32")
        rate.assign(value)
        now = ops.cast(modulo(batches + 1, TAGS), "float32")
        self._last.assign(ops.stack([ops.cast(rate.value, "float32"), now, others]))
