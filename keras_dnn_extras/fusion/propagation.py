"""How a scale and a shift of channels propagate through each kind of layer."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers

from keras_dnn_extras._graphs import Call, ObstacleError, Value, values_of
from keras_dnn_extras.fusion.algebra import Affine
from keras_dnn_extras.fusion.foldable_layers import Flow, channel_axis, check_only_input, rank

Branches = list[tuple[Value, Flow]]
"""The inputs of a call, and what has to come in at each."""


def before(call: Call, flow: Flow) -> Branches:
    """Return what has to come in for `flow` to come out of a call, at each of its inputs.

    Raises:
        ObstacleError: it is not the same as anything that comes in.
    """
    kind = type(call.operation)
    if kind in _MERGES:
        return _MERGES[kind](call, flow)
    value = _only_value(call)
    check_only_input(call, value)
    if kind in _ALIKE:
        _check_passes(call, flow, value)
        return [(value, Flow(flow.affine, _axis_before(call, flow.axis, value)))]
    if kind in (layers.Flatten, layers.Reshape):
        return [(value, _reshaped(flow, call.outputs[0], value, _first_channels(call)))]
    raise ObstacleError(_not_linear(call))


def after(call: Call, value: Value, flow: Flow) -> Flow:
    """Return what comes out of a call when `flow` comes in at `value`.

    Raises:
        ObstacleError: it does not come out.
    """
    kind = type(call.operation)
    if kind is layers.Concatenate:
        return _after_concatenate(call, value, flow)
    check_only_input(call, value)
    if kind in _ALIKE:
        _check_passes(call, flow, value)
        return Flow(flow.affine, _axis_after(call, flow.axis, value))
    if kind in (layers.Flatten, layers.Reshape):
        return _reshaped(flow, value, call.outputs[0], False, _first_channels(call))
    raise ObstacleError(_not_linear(call))


def _only_value(call: Call) -> Value:
    first = call.args[0] if len(call.args) == 1 else None
    if not isinstance(first, Value) or len(call.outputs) != 1:
        raise ObstacleError(_not_linear(call))
    return first


def _not_linear(call: Call) -> str:
    name = call.operation.name
    return (
        f"{name!r} ({type(call.operation).__name__}) is in the way, which a scale and a shift do not pass"
    )


# -- layers that do the same with each channel -----------------------------------------------------------

_MAXIMUM = {
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
}
_GLOBAL = {
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
}
_PADDING = {layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D}
_ALIKE = {
    *_MAXIMUM,
    *_GLOBAL,
    *_PADDING,
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
    *(layers.Permute, layers.RepeatVector),
}


def _check_passes(call: Call, flow: Flow, value: Value) -> None:
    layer, name = call.operation, call.operation.name
    if type(layer) in _MAXIMUM and np.any(flow.affine.scale < 0):
        raise ObstacleError(f"{name!r} takes maxima, and some scales are negative")
    if type(layer) in _PADDING and flow.shifts:
        raise ObstacleError(f"{name!r} pads with zeros, which would not be shifted")
    if getattr(layer, "interpolation", "nearest") not in ("nearest", "bilinear"):
        raise ObstacleError(f"{name!r} interpolates with weights that need not add up to 1")
    if len(call.inputs) > 1:
        raise ObstacleError(f"{name!r} has a mask")


def _axis_after(call: Call, axis: int, value: Value) -> int:
    layer, ndim = call.operation, rank(value)
    if type(layer) is layers.Permute:
        return 1 + list(layer.dims).index(axis)
    if type(layer) is layers.RepeatVector:
        return 2
    _check_channels(layer, axis, channel_axis(layer, ndim))
    return channel_axis(layer, rank(call.outputs[0]))


def _axis_before(call: Call, axis: int, value: Value) -> int:
    layer = call.operation
    if type(layer) is layers.Permute:
        return layer.dims[axis - 1]
    if type(layer) is layers.RepeatVector:
        _check_channels(layer, axis, 2)
        return 1
    _check_channels(layer, axis, channel_axis(layer, rank(call.outputs[0])))
    return channel_axis(layer, rank(value))


def _check_channels(layer: Any, axis: int, channels: int) -> None:
    if axis != channels:
        raise ObstacleError(
            f"the channels of {layer.name!r} are axis {channels}, and those normalized are axis {axis}"
        )


# -- layers that move elements ---------------------------------------------------------------------------


def _first_channels(call: Call) -> bool:
    layer = call.operation
    return type(layer) is layers.Flatten and layer.data_format == "channels_first"


def _reshaped(flow: Flow, old: Value, new: Value, move_out: bool, move_in: bool = False) -> Flow:
    """Return `flow` for the elements of one value in the shape of another.

    `Flatten` with the channels first moves them to the end before: `move_in`, and back: `move_out`.
    """
    shapes: Any = [old.shape[1:], new.shape[1:]]
    if flow.axis == 0 or any(size is None for shape in shapes for size in shape):
        raise ObstacleError("its shape is not known, and what becomes of the channels")
    if move_out:
        shapes[1] = (*shapes[1][1:], shapes[1][0])
    reshaped = []
    for values in flow.affine:
        ones = [-1 if axis == flow.axis else 1 for axis in range(1, rank(old))]
        values = np.broadcast_to(values.reshape(ones), shapes[0])
        values = (np.moveaxis(values, 0, -1) if move_in else values).reshape(shapes[1])
        reshaped.append(np.moveaxis(values, -1, 0) if move_out else values)
    scale, shift = reshaped
    for axis in reversed(range(scale.ndim)):
        other_axes = tuple(i for i in range(scale.ndim) if i != axis)
        if all(np.all(a == a.max(axis=other_axes, keepdims=True)) for a in reshaped):
            return Flow(Affine(scale.max(axis=other_axes), shift.max(axis=other_axes)), axis + 1)
    raise ObstacleError("its channels are not one axis of what comes before")


# -- layers with several inputs --------------------------------------------------------------------------


def _merged(call: Call) -> list[Value]:
    terms = values_of(call.args)
    if len(terms) != len(call.inputs) or any(v.shape != call.outputs[0].shape for v in terms):
        raise ObstacleError(f"{call.operation.name!r} has a mask, or inputs of several shapes")
    _check_different(call, terms)
    return terms


def _check_different(call: Call, values: list[Value]) -> None:
    if len(set(values)) < len(values):  # each would have to be folded into the same layer
        raise ObstacleError(f"{call.operation.name!r} takes the same tensor twice")


def _before_sum(call: Call, flow: Flow) -> Branches:
    """All terms are scaled, and one of them is shifted."""
    first, *rest = _merged(call)
    scaled = Flow(Affine(flow.affine.scale, np.zeros_like(flow.affine.shift)), flow.axis)
    return [(first, flow), *((term, scaled) for term in rest)]


def _before_mean(call: Call, flow: Flow) -> Branches:
    return [(value, flow) for value in _merged(call)]


def _before_concatenate(call: Call, flow: Flow) -> Branches:
    branches, start = [], 0
    axis = call.operation.axis % rank(call.outputs[0])
    joined = values_of(call.args)
    if len(joined) != len(call.inputs):
        raise ObstacleError(f"{call.operation.name!r} has a mask")
    _check_different(call, joined)
    if axis != flow.axis:
        return [(value, flow) for value in joined]
    for value in joined:
        size = value.shape[axis]
        if size is None:
            raise ObstacleError(f"{call.operation.name!r} joins an unknown number of channels")
        part = slice(start, start + size)
        branches.append((value, Flow(Affine(flow.affine.scale[part], flow.affine.shift[part]), axis)))
        start += size
    return branches


def _after_concatenate(call: Call, value: Value, flow: Flow) -> Flow:
    axis = call.operation.axis % rank(call.outputs[0])
    joined = values_of(call.args)
    if axis != flow.axis or len(joined) != len(call.inputs) or sum(v is value for v in joined) != 1:
        raise ObstacleError(
            f"{call.operation.name!r} joins it with others, which are not normalized with it"
        )
    parts = []
    for other in joined:
        if other.shape[axis] is None:
            raise ObstacleError(f"{call.operation.name!r} joins an unknown number of channels")
        ones = np.ones(other.shape[axis])
        parts.append(flow.affine if other is value else Affine(ones, np.zeros_like(ones)))
    scale, shift = map(np.concatenate, zip(*parts, strict=True))
    return Flow(Affine(scale, shift), axis)


_MERGES: dict[type, Callable[[Call, Flow], Branches]] = {
    layers.Add: _before_sum,
    layers.Subtract: _before_sum,  # the second is subtracted, scaled
    layers.Average: _before_mean,
    layers.Concatenate: _before_concatenate,
}
