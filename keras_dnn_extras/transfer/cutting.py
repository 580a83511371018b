"""The body of a model: what is left of it when it is cut after a layer."""

from collections.abc import Sequence
from typing import Any, cast

import keras

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._graphs import Call, Graph, check_followed, fill_in, values_of
from keras_dnn_extras._keras_internals import functional_of, operation_of
from keras_dnn_extras._models import layers_by_path, similar_names


def check_cut(model: keras.Model, after: str | None) -> None:
    """Raise where `cut` could not cut `model`, or would not know where."""
    _check_graph(model)
    if not model.built:
        raise ValueError(
            "The model has no weights yet. Give it a `keras.Input`, or call it on data. "
            f"Received: model={model}"
        )
    _check_preprocessor(model)
    if after is None:
        _check_output_layer(model)
    else:
        _check_named(model, after)


def _check_output_layer(model: keras.Model) -> None:
    last = _output_layer(model)
    if isinstance(last, keras.Model):
        raise ValueError(
            f"The last layer of the model, {last.name!r}, is a model itself. Name the layer to cut "
            f"after, one within it maybe. {similar_names(last.name + '/', _paths(model))} "
            "Received: after=None"
        )


def _check_named(model: keras.Model, after: str) -> None:
    paths = _paths(model)
    if after in paths:
        return
    if after in layers_by_path(model, nested_models=True, inner_layers=True):
        raise ValueError(
            f"The layer {after!r} is within a layer that calls it by itself: the model cannot be "
            f"cut there. Cut after the outer one. Received: after={after!r}"
        )
    raise ValueError(
        f"The model has no layer of the name {after!r}. {similar_names(after, paths)} "
        f"Received: after={after!r}"
    )


def _check_graph(model: keras.Model) -> None:
    if functional_of(model) is not None:
        return
    check_followed(model)
    is_sequential = isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call
    if is_sequential and model.built:
        raise ValueError(
            "The first layer of the model takes several tensors, so that Keras has no graph of the model. "
            f"Make it a functional model. Received: model={model}"
        )
    if not is_sequential:
        raise ValueError(
            "A model that computes in code of its own cannot be cut. Make the body a functional or "
            f"sequential model. Received: model={model}"
        )


def _check_preprocessor(model: Any) -> None:
    """Refuse a task of KerasHub, which does more in `fit` and `predict` than its graph tells."""
    preprocessor = getattr(model, "preprocessor", None)
    functional: Any = functional_of(model)
    if preprocessor is None or any(preprocessor is operation for operation in functional.operations):
        return
    raise ValueError(
        f"The model {model.name!r} prepares its inputs in `fit` and `predict`, by its `preprocessor`, "
        "which a new model does not do. Set `model.preprocessor = None`, or call "
        "`replace_head(model.backbone, head, after=...)`, and give the new model what it makes. "
        f"Received: model={model}, with preprocessor={preprocessor}"
    )


def _paths(model: keras.Model) -> list[str]:
    return list(layers_by_path(model, nested_models=True))


def _output_layer(model: keras.Model) -> keras.layers.Layer:
    if isinstance(model, keras.Sequential):
        return model.layers[-1]
    return _output_call(_graph_of(model)).operation


def _graph_of(model: keras.Model) -> Graph:
    """Return the graph of a functional model, with a single call for a model in it."""
    return cast(Graph, Graph.of(model, nested="keep"))  # `_check_graph` has refused models without one


def _output_call(graph: Graph) -> Call:
    calls = {graph.producer(value) for value in graph.output_values}
    if len(calls) > 1:
        names = ", ".join(sorted(repr(call.operation.name) if call else "an input" for call in calls))
        raise ValueError(
            f"The model has outputs of several layers, or of several calls: {names}. Name the layer to cut "
            "after. Received: after=None"
        )
    call = calls.pop()
    if call is None:
        raise ValueError("The model returns its inputs, and has no head to replace. Received: after=None")
    return call


def cut(model: keras.Model, after: str | None) -> keras.Model:
    """Return `model` up to the layer `after`, or without its output layer."""
    _check_graph(model)
    if isinstance(model, keras.Sequential):
        return _cut_sequential(model, after)
    graph = _graph_of(model)
    if after is None:
        return _model_to(model, fill_in(_input_of_head(_output_call(graph)), graph.tensors))
    name, _, inner = after.partition("/")
    layer = _named(model, name)
    if isinstance(layer, keras.layers.InputLayer):
        return _model_to(model, layer.output)
    call = _only_call(graph, layer, after)
    if not inner:
        return _model_to(model, _packed([graph.tensors[value] for value in call.outputs]))
    args, kwargs = fill_in((call.args, call.kwargs), graph.tensors)
    return _model_to(model, cut(layer, inner)(*args, **kwargs))


def _only_call(graph: Graph, layer: keras.layers.Layer, after: str) -> Call:
    calls = [call for call in graph.calls if call.operation is layer]
    if len(calls) != 1:
        raise ValueError(
            f"The layer {layer.name!r} is called {counted(len(calls), 'time')}, so the model cannot be cut "
            f"after it. Received: after={after!r}"
        )
    return calls[0]


def _cut_sequential(model: keras.Sequential, after: str | None) -> keras.Sequential:
    body = model.layers[:-1] if after is None else _layers_up_to(model, after)
    if not body:
        raise ValueError(f"The model has no layer but its head. Received: model={model}")
    return keras.Sequential([input_layer(model), *body], name=model.name)


def _layers_up_to(model: keras.Sequential, after: str) -> list[keras.layers.Layer]:
    name, _, inner = after.partition("/")
    layers = model.layers
    layers = layers[: layers.index(_named(model, name)) + 1]
    return [*layers[:-1], cut(layers[-1], inner)] if inner else layers


def _input_of_head(call: Call) -> Any:
    """Return what the output layer takes in `call`, besides masks."""
    named = [argument for name, argument in call.kwargs.items() if not name.endswith("mask")]
    arguments = [argument for argument in (*call.args, *named) if values_of(argument)]
    if len(arguments) != 1:
        raise ValueError(
            f"The output layer {call.operation.name!r} has {counted(len(arguments), 'argument')}, and a "
            "head takes one. Name the layer to cut after. Received: after=None"
        )
    return arguments[0]


def _named(model: keras.Model, name: str) -> keras.layers.Layer:
    for layer in model.layers:
        if layer.name == name:
            return layer
    raise ValueError(
        f"The copy of the layer {name!r} has another name. Give its class a `get_config` that tells the "
        f"name, and an `__init__` that takes it. Received: model={model}"
    )


def input_layer(model: keras.Sequential) -> keras.layers.Layer:
    """Return the input layer of `model`, no other one: what its layers return begins with that."""
    return operation_of(model.inputs[0])


def _model_to(model: keras.Model, outputs: Any) -> keras.Model:
    """Return the model from those of the inputs that `outputs` need."""
    return keras.Model(model.input, outputs, name=model.name)


def _packed(outputs: Sequence[Any]) -> Any:
    return outputs[0] if len(outputs) == 1 else list(outputs)
