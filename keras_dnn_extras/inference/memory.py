"""What a call of a compiled model needs of the memory, before anything is computed."""

from typing import Any

import keras
import ml_dtypes
import numpy as np

from keras_dnn_extras._backends import memory_of_machine
from keras_dnn_extras._graphs import Graph
from keras_dnn_extras.inference.signatures import Signature

_LARGEST = 2**34  # bytes, and never more than the machine has
_EXAMPLES = 3  # that engines are compared on, with their outputs


def check_memory(model: keras.Model, signature: Signature) -> None:
    """Raise where a batch is too large for the machine, or for any machine."""
    rows = signature.shapes[0][0]
    needed, largest = _needed(model, signature), min(_LARGEST, memory_of_machine())
    if rows is not None and needed > largest:
        raise ValueError(
            f"Batches of {rows} rows need {needed / 1e9:.3g} GB for the inputs, the outputs and the "
            f"largest layer, and there are {largest / 1e9:.3g} GB for them. Pass a smaller `batch_size`. "
            f"Received: batch_size={rows}"
        )


def _needed(model: keras.Model, signature: Signature) -> int:
    rows = signature.shapes[0][0] or 1
    inputs = sum(map(_bytes, signature.shapes, signature.dtypes))
    graph = Graph.of(model)
    if graph is None:
        return _EXAMPLES * inputs

    def size(values: Any) -> int:
        return sum(_bytes((rows if v.has_batch else 1, *v.shape[1:]), v.dtype) for v in values)

    layers = [size(call.outputs) for call in graph.calls]
    return _EXAMPLES * (inputs + size(graph.output_values)) + max(layers, default=0)


def _bytes(shape: tuple[int | None, ...], dtype: str) -> int:
    length = 1
    for each in shape:  # as Python numbers, which have no largest one
        length *= each or 1
    return length * np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
