"""Private names of Keras: read, or told to be missing with the feature that needs them."""

import importlib
from typing import Any

import keras


def private_attribute(owner: Any, name: str, feature: str) -> Any:
    """Return an attribute of an object of Keras that is not public.

    Args:
        feature: what does not work without it, for the error.

    Raises:
        RuntimeError: this version of Keras does not have it.
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise missing(f"{type(owner).__name__}.{name}", feature) from error


def private_object(module: str, name: str, feature: str) -> Any:
    """Return a class or function of a module of Keras that is not public. It is imported at the first call.

    Raises:
        RuntimeError: this version of Keras does not have it.
    """
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise missing(f"{module}.{name}", feature) from error


def missing(name: str, feature: str) -> RuntimeError:
    return RuntimeError(
        f"{feature} needs `{name}`, which this version of Keras does not have. Install a version that is "
        f"supported. Received: keras=={keras.__version__}"
    )
