"""Models of dense and elementwise layers as a list of NumPy calls.

A call of a runtime costs more than the arithmetic of a small network. Here nothing is left but that:
weights are taken once, each dense layer makes one array, and what follows works in it as far as nobody
else takes it. Arrays are made anew in each call, so that several threads may call at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._graphs import Call, Graph, Value, is_no_op
from keras_dnn_extras._models import computes_with_its_kernel
from keras_dnn_extras.inference.numpy_activations import (
    KERNELS,
    Kernel,
    bent,
    exponential_unit,
    leaky,
    softmax_along,
)

L = keras.layers
Step = Callable[[list], None]

_KERNELS = {
    getattr(keras.activations, name): kernel
    for name, kernel in KERNELS.items()
    if hasattr(keras.activations, name)
}
_JOINS: dict[Any, Any] = {L.Add: np.add, L.Multiply: np.multiply, L.Subtract: np.subtract}
_JOINS |= {L.Maximum: np.maximum, L.Minimum: np.minimum}


class NotInNumpyError(Exception):
    """A layer for which there is no NumPy here."""


def array_program(model: keras.Model) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Return a function of arrays, in the order of the inputs, that computes the outputs of `model`, flat.

    Raises:
        NotInNumpyError: a layer is of another kind, or has other dtypes than the inputs.
    """
    graph = Graph.of(model)
    if graph is None:
        raise NotInNumpyError("the model has a `call` of its own")
    return _Compiler(graph).program()


class _Compiler:
    """Turns calls into steps, each of which takes and puts arrays at their places in a list."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._outputs = graph.output_values
        self._places = {value: place for place, value in enumerate(graph.inputs)}
        self._dtype = graph.inputs[0].dtype
        # Values in one array: what reshapes or works in place puts its own beside those it takes.
        self._sharing = {value: {value} for value in graph.inputs}
        self._steps: list[Step] = []

    def program(self) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
        self._check_dtypes()
        for call in self._graph.calls:
            self._add(call)
        steps: list[Step] = self._steps
        more: list[Any] = [None] * len(self._graph.calls)
        places = [self._places[value] for value in self._outputs]

        def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            values = [*arrays, *more]
            with np.errstate(all="ignore"):  # what overflows is to become infinite or 0
                for step in steps:
                    step(values)
            return [values[place] for place in places]

        return self._of_its_own(run)

    def _of_its_own(self, run: Callable) -> Callable:
        """Return `run` with copies of outputs that are in an input's array or in that of another output."""
        inputs, copied = set(self._graph.inputs), []
        for place, value in enumerate(self._outputs):
            if self._sharing[value] & (inputs | set(self._outputs[:place])):
                copied.append(place)
        if not copied:
            return run

        def run_and_copy(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            outputs = run(arrays)
            for place in copied:
                outputs[place] = outputs[place].copy()
            return outputs

        return run_and_copy

    def _check_dtypes(self) -> None:
        dtypes = {value.dtype for value in self._graph.inputs}
        dtypes |= {value.dtype for call in self._graph.calls for value in call.outputs}
        for call in self._graph.calls:
            if isinstance(call.operation, keras.Layer):
                dtypes.add(call.operation.compute_dtype)
        if dtypes - {"float32"} and dtypes - {"float64"}:
            raise NotInNumpyError(f"its dtypes are {', '.join(sorted(dtypes))}: one of floats was expected")
        if dtypes == {"float64"} and keras.backend.backend() != "tensorflow":
            raise NotInNumpyError("Keras computes with float32 where a model says float64 on this backend")

    def _add(self, call: Call) -> None:
        operation = call.operation
        if any(value is not None and name != "training" for name, value in call.kwargs.items()):
            raise NotInNumpyError(f"{operation.name!r} takes more than one tensor, such as a mask")
        if len(call.args) != 1 or len(call.outputs) != 1 or not call.inputs:
            raise NotInNumpyError(f"{operation.name!r} of class {type(operation).__name__} is not known")
        if type(operation) in (L.Concatenate, *_JOINS):
            self._steps.append(self._join(call))
        elif isinstance(operation, keras.Layer) and is_no_op(operation):
            self._alias(call)
        elif type(operation) is L.Dense:
            self._steps.append(self._dense(call))
        elif type(operation) in (L.Flatten, L.Reshape):
            self._steps.append(self._reshape(call))
        else:
            self._steps.append(self._in_place(call, _kernel_of(operation, len(call.inputs[0].shape))))

    def _put(self, value: Value, sharing: Value | None = None) -> int:
        self._sharing[value] = {value} if sharing is None else self._sharing[sharing]
        self._sharing[value].add(value)
        self._places[value] = len(self._places)
        return self._places[value]

    def _alias(self, call: Call) -> None:
        source, output = call.inputs[0], call.outputs[0]
        self._put(output, source)
        self._places[output] = self._places[source]  # one place for both: nothing is to be done

    def _is_free(self, value: Value) -> bool:
        """Return whether nobody else takes the array of `value`: neither a caller nor a later call."""
        sharing = self._sharing[value]
        if not sharing.isdisjoint(self._graph.inputs) or not sharing.isdisjoint(self._outputs):
            return False
        return all(len(self._graph.consumers(each)) <= 1 for each in sharing)

    def _in_place(self, call: Call, kernel: Kernel) -> Step:
        source = self._places[call.inputs[0]]
        if self._is_free(call.inputs[0]):
            self._alias(call)

            def step(values: list) -> None:
                kernel(values[source], values[source])

            return step
        target = self._put(call.outputs[0])

        def step_anew(values: list) -> None:
            array = values[source]
            values[target] = np.empty(array.shape, array.dtype)
            kernel(array, values[target])

        return step_anew

    def _dense(self, call: Call) -> Step:
        layer, source, target = call.operation, self._places[call.inputs[0]], self._put(call.outputs[0])
        if not computes_with_its_kernel(layer):
            raise NotInNumpyError(f"{layer.name!r} is quantized or has LoRA weights")
        kernel = _array(layer.kernel, self._dtype)
        bias = None if layer.bias is None else _array(layer.bias, self._dtype)
        activate = None if layer.activation is None else _activation(layer.activation, layer.name)
        rank, units = len(call.inputs[0].shape), kernel.shape[1]
        if rank < 2:
            raise NotInNumpyError(f"{layer.name!r} takes a vector")

        def step(values: list) -> None:
            x = values[source]
            y = np.dot(x if rank == 2 else x.reshape(-1, x.shape[-1]), kernel)
            if bias is not None:
                y += bias
            if activate is not None:
                activate(y, y)
            values[target] = y if rank == 2 else y.reshape(*x.shape[:-1], units)

        return step

    def _reshape(self, call: Call) -> Step:
        layer, source = call.operation, self._places[call.inputs[0]]
        if getattr(layer, "data_format", "channels_last") == "channels_first":
            raise NotInNumpyError(f"{layer.name!r} has its channels first")
        shape = call.outputs[0].shape[1:]
        if None in shape:
            raise NotInNumpyError(f"{layer.name!r} makes an axis of unknown length")
        target = self._put(call.outputs[0], call.inputs[0])

        def step(values: list) -> None:
            x = values[source]
            values[target] = x.reshape(len(x), *shape)

        return step

    def _join(self, call: Call) -> Step:
        layer, sources = call.operation, [self._places[value] for value in call.inputs]
        if len({value.shape for value in call.inputs}) > 1 and type(layer) is not L.Concatenate:
            raise NotInNumpyError(f"{layer.name!r} takes tensors of several shapes")
        target = self._put(call.outputs[0])
        if type(layer) is L.Concatenate:
            axis = layer.axis
            return lambda values: values.__setitem__(
                target, np.concatenate([values[source] for source in sources], axis)
            )
        join, (first, second, *rest) = _JOINS[type(layer)], sources

        def step(values: list) -> None:
            joined = values[target] = join(values[first], values[second])
            for source in rest:
                join(joined, values[source], joined)

        return step


def _array(tensor: Any, dtype: str) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(tensor), dtype, order="C")


