"""Dense layers between masks that all rows share, computed without the units that are dropped.

Half of the units of a layer and half of its inputs are a quarter of the arithmetic. It pays where rows are
many, as the kernels of each sample have to be cut out first, and where shapes may vary by sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_dnn_extras._graphs import Call, Graph, Value
from keras_dnn_extras._models import computes_with_its_kernel

_BY_UNIT = [  # activations that look at one unit at a time
    getattr(keras.activations, name)
    for name in (
        "linear",
        "relu",
        "elu",
        "selu",
        "gelu",
        "tanh",
        "sigmoid",
        "silu",
        "softplus",
        "leaky_relu",
    )
]


@dataclass
class _Units:
    """The units that a mask keeps.

    Attributes:
        tensor: of shape `(rows, units)`: all of them, or the kept ones alone.
        places: which they are, if `tensor` has them alone.
        factors: of shape `(units,)`: by what the mask multiplies all of them, or None for 1.
    """

    tensor: Any
    places: Any
    factors: Any


class Thinned:
    """A part of a graph, of which some calls leave out what is dropped.

    Args:
        graph: the part.
        places: for each call of a dropout layer, the place of its mask.
    """

    def __init__(self, graph: Graph, places: dict[Call, int]):
        self._graph = graph
        outputs = set(graph.output_values)

        def goes_to_dense(call: Call) -> bool:
            consumers = graph.consumers(call.outputs[0])
            return bool(consumers) and call.outputs[0] not in outputs and all(map(_is_dense, consumers))

        self._masks = {
            call: place for call, place in places.items() if _is_mask(call) and goes_to_dense(call)
        }
        # Of each dense layer whose units a mask drops some of: the mask.
        self._mask_after = {
            call: mask
            for call in graph.calls
            if _is_dense(call) and (mask := self._only_mask(call, outputs))
        }

    @property
    def places(self) -> set[int]:
        """Of the masks that are used here, not in the layers."""
        return set(self._masks.values())

    @property
    def saves(self) -> bool:
        """Whether anything is left out at all."""
        return bool(self._mask_after)

    def _only_mask(self, call: Call, outputs: set[Value]) -> Call | None:
        """Return the only consumer of a layer's units, if that is a mask."""
        consumers = self._graph.consumers(call.outputs[0])
        if len(consumers) != 1 or call.outputs[0] in outputs or consumers[0] not in self._masks:
            return None
        return consumers[0] if call.operation.activation in _BY_UNIT else None

    def kernels(self) -> dict[Call, Any]:
        """Return the kernels that samples are cut from, units first: whole rows are copied fast."""
        return {
            call: ops.transpose(_in_dtype(call.operation.kernel, call)) + 0 for call in self._mask_after
        }

    def run(self, tensors: list, noise: Callable[[int], Any], kernels: dict[Call, Any]) -> Any:
        """Return the outputs of one sample.

        Args:
            tensors: one for each input of the graph.
            noise: returns the mask of a place, of shape `(units,)`.
            kernels: those of `kernels()`.
        """
        units: dict[Value, _Units] = {}

        def run_call(call: Call, computed: dict[Value, Any]) -> None:
            if call in self._masks:
                if call.outputs[0] not in units:
                    mask = noise(self._masks[call])
                    units[call.outputs[0]] = _Units(computed[call.inputs[0]], None, _factors(mask, call))
            elif call in self._mask_after or (_is_dense(call) and call.inputs[0] in units):
                self._run_dense(call, computed, units, noise, kernels)
            else:
                call.run(computed)

        return self._graph.run(tensors, run_call)

    def _run_dense(
        self,
        call: Call,
        computed: dict,
        units: dict[Value, _Units],
        noise: Callable,
        kernels: dict[Call, Any],
    ) -> None:
        layer, value, after = call.operation, call.inputs[0], self._mask_after.get(call)
        inputs = units.get(value) or _Units(computed[value], None, None)
        bias = layer.bias
        if after is None:
            axis, kernel = 0, _in_dtype(layer.kernel, call)
        else:
            mask = noise(self._masks[after])
            places = _places(mask)
            axis, kernel = 1, ops.take(kernels[call], places, axis=0)
            bias = None if bias is None else ops.take(bias, places, axis=0)
        factors = inputs.factors
        if inputs.places is not None:
            kernel = ops.take(kernel, inputs.places, axis=axis)
            factors = ops.take(factors, inputs.places, axis=0)
        if factors is not None:
            kernel = kernel * ops.expand_dims(ops.cast(factors, kernel.dtype), 1 - axis)
        x = ops.cast(inputs.tensor, layer.compute_dtype)
        y = ops.einsum("ri,io->ro" if after is None else "ri,oi->ro", x, kernel)
        if bias is not None:
            y = y + ops.cast(bias, y.dtype)
        y = y if layer.activation is None else layer.activation(y)
        if after is None:
            computed[call.outputs[0]] = y
        else:
            units[after.outputs[0]] = _Units(y, places, _factors(mask, after))


def _in_dtype(variable: Any, call: Call) -> Any:
    return ops.cast(ops.convert_to_tensor(variable), call.operation.compute_dtype)


def _is_mask(call: Call) -> bool:
    """Return whether a call keeps or drops units of shape `(rows, units)`."""
    layer = call.operation
    plain = isinstance(layer, keras.layers.Dropout) and layer.noise_shape is None
    return plain and 0 < layer.rate < 1 and len(call.inputs) == 1 and len(call.inputs[0].shape) == 2


def _is_dense(call: Call) -> bool:
    layer = call.operation
    if type(layer) is not keras.layers.Dense or len(call.inputs) != 1 or len(call.inputs[0].shape) != 2:
        return False
    return computes_with_its_kernel(layer)


def _factors(mask: Any, call: Call) -> Any:
    return ops.cast(mask, "float32") * (1 / (1 - call.operation.rate))


def _places(mask: Any) -> Any:
    """Return where a mask keeps something: at least one place, as products without a term may crash."""
    first = ops.arange(mask.shape[0]) == 0
    mask = ops.logical_or(mask, ops.logical_and(first, ops.logical_not(ops.any(mask))))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.where(mask)[:, 0]
    return mask.nonzero()[:, 0]
