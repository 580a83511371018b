"""Give a trained model another head."""

import re
from collections.abc import Sequence
from typing import Any

import keras

from keras_dnn_extras._arguments import check_bool, counted
from keras_dnn_extras._backends import random_states_kept
from keras_dnn_extras._graphs import check_followed, copy_model, trial_copies
from keras_dnn_extras._keras_internals import functional_of
from keras_dnn_extras._models import (
    layers_by_path,
    near,
    set_trainable,
    unconnected,
    unconnected_on_error,
    unique_name,
    within,
)
from keras_dnn_extras.transfer.freezing import check_model


def replace_head(
    model: keras.Model, head: Any, *, after: str | None = None, freeze_body: bool = True
) -> keras.Model:
    """Return a new model: the body of `model`, copied, under another head.

    Training it leaves `model` as it was. It takes the inputs that `model` takes, also those that the body
    does not need. What the class of `model` does besides computing its graph, such as a `train_step` of its
    own, is not copied.

    Args:
        model: a functional or sequential model that is built.
        head: a layer, a list of layers, one after the other, or a model. It is taken as it is, no copy.
        after: name or path of the last layer of the body. None: all but the last layer of the model.
        freeze_body: whether to freeze the body, as `freeze` does.

    Returns:
        A functional model, or a sequential one if `model` is that. It is not compiled.

    Raises:
        ValueError: there is no layer `after`, or the model cannot be cut there or copied; a layer of
            the head has the name of one of the body; the model has a preprocessor, as tasks of KerasHub.
        TypeError: `model` is no model, or `head` no layer, list of layers or model.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> new_model = replace_head(model, keras.layers.Dense(3, activation="softmax"))
    >>> new_model.output_shape
    (None, 3)
    >>> [layer.trainable for layer in new_model.layers]
    [False, True]

    Reference:
        Donahue et al., DeCAF, 2013 (https://arxiv.org/abs/1310.1531).
    """
    check_model(model)
    check_bool("freeze_body", freeze_body)
    heads = list(head) if isinstance(head, (list, tuple)) else [head]
    if not heads or not all(isinstance(layer, keras.layers.Layer) for layer in heads):
        raise TypeError(
            f"Expected `head` to be a layer, a list of layers or a model. Received: head={head!r}"
        )
    if after is not None and not isinstance(after, str):
        raise TypeError(f"Expected `after` to be the name of a layer. Received: after={after!r}")
    _check_cut(model, after)
    body = _cut(copy_model(model).model, after)
    if freeze_body:
        set_trainable(body, within([body]), False)
    with unconnected_on_error(heads):
        _set_apart(heads, body)
        _try(body, heads)
        new = _joined(body, heads)
    new.dtype_policy = model.dtype_policy  # tells `compile` whether to scale the loss
    return new


def _joined(body: keras.Model, heads: list[keras.layers.Layer]) -> keras.Model:
    if isinstance(body, keras.Sequential):
        return keras.Sequential([_input_of(body), *body.layers, *heads], name=body.name)
    outputs = body.outputs[0] if len(body.outputs) == 1 else body.output
    for layer in heads:
        outputs = layer(outputs)
    return keras.Model(body.input, outputs, name=body.name)


def _try(body: keras.Model, heads: list[keras.layers.Layer]) -> None:
    """Raise what calls of `heads` would raise, before any is built, as far as they can be copied."""
    copies = trial_copies(heads)
    if copies is None:
        return
    with unconnected([body, *copies]), random_states_kept():
        _joined(body, copies)


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


def _check_cut(model: keras.Model, after: str | None) -> None:
    _check_graph(model)
    if not model.built:
        raise ValueError(
            "The model has no weights yet. Give it a `keras.Input`, or call it on data. "
            f"Received: model={model}"
        )
    _check_preprocessor(model)
    if after is None:
        last = _output_layer(model)
        if isinstance(last, keras.Model):
            raise ValueError(
                f"The last layer of the model, {last.name!r}, is a model itself. Name the layer to cut "
                f"after, one within it maybe. {near(last.name + '/', _paths(model))} Received: after=None"
            )
    elif after not in _paths(model):
        if after in layers_by_path(model, nested_models=True, inner_layers=True):
            raise ValueError(
                f"The layer {after!r} is within a layer that calls it by itself: the model cannot be "
                f"cut there. Cut after the outer one. Received: after={after!r}"
            )
        raise ValueError(
            f"The model has no layer of the name {after!r}. {near(after, _paths(model))} "
            f"Received: after={after!r}"
        )


