"""What a compiled model is called with: fixed shapes and dtypes, looked at in each call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras.surgery import functional_of

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""A function of arrays, flat, that returns arrays which nobody else has. Threads may call it at once."""


@dataclass(frozen=True)
class Signature:
    """What a model is called with.

    Attributes:
        structure: of the inputs, with their places in the flat order.
        shapes, dtypes: flat.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    def packed(self, flat: Sequence[Any]) -> Any:
        return tree.map_structure(lambda place: flat[place], self.structure)


def signature_of(model: keras.Model, rows: int) -> Signature:
    """Return what `model` is called with in batches of `rows` rows.

    Raises:
        ValueError: that is not known, or not fixed, or not of numbers.
    """
    if not model.built:
        raise ValueError(
            f"The model is not built. Give it a `keras.Input`, or call it once. Received: model={model}"
        )
    functional = functional_of(model)
    structure = functional._inputs_struct if functional is not None else _recorded(model)
    tensors = tree.flatten(structure)
    shapes = tuple(_fixed(tensor, rows, model) for tensor in tensors)
    dtypes = tuple(keras.backend.standardize_dtype(tensor.dtype) for tensor in tensors)
    places = tree.pack_sequence_as(structure, list(range(len(tensors))))
    return Signature(places, shapes, dtypes)


def _recorded(model: keras.Model) -> Any:
    """Return the inputs that a model of its own `call` was built with, as Keras recorded them."""
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    if len(shapes) != 1 or not shapes[0]:
        raise ValueError(
            "It is not known what the model takes, or it takes several arguments. Call it in a functional "
            f"model: `keras.Model(inputs, model(inputs))`. Received: model={model}"
        )

    def tensors(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: tensors(each) for name, each in shape.items()}
        if all(length is None or isinstance(length, int) for length in shape):
            return keras.KerasTensor((None, *shape[1:]), model.input_dtype)
        return [tensors(each) for each in shape]

    return tensors(shapes[0])


def _fixed(tensor: Any, rows: int, model: keras.Model) -> tuple[int, ...]:
    """Return the shape of an input for calls of `rows` rows."""
    shape, dtype = tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype)
    received = f"Received: model={model}, with the input {tensor.name!r} of shape {shape} and dtype {dtype}"
    if getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False):
        raise ValueError(f"Sparse and ragged inputs have no fixed signature. Make it dense. {received}")
    if dtype in ("string", "bfloat16"):
        raise ValueError(
            f"NumPy has no arrays of dtype {dtype}. Give the model an input of numbers: what looks up "
            f"strings can be called before it. {received}"
        )
    if not shape or None in shape[1:]:
        raise ValueError(
            "Expected the inputs to have a fixed shape but for the batch. Rebuild the model with a "
            f"`keras.Input` that has all lengths. {received}"
        )
    # Keras builds a sequential model for the first batch that it sees, and takes others all the same.
    if shape[0] not in (None, rows) and not isinstance(model, keras.Sequential):
        raise ValueError(
            f"The model takes batches of {shape[0]}. Pass `batch_size={shape[0]}`, or rebuild it without. "
            f"{received}, batch_size={rows}"
        )
    return (rows, *shape[1:])


def caller(run: Run, signature: Signature, structure: Any) -> Callable[[Any], Any]:
    """Return the function that looks at the arrays, runs the engine, and packs what comes out.

    Args:
        structure: of the outputs.
    """
    flat = _flattener(signature)
    if not tree.is_nested(structure):
        return lambda x: run(flat(x))[0]
    if type(structure) is list and not any(map(tree.is_nested, structure)):
        return lambda x: run(flat(x))
    return lambda x: tree.pack_sequence_as(structure, run(flat(x)))


def _flattener(signature: Signature) -> Callable[[Any], list[np.ndarray]]:
    shapes, dtypes = signature.shapes, [np.dtype(dtype) for dtype in signature.dtypes]
    names = _names(signature.structure)

    def check(x: Any, place: int) -> None:
        shape, dtype = shapes[place], dtypes[place]
        if not isinstance(x, np.ndarray):
            raise ValueError(
                f"Expected {names[place]} to be a NumPy array. Pass `np.asarray({names[place]}, "
                f'"{dtype}")`. Received: {names[place]}={type(x).__name__}'
            )
        if x.shape != shape:
            raise ValueError(
                f"Expected {names[place]} to be of shape {shape}. {_remedy(x.shape, shape)} "
                f"Received: {names[place]}.shape={x.shape}"
            )
        if x.dtype != dtype:
            raise ValueError(
                f"Expected {names[place]} to be of dtype {dtype}. Pass "
                f'`{names[place]}.astype("{dtype}")`. Received: {names[place]}.dtype={x.dtype}'
            )

    if len(shapes) == 1:
        return _flattener_of_one(signature, check, shapes[0], dtypes[0])
    return _flattener_of_several(signature, check)


def _flattener_of_one(signature: Signature, check: Callable, shape: tuple, dtype: np.dtype) -> Callable:
    array = np.ndarray
    in_list = signature.structure if tree.is_nested(signature.structure) else [0]

    def flat(x: Any) -> list[np.ndarray]:
        if type(x) is array and x.shape == shape and x.dtype == dtype:
            return [x]
        if tree.is_nested(x) and _alike(x, in_list):  # which Keras takes as well
            x = tree.flatten(x)[0]
        check(x, 0)
        return [x]

    return flat


def _flattener_of_several(signature: Signature, check: Callable) -> Callable:
    structure, count = signature.structure, len(signature.shapes)
    simple = type(structure) in (list, tuple) and not any(map(tree.is_nested, structure))

    def flat(x: Any) -> list[np.ndarray]:
        if simple and type(x) in (list, tuple) and len(x) == count:
            arrays = list(x)
        elif _alike(x, structure):
            arrays = tree.flatten(x)
        else:
            told = tree.map_structure(lambda _: "array", structure)
            raise ValueError(
                f"Expected arrays in the structure of the model's inputs: {told}. Received: x={_told(x)}"
            )
        for place, array in enumerate(arrays):
            check(array, place)
        return arrays

    return flat


def _alike(x: Any, structure: Any) -> bool:
    try:
        tree.assert_same_structure(x, structure)
    except (TypeError, ValueError):
        return False
    return True


def _told(x: Any) -> Any:
    if isinstance(x, dict):
        return {name: _told(each) for name, each in x.items()}
    return [_told(each) for each in x] if isinstance(x, (list, tuple)) else type(x).__name__


def _names(structure: Any) -> list[str]:
    paths = tree.flatten_with_path(structure)
    return ["x" + "".join(f"[{part!r}]" for part in path) for path, _ in paths]


def _remedy(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if found[1:] == shape[1:] and len(found) == len(shape):
        return (
            f"Each call takes as many rows: pass {shape[0]} of them, or compile another with "
            f"`batch_size={found[0]}`."
        )
    if found == shape[1:] and shape[0] == 1:
        return "Add the axis of the batch: `x[None]`."
    return "It is fixed when the model is compiled."
