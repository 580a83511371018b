"""Calls without values: what a function returns for tensors of given shapes and dtypes."""

from collections.abc import Callable
from typing import Any

import keras

# Private, as the public `Operation.compute_output_spec` makes another error of the one in the function.
from keras.src import backend


def output_spec(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what `function` returns for `KerasTensor`s. It builds layers that it calls."""
    return backend.compute_output_spec(function, *arguments, **named)


def takes_training(layer: keras.layers.Layer) -> bool:
    """Return whether the `call` of `layer` has an argument `training`."""
    return layer._call_has_training_arg
