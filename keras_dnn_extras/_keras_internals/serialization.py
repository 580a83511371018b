"""Configs of operations: scopes in which they are made and read, and what Keras notes of arguments."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_dnn_extras._keras_internals.private_names import private_attribute, private_object

_MODULE = "keras.src.saving.serialization_lib"
_FEATURE = "Copying models"


@contextlib.contextmanager
def sharing_objects() -> Iterator[None]:
    """Let configs that are made, and those that are read, tell which objects are one and the same.

    It is what Keras does for a file.
    """
    with private_object(_MODULE, "ObjectSharingScope", _FEATURE)():
        yield


@contextlib.contextmanager
def with_code() -> Iterator[None]:
    """Read configs with the code in them: those that were made here hold no code but the model's own."""
    with private_object(_MODULE, "SafeModeScope", _FEATURE)(False):
        yield


def noted_arguments(operation: Any) -> dict[str, Any] | None:
    """Return the arguments that an operation was made with, as Keras noted them, or None."""
    config = getattr(operation, "_auto_config", None)  # which some operations do not have
    return None if config is None else keras.saving.deserialize_keras_object(config.config)


def output_shape_of(layer: keras.layers.Lambda) -> Any:
    """Return the `output_shape` that a `Lambda` was made with."""
    return private_attribute(layer, "_output_shape", _FEATURE)
