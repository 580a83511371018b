"""Whether two models compute the same: on random inputs, as far as their dtypes can tell."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras._backends import (
    called_at_inference,
    compiled_at_once,
    no_trace,
    value_on_host,
    values_in_place,
)

LARGE = 50_000  # numbers in a row
MANY = 50  # operations, which JAX compiles faster as one than each by itself
FEW = 1_000  # numbers in a row, of which eight are looked at

# Differences that rounding makes: 256 roundings. Deep networks of random weights were seen to have 15. Of
# half precision 32: 256 of bfloat16 are the number itself, and nothing would be seen.
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
ROUNDINGS = {"float64": 256, "float32": 256, "float16": 32, "bfloat16": 32}


def relative_errors(results: Sequence[Any], expected: Sequence[Any]) -> list[float]:
    """Return the largest difference of each pair of arrays, over the largest number in either of them.

    It is NaN where neither has a finite number, and 0 where neither has a number at all.
    """
    return [_relative_error(*pair) for pair in zip(results, expected, strict=True)]


def _relative_error(result: np.ndarray, expected: np.ndarray) -> float:
    if result.dtype.kind not in "fc":
        return 0.0 if np.array_equal(result, expected) else float("inf")
    if not np.array_equal(np.isfinite(result), np.isfinite(expected)):
        return float("inf")
    finite = np.isfinite(expected)
    if not finite.any():
        return float("nan") if finite.size else 0.0
    result, expected = (array[finite].astype("float64") for array in (result, expected))
    size = max(np.max(np.abs(expected)), np.max(np.abs(result)))
    return float(np.max(np.abs(result - expected)) / size) if size > 0 else 0.0


def tolerance(dtypes: Sequence[str]) -> float:
    """Return the relative error that rounding can make in a model that computes with `dtypes`."""
    if keras.backend.backend() != "tensorflow":  # Keras computes with float32 there
        dtypes = ["float32" if dtype == "float64" else dtype for dtype in dtypes]
    limits = [ROUNDINGS[dtype] * ROUNDING[dtype] for dtype in dtypes if dtype in ROUNDING]
    return max(limits, default=256 * 2.0**-24)


def random_inputs(inputs: Sequence[Any], size: int, seed: int = 0) -> list[Any]:
    """Return an array for each Keras tensor in `inputs`: normal, of integers zeros and ones.

    `sample_inputs.like_data` makes better ones where the model is known.

    Args:
        size: length of axes of unknown length, except the first, the rows.
    """
    rng = np.random.default_rng(seed)
    return [_random(tensor, size, rng) for tensor in inputs]


def _random(tensor: Any, size: int, rng: np.random.Generator) -> Any:
    dtype, shape = keras.backend.standardize_dtype(tensor.dtype), shape_of(tensor, size)
    if dtype == "string":
        return np.full(shape, "a")
    if "float" in dtype:
        return rng.normal(size=shape).astype("float32" if dtype == "bfloat16" else dtype)
    return rng.integers(0, 2, shape).astype(dtype)  # is an index, whatever is looked up


def shape_of(tensor: Any, size: int) -> tuple[int, ...]:
    """Return a shape for `tensor`: of few rows, with `size` for other axes of unknown length."""
    first, *others = tensor.shape or (1,)
    lengths = [size if length is None else length for length in others]
    numbers = np.prod(lengths, dtype="int64")
    rows = first or (8 if numbers <= FEW else 2 if numbers < LARGE else 1)
    return (rows, *lengths) if len(tensor.shape) else ()


class Program:
    """Computes arrays from arrays with variables, without side effects on these.

    Args:
        function: of tensors, flat; returns tensors, flat.
        variables: that it reads, of any kind.
        is_large: whether JAX compiles it as one.
    """

    def __init__(self, function: Callable[[list], list], variables: Sequence[Any], is_large: bool):
        self._function = function
        self._variables = list(variables)
        self._run = compiled_at_once(self._computed) if is_large else self._computed

    def __call__(self, arrays: Sequence[Any], values: Mapping[int, Any] | None = None) -> list[np.ndarray]:
        """Return what it computes in inference mode.

        Args:
            values: other values of variables, by the `id` of the variable.
        """
        values = values or {}
        state = [values.get(id(variable), variable.value) for variable in self._variables]
        with no_trace():
            return [_array(tensor) for tensor in self._run(state, list(arrays))]

    def _computed(self, values: list, arrays: list) -> list:
        with values_in_place(self._variables, values):
            return self._function(arrays)

    def noise(self, arrays: Sequence[Any], dtype: str) -> list[float]:
        """Return the relative errors that one rounding to `dtype` of all weights and inputs makes."""
        rng = np.random.default_rng(1)
        rounding, expected = ROUNDING.get(dtype, 2.0**-24), self(arrays)
        values = {id(v): _moved_value(v, rounding, rng) for v in self._variables if _is_float(v)}
        moved = [_moved(a, rounding, rng) if _has_floats(a) else a for a in arrays]
        return relative_errors(self(moved, values), expected)

    def disturbed(self, arrays: Sequence[Any], variables: Sequence[Any], error: float) -> list[np.ndarray]:
        """Return what it computes with a relative `error`, up or down, in each number of `variables`.

        Those that are all zeros become `error` themselves, up or down.
        """
        rng = np.random.default_rng(2)
        values = {}
        for variable in variables:
            array = value_on_host(variable)
            moved = _moved(array if array.any() else np.ones_like(array), error, rng)
            values[id(variable)] = keras.ops.convert_to_tensor(
                moved if array.any() else moved - np.ones_like(array), variable.dtype
            )
        return self(arrays, values)


class Prober(Program):
    """Computes tensors of a model from its inputs, without side effects on the model.

    Args:
        inputs: the Keras tensors that the model takes, flat.
        tensors: those to compute.
    """

    def __init__(self, inputs: Sequence[Any], tensors: Sequence[Any]):
        model = keras.Model(list(inputs), list(tensors))
        is_large = len(model.operations) >= MANY
        super().__init__(
            lambda arrays: tree.flatten(called_at_inference(model, arrays)), model.variables, is_large
        )


def compared(
    program: Program,
    arrays: Sequence[Any],
    expected: Sequence[np.ndarray],
    results: Sequence[np.ndarray],
    dtypes: Sequence[str],
) -> tuple[list[float], list[float]]:
    """Return the relative error of each of `results`, and what rounding may make it.

    Args:
        program: what made `expected` of `arrays`.
        dtypes: of `expected`.
    """
    errors, rounding = relative_errors(results, expected), tolerance(dtypes)
    if all(error <= rounding or np.isnan(error) for error in errors):
        return errors, [rounding] * len(errors)
    # Or the model itself is so ill-conditioned that it makes as much of one rounding of its weights.
    noise = program.noise(arrays, max(dtypes, key=lambda dtype: ROUNDING.get(dtype, 0.0)))
    return errors, [max(rounding, 4 * each) for each in np.nan_to_num(noise)]


def _is_float(variable: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(variable.dtype)


def _has_floats(array: np.ndarray | None) -> bool:
    return array is not None and array.dtype.kind == "f"


def _moved_value(variable: Any, error: float, rng: np.random.Generator) -> Any:
    return keras.ops.convert_to_tensor(_moved(value_on_host(variable), error, rng), variable.dtype)


def _moved(array: np.ndarray, error: float, rng: np.random.Generator) -> np.ndarray:
    signs = rng.choice([-1.0, 1.0], array.shape)
    return (array.astype("float64") * (1 + error * signs)).astype(array.dtype)


def _array(tensor: Any) -> np.ndarray:
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return array.astype("float32") if str(array.dtype) == "bfloat16" else array
