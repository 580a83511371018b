"""Models compiled for the latency of single calls: fused, of one signature, on the fastest engine."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras import equivalence
from keras_dnn_extras.arguments import check_positive
from keras_dnn_extras.dropout_noise import plain_classes_of_own
from keras_dnn_extras.engines import ENGINES, EngineError, built_engine, called, rounding_of_products
from keras_dnn_extras.fusion import FusionReport, fuse_batch_norm
from keras_dnn_extras.mc_dropout import (
    MCAlphaDropout,
    MCDropout,
    MCGaussianDropout,
    MCSpatialDropout1D,
    MCSpatialDropout2D,
    MCSpatialDropout3D,
)
from keras_dnn_extras.signatures import Run, Signature, caller, signature_of
from keras_dnn_extras.surgery import Level, functional_of

_SEEDS = (0, 1, 2)  # of the random inputs
_WARM_UP = 0.2  # seconds, and at least three calls: torch optimizes a trace in its first ones
_ROUNDS = 15  # of turns that the engines take
_TURN = 0.002  # seconds, and at least one call
_MEASURED = 0.5  # seconds of calls of the engine that was chosen
_CALLS = (30, 2000)  # the least and the most of them
_MC_LAYERS = (
    *(MCDropout, MCAlphaDropout, MCGaussianDropout),
    *(MCSpatialDropout1D, MCSpatialDropout2D, MCSpatialDropout3D),
)
_MC = "Call `mc_predict`, which draws samples, or convert the model with `to_deterministic`."


@dataclass(frozen=True)
class Latency:
    """How long calls take, in seconds.

    Attributes:
        p50: half of the calls took no longer.
        p99: 99 of 100 calls took no longer.
    """

    p50: float
    p99: float


@dataclass(frozen=True)
class Candidates:
    """Which engines there were: `str(candidates)` is a table.

    Attributes:
        measured: dict of name and median of a call in seconds, of those that can run the model; of the one
            that was asked for.
        left_out: dict of name and reason of the others.
    """

    measured: dict[str, float]
    left_out: dict[str, str]

    def __str__(self) -> str:
        fastest = sorted(self.measured.items(), key=lambda item: item[1])
        rows = [(name, f"{1e6 * seconds:.0f} us") for name, seconds in fastest]
        rows += self.left_out.items()
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(f"{name:<{width}}  {what}" for name, what in rows)


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """What `compile_for_inference` returns: a function of NumPy arrays.

    It takes arrays in the structure of the model's inputs, of exactly `batch_size` rows and the model's
    dtypes, and returns new arrays in the structure of its outputs. Several threads may call it at once.

    Attributes:
        engine: the name of what runs it.
        batch_size: int, the rows of each call.
        latency: a `Latency`, of calls one after the other on this machine, after warming up.
        candidates: a `Candidates`, what else there was.
        report: the `FusionReport`, or None where the model was compiled as it is.
    """

    engine: str
    batch_size: int
    latency: Latency
    candidates: Candidates
    report: FusionReport | None
    call: InitVar[Callable[[Any], Any]]

    def __post_init__(self, call: Callable[[Any], Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, x: Any) -> Any:
        return self._call(x)  # type: ignore[attr-defined]


def compile_for_inference(
    model: keras.Model, *, batch_size: int = 1, engine: str = "auto"
) -> CompiledModel:
    """Return a function of NumPy arrays that computes `model` in inference mode, with low latency.

    Batch normalizations are folded as by `fuse_batch_norm`, the weights become constants, shapes and dtypes
    are fixed, and what then runs is the fastest of the engines that there are:

    - `"numpy"`: stacks of dense and elementwise layers, as NumPy calls; for small ones nothing is faster.
    - `"graph"`, with TensorFlow: its graph, where it fuses convolution, bias and activation.
    - `"xla"`, with TensorFlow and JAX: compiled ahead by XLA.
    - `"trace"`, with PyTorch: TorchScript, frozen, in `inference_mode`.
    - `"onnxruntime"`, `"litert"`: where they are installed, and Keras can export the model to them.

    Each engine is compared with `model` on random inputs, as far as rounding allows, and warmed up. Engines
    take turns while they are measured. The weights are those of the time of compiling: neither
    training `model` later nor calls of the result change the other. Some engines look whether indices, as
    into an `Embedding`, are in range, and others do not.

    Args:
        model: a Keras model that is built; functional and sequential models are fused, others are compiled
            as they are. It is not changed.
        batch_size: int > 0, the rows of each call.
        engine: `"auto"` or the name of an engine.

    Returns:
        A `CompiledModel`: call it with arrays. It has `.engine`, `.latency`, `.batch_size`, `.candidates`
        and `.report`.

    Raises:
        ValueError: an argument is out of its range; the model is not built, has inputs of flexible shape,
            or of strings or sparse tensors, draws random numbers or keeps states between calls; the engine
            is not there, cannot run the model or computes something else.
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
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected `model` to be a Keras model. Received: model={model!r}")
    check_positive("batch_size", batch_size, Integral)
    if not isinstance(engine, str):
        raise TypeError(f"Expected `engine` to be a string. Received: engine={engine!r}")
    if engine not in ("auto", *ENGINES):
        names = ", ".join(f'"{name}"' for name in ("auto", *ENGINES))
        raise ValueError(f"Expected `engine` to be one of {names}. Received: engine={engine!r}")
    signature = signature_of(model, int(batch_size))
    _check_no_states(model)
    _check_no_dropout(model)
    truth = _Truth(model, signature)
    fused, report = _fused(model)
    bench = _Bench(fused, signature, truth)
    return bench.compiled(engine, int(batch_size), report)


