"""Which layers are the head of a model, and which share of the learning rate each one has."""

from typing import Any

import keras

from keras_dnn_extras._graphs import Graph
from keras_dnn_extras._models import is_batch_norm, layers_by_path, weights_of, within


def head_and_body(model: keras.Model) -> tuple[list[keras.layers.Layer], list[keras.layers.Layer]]:
    layers = list(layers_by_path(model).values())
    weighty = [layer for layer in layers if weights_of(layer) and not is_batch_norm(layer)]
    if not weighty:
        raise ValueError(f"The model has no layer with weights to train. Received: model={model}")
    trained = [layer for layer in weighty if layer.trainable and layer.trainable_variables]
    if 0 < len(trained) < len(weighty):
        head = [layer for layer in layers if weights_of(layer) and layer.trainable_variables]
    else:
        head = _output_layers(model, weighty)
    chosen = set(map(id, head))
    return head, [layer for layer in layers if id(layer) not in chosen]


def _output_layers(model: keras.Model, weighty: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Return the last layers with weights on the way to the outputs."""
    graph = Graph.of(model)
    if graph is None:
        return weighty[-1:]
    left, found = graph.output_values, []
    while left:
        call = graph.producer(left.pop())
        if call is None:
            continue
        own = (
            [layer for layer in weighty if layer in within([call.operation])]
            if _is_layer(call.operation)
            else []
        )
        if own:
            found.append(own[-1])
        else:
            left += call.inputs
    return [layer for layer in weighty if any(layer is one for one in found)]


def shares_of_rate(
    model: keras.Model, layers: list[keras.layers.Layer], decay: float
) -> list[tuple[keras.layers.Layer, float]]:
    """Return the layers with weights from the first to the last, and the share of the rate of each."""
    place = {id(layer): i for i, layer in enumerate(layers_by_path(model).values())}
    graph = Graph.of(model)
    called: dict[int, int] = {}
    for i, call in enumerate(graph.calls if graph else []):
        if _is_layer(call.operation):
            for layer in within([call.operation]):
                called.setdefault(id(layer), i)
    with_weights = [layer for layer in layers if weights_of(layer)]
    ordered = sorted(with_weights, key=lambda layer: (called.get(id(layer), -1), place[id(layer)]))
    return [(layer, decay**i) for i, layer in zip(range(len(ordered))[::-1], ordered, strict=True)]


def _is_layer(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer)
