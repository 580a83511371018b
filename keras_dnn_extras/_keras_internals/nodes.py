"""Nodes: how Keras records which operation was called with which tensors."""

from typing import Any

from keras_dnn_extras._keras_internals.private_names import private_attribute

_FEATURE = "Reading a model as a graph"


def nodes_in_order(functional: Any) -> list[Any]:
    """Return the nodes of a functional model, each after those whose tensors it takes.

    `nodes_of_calls` would have stale ones too, of models that were there before.
    """
    by_depth = private_attribute(functional, "_nodes_by_depth", _FEATURE)
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def operation_of(tensor: Any) -> Any:
    """Return the operation that makes a Keras tensor: for an input of a model its input layer."""
    return private_attribute(tensor, "_keras_history", _FEATURE).operation


def nodes_of_calls(operation: Any) -> list[Any]:
    """Return the list, not a copy, of the nodes of the symbolic calls of an operation, in their order."""
    return private_attribute(operation, "_inbound_nodes", _FEATURE)


def node_of(tensor: Any) -> Any:
    """Return the node that makes a Keras tensor."""
    operation, index, _ = private_attribute(tensor, "_keras_history", _FEATURE)
    return nodes_of_calls(operation)[index]


def first_node(layer: Any) -> Any:
    """Return the node of the first symbolic call of `layer`, or None where there was none."""
    nodes = nodes_of_calls(layer)
    return nodes[0] if nodes else None
