"""Dense layers between masks that all rows share, computed without the units that are dropped.

Half of the units of a layer and half of its inputs are a quarter of the arithmetic. It pays where rows are
many, as the kernels of each sample have to be cut out first, and where shapes may vary by sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_dnn_extras._graphs import Call, Value, values_of

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
class _Kept:
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
    """The calls of a tail, of which some leave out what is dropped.

    Args:
        calls: those of the tail.
        outputs: values that are wanted in the end.
        places: for each call of a dropout layer, the place of its mask.
    """

    def __init__(self, calls: list[Call], outputs: Any, places: dict[Call, int]):
        self._calls = calls
        self._takers: dict[Value, list[Call | None]] = {}
        for call in calls:
            for value in call.inputs:
                self._takers.setdefault(value, []).append(call)
        for value in values_of(outputs):
            self._takers.setdefault(value, []).append(None)
        masks = {
            call: place
            for call, place in places.items()
            if _is_mask(call) and all(map(_is_dense, self._takers.get(call.outputs[0], [None])))
        }
        self._masks = masks
        self._next = {call: mask for call in calls if _is_dense(call) and (mask := self._mask_after(call))}

    @property
    def places(self) -> set[int]:
        """Of the masks that are used here, not in the layers."""
        return set(self._masks.values())

    @property
    def saves(self) -> bool:
        """Whether anything is left out at all."""
        return bool(self._next)

    def _mask_after(self, call: Call) -> Call | None:
        """Return the only taker of a layer's units, if that is a mask."""
        takers = self._takers.get(call.outputs[0], [])
        alone = len(takers) == 1 and takers[0] in self._masks and call.operation.activation in _BY_UNIT
        return takers[0] if alone else None

    def kernels(self) -> dict[Call, Any]:
        """Return the kernels that samples are cut from, units first: whole rows are copied fast."""
        return {call: ops.transpose(_in_dtype(call.operation.kernel, call)) + 0 for call in self._next}

    def run(self, known: dict[Value, Any], noise: Callable[[int], Any], kernels: dict[Call, Any]) -> None:
        """Compute all outputs of one sample from the inputs, which are `known`.

        Args:
            kernels: those of `kernels()`.
            noise: returns the mask of a place, of shape `(units,)`.
        """
        kept: dict[Value, _Kept] = {}
        for call in self._calls:
            if call in self._masks:
                if call.outputs[0] not in kept:
                    mask = noise(self._masks[call])
                    kept[call.outputs[0]] = _Kept(known[call.inputs[0]], None, _factors(mask, call))
            elif call in self._next or (_is_dense(call) and call.inputs[0] in kept):
                self._run_dense(call, known, kept, noise, kernels)
            else:
                call.run(known)

    def _run_dense(
        self, call: Call, known: dict, kept: dict[Value, _Kept], noise: Callable, kernels: dict[Call, Any]
    ) -> None:
        layer, value, after = call.operation, call.inputs[0], self._next.get(call)
        given = kept.get(value) or _Kept(known[value], None, None)
        bias = layer.bias
        if after is None:
            axis, kernel = 0, _in_dtype(layer.kernel, call)
        else:
            mask = noise(self._masks[after])
            places = _places(mask)
            axis, kernel = 1, ops.take(kernels[call], places, axis=0)
            bias = None if bias is None else ops.take(bias, places, axis=0)
        factors = given.factors
        if given.places is not None:
            kernel, factors = (ops.take(t, given.places, axis=a) for t, a in ((kernel, axis), (factors, 0)))
        if factors is not None:
            kernel = kernel * ops.expand_dims(ops.cast(factors, kernel.dtype), 1 - axis)
        x = ops.cast(given.tensor, layer.compute_dtype)
        y = ops.einsum("ri,io->ro" if after is None else "ri,oi->ro", x, kernel)
        if bias is not None:
            y = y + ops.cast(bias, y.dtype)
        y = y if layer.activation is None else layer.activation(y)
        if after is None:
            known[call.outputs[0]] = y
        else:
            kept[after.outputs[0]] = _Kept(y, places, _factors(mask, after))


def _in_dtype(variable: Any, call: Call) -> Any:
    return ops.cast(ops.convert_to_tensor(variable), call.operation.compute_dtype)


def _is_mask(call: Call) -> bool:
    """Return whether a call keeps or drops units of shape `(rows, units)`."""
    layer = call.operation
    plain = isinstance(layer, keras.layers.Dropout) and layer.noise_shape is None
    return plain and 0 < layer.rate < 1 and len(call.inputs) == 1 and len(call.inputs[0].shape) == 2


def _is_dense(call: Call | None) -> bool:
    if call is None:
        return False
    layer = call.operation
    if type(layer) is not keras.layers.Dense or len(call.inputs) != 1 or len(call.inputs[0].shape) != 2:
        return False
    return not (getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False))


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
