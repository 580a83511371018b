"""Layers that multiply by a kernel: which they are, what is in the way of folding, and how it is done."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import activations, layers

from keras_dnn_extras._graphs import Call, ObstacleError, Value, values_of
from keras_dnn_extras._keras_internals import PROJECTIONS, projection
from keras_dnn_extras.fusion import algebra
from keras_dnn_extras.fusion.algebra import Affine

Weights = Mapping[str, Any]
"""Weights of a layer in float64, by the path of their attribute: None where the layer has none."""


@dataclass(frozen=True)
class Flow:
    """What goes along an edge of the graph: an affine map of the channels, which are one axis."""

    affine: Affine
    axis: int

    @property
    def shifts(self) -> bool:
        return bool(np.any(self.affine.shift))


class Linear:
    """How weights of one kind of layer are read, folded and told in a config."""

    paths: tuple[str, ...] = ("kernel", "bias")

    def weights(self, layer: Any) -> dict[str, Any]:
        return {path: _read(layer, path) for path in self.paths}

    def config(self, layer: Any, weights: Weights) -> dict[str, Any]:
        """Return what is different in the config of a layer with these `weights`."""
        return {"use_bias": any(w is not None for path, w in weights.items() if path.endswith("bias"))}

    def backward(self, call: Call, weights: Weights, flow: Flow) -> dict[str, Any]:
        """Return the weights with `flow` of the outputs of the layer in them."""
        check_linear(call.operation)
        _check_axis(call.operation, flow, self.channels(call.operation, rank(call.outputs[0])))
        kernel, bias = self.after(weights["kernel"], weights["bias"], flow.affine)
        return {**weights, "kernel": kernel, "bias": bias}

    def forward(self, call: Call, value: Value, weights: Weights, flow: Flow) -> dict[str, Any]:
        """Return the weights with `flow` of the input `value` of the layer in them."""
        check_only_input(call, value)
        _check_axis(call.operation, flow, self.channels(call.operation, rank(value)))
        if flow.shifts:
            self.check_shift(call.operation)
        kernel, bias = self.before(call.operation, weights["kernel"], weights["bias"], flow.affine)
        return {**weights, "kernel": kernel, "bias": bias}

    def channels(self, layer: Any, ndim: int) -> int:
        return ndim - 1

    def after(self, kernel: Any, bias: Any, affine: Affine) -> tuple:
        return algebra.fold_outputs(kernel, bias, affine)

    def before(self, layer: Any, kernel: Any, bias: Any, affine: Affine) -> tuple:
        return algebra.fold_inputs(kernel, bias, affine)

    def check_shift(self, layer: Any) -> None:
        """Raise where what the layer does with a constant is not the same at all positions."""


class Convolution(Linear):
    def channels(self, layer: Any, ndim: int) -> int:
        return channel_axis(layer, ndim)

    def before(self, layer: Any, kernel: Any, bias: Any, affine: Affine) -> tuple:
        return algebra.fold_inputs(kernel, bias, affine, layer.groups)

    def check_shift(self, layer: Any) -> None:
        if layer.padding != "valid" and any(size > 1 for size in layer.kernel_size):
            raise ObstacleError(f"the padding of {layer.name!r} makes zeros, which would not be shifted")


class Depthwise(Convolution):
    def after(self, kernel: Any, bias: Any, affine: Affine) -> tuple:
        return algebra.fold_depthwise_outputs(kernel, bias, affine)

    def before(self, layer: Any, kernel: Any, bias: Any, affine: Affine) -> tuple:
        return algebra.fold_depthwise_inputs(kernel, bias, affine)


class Separable(Convolution):
    paths = ("depthwise_kernel", "pointwise_kernel", "bias")

    def backward(self, call: Call, weights: Weights, flow: Flow) -> dict[str, Any]:
        named = {"kernel": weights["pointwise_kernel"], "bias": weights["bias"]}
        folded = super().backward(call, named, flow)
        return {**weights, "pointwise_kernel": folded["kernel"], "bias": folded["bias"]}

    def forward(self, call: Call, value: Value, weights: Weights, flow: Flow) -> dict[str, Any]:
        named = {"kernel": weights, "bias": weights["bias"]}
        folded: Any = super().forward(call, value, named, flow)
        return {**weights, "depthwise_kernel": folded["kernel"], "bias": folded["bias"]}

    def before(self, layer: Any, kernel: Any, bias: Any, affine: Affine) -> tuple:
        return algebra.fold_separable_inputs(
            kernel["depthwise_kernel"], kernel["pointwise_kernel"], bias, affine
        )


class Transposed(Convolution):
    """A transposed convolution, whose kernel has the channels that come out before those that go in."""

    def after(self, kernel: Any, bias: Any, affine: Affine) -> tuple:
        return algebra.fold_outputs(kernel, bias, affine, axis=-2)

    def before(self, layer: Any, kernel: Any, bias: Any, affine: Affine) -> tuple:
        return algebra.fold_outputs(kernel, None, affine)[0], bias

    def check_shift(self, layer: Any) -> None:
        raise ObstacleError(f"{layer.name!r} makes another number of sums of a shift at its borders")


class Einsum(Linear):
    def weights(self, layer: Any) -> dict[str, Any]:
        weights = super().weights(layer)
        bias = weights["bias"]
        if bias is not None:  # an axis for each label of the outputs
            ndim = len(_labels(layer)[2])
            weights["bias"] = bias.reshape((1,) * (ndim - bias.ndim) + bias.shape)
        return weights

    def config(self, layer: Any, weights: Weights) -> dict[str, Any]:
        bias = weights["bias"]
        if bias is None:
            return {}
        _, of_kernel, axes = _labels(layer)
        long = [label for label, size in zip(axes, bias.shape, strict=True) if size > 1]
        named = [label for label in axes if label in long or label in (layer.bias_axes or "")]
        # One number: along an axis of the kernel, as Keras may not know the length of others.
        return {"bias_axes": "".join(named or [label for label in axes if label in of_kernel][:1])}

    def backward(self, call: Call, weights: Weights, flow: Flow) -> dict[str, Any]:
        check_linear(call.operation)
        _, of_kernel, of_outputs = _labels(call.operation)
        channel = _label_at(of_outputs, flow.axis - rank(call.outputs[0]))
        if channel not in of_kernel:
            raise ObstacleError(f"the channels are none of those that {call.operation.name!r} makes")
        labels = (of_kernel, of_outputs)
        kernel, bias = algebra.fold_einsum_outputs(
            weights["kernel"], weights["bias"], flow.affine, labels, channel
        )
        return {"kernel": kernel, "bias": bias}

    def forward(self, call: Call, value: Value, weights: Weights, flow: Flow) -> dict[str, Any]:
        check_only_input(call, value)
        of_inputs, of_kernel, of_outputs = _labels(call.operation)
        channel = _label_at(of_inputs, flow.axis - rank(value))
        summed = [label for label in of_inputs if label not in of_outputs]
        if channel not in of_kernel or any(label not in of_kernel for label in summed):
            raise ObstacleError(f"{call.operation.name!r} has no kernel along the channels")
        labels = (of_kernel, of_outputs)
        kernel, bias = algebra.fold_einsum_inputs(
            weights["kernel"], weights["bias"], flow.affine, labels, channel
        )
        return {"kernel": kernel, "bias": bias}


class Recurrent(Linear):
    paths = ("cell.kernel", "cell.bias")

    def backward(self, call: Call, weights: Weights, flow: Flow) -> dict[str, Any]:
        raise ObstacleError(f"{call.operation.name!r} is not linear")

    def forward(self, call: Call, value: Value, weights: Weights, flow: Flow) -> dict[str, Any]:
        layer = call.operation
        check_only_input(call, value)
        _check_axis(layer, flow, rank(value) - 1)
        kernel, bias = algebra.fold_inputs(weights["cell.kernel"], None, flow.affine)
        old = weights["cell.bias"]
        if bias is not None and getattr(layer, "reset_after", False):  # one bias for inputs, one for states
            bias = np.stack([bias, np.zeros_like(bias)])
        if bias is not None and old is not None:
            bias = bias + old
        return {"cell.kernel": kernel, "cell.bias": old if bias is None else bias}


class Attention(Linear):
    """Multi-head attention, which makes queries, keys and values of its inputs with a kernel each."""

    def weights(self, layer: Any) -> dict[str, Any]:
        parts = [part for name, part in PROJECTIONS.items() if projection(layer, name) is not None]
        return {f"{part}.{name}": _read(layer, f"{part}.{name}") for part in parts for name in Linear.paths}

    def backward(self, call: Call, weights: Weights, flow: Flow) -> dict[str, Any]:
        raise ObstacleError(f"{call.operation.name!r} is not linear")

    def forward(self, call: Call, value: Value, weights: Weights, flow: Flow) -> dict[str, Any]:
        layer = call.operation
        arguments = dict(zip(("query", "value", "key"), call.args, strict=False)) | call.kwargs
        if arguments.get("key") is None:
            arguments["key"] = arguments.get("value")
        rest = {name: v for name, v in arguments.items() if name not in ("query", "value", "key")}
        if value in values_of(rest):
            raise ObstacleError(f"{layer.name!r} takes it as something else than query, key or value")
        _check_axis(layer, flow, rank(value) - 1)
        projected = [name for name in ("query", "key", "value") if arguments.get(name) is value]
        if "query" in projected and f"{PROJECTIONS['gate']}.kernel" in weights:
            projected.append("gate")
        folded = dict(weights)
        for part in (PROJECTIONS[name] for name in projected):
            folded[f"{part}.kernel"], folded[f"{part}.bias"] = algebra.fold_first_axis(
                weights[f"{part}.kernel"], weights[f"{part}.bias"], flow.affine
            )
        if any(w is not None for path, w in folded.items() if path.endswith("bias")):
            _add_zeros(folded)
        return folded


def _add_zeros(weights: dict[str, Any]) -> None:
    """Give each part of an attention layer a bias, as all have one or none."""
    for path in [path for path, value in weights.items() if path.endswith("bias") and value is None]:
        kernel = weights[path.replace("bias", "kernel")]
        inputs = 2 if path.startswith(PROJECTIONS["output"]) else 1
        weights[path] = np.zeros(kernel.shape[inputs:])


LINEAR: dict[type, Linear] = {
    layers.Dense: Linear(),
    layers.EinsumDense: Einsum(),
    **dict.fromkeys([layers.Conv1D, layers.Conv2D, layers.Conv3D], Convolution()),
    **dict.fromkeys([layers.DepthwiseConv1D, layers.DepthwiseConv2D], Depthwise()),
    **dict.fromkeys([layers.SeparableConv1D, layers.SeparableConv2D], Separable()),
    **dict.fromkeys([layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose], Transposed()),
    **dict.fromkeys([layers.LSTM, layers.GRU, layers.SimpleRNN], Recurrent()),
    **dict.fromkeys([layers.MultiHeadAttention, layers.GroupQueryAttention], Attention()),
}
"""By class, and by no subclass of it, which may do something else."""


class Normalizing(Linear):
    """A batch normalization, which takes another one that follows it."""

    paths = ("gamma", "beta", "moving_mean", "moving_variance")

    def config(self, layer: Any, weights: Weights) -> dict[str, Any]:
        return {"center": weights["beta"] is not None, "scale": weights["gamma"] is not None}

    def backward(self, call: Call, weights: Weights, flow: Flow) -> dict[str, Any]:
        layer = call.operation
        if call.kwargs.get("training"):
            raise ObstacleError(f"{layer.name!r} is called with training=True")
        _check_axis(layer, flow, layer.axis % rank(call.outputs[0]))
        gamma = np.ones_like(weights["moving_mean"]) if weights["gamma"] is None else weights["gamma"]
        gamma, beta = algebra.fold_outputs(gamma, weights["beta"], flow.affine)
        return {**weights, "gamma": gamma, "beta": beta}


NORMALIZING: dict[type, Linear] = {layers.BatchNormalization: Normalizing()}


def precision_of(layer: Any) -> str:
    """Return the dtype that a layer really computes with."""
    if layer.compute_dtype == "float64" and keras.backend.backend() != "tensorflow":
        return "float32"  # which Keras turns products of float64 into
    return layer.compute_dtype


def channel_axis(layer: Any, ndim: int) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else ndim - 1


def rank(value: Value) -> int:
    return len(value.shape)


def check_linear(layer: Any) -> None:
    activation = getattr(layer, "activation", None)
    if activation is not None and activation is not activations.linear:
        name = getattr(activation, "__name__", type(activation).__name__)
        raise ObstacleError(f"{layer.name!r} has the activation {name!r} in it")


def check_only_input(call: Call, value: Value) -> None:
    """Raise unless `value` is the first argument of the call, and no other."""
    first = call.args[0] if call.args else next(iter(call.kwargs.values()), None)
    if first is not value or sum(v is value for v in call.inputs) != 1:
        raise ObstacleError(f"{call.operation.name!r} takes it as something else than its inputs")


def _check_axis(layer: Any, flow: Flow, channels: int) -> None:
    if flow.axis != channels:
        raise ObstacleError(
            f"the channels of {layer.name!r} are axis {channels}, and those normalized are axis {flow.axis}"
        )


def _labels(layer: Any) -> tuple[str, str, str]:
    """Return the labels of inputs, kernel and outputs of an `EinsumDense`, but an ellipsis at the left."""
    operands, outputs = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    labels = tuple(each.removeprefix("...") for each in (inputs, kernel, outputs))
    if any("." in each for each in labels):
        raise ObstacleError(f"the equation of {layer.name!r} has its ellipsis at the right")
    return labels


def _label_at(labels: str, axis: int) -> str:
    """Return the label of an axis counted from the end: a blank where the ellipsis stands for it."""
    return labels[axis] if -axis <= len(labels) else " "


def _read(layer: Any, path: str) -> np.ndarray | None:
    variable = operator.attrgetter(path)(layer) if _has(layer, path) else None
    return None if variable is None else keras.ops.convert_to_numpy(variable).astype("float64")


def _has(layer: Any, path: str) -> bool:
    # `SimpleRNN` and its like have no attribute `bias` where they have none.
    *parts, last = path.split(".")
    return getattr(operator.attrgetter(".".join(parts))(layer) if parts else layer, last, None) is not None
