"""What can run a model at inference: each engine an adapter from a model to a function of arrays."""

import contextlib
import importlib.util
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import ml_dtypes
import numpy as np
from keras import ops, tree

from keras_dnn_extras.array_program import NotInNumpyError, array_program
from keras_dnn_extras.signatures import Run, Signature
from keras_dnn_extras.surgery import functional_of


class EngineError(Exception):
    """An engine is not there, or cannot run the model; says why."""


def called(model: keras.Model, inputs: Any) -> Any:
    """Return the outputs of `model` in inference mode."""
    with_training = getattr(model, "_call_has_training_arg", False)
    return model(inputs, training=False) if with_training else model(inputs)


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
        with _quiet():
            return build(model, signature)
    except EngineError:
        raise
    except NotInNumpyError as error:
        raise EngineError(str(error)) from error
    except Exception as error:  # whatever a compiler or an exporter raises for a model it cannot take
        raise EngineError(f"{type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no message"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what compilers and exporters tell: an engine that fails is reported with its reason."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _with_constants(model: keras.Model, signature: Signature) -> Callable:
    """Return a function of tensors, flat, in which the weights are constants once it is traced."""
    weights = [(v, np.array(ops.convert_to_numpy(v))) for v in model.variables]

    def function(*tensors: Any) -> list:
        constants = [(v, ops.convert_to_tensor(array, v.dtype)) for v, array in weights]
        with keras.StatelessScope(state_mapping=constants):
            return tree.flatten(called(model, signature.packed(tensors)))

    return function


def rounding_of_products() -> float:
    """Return the error that products of float32 make where their precision is part of what is compiled."""
    if keras.backend.backend() != "jax":
        return 0.0
    import jax

    return 0.0 if jax.default_backend() == "cpu" else 16 * 2.0**-11  # TensorFloat-32, in some layers


# -- NumPy ----------------------------------------------------------------------------------------------


def _on_numpy(model: keras.Model, signature: Signature) -> Run:
    return array_program(model, signature.shapes[0][0])


# -- TensorFlow -----------------------------------------------------------------------------------------


def _graph_of(model: keras.Model, signature: Signature, jit_compile: bool) -> Any:
    import tensorflow as tf

    specs = [tf.TensorSpec(*spec) for spec in zip(signature.shapes, signature.dtypes, strict=True)]
    function = tf.function(
        _with_constants(model, signature),
        input_signature=specs,
        autograph=False,
        jit_compile=jit_compile or None,
    )
    graph = function.get_concrete_function()
    if graph.graph.variables:
        raise EngineError("a layer has a `tf.Variable` that Keras does not know, and that may change")
    return graph


def _on_tensorflow_graph(model: keras.Model, signature: Signature) -> Run:
    import tensorflow as tf

    graph = _graph_of(model, signature, jit_compile=False)
    if graph.captured_inputs:  # such as tables of strings
        return lambda arrays: [np.asarray(y.numpy()) for y in graph(*map(tf.constant, arrays))]
    dtypes = [output.dtype for output in graph.outputs]
    call, constant = tf.raw_ops.StatefulPartitionedCall, tf.constant
    # A third of what a call of the graph itself takes, which looks at its arguments in Python.
    return lambda arrays: [
        np.asarray(y.numpy()) for y in call(args=[constant(x) for x in arrays], Tout=dtypes, f=graph)
    ]


def _on_tensorflow_xla(model: keras.Model, signature: Signature) -> Run:
    import tensorflow as tf

    graph, constant = _graph_of(model, signature, jit_compile=True), tf.constant
    # Private, and half the time: without it the call looks at its arguments in Python.
    inner = getattr(getattr(graph, "_inference_function", None), "call_flat", None)
    if inner is None or graph.captured_inputs:
        inner = graph
    return lambda arrays: [np.asarray(y.numpy()) for y in inner(*[constant(x) for x in arrays])]


# -- JAX ------------------------------------------------------------------------------------------------


def _on_jax(model: keras.Model, signature: Signature) -> Run:
    import jax

    dtypes = [jax.dtypes.canonicalize_dtype(dtype) for dtype in signature.dtypes]
    specs = [jax.ShapeDtypeStruct(*spec) for spec in zip(signature.shapes, dtypes, strict=True)]
    # Constants: as arguments the weights would be looked at in each call.
    executable = jax.jit(_with_constants(model, signature)).lower(*specs).compile()
    if list(map(np.dtype, signature.dtypes)) == dtypes:
        return lambda arrays: [np.array(y) for y in executable(*arrays)]
    return lambda arrays: [
        np.array(y) for y in executable(*(x.astype(d) for x, d in zip(arrays, dtypes, strict=True)))
    ]


# -- PyTorch --------------------------------------------------------------------------------------------


def _on_torch(model: keras.Model, signature: Signature) -> Run:
    import torch
    from keras.src.backend.torch.core import get_device

    function, device = _with_constants(model, signature), get_device()

    kinds: list[Any] = []

    class Module(torch.nn.Module):
        def forward(self, *tensors: Any) -> tuple:
            found = function(*tensors)
            kinds[:] = [ml_dtypes.bfloat16 if y.dtype is torch.bfloat16 else None for y in found]
            return tuple(y.float() if y.dtype is torch.bfloat16 else y for y in found)

    def tensors_of(arrays: Sequence[np.ndarray]) -> list:
        # `from_numpy` takes neither arrays that cannot be written nor negative strides.
        found = [torch.from_numpy(x if x.flags.carray else x.copy()) for x in arrays]
        return found if device == "cpu" else [x.to(device) for x in found]

    examples = [np.zeros(*spec) for spec in zip(signature.shapes, signature.dtypes, strict=True)]
    with torch.inference_mode(False), torch.no_grad():
        traced = torch.jit.trace(Module().eval(), tuple(tensors_of(examples)), check_trace=False)
        traced = torch.jit.freeze(traced)

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [np.array(y.cpu().numpy()) for y in traced(*tensors_of(arrays))]

    if not any(kinds):
        return run
    # PyTorch makes no arrays of bfloat16, Keras does.
    return lambda arrays: [y.astype(kind or y.dtype) for y, kind in zip(run(arrays), kinds, strict=True)]


# -- exported files -------------------------------------------------------------------------------------


def _exported(model: keras.Model, signature: Signature, suffix: str, kind: str) -> bytes:
    if functional_of(model) is None:
        raise EngineError("only functional and sequential models are exported")
    specs = zip(model.inputs, signature.shapes, signature.dtypes, strict=True)
    flat = [keras.InputSpec(shape=s, dtype=d, name=tensor.name) for tensor, s, d in specs]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"model{suffix}")
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            model.export(path, format=kind, verbose=False, input_signature=[signature.packed(flat)])
        with open(path, "rb") as file:
            return file.read()