def _fused(model: keras.Model) -> tuple[keras.Model, FusionReport | None]:
    try:
        result = fuse_batch_norm(model)
    except ValueError:  # as its code is its own, or layers cannot be made anew
        return model, None
    return result.model, result.report


# -- what is compiled -----------------------------------------------------------------------------------


def _check_no_states(model: keras.Model) -> None:
    names = [layer.name for layer in model._flatten_layers() if getattr(layer, "stateful", False)]
    if names:
        raise ValueError(
            "A layer keeps a state from call to call, which threads would share. Make it with "
            f"`stateful=False`. Received: model={model}, layers={names}"
        )


def _check_no_dropout(model: keras.Model) -> None:
    """Raise where a layer draws, or is called with `training=True` to draw, which Keras ignores."""
    own = plain_classes_of_own(model)
    active = [x for x in model._flatten_layers() if isinstance(x, _MC_LAYERS) or type(x) in own]
    layers = [layer.name for layer in active]
    if layers:
        raise ValueError(
            f"The model draws random numbers at inference. {_MC} Received: model={model}, layers={layers}"
        )
    level = Level.of(model)
    for call in level.calls if level is not None else []:
        if functional_of(call.operation) is not None:
            _check_no_dropout(call.operation)
        if call.kwargs.get("training") and _has_dropout(call.operation):
            raise ValueError(
                f"The layer {call.operation.name!r} is called with `training=True`, which Keras ignores at "
                f"inference. {_MC} Received: model={model}"
            )


def _has_dropout(layer: Any) -> bool:
    rates = ("rate", "dropout", "recurrent_dropout")
    return any(getattr(part, name, 0) for part in layer._flatten_layers() for name in rates)


class _Truth:
    """What the model computes of random inputs."""

    def __init__(self, model: keras.Model, signature: Signature):
        self._model = model
        specs = zip(signature.shapes, signature.dtypes, strict=True)
        tensors = [keras.KerasTensor(*spec) for spec in specs]
        self.inputs = [equivalence.random_inputs(tensors, 1, seed) for seed in _SEEDS]
        self.structure: Any = None
        dtypes = [layer.compute_dtype for layer in model._flatten_layers()]
        self._dtypes = [dtype for dtype in dtypes if dtype in equivalence.ROUNDING]
        self._rounding = max(equivalence.tolerance(self._dtypes), rounding_of_products())
        self._outputs = [self._computed(arrays, signature) for arrays in self.inputs]

    def _computed(self, arrays: list, signature: Signature) -> list[np.ndarray]:
        tensors = [keras.ops.convert_to_tensor(x) for x in arrays]

        def compute() -> Any:
            found = called(self._model, signature.packed(tensors))
            return tree.map_structure(lambda y: np.asarray(keras.ops.convert_to_numpy(y)), found)

        with equivalence.no_trace():  # in which seeds move on from the first call to the second
            found = compute()
            if self.structure is None:
                self._check_repeats(found, compute())
                self.structure = found
        return tree.flatten(found)

    def _check_repeats(self, first: Any, second: Any) -> None:
        flat = [_comparable(tree.flatten(found)) for found in (first, second)]
        if not all(error <= self._rounding for error in equivalence.relative_errors(*flat)):
            raise ValueError(
                "Two calls of the model gave different outputs: it draws random numbers at inference, or "
                f"changes variables. {_MC} Received: model={self._model}"
            )

    def check(self, run: Run) -> None:
        """Raise unless an engine computes the same, as far as rounding allows."""
        for arrays, expected in zip(self.inputs, self._outputs, strict=True):
            with equivalence.no_trace():
                found = run(arrays)
            for array, other in zip(found, expected, strict=True):
                if array.shape != other.shape or array.dtype != other.dtype:
                    raise EngineError(
                        f"its output is of shape {array.shape} and dtype {array.dtype}, not {other.shape} "
                        f"and {other.dtype}"
                    )
            errors = equivalence.relative_errors(*map(_comparable, (found, expected)))
            if all(error <= self._rounding for error in errors):
                continue
            for error, limit in zip(errors, self._limits(arrays), strict=True):
                if not error <= limit:
                    raise EngineError(
                        f"its outputs differ from the model's by {error:.1e} of the largest, which is more "
                        "than rounding does"
                    )

    def _limits(self, arrays: list) -> list[float]:
        """Return what errors may be where the model itself makes much of one rounding of its weights."""
        functional = functional_of(self._model)
        if functional is None:
            return [self._rounding] * len(tree.flatten(self.structure))
        prober = equivalence.Prober(functional.inputs, tree.flatten(functional._outputs_struct))
        coarsest = max(self._dtypes, key=equivalence.ROUNDING.__getitem__, default="float32")
        return [max(self._rounding, 4 * noise) for noise in prober.noise(arrays, coarsest)]


