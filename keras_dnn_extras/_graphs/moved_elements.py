"""Layers that hand elements on as they are, maybe in other places: back to where they come from."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_dnn_extras._graphs.calls import Call, Value, values_of
from keras_dnn_extras._graphs.no_ops import NO_OPS, is_no_op

# Of `keras.ops`, whose classes are not public. What they take is what they return, in other places.
_MOVING = {"GetItem", "Reshape", "ExpandDims", "Squeeze", "Transpose", "Ravel", "Cast"}
_SAME = {*NO_OPS, layers.Masking}
_RESIZING = {layers.Resizing, layers.CenterCrop, layers.RandomCrop}


def movement(call: Call, value: Value) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return how elements of what a call returns go back to the places that they have in `value`.

    Where that is not known all of them get the mean.
    """
    operation, kind = call.operation, type(call.operation)
    is_cast = operation is keras.ops.cast or kind.__name__ == "Cast"
    if kind in _RESIZING:
        return _resizing(value.shape, call.outputs[0].shape)
    is_random = kind.__name__.startswith("Random")  # and changes nothing at inference
    if is_cast or is_random or kind in _SAME or is_no_op(operation):
        return lambda array: array
    behind: Any = (1, *call.outputs[0].shape[1:])
    if kind is layers.Concatenate:
        return _part(call, value, behind)
    before: Any = (1, *value.shape[1:])
    are_known = None not in (*before, *behind)
    if kind is layers.Permute:
        back = np.argsort([0, *operation.dims])
        return lambda array: np.broadcast_to(array, behind).transpose(back) if are_known else np.mean(array)
    if kind in (layers.Flatten, layers.Reshape) or kind.__name__ in _MOVING:
        whole = are_known and np.prod(behind) == np.prod(before)
        channels_first = getattr(operation, "data_format", None) == "channels_first"
        in_order = kind in (layers.Flatten, layers.Reshape) and not channels_first
        return _reshaping(before, behind) if whole and in_order else np.mean
    return None


def _resizing(shape: tuple, behind: tuple) -> Callable[[np.ndarray], np.ndarray]:
    """Return what takes the mean over axes that have another length behind: no place is the same there."""

    def spread(array: np.ndarray) -> np.ndarray:
        array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
        pairs = zip(shape, behind, strict=True)
        axes = tuple(axis for axis, (before, after) in enumerate(pairs) if axis and before != after)
        return array.mean(axis=axes, keepdims=True)

    return spread


def _reshaping(shape: tuple, behind: tuple) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.broadcast_to(array, behind).reshape(shape)


def _part(call: Call, value: Value, behind: tuple) -> Callable[[np.ndarray], np.ndarray] | None:
    axis = call.operation.axis % len(behind)
    joined = values_of(call.args)
    if any(other.shape[axis] is None for other in joined):
        return None
    before = joined[: next(i for i, other in enumerate(joined) if other is value)]
    start = sum(other.shape[axis] or 0 for other in before)
    part = [slice(None)] * len(behind)
    part[axis] = slice(start, start + (value.shape[axis] or 0))

    def cut(array: np.ndarray) -> np.ndarray:
        array = array.reshape((1,) * (len(behind) - array.ndim) + array.shape)
        return array[tuple(part)] if array.shape[axis] > 1 else array

    return cut
