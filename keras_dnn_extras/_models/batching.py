"""Inputs of a model, batch by batch, from whatever `predict` takes."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras._models.data_shapes import are_arrays, is_pandas, number_of_rows, pandas_array


def dense_array(value: Any) -> np.ndarray:
    """Return the NumPy array of any array that `fit` takes: tensors, pandas, sparse matrices of SciPy."""
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    if is_pandas(value):
        return pandas_array(value)
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value)


def as_array(value: Any) -> np.ndarray:
    """Return an array as by `dense_array`, float64 in the dtype that Keras has for floats."""
    array = dense_array(value)
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array


def batches(x: Any, batch_size: int, *, to_array: Callable[[Any], np.ndarray] = as_array) -> Iterator[Any]:
    """Yield batches of the inputs `x` as NumPy arrays in its structure, targets and weights left out.

    Args:
        x: arrays or tensors, which are cut into batches, or a `PyDataset`, a `tf.data.Dataset`, a torch
            `DataLoader`, a generator or another iterable of batches.
        to_array: makes the NumPy arrays: by default those that a model computes with.

    Raises:
        ValueError: arrays differ in their length, or a `PyDataset` has no end.
        TypeError: `x` is no data.
    """
    if isinstance(x, keras.utils.PyDataset):
        if x.num_batches is None:
            raise ValueError(f"The `PyDataset` has no end: its `num_batches` is None. Received: x={x}")
        return (_inputs(x[i], to_array) for i in range(x.num_batches))
    if are_arrays(x):
        return _cut(tree.map_structure(to_array, x), batch_size)
    if hasattr(x, "__iter__") and not isinstance(x, (str, bytes)):
        return (_inputs(batch, to_array) for batch in x)
    raise TypeError(f"Expected `x` to be arrays or a dataset. Received: x={x!r}")


def number_of_batches(x: Any, batch_size: int) -> int | None:
    """Return how many batches `batches` yields, or None if nobody knows."""
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches
    if are_arrays(x):
        return -(-(number_of_rows(tree.flatten(x)[0]) or 0) // batch_size)
    try:
        return len(x)
    except TypeError:  # a generator, or a dataset of unknown length
        return None


def with_first(batches: Iterator[Any]) -> tuple[Any, Iterator[Any]]:
    """Return the first batch, or None, and an iterator that still begins with it."""
    first = next(batches, None)
    return first, itertools.chain([] if first is None else [first], batches)


def _inputs(batch: Any, to_array: Callable[[Any], np.ndarray]) -> Any:
    return tree.map_structure(to_array, keras.utils.unpack_x_y_sample_weight(batch)[0])


def _cut(arrays: Any, batch_size: int) -> Iterator[Any]:
    lengths = {len(array) if array.ndim else None for array in tree.flatten(arrays)}
    if len(lengths) != 1 or None in lengths:
        shapes = tree.map_structure(lambda array: array.shape, arrays)
        raise ValueError(f"Expected all inputs to have as many rows. Received: shapes {shapes}")
    length = len(tree.flatten(arrays)[0])
    for start in range(0, length, batch_size):
        yield tree.map_structure(lambda array, start=start: array[start : start + batch_size], arrays)
