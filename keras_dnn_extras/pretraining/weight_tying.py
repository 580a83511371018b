"""Which Dense layer a tied one belongs to: found again in copies."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import tree


def layers_before(structure: Any) -> list[keras.layers.Layer] | None:
    """Return the layers that symbolic tensors come from, those of nested models too; None of others."""
    tensors = [t for t in tree.flatten(structure) if isinstance(t, keras.KerasTensor)]
    if not tensors:
        return None
    seen: dict[int, Any] = {}
    found: dict[int, keras.layers.Layer] = {}
    while tensors:
        history = getattr(tensors.pop(), "_keras_history", None)
        node = history and history.operation._inbound_nodes[history.node_index]
        if node is None or id(node) in seen:
            continue
        seen[id(node)] = node
        if isinstance(node.operation, keras.layers.Layer):
            found.update((id(layer), layer) for layer in node.operation._flatten_layers())
        tensors += node.input_tensors
    return list(found.values())


def twins(layer: keras.layers.Layer, layers: Iterable[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Return those of `layers` that are `layer`, or, if it is none of them, have its class and its name."""
    alike = [other for other in layers if type(other) is type(layer) and other.name == layer.name]
    return [other for other in alike if other is layer] or alike
