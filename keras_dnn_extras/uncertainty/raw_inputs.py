"""Inputs that a model preprocesses before it takes them, such as strings."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras._models import as_array


def preprocessor_of(model: keras.Model) -> Callable | None:
    """Return what `predict` of `model` applies to its inputs, as that of KerasHub's tasks does."""
    preprocessor = getattr(model, "preprocessor", None)
    overridden = type(model).predict is not keras.Model.predict
    return preprocessor if overridden and callable(preprocessor) else None


def with_arrays_of_strings(x: Any) -> Any:
    """Return `x` with an array in place of each list of strings: tuples and dicts alone are structure."""
    if isinstance(x, dict):
        return {name: with_arrays_of_strings(value) for name, value in x.items()}
    if isinstance(x, tuple):
        return tuple(map(with_arrays_of_strings, x))
    if isinstance(x, list) and x and all(isinstance(item, (str, bytes)) for item in x):
        return np.array(x, dtype=object)
    return x


def preprocessed(preprocessor: Callable, batches: Iterator[Any]) -> Iterator[Any]:
    """Yield what `preprocessor` makes of batches, as arrays, targets and weights left out."""
    for batch in batches:
        data = preprocessor(tree.map_structure(_as_strings, batch))
        yield tree.map_structure(as_array, keras.utils.unpack_x_y_sample_weight(data)[0])


def _as_strings(array: np.ndarray) -> Any:
    """Return an array of strings as a list of `str`, which tokenizers take, and others as they are."""
    if array.dtype.kind not in "USO":
        return array
    return [item.decode() if isinstance(item, bytes) else str(item) for item in array]
