"""The way back through a chain of layers: for each of them one that undoes its shape, in reverse order."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_dnn_extras._graphs import Call
from keras_dnn_extras._models import unique_name
from keras_dnn_extras.pretraining.encoder_chain import (
    ACTIVATIONS,
    CONVOLUTIONS,
    CROPPINGS,
    LINEAR,
    NORMALIZATIONS,
    PADDINGS,
    POOLINGS,
    RESHAPINGS,
    RESIZINGS,
    check_known,
    is_left_out,
)

_TRANSPOSED = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose, 3: layers.Conv3DTranspose}


class Mirror:
    """Makes layers that lead back, each with a name that the others do not have.

    Args:
        transposed_dense: makes the mirror image of a Dense, with `name` and `dtype`; None for a Dense of
            its own.
        taken: names that no layer shall have.
    """

    def __init__(self, transposed_dense: Callable[..., layers.Layer] | None, taken: Any = ()):
        self._transposed_dense = transposed_dense
        self._taken = set(taken)

    def core(self, calls: list[Call], activation: Any = None) -> list[layers.Layer]:
        """Return the layers from the outputs of `calls` to their inputs, in the order of the way back.

        Normalizations and activations come where they are in `calls`: after the layer that leads back to
        their shape, and in the same order. Those of the code and of the inputs have no image; what the
        last layer makes goes through `activation`.
        """
        made: list[layers.Layer] = []
        features: list[layers.Layer] = []  # in the order of `calls`
        within = False  # whether there is a layer with weights behind
        for call in reversed(calls):
            layer = call.operation
            if within and isinstance(layer, NORMALIZATIONS + ACTIVATIONS):
                features.insert(0, self._again(layer))
            elif isinstance(layer, LINEAR):
                if within and layer.activation is not keras.activations.linear:
                    features.insert(0, self._activation(layer.activation, layer.name, layer.dtype_policy))
                made += features
                made += self._linear(call, made)
                features, within = [], True
            elif isinstance(layer, RESHAPINGS + RESIZINGS):
                made += [*features, *self._shape(call)]
                features = []
        return [*made, self._activation(activation, "reconstruction", keras.config.floatx())]

    def scale(self, front: list[Call]) -> list[layers.Layer]:
        """Return layers that do the same as the calls of a `front`."""
        return [self._again(call.operation) for call in front if not is_left_out(call.operation)]

    def unscale(self, front: list[Call]) -> list[layers.Layer]:
        """Return the layers that lead from what a `front` makes back to the inputs."""
        made: list[layers.Layer] = []
        for call in reversed(front):
            layer = call.operation
            if isinstance(layer, layers.Normalization):
                made.append(self._normalization(layer, invert=not layer.invert))
            elif isinstance(layer, layers.Rescaling):
                scale, offset = (np.asarray(v, "float64") for v in (layer.scale, layer.offset))
                name, dtype = self._name(layer.name, "inverted"), keras.config.floatx()
                back = (1 / scale).tolist(), (-offset / scale).tolist()
                made.append(layers.Rescaling(*back, name=name, dtype=dtype))
            elif isinstance(layer, RESHAPINGS):
                made += self._shape(call)
        return made

    def _name(self, name: str, suffix: str) -> str:
        unique = unique_name(f"{name}_{suffix}" if suffix else name, self._taken)
        self._taken.add(unique)
        return unique

    def _again(self, layer: Any) -> layers.Layer:
        if isinstance(layer, layers.Activation):  # its function may be one that is not registered
            return self._activation(layer.activation, layer.name, layer.dtype_policy)
        if isinstance(layer, layers.Normalization):
            return self._normalization(layer, invert=layer.invert)
        name = self._name(layer.name, "mirrored")
        return type(layer).from_config({**layer.get_config(), "name": name, "trainable": True})

    def _activation(self, activation: Any, name: str, dtype: Any) -> layers.Layer:
        suffix = "" if name == "reconstruction" else "mirrored"
        return layers.Activation(activation, name=self._name(name, suffix), dtype=dtype)

    def _normalization(self, layer: Any, invert: bool) -> layers.Layer:
        mean, variance = layer.input_mean, layer.input_variance
        if mean is None:
            mean, variance = map(keras.ops.convert_to_numpy, (layer.adapt_mean, layer.adapt_variance))
        name, dtype = self._name(layer.name, "inverted"), keras.config.floatx()
        return layers.Normalization(
            axis=layer.axis, mean=mean, variance=variance, invert=invert, name=name, dtype=dtype
        )

    def _linear(self, call: Call, made: list[layers.Layer]) -> list[layers.Layer]:
        layer, value = call.operation, call.inputs[0]
        settings: dict[str, Any] = {
            "name": self._name(layer.name, "transposed"),
            "dtype": layer.dtype_policy,
        }
        if isinstance(layer, layers.Dense):
            if self._transposed_dense is not None:
                return [self._transposed_dense(layer, **settings)]
            initializer = _fresh(layer.kernel_initializer)
            return [layers.Dense(value.shape[-1], kernel_initializer=initializer, **settings)]
        if hasattr(layer, "kernel_initializer") and isinstance(layer, CONVOLUTIONS[:3]):
            settings["kernel_initializer"] = _fresh(layer.kernel_initializer)
        last = layer.data_format == "channels_last"
        again = _TRANSPOSED[layer.rank](
            value.shape[-1 if last else 1],
            layer.kernel_size,
            strides=layer.strides,
            padding="valid" if layer.padding == "valid" else "same",
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
            **settings,
        )
        return [again, *self._fitted(call, again)]

    def _shape(self, call: Call) -> list[layers.Layer]:
        layer, shape = call.operation, call.inputs[0].shape
        check_known(call)
        if isinstance(layer, layers.Permute):
            back = tuple(int(i) + 1 for i in np.argsort(layer.dims))
            return [layers.Permute(back, name=self._name(layer.name, "mirrored"))]
        if isinstance(layer, RESHAPINGS):
            return [layers.Reshape(shape[1:], name=self._name(layer.name, "mirrored"))]
        upsampling = next((up for pool, up in POOLINGS.items() if isinstance(layer, pool)), None)
        if upsampling is None:
            return self._fitted(call, None)
        name = self._name(layer.name, "mirrored")
        settings = {} if upsampling is layers.UpSampling1D else {"data_format": layer.data_format}
        size = layer.strides[0] if upsampling is layers.UpSampling1D else layer.strides
        again = upsampling(size, name=name, **settings)
        return [again, *self._fitted(call, again)]

    def _fitted(self, call: Call, again: Any) -> list[layers.Layer]:
        """Return what crops or pads the outputs of `again` to the inputs of `call`.

        Where the layer has not seen the last pixels, as with strides and no padding, they are zeros. What
        a layer has padded or cropped itself, without `again`, is cropped or padded in the same places.
        """
        check_known(call)
        layer: Any = call.operation
        shape, made = call.inputs[0].shape, call.outputs[0].shape
        given = again.compute_output_shape((None, *made[1:])) if again is not None else made
        rank = len(shape) - 2
        first = 2 if getattr(layer, "data_format", None) == "channels_first" else 1
        more = [(shape[first + i] or 0) - (given[first + i] or 0) for i in range(rank)]
        add, cut = ([(0, max(sign * m, 0)) for m in more] for sign in (1, -1))
        if again is None and hasattr(layer, "cropping"):
            add = [layer.cropping] if rank == 1 else list(layer.cropping)
        elif again is None:
            cut = [layer.padding] if rank == 1 else list(layer.padding)
        found: list[layers.Layer] = []
        for edges, kinds, suffix in ((cut, CROPPINGS, "cropped"), (add, PADDINGS, "padded")):
            if any(map(any, edges)):
                settings: dict[str, Any] = {"name": self._name(layer.name, suffix)}
                if rank > 1:
                    settings["data_format"] = layer.data_format
                found.append(kinds[rank](edges[0] if rank == 1 else tuple(edges), **settings))
        return found


def _fresh(initializer: Any) -> Any:
    """Return another initializer of the same kind: one with a seed would draw the same numbers again."""
    config = initializer.get_config() if hasattr(initializer, "get_config") else None
    if config is None:
        return initializer
    return type(initializer).from_config({**config, "seed": None} if "seed" in config else config)