def _paths(model: keras.Model) -> list[str]:
    return list(layers_by_path(model, nested_models=True))


def _output_layer(model: keras.Model) -> keras.layers.Layer:
    if isinstance(model, keras.Sequential):
        return model.layers[-1]
    last = {tensor._keras_history[:2] for tensor in model.outputs}
    if len(last) > 1:
        names = ", ".join(sorted({repr(layer.name) for layer, _ in last}))
        raise ValueError(
            f"The model has outputs of several layers, or of several calls: {names}. Name the layer to cut "
            "after. Received: after=None"
        )
    return last.pop()[0]


def _cut(model: keras.Model, after: str | None) -> keras.Model:
    """Return `model` up to the layer `after`, or without its output layer."""
    _check_graph(model)
    if isinstance(model, keras.Sequential):
        return _cut_sequential(model, after)
    if after is None:
        return _model_to(model, _given_to(*model.outputs[0]._keras_history[:2]))
    name, _, inner = after.partition("/")
    layer = _named(model, name)
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes if node.operation is layer]
    if len(nodes) != 1:
        raise ValueError(
            f"The layer {name!r} is called {counted(len(nodes), 'time')}, so the model cannot be cut after "
            f"it. Received: after={after!r}"
        )
    if not inner:
        return _model_to(model, _packed(nodes[0].outputs))
    arguments = nodes[0].arguments
    outputs = _cut(layer, inner)(*arguments.args, **arguments.kwargs)
    return _model_to(model, outputs)


def _given_to(layer: Any, place: int) -> Any:
    """Return what the output layer is called on in its call number `place`."""
    arguments = layer._inbound_nodes[place].arguments
    others = {name: value for name, value in arguments.kwargs.items() if not name.endswith("mask")}
    given = [
        value
        for value in (*arguments.args, *others.values())
        if any(isinstance(part, keras.KerasTensor) for part in keras.tree.flatten(value))
    ]
    if len(given) != 1:
        raise ValueError(
            f"The output layer {layer.name!r} has {counted(len(given), 'argument')}, and a head takes one. "
            "Name the layer to cut after. Received: after=None"
        )
    return given[0]


def _named(model: keras.Model, name: str) -> keras.layers.Layer:
    for layer in model.layers:
        if layer.name == name:
            return layer
    raise ValueError(
        f"The copy of the layer {name!r} has another name. Give its class a `get_config` that tells the "
        f"name, and an `__init__` that takes it. Received: model={model}"
    )


def _cut_sequential(model: keras.Sequential, after: str | None) -> keras.Sequential:
    layers = model.layers
    if after is None:
        kept = layers[:-1]
    else:
        name, _, inner = after.partition("/")
        place = layers.index(_named(model, name))
        kept = layers[: place + 1]
        if inner:
            kept[-1] = _cut(kept[-1], inner)
    if not kept:
        raise ValueError(f"The model has no layer but its head. Received: model={model}")
    return keras.Sequential([_input_of(model), *kept], name=model.name)


def _input_of(model: keras.Sequential) -> keras.layers.Layer:
    """Return the input layer of `model`, no other one: what its layers return begins with that."""
    return model.inputs[0]._keras_history.operation


def _model_to(model: keras.Model, outputs: Any) -> keras.Model:
    """Return the model from those of the inputs that `outputs` need."""
    return keras.Model(model.input, outputs, name=model.name)


def _packed(outputs: Sequence[Any]) -> Any:
    return outputs[0] if len(outputs) == 1 else list(outputs)


def _set_apart(heads: list[keras.layers.Layer], body: keras.Model) -> None:
    """Give layers that Keras named, and that are not built, a name that the body does not have."""
    taken = {layer.name for layer in body.layers}
    for layer in heads:
        if layer.name not in taken:
            taken.add(layer.name)
            continue
        by_keras = re.fullmatch(
            rf"{keras.src.utils.naming.to_snake_case(type(layer).__name__)}(_\d+)?", layer.name
        )
        if layer.built or not by_keras:
            raise ValueError(
                f"The body has a layer of the name {layer.name!r} too. Give that of the head another name. "
                f"Received: head={heads}"
            )
        layer.name = unique_name(layer.name, taken, first=1)
        taken.add(layer.name)
