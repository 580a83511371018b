"""What a compiled model is called with: shapes and dtypes, looked at in each call."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras._keras_internals import built_shapes, functional_of, input_structure

_COLOR = re.compile(r"\x1b\[\d*m")  # which Keras puts around messages of layers

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""A function of arrays, flat, that returns arrays which nobody else has. Threads may call it at once."""


class EngineError(Exception):
    """An engine is not there, or cannot run the model; says why."""


@dataclass(frozen=True)
class Signature:
    """What a model is called with.

    Attributes:
        structure: of the inputs, with their places in the flat order.
        shapes, dtypes: flat. A length of None may be another one in each call.
    """

    structure: Any
    shapes: tuple[tuple[int | None, ...], ...]
    dtypes: tuple[str, ...]

    @property
    def is_flexible(self) -> bool:
        return any(None in shape for shape in self.shapes)

    def fixed_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes, for an engine that takes no others.

        Raises:
            EngineError: a length is not known.
        """
        shapes = [tuple(length for length in shape if length is not None) for shape in self.shapes]
        if self.is_flexible:
            remedy = "Pass an int as `batch_size`"
            if self.shapes[0][0] is not None:
                remedy = "Rebuild the model with a `keras.Input` that has all lengths"
            raise EngineError(f"it takes one shape only, not {_listed(self.shapes)}. {remedy}")
        return shapes

    def packed(self, flat: Sequence[Any]) -> Any:
        return tree.map_structure(lambda place: flat[place], self.structure)


def signature_of(model: keras.Model, rows: int | None, sample: Any = None) -> Signature:
    """Return what `model` is called with in batches of `rows` rows, or of any number of rows.

    Args:
        sample: arrays in the structure of the inputs, or None. With it lengths may be unknown, and a model
            whose `call` is its own takes what the sample is like.

    Raises:
        ValueError: that is not known, or not fixed, or not of numbers.
    """
    if not model.built:
        raise ValueError(
            f"The model is not built. Give it a `keras.Input`, or call it once. Received: model={model}"
        )
    functional = functional_of(model)
    if functional is not None:
        structure = input_structure(functional)
    else:
        structure = _recorded(model) if sample is None else tree.map_structure(_like, sample)
    tensors = tree.flatten(structure)
    shapes = tuple(_shape(tensor, rows, model, sample is not None) for tensor in tensors)
    dtypes = tuple(keras.backend.standardize_dtype(tensor.dtype) for tensor in tensors)
    places = tree.pack_sequence_as(structure, list(range(len(tensors))))
    return Signature(places, shapes, dtypes)


def _like(array: np.ndarray) -> Any:
    return keras.KerasTensor((None, *array.shape[1:]), array.dtype.name)


def _recorded(model: keras.Model) -> Any:
    """Return the inputs that a model of its own `call` was built with, as Keras recorded them."""
    shapes = built_shapes(model)
    if len(shapes) != 1 or not shapes[0]:
        raise ValueError(
            "It is not known what the model takes, or it takes several arguments. Pass sample data as "
            "`inputs`, or call it in a functional model: `keras.Model(inputs, model(inputs))`. "
            f"Received: model={model}"
        )

    def tensors(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: tensors(each) for name, each in shape.items()}
        if all(length is None or isinstance(length, int) for length in shape):
            return keras.KerasTensor((None, *shape[1:]), model.input_dtype)
        return [tensors(each) for each in shape]

    return tensors(shapes[0])


def _shape(tensor: Any, rows: int | None, model: keras.Model, has_sample: bool) -> tuple[int | None, ...]:
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
    if not shape:
        raise ValueError(f"Expected the inputs to have an axis of the batch. {received}")
    if None in shape[1:] and not has_sample:
        raise ValueError(
            "Expected the inputs to have a fixed shape but for the batch, or sample data of lengths that "
            "the model takes. Pass such data as `inputs`, or rebuild the model with a `keras.Input` that "
            f"has all lengths. {received}"
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
    if signature.is_flexible:
        run = _with_rows_of_one_number(_told_of_lengths(run, signature), signature)
    if not tree.is_nested(structure):
        return lambda x: run(flat(x))[0]
    if type(structure) is list and not any(map(tree.is_nested, structure)):
        return lambda x: run(flat(x))
    return lambda x: tree.pack_sequence_as(structure, run(flat(x)))


def _told_of_lengths(run: Run, signature: Signature) -> Run:
    """Return `run` with a `ValueError` that tells the lengths of inputs on which it fails."""

    def checked(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        try:
            return run(arrays)
        except MemoryError:  # of which the model takes fewer rows
            raise
        except Exception as error:  # of whatever kind a runtime raises for an image that is too small
            shapes = _listed([array.shape for array in arrays])
            raise ValueError(
                f"The compiled model failed on inputs of shape {shapes} ({first_line(error)}). Expected "
                f"inputs of shape {_listed(signature.shapes)}, with lengths that `model.predict` takes."
            ) from error

    return checked


def _with_rows_of_one_number(run: Run, signature: Signature) -> Run:
    """Return `run` with a `ValueError` where inputs differ in their rows, which might be broadcast."""
    names = _names(signature.structure)
    if len(names) == 1 or signature.shapes[0][0] is not None:
        return run

    def checked(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len({len(array) for array in arrays}) > 1:
            shapes_of_inputs = ", ".join(f"{n}.shape={a.shape}" for n, a in zip(names, arrays, strict=True))
            raise ValueError(f"Expected all inputs to have as many rows. Received: {shapes_of_inputs}")
        return run(arrays)

    return checked


def first_line(error: Exception) -> str:
    """Return the first line of a message that says anything."""
    lines = [_COLOR.sub("", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    return lines[0][:200] if lines else type(error).__name__


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
        if not _fits(x.shape, shape):
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


def _fits(actual: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    if actual == shape:
        return True
    return len(actual) == len(shape) and all(
        length in (None, other) for length, other in zip(shape, actual, strict=True)
    )


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
            arrays = tree.map_structure(lambda _: "array", structure)
            raise ValueError(
                f"Expected arrays in the structure of the model's inputs: {arrays}. Received: x={_told(x)}"
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


def _listed(shapes: Sequence[tuple[int | None, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _remedy(actual: tuple[int, ...], shape: tuple[int | None, ...]) -> str:
    if actual and shape[0] is not None and _fits(actual[1:], shape[1:]):
        return (
            f"Each call takes as many rows: pass {shape[0]} of them, or compile another with "
            f"`batch_size={actual[0]}`, or with `batch_size=None` for any number."
        )
    if _fits(actual, shape[1:]) and shape[0] in (1, None):
        return "Add the axis of the batch: `x[None]`."
    return "It is fixed when the model is compiled."
