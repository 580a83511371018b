"""Layers that multiply by a scale and add a shift: what they do to the channels of what they take."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_dnn_extras._graphs import Call, ObstacleError, Value
from keras_dnn_extras.fusion import algebra
from keras_dnn_extras.fusion.algebra import Affine
from keras_dnn_extras.fusion.foldable_layers import Flow, Weights


def flows_of(call: Call, weights: Weights | None) -> list[Flow]:
    """Return what a call does at inference: more than one where it is the same number for all channels.

    Args:
        weights: of a batch normalization.

    Raises:
        ObstacleError: it is no scale and shift of channels, or not a finite one.
    """
    layer = call.operation
    if call.kwargs.get("training"):
        raise ObstacleError(f"{layer.name!r} is called with training=True")
    if not has_one_tensor(call):
        raise ObstacleError(f"{layer.name!r} is not called with one tensor")
    if weights is not None:
        affine = algebra.batch_norm_affine(**_statistics(weights), epsilon=layer.epsilon)
        flows = [Flow(affine, layer.axis % len(call.outputs[0].shape))]
    else:
        flows = PREPROCESSING[type(layer)](layer, call.outputs[0])
    if not all(np.all(np.isfinite(array)) for flow in flows for array in flow.affine):
        raise ObstacleError(f"the statistics of {layer.name!r} make scales that are not finite")
    return flows


def cancellation_of(call: Call, weights: Weights | None) -> float:
    """Return how many times their difference the two terms are that a call makes of what is typical."""
    if weights is not None:
        return algebra.batch_norm_cancellation(**_statistics(weights), epsilon=call.operation.epsilon)
    return float(np.max(np.abs(flows_of(call, None)[0].affine.shift)))


def has_one_tensor(call: Call) -> bool:
    return len(call.args) == 1 and isinstance(call.args[0], Value) and len(call.outputs) == 1


def keeps_kind(call: Call) -> bool:
    """Return whether a call takes one tensor, and makes one of the same shape and dtype."""
    if not has_one_tensor(call) or call.kwargs.get("training"):
        return False
    source, output = call.args[0], call.outputs[0]
    return (source.shape, source.dtype) == (output.shape, output.dtype)


def _statistics(weights: Weights) -> dict[str, Any]:
    return {
        "gamma": weights["gamma"],
        "beta": weights["beta"],
        "mean": weights["moving_mean"],
        "variance": weights["moving_variance"],
    }


# -- layers before the first one --------------------------------------------------------------------------


def _rescaling(layer: Any, value: Value) -> list[Flow]:
    scale, offset = (np.asarray(array, "float64") for array in (layer.scale, layer.offset))
    if scale.size > 1 and keras.config.image_data_format() == "channels_first":
        raise ObstacleError(f"{layer.name!r} has a scale for each channel, and they come first")
    return _flows_of(layer, value, scale, offset)


def _normalization(layer: Any, value: Value) -> list[Flow]:
    mean, variance = (
        keras.ops.convert_to_numpy(array).astype("float64") for array in (layer.mean, layer.variance)
    )
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return _flows_of(layer, value, deviation, mean)
    return _flows_of(layer, value, 1 / deviation, -mean / deviation)


def _flows_of(layer: Any, value: Value, scale: np.ndarray, shift: np.ndarray) -> list[Flow]:
    """Return what `scale` and `shift`, of any shapes that broadcast with `value`, are along one axis."""
    scale, shift = np.broadcast_arrays(scale, shift)
    ndim = len(value.shape)
    long = [ndim - scale.ndim + axis for axis, size in enumerate(scale.shape) if size > 1]
    if scale.ndim > ndim or len(long) > 1:
        raise ObstacleError(f"{layer.name!r} has numbers of its own along several axes")
    axes = long or [axis for axis in (ndim - 1, 1) if axis > 0]
    flows = []
    for axis in dict.fromkeys(axes):
        size = value.shape[axis]
        if size is not None:
            scale_and_shift = (np.broadcast_to(array.reshape(-1), (size,)) for array in (scale, shift))
            flows.append(Flow(Affine(*scale_and_shift), axis))
    if not flows:
        raise ObstacleError("the number of its channels is not known")
    return flows


PREPROCESSING: dict[type, Callable[[Any, Value], list[Flow]]] = {
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
}
