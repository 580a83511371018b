"""Copies of models, with changes: the one way to make them."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_dnn_extras._graphs.config_copies import copied_by_config, layer_pairs
from keras_dnn_extras._graphs.graph import Graph
from keras_dnn_extras._graphs.graph_copies import Changes, Copy, copied_by_graph
from keras_dnn_extras._graphs.usage import Usage
from keras_dnn_extras._keras_internals import functional_of, stacked_layers


def copy_model(
    model: Any,
    changes: Changes | Callable[[Any], Any] | None = None,
    *,
    graphs: Mapping[int, Graph] | None = None,
    instead: str = "",
) -> Copy:
    """Return a copy of `model` that shares nothing with it, with some changes. It is not compiled.

    There are two branches. Changes of single layers are made by the graph: the copy is a plain functional
    or sequential model, made of a new layer for each old one. Changes of the config, or none, are made by
    the config of the whole model: the copy is of the same class, which may compute in code of its own.

    Args:
        model: a Keras model; for the first branch a functional or sequential one.
        changes: which layers differ; or a function that returns the config of the copy, of that of the
            model; or None.
        graphs: for the first branch, those of the model and of models in it, if they were read before:
            `Copy.tensors` is by their values.
        instead: what the user can do where the model cannot be copied, for errors of the second branch.

    Raises:
        ValueError: the model, or a layer, cannot be made anew from its config.
    """
    if isinstance(changes, Changes):
        return copied_by_graph(model, Usage.of(model).graphs if graphs is None else graphs, changes)
    copy = copied_by_config(model, changes, instead)
    layers = layer_pairs(model, copy)
    models = {id(old): new for old, new in layers if isinstance(old, keras.Model)}
    return Copy(copy, models, {}, {id(old): new for old, new in layers})


def check_followed(model: Any) -> None:
    """Raise if `model` is a built sequential model in which Keras cannot follow a layer.

    Such a layer does not tell the shape of what it makes. The model then trains and predicts, and has
    neither `inputs` nor a graph.

    Raises:
        ValueError: names the layer.
    """
    if not (isinstance(model, keras.Sequential) and model.built) or functional_of(model) is not None:
        return
    first, *later = stacked_layers(model)
    spec = getattr(first, "output", None) if isinstance(first, keras.layers.InputLayer) else None
    for layer in later if spec is not None else []:
        try:
            spec = layer.compute_output_spec(spec)
        except NotImplementedError as error:
            raise ValueError(
                f"The layer {layer.name!r} does not tell the shape of what it makes, so that what comes "
                "after it cannot be followed. Give its class a `compute_output_shape`, or pass "
                f"`output_shape` to a `TorchModuleWrapper`. Received: model={model}, layer={layer}"
            ) from error
