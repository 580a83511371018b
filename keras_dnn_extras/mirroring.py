"""The way back through a chain of layers: for each of them one that undoes its shape, in reverse order."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_dnn_extras.surgery import Call, Graph, values_of
from keras_dnn_extras.wording import counted

_CONVOLUTIONS = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.SeparableConv1D, layers.SeparableConv2D),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
)
_TRANSPOSED = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose, 3: layers.Conv3DTranspose}
_POOLINGS = {
    **dict.fromkeys((layers.MaxPooling1D, layers.AveragePooling1D), layers.UpSampling1D),
    **dict.fromkeys((layers.MaxPooling2D, layers.AveragePooling2D), layers.UpSampling2D),
    **dict.fromkeys((layers.MaxPooling3D, layers.AveragePooling3D), layers.UpSampling3D),
}
_PADDINGS: dict[int, Any] = {1: layers.ZeroPadding1D, 2: layers.ZeroPadding2D, 3: layers.ZeroPadding3D}
_CROPPINGS: dict[int, Any] = {1: layers.Cropping1D, 2: layers.Cropping2D, 3: layers.Cropping3D}
_RESHAPINGS = (layers.Flatten, layers.Reshape, layers.Permute)
_RESIZINGS = (*_POOLINGS, *_PADDINGS.values(), *_CROPPINGS.values())
_NORMALIZATIONS = (
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization),
    *(layers.RMSNormalization, layers.UnitNormalization),
)
_ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU, layers.Softmax)
_SCALINGS = (layers.Normalization, layers.Rescaling)
_LEFT_OUT = (
    *(layers.Dropout, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.ActivityRegularization, layers.Identity),
)
_LINEAR = (layers.Dense, *_CONVOLUTIONS)
_KNOWN = (*_LINEAR, *_RESHAPINGS, *_RESIZINGS, *_NORMALIZATIONS, *_ACTIVATIONS, *_SCALINGS, *_LEFT_OUT)


@dataclass(frozen=True)
class Chain:
    """An encoder as calls one after the other.

    Attributes:
        graph: of the encoder.
        front: the calls that bring the inputs to scale, up to the last such one.
        blocks: the others: a dense or convolutional layer in each, with all that comes before the next.
    """

    graph: Graph
    front: list[Call]
    blocks: list[list[Call]]

    @classmethod
    def of(cls, encoder: keras.Model) -> "Chain":
        """Return the chain that `encoder` is.

        Raises:
            ValueError: it is none, or has a layer that cannot be mirrored.
        """
        graph = Graph.of(encoder)
        if graph is None:
            raise ValueError(
                "An encoder that computes in code of its own cannot be mirrored. Make it a functional or "
                f"sequential model. Received: encoder={encoder}"
            )
        _check_chain(encoder, graph)
        front = _front(graph.calls)
        for call in graph.calls:
            _check_layer(call.operation, call in front)
        starts = [i for i, call in enumerate(graph.calls) if isinstance(call.operation, _LINEAR)]
        if not starts:
            raise ValueError(
                "The encoder has no dense or convolutional layer to be mirrored. "
                f"Received: encoder={encoder}"
            )
        bounds = [len(front), *starts[1:], len(graph.calls)]
        blocks = [graph.calls[a:b] for a, b in itertools.pairwise(bounds)]
        return cls(graph, front, blocks)

    @property
    def linear(self) -> list[Any]:
        """The dense and convolutional layers."""
        return [call.operation for call in self.core if isinstance(call.operation, _LINEAR)]

    @property
    def core(self) -> list[Call]:
        """The calls after the front."""
        return [call for block in self.blocks for call in block]


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
            if within and isinstance(layer, _NORMALIZATIONS + _ACTIVATIONS):
                features.insert(0, self._again(layer))
            elif isinstance(layer, _LINEAR):
                if within and layer.activation is not keras.activations.linear:
                    features.insert(0, self._activation(layer.activation, layer.name, layer.dtype_policy))
                made += features
                made += self._linear(call, made)
                features, within = [], True
            elif isinstance(layer, _RESHAPINGS + _RESIZINGS):
                made += [*features, *self._shape(call)]
                features = []
        return [*made, self._activation(activation, "reconstruction", keras.config.floatx())]

    def scale(self, front: list[Call]) -> list[layers.Layer]:
        """Return layers that do the same as the calls of a `front`."""
        return [self._again(call.operation) for call in front if not _is_left_out(call.operation)]

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
            elif isinstance(layer, _RESHAPINGS):
                made += self._shape(call)
        return made

    def _name(self, name: str, suffix: str) -> str:
        first = found = f"{name}_{suffix}" if suffix else name
        count = 1
        while found in self._taken:
            count += 1
            found = f"{first}_{count}"
        self._taken.add(found)
        return found

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
        if hasattr(layer, "kernel_initializer") and isinstance(layer, _CONVOLUTIONS[:3]):
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
        _check_known(call)
        if isinstance(layer, layers.Permute):
            back = tuple(int(i) + 1 for i in np.argsort(layer.dims))
            return [layers.Permute(back, name=self._name(layer.name, "mirrored"))]
        if isinstance(layer, _RESHAPINGS):
            return [layers.Reshape(shape[1:], name=self._name(layer.name, "mirrored"))]
        upsampling = next((up for pool, up in _POOLINGS.items() if isinstance(layer, pool)), None)
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
        _check_known(call)
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
        for edges, kinds, suffix in ((cut, _CROPPINGS, "cropped"), (add, _PADDINGS, "padded")):
            if any(map(any, edges)):
                settings: dict[str, Any] = {"name": self._name(layer.name, suffix)}
                if rank > 1:
                    settings["data_format"] = layer.data_format
                found.append(kinds[rank](edges[0] if rank == 1 else tuple(edges), **settings))
        return found


def _check_chain(encoder: keras.Model, graph: Graph) -> None:
    if len(graph.inputs) != 1 or len(values_of(graph.outputs)) != 1:
        raise ValueError(
            f"Expected `encoder` to have one input and one output. Received: encoder={encoder} with "
            f"{counted(len(graph.inputs), 'input')} and "
            f"{counted(len(values_of(graph.outputs)), 'output')}"
        )
    at = graph.inputs[0]
    for call in graph.calls:
        if call.inputs != [at] or len(call.outputs) != 1:
            raise ValueError(
                f"Expected each layer of `encoder` to take what the one before it makes: {_told(call)} "
                "does not, so there is no one way back. Write the decoder yourself, with `DenseTranspose` "
                f"where weights are to be tied. Received: encoder={encoder}"
            )
        at = call.outputs[0]
    if values_of(graph.outputs) != [at]:
        raise ValueError(
            f"Expected the output of `encoder` to come from its last layer. Received: encoder={encoder}"
        )


def _told(call: Call) -> str:
    return repr(getattr(call.operation, "name", call.operation))


def _front(calls: list[Call]) -> list[Call]:
    """Return the first calls that bring the inputs to scale or to another shape, up to a scaling one."""
    end = 0
    for i, call in enumerate(calls):
        if isinstance(call.operation, _SCALINGS):
            end = i + 1
        elif not isinstance(call.operation, _RESHAPINGS) and not _is_left_out(call.operation):
            break
    return calls[:end]


def _is_left_out(operation: Any) -> bool:
    return operation is keras.ops.cast or isinstance(operation, _LEFT_OUT)


def _check_layer(layer: Any, in_front: bool) -> None:
    told = f"Received: the layer {getattr(layer, 'name', layer)!r}, `{type(layer).__name__}`"
    if type(layer).__name__.startswith("Global"):
        raise ValueError(
            "Global pooling forgets the positions that a reconstruction needs. End the encoder before it, "
            f"and let the head begin with it. {told}"
        )
    if not isinstance(layer, _KNOWN) and not _is_left_out(layer):
        raise ValueError(
            "Expected `encoder` to have dense and convolutional layers, pooling, padding, reshaping, "
            f"normalization, activations and dropout, and no others. {told}"
        )
    if isinstance(layer, _SCALINGS) and not in_front:
        raise ValueError(f"Expected `Normalization` and `Rescaling` to be the first layers. {told}")
    if getattr(layer, "quantization_mode", None) is not None:
        raise ValueError(f"A quantized layer cannot be trained. Quantize the model afterwards. {told}")
    if isinstance(layer, layers.Rescaling) and not np.all(layer.scale):
        raise ValueError(f"Expected `scale` not to be 0. {told}")
    if type(layer).__name__.endswith("1D") and getattr(layer, "data_format", "") == "channels_first":
        raise ValueError(f"Expected layers of one dimension to have the channels last. {told}")


def _check_known(call: Call) -> None:
    shape = call.inputs[0].shape
    if None in shape[1:]:
        raise ValueError(
            f"Expected the shape of the inputs of {_told(call)} to be known, for the way back to it. Give "
            f"`keras.Input` its full shape. Received: shape={shape}"
        )


def _fresh(initializer: Any) -> Any:
    """Return another initializer of the same kind: one with a seed would draw the same numbers again."""
    config = initializer.get_config() if hasattr(initializer, "get_config") else None
    if config is None:
        return initializer
    return type(initializer).from_config({**config, "seed": None} if "seed" in config else config)
