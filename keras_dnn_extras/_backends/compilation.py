"""Functions of tensors, compiled the way that suits each backend."""

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import tree

from keras_dnn_extras._backends.replicas import strategy_scope


def compiled(function: Callable, model: keras.Model) -> Callable:
    """Return `function` compiled: traced once for each combination of shapes.

    It may read the variables of `model`, which are those of the time of the call, and changes none. What is
    returned does not keep `model` alive.

    Args:
        function: takes and returns structures of tensors.

    Returns:
        A function that takes structures of arrays or tensors and returns structures of tensors.
    """
    on_backend = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}
    return on_backend[keras.backend.backend()](function, weakref.ref(model))


def compiled_at_once(function: Callable[[list, list], list]) -> Callable[[list, list], list]:
    """Return `function` compiled as one on JAX, for a few calls, and as it is elsewhere.

    JAX otherwise compiles each operation of a new shape by itself.
    """
    if keras.backend.backend() != "jax":
        return function
    import jax

    # What runs a few times costs more to optimize than to run: level 0 halves the time on MobileNetV2.
    traced = jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})

    def run(values: list, arrays: list) -> list:
        try:
            return traced(values, arrays)
        except Exception:  # a layer that wants to see numbers, or inputs that it does not take
            return function(values, arrays)

    return run


def values_in_place(variables: Sequence[keras.Variable], values: Sequence[Any]) -> keras.StatelessScope:
    """Return a scope in which `variables` have other values, and keep their own."""
    return keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))


def _on_tensorflow(function: Callable, model: Callable[[], Any]) -> Callable:
    import tensorflow as tf

    # TensorFlow warns of a function that is traced often, and takes all of the same code for one: each
    # combination of shapes has a function of its own, by an object without code.
    traced: dict[str, Callable] = {}

    def call(*arguments: Any) -> Any:
        shapes = repr(tree.map_structure(lambda x: (tuple(x.shape), x.dtype), arguments))
        if shapes not in traced:
            traced[shapes] = tf.function(functools.partial(function), autograph=False)
        with strategy_scope(model()):
            return traced[shapes](*arguments)

    return call


def _on_jax(function: Callable, model: Callable[[], Any]) -> Callable:
    import jax

    def on_values(values: list, variables: Any, *arguments: Any) -> Any:
        with values_in_place(variables.all, values):
            return function(*arguments)

    traced = jax.jit(on_values, static_argnums=1)

    def call(*arguments: Any) -> Any:
        variables = _Variables(model().variables)
        return traced([variable.value for variable in variables.all], variables, *arguments)

    return call


class _Variables:
    """Variables as an argument that is no tensor: equal if they are the same ones."""

    def __init__(self, variables: list):
        self.all = variables
        self._ids = tuple(map(id, variables))

    def __hash__(self) -> int:
        return hash(self._ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Variables) and self._ids == other._ids


def _on_torch(function: Callable, _: Callable[[], Any]) -> Callable:
    import torch

    def call(*arguments: Any) -> Any:
        with torch.no_grad():
            return function(*tree.map_structure(keras.ops.convert_to_tensor, arguments))

    return call
