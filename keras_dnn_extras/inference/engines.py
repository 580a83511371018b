"""What can run a model at inference: each engine an adapter from a model to a function of arrays."""

import io
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import ml_dtypes
import numpy as np
from keras import ops, tree

from keras_dnn_extras._backends import called_at_inference, quiet, value_on_host, values_in_place
from keras_dnn_extras.inference.exported_engines import on_litert, on_onnxruntime
from keras_dnn_extras.inference.numpy_program import NotInNumpyError, array_program
from keras_dnn_extras.inference.signatures import EngineError, Run, Signature, first_line

Engine = Literal["auto", "numpy", "graph", "xla", "trace", "eager", "onnxruntime", "litert"]


def built_engine(name: str, model: keras.Model, signature: Signature) -> Run:
    """Return the function of arrays of the engine `name`. It has the weights that `model` has now.

    Raises:
        EngineError: it is not there, or cannot run the model.
    """
    backends, build = ENGINES[name]
    backend = keras.backend.backend()
    if backend not in backends:
        raise EngineError(f"not with the {backend} backend")
    try:
        with quiet():
            return build(model, signature)
    except EngineError:
        raise
    except NotInNumpyError as error:
        raise EngineError(str(error)) from error
    except Exception as error:  # whatever a compiler or an exporter raises for a model it cannot take
        raise EngineError(f"{type(error).__name__}: {first_line(error)}") from error


class _Function:
    """A model as a function of the values of its variables and of tensors, flat, to a list of tensors.

    Attributes:
        arrays: what the variables hold now. `constants()` returns them as new tensors.
    """

    def __init__(self, model: keras.Model, signature: Signature):
        self._model = model
        self._signature = signature
        self._variables = list(model.variables)
        self.arrays = list(map(value_on_host, self._variables))

    def __call__(self, values: Sequence[Any], *tensors: Any) -> list:
        with values_in_place(self._variables, values):
            return tree.flatten(called_at_inference(self._model, self._signature.packed(tensors)))

    def constants(self) -> list:
        pairs = zip(self.arrays, self._variables, strict=True)
        return [ops.convert_to_tensor(array, variable.dtype) for array, variable in pairs]


def rounding_of_products() -> float:
    """Return the error that products of float32 make where their precision is part of what is compiled."""
    if keras.backend.backend() != "jax":
        return 0.0
    import jax

    return 0.0 if jax.default_backend() == "cpu" else 16 * 2.0**-11  # TensorFloat-32, in some layers


# -- NumPy ----------------------------------------------------------------------------------------------


def _on_numpy(model: keras.Model, signature: Signature) -> Run:
    return array_program(model)


# -- TensorFlow -----------------------------------------------------------------------------------------


# Private, and half the time: without it the call of a graph looks at its arguments in Python.
_FAST_CALL = "call_flat"


def _graph_of(function: Callable, signature: Signature, jit_compile: bool) -> Any:
    import tensorflow as tf

    specs = [tf.TensorSpec(*spec) for spec in zip(signature.shapes, signature.dtypes, strict=True)]
    traced = tf.function(function, input_signature=specs, autograph=False, jit_compile=jit_compile or None)
    graph = traced.get_concrete_function()
    if graph.graph.variables:
        raise EngineError("a layer has a `tf.Variable` that Keras does not know, and that may change")
    return graph


def _on_tensorflow_graph(model: keras.Model, signature: Signature) -> Run:
    function = _Function(model, signature)
    # Constants: TensorFlow lays them out anew for its kernels, once.
    graph = _graph_of(lambda *tensors: function(function.constants(), *tensors), signature, False)
    return _called_directly(graph)


def _on_tensorflow_xla(model: keras.Model, signature: Signature) -> Run:
    signature.fixed_shapes()
    function = _Function(model, signature)
    # Arguments: TensorFlow keeps for ever what XLA has compiled, with the constants in it.
    values = function.constants()
    return _called_directly(_graph_of(lambda *tensors: function(values, *tensors), signature, True))


def _called_directly(graph: Any) -> Run:
    """Return a function of arrays that calls a graph.

    The operation `StatefulPartitionedCall` is faster, and keeps for ever what it has called.
    """
    import tensorflow as tf

    constant, captured = tf.constant, graph.captured_inputs
    call = getattr(getattr(graph, "_inference_function", None), _FAST_CALL, None)
    if call is None:
        return lambda arrays: [np.asarray(y.numpy()) for y in graph(*map(constant, arrays))]
    return lambda arrays: [np.asarray(y.numpy()) for y in call(*map(constant, arrays), *captured)]


