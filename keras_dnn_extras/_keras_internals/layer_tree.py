"""The layers within a layer."""

from typing import Any

import keras

from keras_dnn_extras._keras_internals.private_names import private_attribute

_FEATURE = "Going through the layers of a model"


def flat_layers(layer: Any, *, include_self: bool = True, recursive: bool = True) -> list[Any]:
    """Return `layer` and all layers within it, each once, from the outside in.

    Args:
        include_self: whether `layer` is among them.
        recursive: whether the layers within those within it are.
    """
    walk = private_attribute(layer, "_flatten_layers", _FEATURE)
    return list(walk(include_self=include_self, recursive=recursive))


def stacked_layers(model: keras.Sequential) -> list[Any]:
    """Return the layers of a sequential model in order, its input layer among them."""
    return private_attribute(model, "_layers", _FEATURE)


def is_built(model: keras.Model) -> bool:
    """Return whether `model` and all of its layers have their weights."""
    return all(layer.built for layer in flat_layers(model))


def own_variables(layer: Any) -> list[keras.Variable]:
    """Return the variables of `layer` itself, without those of the layers within it."""
    kinds = ("_trainable_variables", "_non_trainable_variables")
    return [variable for kind in kinds for variable in private_attribute(layer, kind, _FEATURE)]
