"""The arguments of a network: checked, and made ready to build it."""

import warnings
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import check_positive
from keras_dnn_extras.guidance.recipes import Recipe


def checked_shape(input_shape: Any) -> tuple[int, ...]:
    axes = (input_shape,) if isinstance(input_shape, Integral) else input_shape
    return _checked_sizes("input_shape", axes, "an int, or a tuple of ints, without the batch")


def checked_units(hidden_units: Any) -> tuple[int, ...]:
    return _checked_sizes("hidden_units", hidden_units, "a list of ints, one for each hidden layer")


def _checked_sizes(name: str, sizes: Any, expected: str) -> tuple[int, ...]:
    if not isinstance(sizes, (list, tuple, np.ndarray)) or getattr(sizes, "ndim", 1) == 0:
        raise TypeError(f"Expected `{name}` to be {expected}. Received: {name}={sizes!r}")
    if len(sizes) == 0:
        raise ValueError(f"Expected `{name}` to have at least one entry. Received: {name}={sizes!r}")
    for size in sizes:
        check_positive(name, size, Integral)
    return tuple(int(size) for size in sizes)


def checked_compile_arguments(
    loss: Any, metrics: Any, optimizer: Any, total_steps: int | None
) -> dict[str, Any]:
    """Return those that are given, once Keras knows their names."""
    if optimizer is not None and total_steps is not None:
        raise ValueError(
            "`total_steps` puts a schedule into the optimizer of the recipe. Leave it out, and give your "
            "optimizer a schedule: `OneCycle`. "
            f"Received: optimizer={optimizer!r}, total_steps={total_steps}"
        )
    arguments = {"loss": loss, "metrics": metrics, "optimizer": optimizer}
    if isinstance(loss, str):
        keras.losses.get(loss)
    if optimizer is not None:
        arguments["optimizer"] = keras.optimizers.get(optimizer)
    return {name: value for name, value in arguments.items() if value is not None}


def warn_of_depth(chosen: Recipe, units: tuple[int, ...]) -> None:
    if chosen.most_layers is not None and len(units) > chosen.most_layers:
        warnings.warn(
            f"The recipe {chosen.name!r} is meant for at most {chosen.most_layers} hidden layers: each one "
            f"adds to the time of a prediction. Received: hidden_units={list(units)}",
            stacklevel=3,
        )
