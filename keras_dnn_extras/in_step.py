"""How a value takes part in the traced step: the lines that differ between the backends."""

import contextlib
from typing import Any

import keras
import numpy as np
from keras import ops

REMEDY = (
    "In an optimizer of your own compute with `keras.ops`, or let the callback leave it alone, as "
    "`OneCycleScheduler(cycle_momentum=False)` does."
)


def table_dtype() -> str:
    """Return the dtype to keep hyperparameters in."""
    if keras.backend.backend() != "torch":
        return "float32"
    import torch

    # A 0-dimensional float64 acts like a Python float, it promotes nothing. MPS has none.
    return "float32" if torch.backends.mps.is_available() else "float64"


def modulo(number: Any, divisor: int) -> Any:
    """Return `number % divisor` in int32, for an index in the step.

    On JAX with `floatx` bfloat16, Keras makes a float of a Python int (keras 23703).
    """
    return ops.mod(ops.cast(number, "int32"), ops.convert_to_tensor(divisor, "int32"))


def depending_on(gradients: list) -> Any:
    """Keep what is computed within from running before `gradients` are there.

    TensorFlow starts the step once more where data of unknown length ends, and runs of it whatever
    does not need the data: an update's learning rate would be set without the update.
    """
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    gradient = next(g for g in gradients if g is not None)
    return tf.control_dependencies([getattr(gradient, "values", gradient)])


def after(first: Any, tensor: Any) -> Any:
    """Return `tensor`, which nobody reads before `first` is there, in a step of TensorFlow.

    An operation that is the last one to read a tensor writes its result in its place. A gradient that is
    measured and used at the same time would cost the memory of another one.
    """
    import tensorflow as tf

    if isinstance(tensor, tf.IndexedSlices):
        return tensor
    with tf.control_dependencies([first]):
        return tf.identity(tensor)


def out_of_step() -> Any:
    """Return the scope that variables are made in while TensorFlow traces the step."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()


def strategy_scope(model: keras.Model) -> Any:
    """Return the scope that variables of `model` are made in."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def mean_over_replicas(value: Any, weight: Any) -> Any:
    """Return the mean of the replicas' values by their weights, in a step of a `tf.distribute` strategy."""
    if _replicas() is None:
        return value
    import tensorflow as tf

    value = tf.where(weight > 0, value * weight, 0.0)  # a replica without samples has a loss of NaN
    total, weight = sum_over_replicas([value, weight])
    return total / weight


def sum_over_replicas(values: list) -> list:
    """Return the sums of the replicas' values, in a step of a `tf.distribute` strategy."""
    context = _replicas()
    if context is None:
        return values
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def _replicas() -> Any:
    """Return the context of this replica, or None if it is the only one."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    if not tf.distribute.has_strategy() or tf.distribute.in_cross_replica_context():
        return None
    context = tf.distribute.get_replica_context()
    return context if context.num_replicas_in_sync > 1 else None


def write_row(table: keras.Variable, row: Any, values: Any) -> None:
    """Write `values` into `row` of a table: in its place, as a copy of it would cost more than the row."""
    backend = keras.backend.backend()
    if backend == "torch":
        table.value.detach().index_copy_(0, row.reshape(1).long(), values[None].detach())
    elif backend == "tensorflow" and _replicas() is None:
        import tensorflow as tf

        table.value.scatter_update(tf.IndexedSlices(values[None], row[None]))
    else:  # XLA does it in place by itself; mirrored variables cannot
        table.assign(ops.slice_update(table.value, (row, ops.zeros_like(row)), values[None]))


def value_of(variable: keras.Variable) -> Any:
    """Return the value of `variable` as it is now, which an update may change in place afterwards."""
    return ops.stop_gradient(ops.copy(variable.value))


def without_zeros(values: np.ndarray) -> np.ndarray:
    """Return hyperparameters for the table, each 0 replaced where an optimizer would see it.

    Optimizers ask `momentum != 0` to know whether they have slots, and on PyTorch they ask the tensor:
    an update whose momentum is 0 would leave its slots as they were. Products with the number that
    stands in for 0 are 0 in float32.
    """
    if keras.backend.backend() != "torch":
        return values
    return np.where(values == 0, np.finfo(table_dtype()).tiny, values)


def stand_in(number: float, value: Any, complement: Any) -> Any:
    """Return what stands in for the hyperparameter `number` in the step."""
    return value if keras.backend.backend() == "torch" else _StandIn(number, value, complement)


class _StandIn:
    """Stands in for a float hyperparameter in the step: compared as the number, computed as a tensor.

    Optimizers ask `momentum != 0` or `momentum > 0` to know whether they have slots for it, which is
    decided before the trace, and use it in arithmetic and in `ops.cast`, which is traced. Whatever
    would make a constant of it, as `float` does, is an error.
    """

    def __init__(self, number: float, value: Any, complement: Any):
        self._number = number
        self._value = value
        self._complement = complement

    @property
    def dtype(self) -> Any:
        return self._value.dtype

    @property
    def shape(self) -> tuple:
        return ()

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self._value if dtype is None else ops.cast(self._value, dtype.name)

    def __jax_array__(self) -> Any:
        return self._value

    def _like(self, other: Any, value: Any) -> Any:
        dtype = getattr(other, "dtype", None)
        if dtype is None:
            return value
        dtype = keras.backend.standardize_dtype(dtype)
        return ops.cast(value, dtype) if "float" in dtype else value

    def _refuse(self, *_: Any) -> Any:
        raise TypeError(
            "A hyperparameter that a callback drives is a tensor in the training step, and no Python "
            f"number. {REMEDY}"
        )

    __float__ = __int__ = __index__ = __array__ = _refuse

    def __format__(self, spec: str) -> str:
        return format(self._number, spec)

    def __bool__(self) -> bool:
        return bool(self._number)

    def __eq__(self, other: object) -> bool:
        return self._number == other

    def __ne__(self, other: object) -> bool:
        return self._number != other

    def __lt__(self, other: Any) -> bool:
        return self._number < other

    def __le__(self, other: Any) -> bool:
        return self._number <= other

    def __gt__(self, other: Any) -> bool:
        return self._number > other

    def __ge__(self, other: Any) -> bool:
        return self._number >= other

    __hash__ = None  # type: ignore[assignment]

    def __rsub__(self, other: Any) -> Any:
        if isinstance(other, (int, float)) and other == 1:
            return self._complement
        return ops.subtract(other, self._like(other, self._value))

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, (int, float)) and other == 1:
            return ops.negative(self._complement)
        return ops.subtract(self._like(other, self._value), other)

    def __add__(self, other: Any) -> Any:
        return ops.add(self._like(other, self._value), other)

    def __mul__(self, other: Any) -> Any:
        return ops.multiply(self._like(other, self._value), other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return ops.divide(self._like(other, self._value), other)

    def __rtruediv__(self, other: Any) -> Any:
        return ops.divide(other, self._like(other, self._value))

    def __pow__(self, other: Any) -> Any:
        return ops.power(self._like(other, self._value), other)

    def __rpow__(self, other: Any) -> Any:
        return ops.power(ops.convert_to_tensor(other, self.dtype), self._value)

    def __abs__(self) -> Any:
        return ops.abs(self._value)

    def __neg__(self) -> Any:
        return ops.negative(self._value)
