"""How a value takes part in the traced step: the lines that differ between the backends."""

import contextlib
from typing import Any

import keras
from keras import ops

from keras_dnn_extras._backends.replicas import replica_context


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


def write_row(table: keras.Variable, row: Any, values: Any) -> None:
    """Write `values` into `row` of a table: in its place, as a copy of it would cost more than the row."""
    backend = keras.backend.backend()
    if backend == "torch":
        table.value.detach().index_copy_(0, row.reshape(1).long(), values[None].detach())
    elif backend == "tensorflow" and replica_context() is None:
        import tensorflow as tf

        table.value.scatter_update(tf.IndexedSlices(values[None], row[None]))
    else:  # XLA does it in place by itself; mirrored variables cannot
        table.assign(ops.slice_update(table.value, (row, ops.zeros_like(row)), values[None]))


def value_of(variable: keras.Variable) -> Any:
    """Return the value of `variable` as it is now, which an update may change in place afterwards."""
    return ops.stop_gradient(ops.copy(variable.value))
