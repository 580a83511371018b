"""Engines that run what Keras exports: ONNX Runtime and LiteRT."""

import importlib.util
import os
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._keras_internals import functional_of
from keras_dnn_extras.inference.signatures import EngineError, Run, Signature

_EXPORTING = threading.Lock()  # Keras redirects the output of the process while LiteRT reads PyTorch's


def _exported(model: keras.Model, signature: Signature, suffix: str, kind: str) -> bytes:
    if functional_of(model) is None:
        raise EngineError("only functional and sequential models are exported")
    specs = zip(model.inputs, signature.shapes, signature.dtypes, strict=True)
    flat = [keras.InputSpec(shape=s, dtype=d, name=tensor.name) for tensor, s, d in specs]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"model{suffix}")
        with _EXPORTING:
            model.export(path, format=kind, verbose=False, input_signature=[signature.packed(flat)])
        with open(path, "rb") as file:
            return file.read()


def _check_installed(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        command = f"`python -m pip install {' '.join(missing)}`"
        raise EngineError(f"not installed: {', '.join(missing)}, which {command} adds")


def on_onnxruntime(model: keras.Model, signature: Signature) -> Run:
    signature.fixed_shapes()
    exporter = {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "onnxscript"}
    _check_installed("onnxruntime", "onnx", exporter[keras.backend.backend()])
    import onnxruntime

    content = _exported(model, signature, ".onnx", "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    of_keras = [tensor.name for tensor in model.inputs]
    names = of_keras if set(of_keras) == set(names) else names  # else in the order of the inputs
    return lambda arrays: [np.asarray(y) for y in session.run(None, dict(zip(names, arrays, strict=True)))]


def on_litert(model: keras.Model, signature: Signature) -> Run:
    signature.fixed_shapes()
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
        interpreter, (input_places, output_places) = interpreters.mine, interpreters.places
        for place, array in zip(input_places, arrays, strict=True):
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return [interpreter.get_tensor(place) for place in output_places]

    return run


def _places(interpreter: Any, names: list[str]) -> tuple[list[int], list[int]]:
    """Return where inputs and outputs are, by their names: the order is another one than Keras's."""
    signature = interpreter.get_signature_runner()
    inputs, outputs = signature.get_input_details(), signature.get_output_details()
    if set(inputs) != set(names):
        raise EngineError(f"its inputs are {', '.join(inputs)}, not {', '.join(names)}")
    in_order = sorted(outputs, key=lambda name: (len(name), name))  # output_2 before output_10
    return [inputs[name]["index"] for name in names], [outputs[name]["index"] for name in in_order]
