"""An encoder as a chain of layers that each can be undone."""

import itertools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._graphs import Call, Graph
from keras_dnn_extras._models import is_quantized

CONVOLUTIONS = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.SeparableConv1D, layers.SeparableConv2D),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
)
POOLINGS = {
    **dict.fromkeys((layers.MaxPooling1D, layers.AveragePooling1D), layers.UpSampling1D),
    **dict.fromkeys((layers.MaxPooling2D, layers.AveragePooling2D), layers.UpSampling2D),
    **dict.fromkeys((layers.MaxPooling3D, layers.AveragePooling3D), layers.UpSampling3D),
}
PADDINGS: dict[int, Any] = {1: layers.ZeroPadding1D, 2: layers.ZeroPadding2D, 3: layers.ZeroPadding3D}
CROPPINGS: dict[int, Any] = {1: layers.Cropping1D, 2: layers.Cropping2D, 3: layers.Cropping3D}
RESHAPINGS = (layers.Flatten, layers.Reshape, layers.Permute)
RESIZINGS = (*POOLINGS, *PADDINGS.values(), *CROPPINGS.values())
NORMALIZATIONS = (
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization),
    *(layers.RMSNormalization, layers.UnitNormalization),
)
ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU, layers.Softmax)
_SCALINGS = (layers.Normalization, layers.Rescaling)
_LEFT_OUT = (
    *(layers.Dropout, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.ActivityRegularization, layers.Identity),
)
LINEAR = (layers.Dense, *CONVOLUTIONS)
_MIRRORED_KINDS = (*LINEAR, *RESHAPINGS, *RESIZINGS, *NORMALIZATIONS, *ACTIVATIONS, *_SCALINGS, *_LEFT_OUT)


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
        starts = [i for i, call in enumerate(graph.calls) if isinstance(call.operation, LINEAR)]
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
        return [call.operation for call in self.core if isinstance(call.operation, LINEAR)]

    @property
    def core(self) -> list[Call]:
        """The calls after the front."""
        return [call for block in self.blocks for call in block]


def _check_chain(encoder: keras.Model, graph: Graph) -> None:
    if len(graph.inputs) != 1 or len(graph.output_values) != 1:
        raise ValueError(
            f"Expected `encoder` to have one input and one output. Received: encoder={encoder} with "
            f"{counted(len(graph.inputs), 'input')} and "
            f"{counted(len(graph.output_values), 'output')}"
        )
    value = graph.inputs[0]
    for call in graph.calls:
        if call.inputs != [value] or len(call.outputs) != 1:
            raise ValueError(
                f"Expected each layer of `encoder` to take what the one before it makes: {_name(call)} "
                "does not, so there is no one way back. Write the decoder yourself, with `DenseTranspose` "
                f"where weights are to be tied. Received: encoder={encoder}"
            )
        value = call.outputs[0]
    if graph.output_values != [value]:
        raise ValueError(
            f"Expected the output of `encoder` to come from its last layer. Received: encoder={encoder}"
        )


def _name(call: Call) -> str:
    return repr(getattr(call.operation, "name", call.operation))


def _front(calls: list[Call]) -> list[Call]:
    """Return the first calls that bring the inputs to scale or to another shape, up to a scaling one."""
    end = 0
    for i, call in enumerate(calls):
        if isinstance(call.operation, _SCALINGS):
            end = i + 1
        elif not isinstance(call.operation, RESHAPINGS) and not is_left_out(call.operation):
            break
    return calls[:end]


def is_left_out(operation: Any) -> bool:
    return operation is keras.ops.cast or isinstance(operation, _LEFT_OUT)


def _check_layer(layer: Any, in_front: bool) -> None:
    received = f"Received: the layer {getattr(layer, 'name', layer)!r}, `{type(layer).__name__}`"
    if type(layer).__name__.startswith("Global"):
        raise ValueError(
            "Global pooling forgets the positions that a reconstruction needs. End the encoder before it, "
            f"and let the head begin with it. {received}"
        )
    if not isinstance(layer, _MIRRORED_KINDS) and not is_left_out(layer):
        raise ValueError(
            "Expected `encoder` to have dense and convolutional layers, pooling, padding, reshaping, "
            f"normalization, activations and dropout, and no others. {received}"
        )
    if isinstance(layer, _SCALINGS) and not in_front:
        raise ValueError(f"Expected `Normalization` and `Rescaling` to be the first layers. {received}")
    if is_quantized(layer):
        raise ValueError(f"A quantized layer cannot be trained. Quantize the model afterwards. {received}")
    if isinstance(layer, layers.Rescaling) and not np.all(layer.scale):
        raise ValueError(f"Expected `scale` not to be 0. {received}")
    if type(layer).__name__.endswith("1D") and getattr(layer, "data_format", "") == "channels_first":
        raise ValueError(f"Expected layers of one dimension to have the channels last. {received}")


def check_shape_known(call: Call) -> None:
    shape = call.inputs[0].shape
    if None in shape[1:]:
        raise ValueError(
            f"Expected the shape of the inputs of {_name(call)} to be known, for the way back to it. Give "
            f"`keras.Input` its full shape. Received: shape={shape}"
        )
