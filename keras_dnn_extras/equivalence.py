"""Whether two models compute the same: on random inputs, as far as their dtypes can tell."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

LARGE = 50_000  # numbers in a row
MANY = 50  # operations, which JAX compiles faster as one than each by itself
SIZES = (32, 64, 16, 128, 224, 8, 299, 4, 2, 1)  # of axes of unknown length, one after the other

# Differences that rounding makes: 256 roundings. Deep networks of random weights were seen to have 15.
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
ROUNDINGS = 256


class NoRandomInputsError(Exception):
    """The model does not take any of the random inputs."""


def relative_errors(found: Sequence[Any], expected: Sequence[Any]) -> list[float]:
    """Return the largest difference of each pair of arrays, over the largest number in either of them.

    It is NaN where neither has a finite number.
    """
    return [_relative_error(*pair) for pair in zip(found, expected, strict=True)]


def _relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    if found.dtype.kind not in "fc":
        return 0.0 if np.array_equal(found, expected) else float("inf")
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    finite = np.isfinite(expected)
    if not finite.any() and finite.size:
        return float("nan")
    found, expected = (array[finite].astype("float64") for array in (found, expected))
    size = max(np.max(np.abs(expected)), np.max(np.abs(found)))
    return float(np.max(np.abs(found - expected)) / size) if size > 0 else 0.0


def tolerance(dtypes: Sequence[str]) -> float:
    """Return the relative error that rounding can make in a model that computes with `dtypes`."""
    if keras.backend.backend() != "tensorflow":  # Keras computes with float32 there
        dtypes = ["float32" if dtype == "float64" else dtype for dtype in dtypes]
    return ROUNDINGS * max([ROUNDING[dtype] for dtype in dtypes if dtype in ROUNDING], default=2.0**-24)


def random_inputs(inputs: Sequence[Any], size: int, seed: int = 0) -> list[Any]:
    """Return an array for each Keras tensor in `inputs`: normal, of integers zeros and ones.

    Args:
        size: length of axes of unknown length, but the first, which is 2, or 1 for large inputs.
    """
    rng = np.random.default_rng(seed)
    return [_random(tensor, size, rng) for tensor in inputs]


def _random(tensor: Any, size: int, rng: np.random.Generator) -> Any:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    shape = [size if length is None else length for length in tensor.shape]
    if tensor.shape[:1] == (None,):
        shape[0] = 2 if np.prod(shape[1:]) < LARGE else 1
    if dtype == "string":
        return np.full(shape, "a")
    if "float" in dtype:
        return rng.normal(size=shape).astype("float32" if dtype == "bfloat16" else dtype)
    return rng.integers(0, 2, shape).astype(dtype)  # is an index, whatever is looked up


class Prober:
    """Computes tensors of a model from its inputs, without a trace in it.

    Args:
        inputs: the Keras tensors that the model takes, flat.
        tensors: those to compute.
    """

    def __init__(self, inputs: Sequence[Any], tensors: Sequence[Any]):
        self._model = keras.Model(list(inputs), list(tensors))
        is_large = len(self._model.operations) >= MANY
        self._run = _compiled_on_jax(self._computed) if is_large else self._computed

    def __call__(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """Return the tensors in inference mode."""
        values = [variable.value for variable in self._model.variables]
        with no_trace():
            return [_array(tensor) for tensor in self._run(values, list(arrays))]

    def _computed(self, values: list, arrays: list) -> list:
        with keras.StatelessScope(state_mapping=list(zip(self._model.variables, values, strict=True))):
            return tree.flatten(self._model(arrays, training=False))

    def noise(self, arrays: Sequence[Any], dtype: str) -> list[float]:
        """Return the relative errors that one rounding to `dtype` of all weights and inputs makes."""
        rng = np.random.default_rng(1)
        rounding = ROUNDING[dtype]

        def rounded(array: np.ndarray) -> np.ndarray:
            signs = rng.choice([-1.0, 1.0], array.shape)
            return (array.astype("float64") * (1 + rounding * signs)).astype(array.dtype)

        def moved_value(variable: keras.Variable) -> Any:
            if "float" not in keras.backend.standardize_dtype(variable.dtype):
                return variable.value
            return keras.ops.convert_to_tensor(rounded(_raw(variable)), variable.dtype)

        expected = self(arrays)
        values = [moved_value(variable) for variable in self._model.variables]
        moved = [rounded(a) if a.dtype.kind == "f" else a for a in arrays]
        with no_trace():
            found = [_array(tensor) for tensor in self._run(values, moved)]
        return relative_errors(found, expected)


def _compiled_on_jax(function: Callable[[list, list], list]) -> Callable[[list, list], list]:
    """Compile `function` on JAX, which otherwise compiles each operation of a new shape by itself."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    compiled = jax.jit(function)

    def run(values: list, arrays: list) -> list:
        try:
            return compiled(values, arrays)
        except Exception:  # a layer that wants to see numbers, or inputs that it does not take
            return function(values, arrays)

    return run


def taken_inputs(inputs: Sequence[Any], prober: Prober) -> tuple[list[Any], list[np.ndarray]]:
    """Return random inputs that a model takes, and what `prober` computes of them.

    Raises:
        NoRandomInputsError: it takes none.
    """
    last: Exception | None = None
    flexible = any(length is None for tensor in inputs for length in tensor.shape[1:])
    for size in SIZES if flexible else SIZES[:1]:
        arrays = random_inputs(inputs, size)
        try:
            return arrays, prober(arrays)
        except Exception as error:  # of whatever kind a layer raises for an image that is too small
            last = error
    raise NoRandomInputsError(str(last)) from last


@contextlib.contextmanager
def no_trace() -> Iterator[keras.StatelessScope]:
    """Compute without a trace in the model: states of recurrent layers, seeds and gradients stay."""
    precise = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}
    scope = keras.StatelessScope()
    with scope, precise.get(keras.backend.backend(), contextlib.nullcontext)():
        yield scope


# On GPUs products of float32 are otherwise of TensorFloat-32, which rounds to 10 bits, and that would hide
# more than it shows.


@contextlib.contextmanager
def _on_tensorflow() -> Iterator[None]:
    import tensorflow as tf

    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


def _on_jax() -> contextlib.AbstractContextManager:
    import jax

    return jax.default_matmul_precision("highest")


@contextlib.contextmanager
def _on_torch() -> Iterator[None]:
    import torch

    backends: Any = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    # Layers without a seed draw from the global generator: the same numbers each time.
    with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        try:
            for backend in backends:
                backend.allow_tf32 = False
            yield
        finally:
            for backend, allowed in zip(backends, before, strict=True):
                backend.allow_tf32 = allowed


def _raw(variable: keras.Variable) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


def _array(tensor: Any) -> np.ndarray:
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return array.astype("float32") if str(array.dtype) == "bfloat16" else array
