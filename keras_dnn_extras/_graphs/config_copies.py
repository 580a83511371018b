"""Copies of layers and models, made from their configs: also of those that compute in code of their own."""

from collections.abc import Callable
from typing import Any

import keras

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._backends import value_on_host
from keras_dnn_extras._graphs.layer_configs import NO_CONFIG, serialized
from keras_dnn_extras._graphs.layer_copies import copy_adapted
from keras_dnn_extras._keras_internals import flat_layers, sharing_objects


def copied_by_config(
    model: Any, with_changes: Callable[[Any], Any] | None = None, instead: str = ""
) -> Any:
    """Return a copy of a model or layer of the same class that shares nothing with it, not compiled.

    `clone_model` loses optional and sparse inputs, and leaves nodes in the layers of the original.

    Args:
        with_changes: returns the config of the copy, of that of the model; or None.
        instead: what the user can do where the model cannot be copied, for errors.

    Raises:
        ValueError: the model cannot be rebuilt from its config.
    """
    instead = f", or {instead}" if instead else ""
    copy = _from_config(model, with_changes, instead)
    if model.built and len(copy.weights) != len(model.weights):
        raise ValueError(
            f"The copy of the model has {counted(len(copy.weights), 'weight')}, not {len(model.weights)}: "
            "a layer is shared between nested models, or is made by the first call. Share it in one model, "
            f"or make it in `__init__`{instead}. Received: model={model}"
        )
    for new, old in zip(copy.weights, model.weights, strict=False):
        new.assign(value_on_host(old))
    for old, new in layer_pairs(model, copy):
        copy_adapted(old, new)
    return copy


def _from_config(model: Any, with_changes: Callable[[Any], Any] | None, instead: str) -> Any:
    try:
        with sharing_objects():
            config = serialized(model)
            config.pop("compile_config", None)
            config = with_changes(config) if with_changes else config
            # The config was made here and now: it holds no code but the model's own.
            return keras.saving.deserialize_keras_object(
                config, custom_objects=_custom_classes(model), safe_mode=False
            )
    except NO_CONFIG as error:
        raise ValueError(
            "The model cannot be rebuilt from its config. Give its classes `get_config` and `from_config`"
            f"{instead}. Received: model={model}"
        ) from error


def _custom_classes(model: Any) -> dict[str, type]:
    """Return the classes of the user's own in `model`, by the names that configs have.

    Not those of Keras: `Add`, for one, is the name of a layer and of an operation.
    """
    kinds = {type(layer) for layer in flat_layers(model)}
    return {
        keras.saving.get_registered_name(kind): kind
        for kind in kinds
        if kind.__module__.split(".")[0] != "keras"
    }


def layer_pairs(model: Any, copy: Any) -> list[tuple[Any, Any]]:
    """Return each layer in `model` with its copy, as far as they can be told: their order can differ."""
    pairs = zip(flat_layers(model), flat_layers(copy), strict=False)
    return [(old, new) for old, new in pairs if type(new) is type(old) or new.name == old.name]
