"""Copies of single layers: made anew from their configs, with all that the layers hold."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras._backends import value_on_host
from keras_dnn_extras._graphs.layer_configs import NO_CONFIG, copy_what_no_config_holds, serialized
from keras_dnn_extras._keras_internals import (
    flat_layers,
    noted_arguments,
    output_shape_of,
    own_variables,
    with_code,
)


@dataclass(frozen=True)
class Edit:
    """How the copy of a layer differs.

    Attributes:
        config: entries of its config.
        weights: by the path of the attribute, as `cell.kernel`. Others are copied.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]


def without_activation(layer: keras.Layer) -> keras.Layer:
    """Return a copy of a built layer that computes what its activation is given."""
    config = config_of(layer)
    config = {**config, "config": {**config["config"], "activation": "linear"}}
    with with_code():
        new = deserialized(config, layer)
    copy_state(layer, new)
    return new


def config_of(operation: Any) -> dict[str, Any]:
    try:
        return serialized(operation)
    except NO_CONFIG as error:
        raise no_copy(operation) from error


def deserialized(config: dict[str, Any], operation: Any) -> Any:
    if type(operation) is keras.layers.Lambda:  # its code, copied, would not find what it refers to
        return keras.layers.Lambda(
            operation.function,
            output_shape=output_shape_of(operation),
            mask=operation.mask,
            arguments=operation.arguments,
            name=operation.name,
            dtype=operation.dtype_policy,
        )
    try:
        return keras.saving.deserialize_keras_object(config, custom_objects=_custom_objects(operation))
    except (TypeError, NotImplementedError) as error:
        # A config may have more than `__init__` takes, as in KerasHub's ViT. Keras notes what it got.
        arguments = noted_arguments(operation)
        if not isinstance(operation, keras.Layer) or arguments is None:
            raise no_copy(operation) from error
        return _built_from_arguments(operation, arguments, error)


def _built_from_arguments(layer: Any, arguments: dict[str, Any], error: Exception) -> Any:
    """Return a layer of the class and of the arguments of another one, built as it is."""
    try:
        new = type(layer)(**arguments)
    except TypeError:
        raise no_copy(layer) from error
    new.name, new.trainable, new.dtype_policy = layer.name, layer.trainable, layer.dtype_policy
    if layer.built and layer.get_build_config():
        new.build_from_config(layer.get_build_config())
    return new


def no_copy(operation: Any) -> ValueError:
    return ValueError(
        f"{operation.name!r} cannot be made anew from its config. Give its class a `get_config` that tells "
        f"every argument of `__init__`, and a `from_config`. Received: layer={operation}"
    )


def _custom_objects(operation: Any) -> dict[str, Any]:
    """Return the classes and functions in a layer that are not of Keras, by the names configs have."""
    objects: dict[str, Any] = {}
    for part in flat_layers(operation) if isinstance(operation, keras.Layer) else [operation]:
        for value in [type(part), *vars(part).values()]:
            kind = value if callable(value) and hasattr(value, "__name__") else type(value)
            if kind.__module__ is not None and kind.__module__.split(".")[0] not in ("keras", "builtins"):
                objects[kind.__name__] = kind
                if isinstance(kind, type):
                    objects[keras.saving.get_registered_name(kind)] = kind
    return objects


def is_alike(old: Any, new: Any) -> bool:
    """Return whether two layers have the same variables, and layers in them."""
    shapes = [[tuple(variable.shape) for variable in _variables(layer)] for layer in (old, new)]
    return shapes[0] == shapes[1] and len(flat_layers(old)) == len(flat_layers(new))


def copy_state(old: Any, new: Any) -> None:
    """Give a layer all that another one of the same config holds: weights, seeds, states, vocabularies."""
    for variable, value in zip(_variables(new), _variables(old), strict=True):
        variable.assign(value_on_host(value))
    for a, b in zip(flat_layers(old), flat_layers(new), strict=True):
        copy_adapted(a, b)


def copy_adapted(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Give a layer what no config holds and what `adapt` gave another one: their weights are the same."""
    copy_what_no_config_holds(old, new)
    if isinstance(new, keras.layers.Normalization):  # has constants that are made of its weights
        new.finalize_state()
    if hasattr(old, "save_assets") and hasattr(new, "load_assets"):  # a vocabulary
        if not old.weights:  # the weights of its words, which are no variables of the layer
            store: dict[str, Any] = {}
            old.save_own_variables(store)
            new.load_own_variables(store)
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def copy_others(old: Any, new: Any, edited: Mapping[str, np.ndarray]) -> None:
    """Copy what a layer and its copy both have, but for the weights that are edited."""
    edited_variables = {id(attrgetter(path)(new)) for path in edited}
    for a, b in zip(flat_layers(old), flat_layers(new), strict=True):
        by_name = {variable.name: variable for variable in own_variables(a)}
        for variable in own_variables(b):
            if id(variable) not in edited_variables:
                variable.assign(value_on_host(by_name[variable.name]))
        for variable, value in zip(_states(b), _states(a), strict=True):
            variable.assign(value_on_host(value))


def assign(layer: Any, weights: Mapping[str, np.ndarray]) -> None:
    for path, value in weights.items():
        variable = attrgetter(path)(layer)
        shape = value.shape[value.ndim - len(variable.shape) :]  # leading axes are of length 1
        variable.assign(np.broadcast_to(value.reshape(shape), variable.shape))


def _variables(layer: Any) -> list[keras.Variable]:
    return [*layer.variables, *(state for part in flat_layers(layer) for state in _states(part))]


def _states(layer: Any) -> list[keras.Variable]:
    """Return the states of a stateful recurrent layer, which are not among its variables."""
    states = tree.flatten(vars(layer).get("states"))
    return [state for state in states if isinstance(state, keras.Variable)]
