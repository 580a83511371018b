"""Norms of gradients in the training step: right where their squares leave the range of float32."""

from typing import Any

import keras
from keras import ops

from keras_dnn_extras._backends import table_dtype

# Sums of squares that lost nothing that matters: 1e8 squares below the least float32 add to 1e-30.
_LEAST, _MOST = 2.0**-80, 2.0**127


def norms(tensors: list) -> Any:
    """Return the L2 norms of `tensors` as a float32 tensor of shape `(len(tensors),)`.

    The gradients of a layer that hardly learns have squares that are 0 in float32. The norms are taken
    once more where that may be so: on most machines, the device alone decides.
    """
    if keras.backend.backend() == "torch":
        return _torch_norms(tensors)
    tensors = [ops.cast(tensor, "float32") for tensor in tensors]
    squares = ops.stack([_sum_of_squares(tensor) for tensor in tensors])
    in_range = ops.all(ops.logical_and(squares > _LEAST, squares < _MOST))
    return ops.cond(
        in_range, lambda: ops.sqrt(squares), lambda: ops.stack([scaled_norm(t) for t in tensors])
    )


def scaled_norm(tensor: Any) -> Any:
    """Return the L2 norm of a float32 tensor, whatever its size."""
    if 0 in tensor.shape:
        return ops.zeros((), "float32")
    if keras.backend.backend() == "torch":
        return _torch_norms([tensor])[0]
    largest = ops.max(ops.abs(tensor))
    in_range = ops.logical_and(largest > 0, largest < float("inf"))  # infinity by itself would be NaN
    scale = ops.where(in_range, largest, ops.ones_like(largest))
    return scale * ops.sqrt(ops.sum(ops.square(tensor / scale)))


def is_smaller(tensors: list, references: list) -> Any:
    """Return as 0.0 or 1.0 whether the largest entry of any of `tensors` is below that of its reference.

    By more than roundings, as a factor of 1 that Keras computes as `clipnorm / clipnorm` is not one.
    """
    # An entry that is clipped or scaled down was a largest one, or came down with it.
    pairs = zip(tensors, references, strict=True)
    smaller = [_largest(t) < _largest(r) * (1 - _rounding(r)) for t, r in pairs]
    return ops.cast(ops.any(ops.stack(smaller)), "float32")


def without_duplicates(gradient: Any) -> Any:
    """Return `gradient` with the rows of the same index added, where it is sparse: its rows alone."""
    if not hasattr(gradient, "indices") or keras.backend.backend() != "tensorflow":
        return gradient
    import tensorflow as tf

    order = tf.argsort(gradient.indices)
    indices = tf.gather(gradient.indices, order)
    steps = tf.not_equal(indices, tf.concat([indices[:1], indices[:-1]], axis=0))
    segments = tf.cumsum(tf.cast(steps, "int32"))
    values = tf.gather(gradient.values, order)
    return tf.math.unsorted_segment_sum(values, segments, tf.shape(indices)[0])


def _sum_of_squares(tensor: Any) -> Any:
    """Return the sum of squares in one pass: a graph of TensorFlow would write the squares down."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.numpy.vdot(tensor, tensor, precision="highest")
    import tensorflow as tf

    return 2 * tf.nn.l2_loss(tensor)


def _rounding(tensor: Any) -> float:
    """Return what the roundings of a few operations may change in numbers of the dtype of `tensor`."""
    digits = {"bfloat16": 8, "float16": 11}  # else float32 decides, in which all is compared
    return 2.0 ** (2 - digits.get(keras.backend.standardize_dtype(tensor.dtype), 22))


def _largest(tensor: Any) -> Any:
    if 0 in tensor.shape:
        return ops.zeros((), "float32")
    return ops.cast(ops.max(ops.abs(tensor)), "float32")


def _torch_norms(tensors: list) -> Any:
    import torch

    def in_dtype(dtype: Any) -> Any:
        # torch refuses to compute in a narrower dtype than that of the tensor.
        dtypes = [torch.promote_types(tensor.dtype, dtype) for tensor in tensors]
        pairs = zip(tensors, dtypes, strict=True)
        return torch.stack([torch.linalg.vector_norm(t.detach(), dtype=d).float() for t, d in pairs])

    exact = getattr(torch, table_dtype())
    # Where asking costs nothing, the faster way first. A GPU would have to be waited for.
    if tensors[0].device.type != "cpu" or torch.compiler.is_compiling():
        return in_dtype(exact)
    in_float32 = in_dtype(torch.float32)
    in_range = torch.all((in_float32 > _LEAST**0.5) & (in_float32 < _MOST**0.5))
    return in_float32 if bool(in_range) else in_dtype(exact)