def _check_installed(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(f"not installed: {', '.join(missing)}")


def _on_onnxruntime(model: keras.Model, signature: Signature) -> Run:
    exporter = {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "onnxscript"}
    _check_installed("onnxruntime", "onnx", exporter[keras.backend.backend()])
    import onnxruntime

    content = _exported(model, signature, ".onnx", "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    own = [tensor.name for tensor in model.inputs]
    names = own if set(own) == set(names) else names  # else in the order of the inputs
    return lambda arrays: [np.asarray(y) for y in session.run(None, dict(zip(names, arrays, strict=True)))]


def _on_litert(model: keras.Model, signature: Signature) -> Run:
    exporter = {"torch": ["litert_torch"]}.get(keras.backend.backend(), [])
    _check_installed("ai_edge_litert", *exporter)
    from ai_edge_litert.interpreter import Interpreter

    content = _exported(model, signature, ".tflite", "litert")
    names = [tensor.name for tensor in model.inputs]
    interpreters = threading.local()  # each has the arrays of one run at a time

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not hasattr(interpreters, "mine"):
            interpreters.mine = Interpreter(model_content=content)
            interpreters.mine.allocate_tensors()
            interpreters.places = _places(interpreters.mine, names)
        interpreter, (given, made) = interpreters.mine, interpreters.places
        for place, array in zip(given, arrays, strict=True):
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return [interpreter.get_tensor(place) for place in made]

    return run


def _places(interpreter: Any, names: list[str]) -> tuple[list[int], list[int]]:
    """Return where inputs and outputs are, by their names: the order is another one than Keras's."""
    signature = interpreter.get_signature_runner()
    given, made = signature.get_input_details(), signature.get_output_details()
    if set(given) != set(names):
        raise EngineError(f"its inputs are {', '.join(given)}, not {', '.join(names)}")
    in_order = sorted(made, key=lambda name: (len(name), name))  # output_2 before output_10
    return [given[name]["index"] for name in names], [made[name]["index"] for name in in_order]


def _xla(model: keras.Model, signature: Signature) -> Run:
    build = _on_jax if keras.backend.backend() == "jax" else _on_tensorflow_xla
    return build(model, signature)


_ALL = ("tensorflow", "jax", "torch")
ENGINES: dict[str, tuple[tuple[str, ...], Callable[[keras.Model, Signature], Run]]] = {
    "numpy": (_ALL, _on_numpy),
    "graph": (("tensorflow",), _on_tensorflow_graph),
    "xla": (("tensorflow", "jax"), _xla),
    "trace": (("torch",), _on_torch),
    "onnxruntime": (_ALL, _on_onnxruntime),
    "litert": (("tensorflow", "torch"), _on_litert),
}
"""The backends that each engine works with, and what builds it."""
