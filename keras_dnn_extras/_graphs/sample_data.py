"""Sample data that a user passes to compare on: checked against the inputs of the model."""

from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras._keras_internals import functional_of, input_structure, operation_of

ROWS = 32  # as many are looked at, fewer of large ones
LARGE = 2**22  # numbers


def checked_inputs(model: Any, inputs: Any) -> list[np.ndarray | None]:
    """Return the first rows of sample data of a functional or sequential model, flat, as many of each.

    An optional input that None is passed for stays None.

    Raises:
        ValueError: they are not of the structure or the shapes that the model takes.
        TypeError: they are no arrays.
    """
    functional = functional_of(model)
    flat = _flat_inputs(functional, inputs)
    pairs = list(zip(flat, functional.inputs, strict=True))
    arrays = [None if _is_left_out(each, tensor) else _as_array(each, tensor) for each, tensor in pairs]
    present = [(a, t) for a, t in zip(arrays, functional.inputs, strict=True) if a is not None]
    for array, tensor in present:
        _check_shape(array, tensor)
    shapes = [array.shape for array, _ in present]
    if len({shape[0] for shape in shapes}) != 1:
        raise ValueError(
            "Expected as many rows in each array of `inputs`, and one array at least. Received: inputs of "
            f"shapes {shapes}"
        )
    rows = _common_rows(present)
    return [
        None if array is None else _in_dtype(array[:rows], tensor)
        for array, tensor in zip(arrays, functional.inputs, strict=True)
    ]


def _is_left_out(data: Any, tensor: Any) -> bool:
    return data is None and getattr(operation_of(tensor), "optional", False)


def _common_rows(present: list[tuple[np.ndarray, Any]]) -> int:
    """Return how many rows are looked at: those of a fixed batch, or few where an input is large."""
    fixed = [tensor.shape[0] for _, tensor in present if tensor.shape[0] is not None]
    return max(fixed) if fixed else min(ROWS if a[:ROWS].size < LARGE else 2 for a, _ in present)


def _flat_inputs(functional: Any, inputs: Any) -> list[Any]:
    names = [tensor.name for tensor in functional.inputs]
    structure = input_structure(functional)
    if isinstance(inputs, dict) and not isinstance(structure, dict):  # by name, as Keras takes them too
        structure = dict.fromkeys(names)
        if inputs.keys() == structure.keys():
            return [inputs[name] for name in names]
    if len(names) == 1 and not isinstance(inputs, (dict, list, tuple)):
        return [inputs]
    try:
        tree.assert_same_structure(inputs, structure)
    except (TypeError, ValueError):
        if len(names) == 1 and isinstance(inputs, (list, tuple)) and not tree.is_nested(structure):
            return list(inputs) if len(inputs) == 1 and _is_array(inputs[0]) else [inputs]  # else rows
        expected = tree.map_structure(lambda _: "array", structure)
        raise ValueError(
            f"Expected `inputs` to be of the structure of the model's inputs: {expected}. "
            f"Received: inputs={_described(inputs)}"
        ) from None
    return tree.flatten(inputs)


def _is_array(data: Any) -> bool:
    return len(getattr(data, "shape", ())) > 1


def _described(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {name: _described(each) for name, each in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return [_described(each) for each in inputs[:8]]
    return type(inputs).__name__


def _as_array(data: Any, tensor: Any) -> np.ndarray:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    kinds, received = "USO" if dtype == "string" else "fiub", type(data).__name__
    try:
        array = np.asarray(keras.ops.convert_to_numpy(data) if keras.ops.is_tensor(data) else data)
        received = f"{received} of dtype {array.dtype}"
        if array.dtype.kind not in kinds and str(array.dtype) != "bfloat16":
            raise TypeError(array.dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"Expected `inputs` to be arrays, a few rows of data of dtype {dtype} for the input "
            f"{tensor.name!r}. Received: inputs={received}"
        ) from error
    if array.ndim == len(tensor.shape) - 1 and tensor.shape[-1] == 1:  # as Keras takes it
        array = array[..., None]
    return array


def _in_dtype(array: np.ndarray, tensor: Any) -> np.ndarray:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return array if dtype == "string" else array.astype("float32" if dtype == "bfloat16" else dtype)


def _check_shape(array: np.ndarray, tensor: Any) -> None:
    expected = tuple(tensor.shape)
    alike = len(array.shape) == len(expected) and all(
        length in (None, size) for length, size in zip(expected[1:], array.shape[1:], strict=True)
    )
    if not alike or not array.size or (expected[0] is not None and len(array) < expected[0]):
        rows = "one row at least" if expected[0] is None else f"{expected[0]} rows"
        raise ValueError(
            f"Expected `inputs` for the input {tensor.name!r} to be of shape {expected}, with {rows}. "
            f"Received: inputs of shape {array.shape}"
        )
