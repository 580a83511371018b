"""The part that layers and tensors have in graphs."""

from typing import Any

import keras

from keras_dnn_extras._rollback import Snapshot


def connections(layer: keras.layers.Layer) -> Snapshot:
    """Return a snapshot of the name of `layer`, and of the nodes that it has in graphs.

    A symbolic call puts a node into a layer: its next call would be known as the second one.
    """
    name, nodes = layer.name, (layer._inbound_nodes, layer._outbound_nodes)
    counts = [len(of_layer) for of_layer in nodes]

    def restore() -> None:
        if layer.name != name:
            layer.name = name
        for of_layer, count in zip(nodes, counts, strict=True):
            del of_layer[count:]

    return restore


def node_of(tensor: Any) -> Any:
    """Return the node that has `tensor` among its outputs, or None where it comes from no call."""
    history = getattr(tensor, "_keras_history", None)
    return history and history.operation._inbound_nodes[history.node_index]


def nodes_within(model: Any) -> list[Any]:
    """Return the nodes of a functional `model`: not all that its layers have, which may be in others."""
    return [node for nodes in model._nodes_by_depth.values() for node in nodes]
