"""Which layers are the head of a model, and how fast each layer learns."""

from typing import Any

import keras

from keras_dnn_extras._graphs import Graph
from keras_dnn_extras._models import is_batch_norm, layers_by_path, weights_of, with_inner_layers


def head_and_body(model: keras.Model) -> tuple[list[keras.layers.Layer], list[keras.layers.Layer]]:
    """Return the layers that train first, and all others."""
    layers = list(layers_by_path(model).values())
    weighted = [layer for layer in layers if weights_of(layer) and not is_batch_norm(layer)]
    if not weighted:
        raise ValueError(f"The model has no layer with weights to train. Received: model={model}")
    trained = [layer for layer in weighted if layer.trainable and layer.trainable_variables]
    if 0 < len(trained) < len(weighted):
        head = [layer for layer in layers if weights_of(layer) and layer.trainable_variables]
    else:
        head = _output_layers(model, weighted)
    chosen = set(map(id, head))
    return head, [layer for layer in layers if id(layer) not in chosen]


def _output_layers(model: keras.Model, weighted: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Return those of the layers with weights that come last on the way to each output."""
    graph = Graph.of(model)
    if graph is None:
        return weighted[-1:]
    values, output_layers = list(graph.output_values), []
    while values:
        call = graph.producer(values.pop())
        if call is None:
            continue
        within = set(map(id, with_inner_layers([call.operation]))) if _is_layer(call.operation) else set()
        with_weights = [layer for layer in weighted if id(layer) in within]
        if with_weights:
            output_layers.append(with_weights[-1])
        else:
            values += call.inputs
    return [layer for layer in weighted if any(layer is one for one in output_layers)]


def learning_rate_multipliers(
    model: keras.Model, layers: list[keras.layers.Layer], decay: float
) -> list[tuple[keras.layers.Layer, float]]:
    """Return by what the learning rate of each layer with weights is multiplied, first layers first."""
    order = {id(layer): i for i, layer in enumerate(layers_by_path(model).values())}
    first_calls = _first_calls(model)
    with_weights = [layer for layer in layers if weights_of(layer)]
    ordered = sorted(with_weights, key=lambda layer: (first_calls.get(id(layer), -1), order[id(layer)]))
    from_output = range(len(ordered))[::-1]
    return [(layer, decay**i) for i, layer in zip(from_output, ordered, strict=True)]


def _first_calls(model: keras.Model) -> dict[int, int]:
    """Return the number of the first call of each layer, by `id(layer)`, where the graph tells it."""
    graph = Graph.of(model)
    numbers: dict[int, int] = {}
    for i, call in enumerate(graph.calls if graph else []):
        if _is_layer(call.operation):
            for layer in with_inner_layers([call.operation]):
                numbers.setdefault(id(layer), i)
    return numbers


def _is_layer(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer)
