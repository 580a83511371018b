"""The arguments of a learning-rate range test: checked before the model is even built."""

import math
import types
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import check_number
from keras_dnn_extras._keras_internals import batches_of_fit

# The training step has the learning rate in float32.
_LOWEST, _HIGHEST = float(np.finfo("float32").tiny), float(np.finfo("float32").max)
_UNIT = float(np.finfo("float32").eps)  # neighbours that are so far apart, or more, are different floats


def check_range(low: Any, high: Any, steps: Any) -> None:
    """Raise unless so many `steps` lead from the learning rate `low` to `high`, each to another float32."""
    limits = f"from {_LOWEST:.2g} to {_HIGHEST:.2g}, as the training step has it in float32"
    for name, rate in (("min_learning_rate", low), ("max_learning_rate", high)):
        check_number(name, rate, limits, lambda value: _LOWEST <= float(value) <= _HIGHEST)
    check_number("steps", steps, "at least 2", lambda value: value >= 2, Integral)
    if low >= high:
        raise ValueError(
            "Expected `max_learning_rate` to be above `min_learning_rate`. Received: "
            f"min_learning_rate={low}, max_learning_rate={high}"
        )
    most = int(math.log(float(high) / float(low)) / math.log1p(_UNIT)) + 1
    if steps > most:
        raise ValueError(
            f"Expected `steps` to be at most {most:,}: from `min_learning_rate` to `max_learning_rate` "
            "float32 has no room for more different rates. "
            f"Received: min_learning_rate={low}, max_learning_rate={high}, steps={steps}"
        )


def checked_class_weight(class_weight: Any) -> dict[int, float] | None:
    """Return the weights by int. `fit` would leave out without a word what is none."""
    if class_weight is None:
        return None
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            "Expected `class_weight` to be a dict of a weight for each class index. "
            f"Received: class_weight={class_weight!r}"
        )
    for label, weight in class_weight.items():
        if not isinstance(label, Real) or label % 1:
            raise TypeError(
                "Expected the keys of `class_weight` to be class indices. "
                f"Received: class_weight={class_weight}"
            )
        check_number(f"class_weight[{label}]", weight, "finite", math.isfinite)
    return {int(label): weight for label, weight in class_weight.items()}


def check_data(x: Any, y: Any, sample_weight: Any, class_weight: Any) -> None:
    """Raise what `fit` would raise of such data, and before the model is built."""
    if x is None or not keras.tree.flatten(x):
        raise ValueError(f"Expected `x` to be data: arrays, a dataset or a generator. Received: x={x}")
    for name, arrays in {"x": x, "y": y, "sample_weight": sample_weight}.items():
        if any(hasattr(array, "shape") and not len(array.shape) for array in keras.tree.flatten(arrays)):
            raise ValueError(f"Expected `{name}` to be arrays of rows. Received: {name} of scalars")
    if class_weight is not None and y is None and hasattr(keras.tree.flatten(x)[0], "shape"):
        raise ValueError("`class_weight` weighs rows by their labels. Pass `y`. Received: y=None")
    # A generator is asked for batches there, unless there is something beside it, which is an error.
    beside = (y, sample_weight, class_weight)
    is_alone = isinstance(x, types.GeneratorType) and all(value is None for value in beside)
    if not is_alone and batches_of_fit(x, y, sample_weight, class_weight) == 0:
        raise no_batch(x)


def no_batch(x: Any) -> ValueError:
    """Return the error for data without a batch."""
    received = f"x of shape {tuple(x.shape)}" if hasattr(x, "shape") else f"x={x}"
    return ValueError(f"Expected `x` to have at least one batch. Received: {received}")


def check_divergence_factor(divergence_factor: float) -> None:
    """Raise unless the factor is one that a diverging loss grows by."""
    check_number("divergence_factor", divergence_factor, "above 1", lambda value: value > 1)
