"""Calls without values: what a function returns for tensors of given shapes and dtypes."""

from collections.abc import Callable
from typing import Any

from keras_dnn_extras._keras_internals.private_names import private_object


def output_spec(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what `function` returns for `KerasTensor`s. It builds layers that it calls."""
    # The public `Operation.compute_output_spec` makes another error of one that the function raises.
    compute = private_object("keras.src.backend", "compute_output_spec", "Trying a model on shapes")
    return compute(function, *arguments, **named)
