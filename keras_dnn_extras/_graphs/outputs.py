"""Which activation makes each output of a model, as far as its graph tells."""

from typing import Any

import keras

from keras_dnn_extras._graphs.calls import Value
from keras_dnn_extras._graphs.graph import Graph

OF_CLASSES = ("softmax", "sparsemax")  # over the last axis
OF_ONE_UNIT = ("sigmoid", "hard_sigmoid", "sparse_sigmoid")
_LAYERS = keras.layers
_ENDS_WITH_ACTIVATION = (
    *(_LAYERS.Dense, _LAYERS.EinsumDense, _LAYERS.Activation),
    *(_LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv3D),
    *(_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose, _LAYERS.Conv3DTranspose),
    *(_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D, _LAYERS.SeparableConv1D, _LAYERS.SeparableConv2D),
)
_AROUND_A_LAYER = (_LAYERS.TimeDistributed, _LAYERS.SpectralNormalization)  # with the values of its call
_KEEP_VALUES = ("Identity", "Cast", "cast")  # layers, operations and functions, by name
_KEEP_NUMBERS = ("Flatten", "Reshape", "Squeeze", "ExpandDims")  # in another shape


def output_activations(graph: Graph) -> list[str | None]:
    """Return the name of the activation that makes each output, flat.

    It is `""` for one that is no activation of classes, such as a linear one, and None where the graph does
    not tell.
    """
    return [_activation(value, graph) for value in graph.output_values]


def is_of_probabilities(activation: str | None) -> bool:
    """Return whether an activation makes probabilities."""
    return activation in (*OF_CLASSES, *OF_ONE_UNIT)


def _activation(value: Value, graph: Graph) -> str | None:
    is_reshaped = False
    while (call := graph.producer(value)) is not None:
        operation = call.operation
        while isinstance(operation, _AROUND_A_LAYER) and _is_of_keras(operation):
            operation = operation.layer
        if not _is_of_keras(operation):
            return None
        name = getattr(operation, "__name__", type(operation).__name__)
        if name not in (*_KEEP_VALUES, *_KEEP_NUMBERS) and not _is_linear_activation(operation):
            activation = _last(operation, name)
            is_of_other_axis = is_reshaped and activation in OF_CLASSES
            return None if is_of_other_axis else activation
        is_reshaped |= name in _KEEP_NUMBERS
        value = call.inputs[0]
    return None


def _last(operation: Any, name: str) -> str | None:
    """Return the activation that an operation ends with."""
    if isinstance(operation, _ENDS_WITH_ACTIVATION):
        return _name(operation.activation)
    if name == "Softmax":
        return "softmax" if operation.axis in (-1, [-1], (-1,)) else None
    return "sigmoid" if name == "Sigmoid" else None


def _name(function: Any) -> str | None:
    if function is None:
        return ""
    name = getattr(function, "__name__", None)
    if name is None or not str(function.__module__).startswith("keras."):
        return None
    return name if name in (*OF_CLASSES, *OF_ONE_UNIT) else ""


def _is_linear_activation(operation: Any) -> bool:
    return isinstance(operation, _LAYERS.Activation) and operation.activation is keras.activations.linear


def _is_of_keras(operation: Any) -> bool:
    function = type(operation).call if hasattr(type(operation), "call") else operation
    return str(getattr(function, "__module__", "")).startswith(("keras.", "keras_dnn_extras."))
