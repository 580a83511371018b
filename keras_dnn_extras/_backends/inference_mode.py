"""Layers and models, called in inference mode."""

from typing import Any

from keras_dnn_extras._keras_internals import takes_training


def called_at_inference(operation: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Return what a layer, a model or another operation makes of its arguments in inference mode.

    A layer whose `call` has no `training` is called without it.
    """
    return called_in_mode(operation, False, *args, **kwargs)


def called_in_mode(operation: Any, training: bool | None, /, *args: Any, **kwargs: Any) -> Any:
    """Return what an operation makes of its arguments in training, or at inference."""
    if takes_training(operation):
        kwargs["training"] = training
    return operation(*args, **kwargs)
