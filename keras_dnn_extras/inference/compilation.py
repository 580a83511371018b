"""Models compiled for the latency of single calls: fused, of one signature, on the fastest engine."""

from collections.abc import Callable, Iterable
from dataclasses import InitVar, dataclass
from numbers import Integral
from typing import Any

import keras
from numpy.typing import NDArray

from keras_dnn_extras._arguments import check_choice, check_positive, counted
from keras_dnn_extras._display import Displayed, Summary
from keras_dnn_extras._graphs import Graph, checked_inputs
from keras_dnn_extras._keras_internals import flat_layers, functional_of
from keras_dnn_extras._models import Data, batches, check_model
from keras_dnn_extras.fusion import FusionReport, fuse_batch_norm
from keras_dnn_extras.inference import engines
from keras_dnn_extras.inference.measuring import Bench, Candidates, Latency
from keras_dnn_extras.inference.memory import check_memory
from keras_dnn_extras.inference.signatures import Signature, signature_of
from keras_dnn_extras.inference.verification import DrawsError, Truth
from keras_dnn_extras.uncertainty import active_layers, drawing_layers, to_deterministic


@dataclass(frozen=True, eq=False, repr=False)
class CompiledModel(Displayed):
    """What `compile_for_inference` returns: a function of NumPy arrays.

    It takes arrays in the structure of the model's inputs, of exactly `batch_size` rows and the model's
    dtypes, and returns new arrays in the structure of its outputs. Several threads may call it at once.
    What the engine holds is released with it.

    Attributes:
        engine: the name of what runs it.
        batch_size: int, the rows of each call, or None for any number.
        latency: a `Latency`, of calls one after the other on this machine, after warming up.
        candidates: a `Candidates`, what else there was.
        report: the `FusionReport`, or None where the model was compiled as it is.
    """

    engine: str
    batch_size: int | None
    latency: Latency
    candidates: Candidates
    report: FusionReport | None
    call: InitVar[Callable[[Any], Any]]

    def __post_init__(self, call: Callable[[Any], Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, x: Iterable[Any]) -> NDArray[Any]:  # of a model with one output
        return self._call(x)  # type: ignore[attr-defined]

    def _summary(self) -> Summary:
        facts = {
            "engine": self.engine,
            "batch size": "any" if self.batch_size is None else str(self.batch_size),
            "latency of a call": str(self.latency),
            "engines tried": str(self.candidates),
            "fused": "no: compiled as it is" if self.report is None else _folded(self.report),
        }
        return Summary("CompiledModel", facts)


def compile_for_inference(
    model: keras.Model,
    *,
    batch_size: int | None = 1,
    engine: engines.Engine = "auto",
    inputs: Data | None = None,
) -> CompiledModel:
    """Return a function of NumPy arrays that computes `model` in inference mode, with low latency.

    Batch normalizations are folded as by `fuse_batch_norm`, the weights become constants, shapes and dtypes
    are fixed, and what then runs is the fastest of the engines that there are:

    - `"numpy"`: stacks of dense and elementwise layers, as NumPy calls; for small ones nothing is faster.
    - `"graph"`, with TensorFlow: its graph, where it fuses convolution, bias and activation.
    - `"xla"`, with TensorFlow and JAX: compiled ahead by XLA.
    - `"trace"`, with PyTorch: TorchScript, frozen, in `inference_mode`.
    - `"eager"`, with PyTorch: the layers one after the other.
    - `"onnxruntime"`, `"litert"`: where they are installed, and Keras can export the model to them.

    Each engine is compared with `model`, as far as rounding allows, on `inputs` or on random ones that look
    like data, and warmed up. Engines take turns while they are measured. The weights are those of the time
    of compiling: neither training `model` later nor calls of the result change the other. Some engines look
    whether indices, as into an `Embedding`, are in range, and others do not.

    Any number of rows, and any length where the model has a length of None, go through `"numpy"`,
    `"graph"`, `"eager"`, and on JAX through `"xla"`, which compiles anew in the first call of each shape.

    Args:
        model: a Keras model that is built; functional and sequential models are fused, others are compiled
            as they are. It is not changed.
        batch_size: int > 0, the rows of each call, or None for any number.
        engine: `"auto"` or the name of an engine.
        inputs: sample data, a few rows of what `model.predict` takes, to compare and measure engines on.
            Needed for lengths of None, and for models of a `call` of their own that take integers or
            several arguments. At most 32 rows are looked at.

    Returns:
        A `CompiledModel`: call it with arrays. It has `.engine`, `.latency`, `.batch_size`, `.candidates`
        and `.report`.

    Raises:
        ValueError: an argument is out of its range, or a batch too large for the memory; the model is not
            built, has inputs of flexible shape and no `inputs` are given, or of strings or sparse tensors,
            returns strings, draws random numbers or keeps states between calls; the engine is not there,
            cannot run the model or computes something else.
        TypeError: an argument is of the wrong type.

    Example:

    >>> import numpy as np
    >>> layers = [keras.Input((784,)), keras.layers.Dense(100, "relu"), keras.layers.Dense(10, "softmax")]
    >>> fast = compile_for_inference(keras.Sequential(layers), engine="numpy")
    >>> fast(np.zeros((1, 784), "float32")).shape
    (1, 10)
    >>> fast.engine, fast.batch_size, fast.latency.p50 < 0.1
    ('numpy', 1, True)

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference, 2018, section 3.2 (https://arxiv.org/abs/1712.05877).
    """
    _check_arguments(model, batch_size, engine)
    rows = None if batch_size is None else int(batch_size)
    sample = None if inputs is None else _sample(model, inputs)
    signature = signature_of(model, rows, sample)
    check_memory(model, signature)
    _check_no_states(model)
    _check_no_dropout(model)
    flat = None if sample is None else keras.tree.flatten(sample)
    truth = _truth(model, signature, flat)
    fused, report = _fused(model, inputs)
    name, call, latency, candidates = Bench(fused, signature, truth).chosen(engine)
    return CompiledModel(name, rows, latency, candidates, report, call)


def _folded(report: FusionReport) -> str:
    total = len(report.fused) + len(report.kept)
    return f"{len(report.fused)} of {counted(total, 'batch normalization')}"


def _check_arguments(model: Any, batch_size: Any, engine: Any) -> None:
    check_model("model", model)
    if batch_size is not None:
        check_positive("batch_size", batch_size, Integral)
    check_choice("engine", engine, engines.Engine)


def _sample(model: keras.Model, inputs: Any) -> Any:
    """Return sample data as arrays: flat, or in its own structure for a model of a `call` of its own."""
    if functional_of(model) is not None:
        arrays = checked_inputs(model, inputs)
        if any(array is None for array in arrays):
            raise ValueError(
                "A compiled model takes an array for each input, also for an optional one. Pass arrays for "
                f"all, or rebuild the model without that input. Received: inputs={inputs!r}"
            )
        return arrays
    sample = next(batches(inputs, 32), None)
    if sample is None or not all(array.size for array in keras.tree.flatten(sample)):
        raise ValueError(f"Expected `inputs` to have one row at least. Received: inputs={inputs!r}")
    return sample


def _truth(model: keras.Model, signature: Signature, sample: list | None) -> Truth:
    def draws(copy: keras.Model) -> bool:
        try:
            Truth(copy, signature, sample)
        except DrawsError:
            return True
        return False

    try:
        return Truth(model, signature, sample)
    except DrawsError as error:
        raise ValueError(
            "Two calls of the model gave different outputs: it draws random numbers at inference, or "
            f"changes variables. {_way_out(model, draws, drawing_layers(model))} Received: model={model}"
        ) from error


def _fused(model: keras.Model, inputs: Any) -> tuple[keras.Model, FusionReport | None]:
    try:
        result = fuse_batch_norm(model, inputs=inputs)
    except ValueError:  # as its code is its own, or layers cannot be made anew
        return model, None
    return result.model, result.report


# -- what is compiled -----------------------------------------------------------------------------------


def _check_no_states(model: keras.Model) -> None:
    names = [layer.name for layer in flat_layers(model) if getattr(layer, "stateful", False)]
    if names:
        raise ValueError(
            "A layer keeps a state from call to call, which threads would share. Make it with "
            f"`stateful=False`. Received: model={model}, layers={names}"
        )


def _check_no_dropout(model: keras.Model) -> None:
    """Raise where a layer draws, or is called with `training=True` to draw, which Keras ignores."""
    layers = active_layers(model)
    if layers:
        drawing = drawing_layers(model)
        way_out = _way_out(model, lambda copy: bool(active_layers(copy)), drawing or layers, not drawing)
        raise ValueError(
            f"The model draws random numbers at inference. {way_out} "
            f"Received: model={model}, layers={[layer.name for layer in layers]}"
        )
    graph = Graph.of(model, nested="keep")
    for call in graph.calls if graph is not None else []:
        if functional_of(call.operation) is not None:
            _check_no_dropout(call.operation)
        if call.kwargs.get("training") and _has_dropout(call.operation):
            raise ValueError(
                f"The layer {call.operation.name!r} is called with `training=True`, which Keras ignores at "
                "inference. For samples call `mc_predict`. For one answer build the model without "
                f"`training=True`. Received: model={model}"
            )


def _way_out(
    model: keras.Model, draws: Callable[[keras.Model], bool], layers: list, only_drops: bool = False
) -> str:
    """Return what can be done with a model that draws: `to_deterministic` where its result does not.

    Args:
        layers: that draw, as far as they are known.
        only_drops: whether `mc_predict` can sample all that is drawn.
    """
    try:
        helps = not draws(to_deterministic(model))
    except ValueError:  # it cannot convert the model
        helps = False
    if helps:
        return "Call `mc_predict`, which draws samples, or compile `to_deterministic(model)`."
    named = ", ".join(repr(layer.name) for layer in layers if layer is not model)
    without = named or "the layer that does so"
    if only_drops:
        return f"Call `mc_predict`, which draws samples, or build the model without {without}."
    return f"Build the model without {without}."


def _has_dropout(layer: Any) -> bool:
    rates = ("rate", "dropout", "recurrent_dropout")
    return any(getattr(part, name, 0) for part in flat_layers(layer) for name in rates)