# -- JAX ------------------------------------------------------------------------------------------------


def _on_jax(model: keras.Model, signature: Signature) -> Run:
    import jax

    function = _Function(model, signature)
    dtypes = [jax.dtypes.canonicalize_dtype(dtype) for dtype in signature.dtypes]
    if signature.is_flexible:  # compiled for each shape when it comes, with one copy of the weights
        values, jitted = function.constants(), jax.jit(function)
        return lambda arrays: [
            np.array(y) for y in jitted(values, *(x.astype(d) for x, d in zip(arrays, dtypes, strict=True)))
        ]
    specs = [jax.ShapeDtypeStruct(*spec) for spec in zip(signature.shapes, dtypes, strict=True)]
    # Constants: as arguments the weights would be looked at in each call.
    fixed = jax.jit(lambda *tensors: function(function.constants(), *tensors))
    executable = fixed.lower(*specs).compile()
    if list(map(np.dtype, signature.dtypes)) == dtypes:
        return lambda arrays: [np.array(y) for y in executable(*arrays)]
    return lambda arrays: [
        np.array(y) for y in executable(*(x.astype(d) for x, d in zip(arrays, dtypes, strict=True)))
    ]


# -- PyTorch --------------------------------------------------------------------------------------------


def _torch_tensors() -> Callable[[Sequence[np.ndarray]], list]:
    """Return what turns arrays into tensors where Keras has its own."""
    import torch

    device = ops.convert_to_tensor(np.zeros(())).device

    def tensors_of(arrays: Sequence[np.ndarray]) -> list:
        # `from_numpy` takes neither arrays that cannot be written nor negative strides.
        tensors = [torch.from_numpy(x if x.flags.carray else x.copy()) for x in arrays]
        return tensors if device.type == "cpu" else [x.to(device) for x in tensors]

    return tensors_of


def _on_torch_trace(model: keras.Model, signature: Signature) -> Run:
    import torch

    shapes = signature.fixed_shapes()
    function, tensors_of = _Function(model, signature), _torch_tensors()
    kinds: list[Any] = []

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i, tensor in enumerate(function.constants()):
                self.register_buffer(f"value_{i}", tensor)

        def forward(self, *tensors: Any) -> tuple:
            outputs = function(list(self.buffers()), *tensors)
            kinds[:] = [ml_dtypes.bfloat16 if y.dtype is torch.bfloat16 else None for y in outputs]
            return tuple(y.float() if y.dtype is torch.bfloat16 else y for y in outputs)

    examples = [np.zeros(*spec) for spec in zip(shapes, signature.dtypes, strict=True)]
    with torch.inference_mode(False), torch.no_grad():
        traced = torch.jit.trace(Module().eval(), tuple(tensors_of(examples)), check_trace=False)
        traced = torch.jit.freeze(_with_code_of_its_own(traced))

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [np.array(y.cpu().numpy()) for y in traced(*tensors_of(arrays))]

    if not any(kinds):
        return run
    # PyTorch makes no arrays of bfloat16, Keras does.
    return lambda arrays: [y.astype(kind or y.dtype) for y, kind in zip(run(arrays), kinds, strict=True)]


def _with_code_of_its_own(traced: Any) -> Any:
    """Return a copy whose code goes with it: PyTorch keeps for ever what it has traced or frozen itself."""
    import torch

    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    return torch.jit.load(file).eval()


def _on_torch_eager(model: keras.Model, signature: Signature) -> Run:
    import torch

    function, tensors_of = _Function(model, signature), _torch_tensors()
    values = function.constants()

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():  # not `inference_mode`: a layer may keep a tensor that it trains with later
            return [np.array(ops.convert_to_numpy(y)) for y in function(values, *tensors_of(arrays))]

    return run


# -- all ------------------------------------------------------------------------------------------------


def _xla(model: keras.Model, signature: Signature) -> Run:
    build = _on_jax if keras.backend.backend() == "jax" else _on_tensorflow_xla
    return build(model, signature)


_ALL = ("tensorflow", "jax", "torch")
ENGINES: dict[str, tuple[tuple[str, ...], Callable[[keras.Model, Signature], Run]]] = {
    "numpy": (_ALL, _on_numpy),
    "graph": (("tensorflow",), _on_tensorflow_graph),
    "xla": (("tensorflow", "jax"), _xla),
    "trace": (("torch",), _on_torch_trace),
    "eager": (("torch",), _on_torch_eager),
    "onnxruntime": (_ALL, on_onnxruntime),
    "litert": (("tensorflow", "torch"), on_litert),
}
"""The backends that each engine works with, and what builds it."""
