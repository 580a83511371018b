"""What a batch of data looks like when `fit` hands it to a model: shapes and dtypes, no values."""

import itertools
import types
from typing import Any

import keras
import numpy as np
from keras import tree


def first_batch(data: Any, batch_size: int) -> tuple[Any, Any]:
    """Return what the first batch of `data` looks like, and `data`, or a generator that begins with it.

    Args:
        data: the `x` of `fit`: arrays, or what yields batches of inputs alone, or with targets and weights.

    Returns:
        A structure of `KerasTensor`, or None for what is no data: `fit` says what is wrong with it.

    Raises:
        ValueError: there is no first batch.
    """
    if isinstance(data, keras.utils.PyDataset):
        batch = data[0]
    elif are_arrays(data):
        arrays = [array for array in tree.flatten(data) if array is not None]  # an input may be optional
        if not arrays or not all(map(is_array, arrays)):
            return None, data
        return tree.map_structure(lambda array: spec_of(array, batch_size), data), data
    elif not hasattr(data, "__iter__") or isinstance(data, (str, bytes)):
        return None, data
    else:
        batches = iter(data)
        batch = next(batches, None)
        if batch is None:
            raise ValueError(f"Expected the data to have at least one batch. Received: {data}")
        if isinstance(data, types.GeneratorType):
            data = (batch for batch in itertools.chain([batch], batches))
    return tree.map_structure(lambda value: spec_of(value) if is_array(value) else value, batch), data


def are_arrays(data: Any) -> bool:
    """Return whether `data` is meant as arrays, which `fit` cuts into batches itself."""
    return isinstance(data, (dict, list, tuple)) or is_array(data)


def is_array(value: Any) -> bool:
    return hasattr(value, "shape") or hasattr(value, "__array__")


def number_of_rows(array: Any) -> int | None:
    """Return how many rows `array` has, or None for a single number."""
    shape = spec_of(array).shape  # `len` of a sparse matrix is an error
    return shape[0] if shape else None


def spec_of(array: Any, rows: int | None = None) -> Any:
    """Return what `array` becomes as a batch, of its first `rows` if they are told. None stays None.

    As in Keras, a Series of pandas is a column, and all columns of a DataFrame are floats if one is.
    """
    if array is None or isinstance(array, keras.KerasTensor):
        return array
    if not hasattr(array, "shape"):
        array = np.asarray(array)
    shape = (*array.shape, 1) if is_pandas(array) and array.ndim == 1 else tuple(array.shape)
    if rows is not None and shape and shape[0] is not None:
        shape = (min(rows, shape[0]), *shape[1:])
    return keras.KerasTensor(shape, _dtype(array))


def is_pandas(array: Any) -> bool:
    """Return whether `array` is a DataFrame or a Series, without an import of pandas."""
    return hasattr(array, "iloc") and hasattr(array, "to_numpy")


def _dtype(array: Any) -> str:
    if is_pandas(array):
        array = pandas_array(array.iloc[:0])
    if isinstance(array.dtype, np.dtype) and array.dtype.kind in "OUS":
        return "string"
    return keras.backend.standardize_dtype(array.dtype)


def pandas_array(array: Any) -> np.ndarray:
    """Return the array that a DataFrame or a Series becomes in Keras."""
    dtypes = array.dtypes if array.ndim == 2 else [array.dtype]
    if any(str(dtype).lower().startswith("float") for dtype in dtypes):
        array = array.astype(keras.config.floatx())
    values = array.to_numpy()
    return values if values.ndim == 2 else values[:, None]
