"""The part that layers and tensors have in graphs."""

from typing import Any

import keras

from keras_dnn_extras._keras_internals.nodes import node_of, nodes_of_calls
from keras_dnn_extras._keras_internals.private_names import private_attribute
from keras_dnn_extras._rollback import Snapshot

_FEATURE = "Undoing calls of layers"


def connections(layer: keras.layers.Layer) -> Snapshot:
    """Return a snapshot of the name of `layer`, and of the nodes that it has in graphs.

    A symbolic call puts a node into a layer: its next call would be known as the second one.
    """
    name = layer.name
    nodes = [nodes_of_calls(layer), private_attribute(layer, "_outbound_nodes", _FEATURE)]
    counts = [len(of_layer) for of_layer in nodes]

    def restore() -> None:
        if layer.name != name:
            layer.name = name
        for of_layer, count in zip(nodes, counts, strict=True):
            del of_layer[count:]

    return restore


def recorded_node(tensor: Any) -> Any:
    """Return the node that makes a Keras tensor, or None where it comes from no symbolic call."""
    return node_of(tensor) if hasattr(tensor, "_keras_history") else None