def _activation(activation: Any, name: str) -> Kernel | None:
    if activation is keras.activations.linear:
        return None
    if activation not in _KERNELS:
        function = getattr(activation, "__name__", None) or type(activation).__name__
        raise NotInNumpyError(f"the activation {function!r} of {name!r} is not known")
    return _KERNELS[activation]


def _kernel_of(layer: Any, rank: int) -> Kernel:
    """Return what a layer does to each number, or along an axis."""
    make_kernel = _LAYERS.get(type(layer))
    kernel = make_kernel(layer, rank) if make_kernel else None
    if kernel is None:
        raise NotInNumpyError(f"{layer.name!r} of class {type(layer).__name__} is not known")
    return kernel


def _scaled(subtracted: Any, scale: Any, added: Any, layer: Any, shape: Sequence[int]) -> Kernel:
    """Return the kernel of `(x - subtracted) * scale + added`."""
    dtype = layer.compute_dtype
    subtracted, scale, added = (
        None if array is None else np.asarray(array, "float64").reshape(shape).astype(dtype)
        for array in (subtracted, scale, added)
    )

    def kernel(x: np.ndarray, out: np.ndarray) -> None:
        np.multiply(x if subtracted is None else np.subtract(x, subtracted, out=out), scale, out=out)
        if added is not None:
            out += added

    return kernel


def _batch_normalization(layer: Any, rank: int) -> Kernel:
    shape = [1] * rank
    shape[layer.axis] = -1
    scale = 1 / np.sqrt(_array(layer.moving_variance, "float64") + layer.epsilon)
    if layer.scale:
        scale = scale * _array(layer.gamma, "float64")
    added = _array(layer.beta, "float64") if layer.center else None
    return _scaled(_array(layer.moving_mean, "float64"), scale, added, layer, shape)


def _normalization(layer: Any, rank: int) -> Kernel:
    mean, variance = (_array(tensor, "float64") for tensor in (layer.mean, layer.variance))
    std = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return _scaled(None, std, mean, layer, mean.shape)
    return _scaled(mean, 1 / std, None, layer, mean.shape)


def _rescaling(layer: Any, rank: int) -> Kernel | None:
    scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
    return _scaled(None, scale, offset, layer, ()) if scale.size == offset.size == 1 else None


def _relu(layer: Any, rank: int) -> Kernel:
    slope, largest, threshold = layer.negative_slope, layer.max_value, layer.threshold
    plain = not slope and largest is None and not threshold
    return KERNELS["relu"] if plain else bent(float(slope or 0), largest, float(threshold or 0))


def _softmax(layer: Any, rank: int) -> Kernel:
    return softmax_along(tuple(layer.axis) if isinstance(layer.axis, (list, tuple)) else layer.axis)


_LAYERS: dict[Any, Callable[[Any, int], Kernel | None]] = {
    L.Activation: lambda layer, rank: _activation(layer.activation, layer.name),
    L.ReLU: _relu,
    L.LeakyReLU: lambda layer, rank: leaky(float(layer.negative_slope)),
    L.PReLU: lambda layer, rank: leaky(_array(layer.alpha, layer.compute_dtype)),
    L.ELU: lambda layer, rank: exponential_unit(float(layer.alpha)),
    L.Softmax: _softmax,
    L.BatchNormalization: _batch_normalization,
    L.Normalization: _normalization,
    L.Rescaling: _rescaling,
}