def _comparable(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [array.astype("float32") if str(array.dtype) == "bfloat16" else array for array in arrays]


# -- choosing and measuring -----------------------------------------------------------------------------


class _Bench:
    """Builds engines, compares them with the model, and measures them."""

    def __init__(self, model: keras.Model, signature: Signature, truth: _Truth):
        self._model = model
        self._signature = signature
        self._truth = truth

    def compiled(self, engine: str, batch_size: int, report: FusionReport | None) -> CompiledModel:
        calls, left_out = self._calls([engine] if engine != "auto" else list(ENGINES))
        if not calls:
            raise ValueError(self._refusal(engine, left_out))
        example = self._signature.packed(self._truth.inputs[0])
        for call in calls.values():
            _warm_up(call, example)
        medians = _medians(calls, example)
        chosen = min(medians, key=medians.__getitem__)
        call = calls[chosen]
        latency = _latency(call, example)
        return CompiledModel(chosen, batch_size, latency, Candidates(medians, left_out), report, call)

    def _calls(self, names: list[str]) -> tuple[dict[str, Callable], dict[str, str]]:
        calls, left_out = {}, {}
        for name in names:
            try:
                run = built_engine(name, self._model, self._signature)
                self._check(run)
                calls[name] = caller(run, self._signature, self._truth.structure)
            except EngineError as error:
                left_out[name] = f"left out: {error}"
        return calls, left_out

    def _check(self, run: Run) -> None:
        try:
            self._truth.check(run)
        except EngineError:
            raise
        except Exception as error:  # of a runtime that cannot run what it compiled
            raise EngineError(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}") from error

    def _refusal(self, engine: str, left_out: dict[str, str]) -> str:
        if engine == "auto":
            return f"No engine can run the model. Received: model={self._model}\n{Candidates({}, left_out)}"
        others, _ = self._calls([name for name in ENGINES if name != engine])
        remedy = f"Pass one that can: {', '.join(map(repr, others))}." if others else "No other can either."
        reason = left_out[engine].removeprefix("left out: ")
        return f"The engine {engine!r} cannot run the model: {reason}. {remedy} Received: engine={engine!r}"


def _warm_up(call: Callable, example: Any) -> None:
    end, calls = time.perf_counter() + _WARM_UP, 0
    while calls < 3 or time.perf_counter() < end:
        call(example)
        calls += 1


def _medians(calls: dict[str, Callable], example: Any) -> dict[str, float]:
    """Return the median of a call of each, which take turns, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(_ROUNDS):
        order = list(calls) if i % 2 else list(calls)[::-1]
        for name in order:
            end = time.perf_counter() + _TURN
            while True:
                times[name].append(_seconds(calls[name], example))
                if time.perf_counter() >= end:
                    break
    return {name: statistics.median(found) for name, found in times.items()}


def _latency(call: Callable, example: Any) -> Latency:
    least, most = _CALLS
    end = time.perf_counter() + _MEASURED
    times: list[float] = []
    while len(times) < least or (len(times) < most and time.perf_counter() < end):
        times.append(_seconds(call, example))
    p50, p99 = np.percentile(times, [50, 99])
    return Latency(float(p50), float(p99))


def _seconds(call: Callable, example: Any) -> float:
    start = time.perf_counter()
    call(example)
    return time.perf_counter() - start
