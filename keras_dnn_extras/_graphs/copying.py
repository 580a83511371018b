"""Copies of whole models, made from their configs."""

from collections.abc import Callable
from typing import Any

import keras

# Private, as Keras tells the files' own way of keeping shared objects shared nowhere else.
from keras.src.saving.serialization_lib import ObjectSharingScope

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._backends import value_on_host
from keras_dnn_extras._graphs.layer_configs import NO_CONFIG, serialized
from keras_dnn_extras._graphs.rewriting import copy_adapted


def copied(model: keras.Model, converted: Callable[[Any], Any] | None = None, instead: str = "") -> Any:
    """Return a copy of `model` that shares nothing with it, not compiled.

    `clone_model` loses optional and sparse inputs, and leaves nodes in the layers of the original.

    Args:
        converted: changes the config of the copy, or None.
        instead: what the user can do where the model cannot be copied, for errors.

    Raises:
        ValueError: the model cannot be rebuilt from its config.
    """
    # Not those of Keras: `Add`, for one, is the name of a layer and of an operation.
    kinds = {type(layer) for layer in model._flatten_layers()}
    custom = {
        keras.saving.get_registered_name(kind): kind
        for kind in kinds
        if kind.__module__.split(".")[0] != "keras"
    }
    instead = f", or {instead}" if instead else ""
    try:
        with ObjectSharingScope():
            config = serialized(model)
            config.pop("compile_config", None)
            config = converted(config) if converted else config
            # The config was made here and now: it holds no code but the model's own.
            copy = keras.saving.deserialize_keras_object(config, custom_objects=custom, safe_mode=False)
    except NO_CONFIG as error:
        raise ValueError(
            "The model cannot be rebuilt from its config. Give its classes `get_config` and `from_config`"
            f"{instead}. Received: model={model}"
        ) from error
    if model.built and len(copy.weights) != len(model.weights):
        raise ValueError(
            f"The copy of the model has {counted(len(copy.weights), 'weight')}, not {len(model.weights)}: "
            "a layer is shared between nested models, or is made by the first call. Share it in one model, "
            f"or make it in `__init__`{instead}. Received: model={model}"
        )
    for new, old in zip(copy.weights, model.weights, strict=False):
        new.assign(value_on_host(old))
    for old, new in zip(model._flatten_layers(), copy._flatten_layers(), strict=False):
        if type(new) is type(old) or new.name == old.name:  # their order can differ
            copy_adapted(old, new)
    return copy
