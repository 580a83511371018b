"""Configs of layers that hold what their `get_config` forgets, and what no config can hold.

Keras's spatial dropout tells the dtype of its variables instead of its policy, and not if it is trainable;
`HashedCrossing` does not tell its policy, `RandomGrayscale` its seed, and no layer whether it casts inputs.
"""

import contextlib
import inspect
import pickle
import threading
from typing import Any

import keras

from keras_dnn_extras._keras_internals import flat_layers, replaced

NO_CONFIG = (NotImplementedError, TypeError, AttributeError, pickle.PicklingError)
"""Raised for a layer without a config, or with a module of PyTorch whose class pickle does not find."""

_REPLACING = threading.Lock()  # of methods of layers, which models may share: by one thread at a time


def serialized(operation: Any) -> dict[str, Any]:
    """Return the config of a layer, a model or another operation, with all that its parts were made with.

    Raises:
        NotImplementedError: a part has no config.
    """
    if not isinstance(operation, keras.Layer):
        return keras.saving.serialize_keras_object(operation)
    with _REPLACING, contextlib.ExitStack() as stack:
        for layer in flat_layers(operation):
            is_left = isinstance(
                layer, (keras.Model, keras.layers.InputLayer)
            )  # which have no policy of layers
            forgotten = {} if is_left else _forgotten(layer)
            if forgotten:
                whole = {**layer.get_config(), **forgotten}
                stack.enter_context(replaced(layer, get_config=lambda whole=whole: dict(whole)))
        return keras.saving.serialize_keras_object(operation)


def _forgotten(layer: Any) -> dict[str, Any]:
    """Return arguments that the class of a layer takes, and that are not in its config as they are."""
    try:
        config = layer.get_config()
    except NO_CONFIG:  # which matters where its config is asked for
        return {}
    parameters = inspect.signature(type(layer).__init__).parameters
    any_name = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    forgotten: dict[str, Any] = {}
    if "name" not in config and (any_name or "name" in parameters):
        forgotten["name"] = layer.name
    if _forgets_policy(config, layer) and (any_name or "dtype" in parameters):
        forgotten["dtype"] = keras.dtype_policies.serialize(layer.dtype_policy)
    if "seed" not in config and "seed" in parameters and hasattr(layer, "seed"):
        forgotten["seed"] = layer.seed
    return forgotten


def _forgets_policy(config: dict[str, Any], layer: Any) -> bool:
    policy = layer.dtype_policy
    if "dtype" not in config:
        return policy != keras.config.dtype_policy()
    return config["dtype"] == layer.variable_dtype and policy.name != layer.variable_dtype


def copy_what_no_config_holds(old: Any, new: Any) -> None:
    """Set in the copy of a layer what its constructor does not take, or its config does not tell."""
    for name in ("dtype_policy", "trainable", "autocast"):
        if getattr(new, name) != getattr(old, name):
            setattr(new, name, getattr(old, name))
    if new.activity_regularizer is None and old.activity_regularizer is not None:
        new.activity_regularizer = old.activity_regularizer
