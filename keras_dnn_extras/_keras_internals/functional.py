"""Functional models, whose class Keras does not export: what they are made of, and how they take inputs."""

from typing import Any

import keras
from keras import tree

from keras_dnn_extras._keras_internals.private_names import private_attribute, private_object

_FEATURE = "Reading a model as a graph"


def is_functional(model: Any) -> bool:
    """Return whether `model` is a functional one, which may have a `call` of its own."""
    return isinstance(model, _functional_class())


def functional_of(model: Any) -> Any:
    """Return the functional model that computes `model`, if there is one and nothing else."""
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        return private_attribute(model, "_functional", _FEATURE)
    functional = _functional_class()
    return model if isinstance(model, functional) and type(model).call is functional.call else None


def input_structure(functional: Any) -> Any:
    """Return the Keras tensors that a functional model takes, in the structure in which it takes them."""
    return private_attribute(functional, "_inputs_struct", _FEATURE)


def output_structure(functional: Any) -> Any:
    """Return the Keras tensors that a functional model returns, in their structure."""
    return private_attribute(functional, "_outputs_struct", _FEATURE)


def converts_inputs(model: keras.Model) -> bool:
    """Return whether `model` casts what it is called with: `Sequential` does, functional models do not."""
    return private_attribute(model, "_convert_input_args", _FEATURE)


def standardized_inputs(model: keras.Model, inputs: Any) -> list:
    """Return `inputs` as layers of `model` get them: flat, and in the dtypes that Keras gives them."""
    if converts_inputs(model):
        policy, dtype = model.dtype_policy, model.input_dtype
        inputs = tree.map_structure(lambda x: policy.convert_input(x, model.autocast, dtype), inputs)
    return private_attribute(functional_of(model), "_standardize_inputs", _FEATURE)(inputs)


def _functional_class() -> Any:
    return private_object("keras.src.models.functional", "Functional", _FEATURE)
