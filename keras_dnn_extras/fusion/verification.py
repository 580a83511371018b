"""Whether a fused model computes what the model does: its outputs, what is saturated in them, each fold."""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._graphs import Call, Copy, Graph, Usage, Value, equivalence, sample_inputs, values_of
from keras_dnn_extras._keras_internals import functional_of
from keras_dnn_extras.fusion.fold_verification import checked_folds, computes_the_same
from keras_dnn_extras.fusion.folding import Fold
from keras_dnn_extras.fusion.planning import Plan


@dataclass
class Comparison:
    """What came of comparing a model with its copy.

    Attributes:
        error: the largest relative error of an output of the model, NaN where none was compared.
        refused: why layers are not to be folded after all, by `id`.
        unverified: folds in which the comparison would not have noticed an error.
        remarks: sentences on what was not compared.
    """

    error: float = float("nan")
    refused: dict[int, str] = field(default_factory=dict)
    unverified: list[Fold] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def compared(
    model: keras.Model, usage: Usage, plan: Plan, copy: Copy, inputs: list[np.ndarray | None] | None
) -> Comparison:
    """Compare each model in `model` with its copy: each fold by itself, and what the models compute.

    Args:
        inputs: sample data for `model`, flat, or None: drawn.

    Raises:
        ValueError: the model does not take `inputs`; a layer and its copy differ without a fold.
    """
    comparer = _Comparer(model, usage, plan, copy, inputs)
    comparer.compare_folds()
    if not comparer.comparison.refused:
        comparer.compare_models()
    return comparer.comparison


# -- what is computed -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    """Inputs of a graph, and what the original makes of them.

    Attributes:
        values: that are compared: outputs, what they are made of without weights, and then what folds make.
        outputs: the number of those that come first.
        folds: that make the others.
        expected: of each value.
    """

    arrays: list[Any]
    prober: equivalence.Prober
    values: list[Value]
    outputs: int
    folds: list[Fold]
    expected: list[np.ndarray]


class _Samples:
    """Computes what is compared. Models in the model get what reaches them there."""

    def __init__(
        self, model: keras.Model, usage: Usage, plan: Plan, inputs: list[np.ndarray | None] | None
    ):
        self._model = model
        self._usage = usage
        self._plan = plan
        self._inputs = inputs
        self._reaching: dict[int, list[np.ndarray]] = {}

    def of_models(self) -> dict[int, _Sample]:
        samples = {}
        for key in self._usage.graphs:
            if self._usage.models[key] is self._model or self._is_folded_within(key):
                sample = self._sample(key)
                if sample is not None:
                    samples[key] = sample
        return samples

    def _is_folded_within(self, key: int) -> bool:
        path = self._usage.paths[key]
        return any(self._plan.folds.get(k) and p.startswith(path) for k, p in self._usage.paths.items())

    def _sample(self, key: int) -> _Sample | None:
        graph = self._usage.graphs[key]
        folds = [fold for fold in self._plan.folds.get(key, []) if fold.value not in self._plan.changed]
        outputs = [*graph.output_values, *_before_outputs(graph, self._plan)]
        values = [*outputs, *(fold.value for fold in folds)]
        nested = [call for call in graph.calls if self._passes_on(call)]
        inside = [value for call in nested for value in values_of(call.args)]
        tensors = [graph.tensors[value] for value in graph.inputs]
        prober = equivalence.Prober(tensors, [graph.tensors[value] for value in [*values, *inside]])
        computed = self._computed(key, tensors, prober)
        if computed is None:
            return None
        arrays, expected = computed
        rest = iter(expected[len(values) :])
        for call in nested:
            self._reaching.setdefault(id(call.operation), [next(rest) for _ in values_of(call.args)])
        return _Sample(arrays, prober, values, len(outputs), folds, expected[: len(values)])

    def _passes_on(self, call: Call) -> bool:
        """Return whether the inputs of a nested model are arguments of its call, all in one order."""
        if id(call.operation) not in self._usage.graphs or not self._is_folded_within(id(call.operation)):
            return False
        functional = functional_of(call.operation)
        passed, inner = values_of(call.args), functional.inputs
        alike = [len(a.shape) == len(b.shape) for a, b in zip(passed, inner, strict=False)]
        return len(call.args) == 1 and len(passed) == len(inner) and all(alike)

    def _computed(self, key: int, tensors: list, prober: equivalence.Prober) -> Any:
        model = self._usage.models[key]
        if model is self._model and self._inputs is not None:
            try:
                return self._inputs, prober(self._inputs)
            except Exception as error:
                shapes = [getattr(array, "shape", None) for array in self._inputs]
                raise ValueError(
                    f"The model does not take `inputs`: {error}. Received: inputs of shapes {shapes}"
                ) from error
        if key in self._reaching:
            return self._reaching[key], prober(self._reaching[key])
        try:
            return sample_inputs.taken_inputs(model, tensors, prober)
        except sample_inputs.NoInputsError:
            return None


def _before_outputs(graph: Graph, plan: Plan) -> list[Value]:
    """Return what the outputs are made of without weights: a softmax or a sigmoid may hide errors of it.

    Also what goes into the last layers that have weights.
    """
    before: dict[Value, None] = {}
    waiting = graph.output_values
    while waiting:
        call = graph.producer(waiting.pop())
        for value in call.inputs if call is not None else []:
            producer = graph.producer(value)
            if producer is not None and value not in before and "float" in value.dtype:
                before[value] = None
                if not getattr(producer.operation, "variables", ()):
                    waiting.append(value)
    return [value for value in before if value not in plan.changed]


# -- comparing --------------------------------------------------------------------------------------------


class _Comparer:
    """Compares a model with its copy, and notes what comes of it."""

    def __init__(
        self,
        model: keras.Model,
        usage: Usage,
        plan: Plan,
        copy: Copy,
        inputs: list[np.ndarray | None] | None,
    ):
        self.comparison = Comparison()
        self._model = model
        self._usage = usage
        self._plan = plan
        self._copy = copy
        self._inputs = inputs

    def compare_folds(self) -> None:
        for key, graph in self._usage.graphs.items():
            checks = checked_folds(graph, self._plan, self._copy, key)
            for fold, error in checks.errors:
                self.comparison.refused.update(_refused([fold], error, "random inputs"))
            self.comparison.unverified += checks.unverified

    def compare_models(self) -> None:
        samples = _Samples(self._model, self._usage, self._plan, self._inputs).of_models()
        for key, model in reversed(self._usage.models.items()):
            if key in samples:
                self._compare(key, samples[key])
            elif model is self._model or self._plan.folds.get(key):
                self._go_without_outputs(key)
            if self.comparison.refused:
                return

    def _compare(self, key: int, sample: _Sample) -> None:
        graph, folds = self._usage.graphs[key], self._plan.folds.get(key, [])
        of = "random inputs" if self._inputs is None else "`inputs`"
        inputs, tensors = (
            [self._copy.tensors[value] for value in values] for values in (graph.inputs, sample.values)
        )
        results = equivalence.Prober(inputs, tensors)(sample.arrays)
        errors, limits = equivalence.compared(
            sample.prober, sample.arrays, sample.expected, results, [v.dtype for v in sample.values]
        )
        of_folds = list(zip(sample.folds, errors[sample.outputs :], limits[sample.outputs :], strict=True))
        unseen = [fold for fold, error, _ in of_folds if np.isnan(error)]
        wrong = [(fold, error) for fold, error, limit in of_folds if not error <= limit]
        of_outputs = list(zip(errors, limits, strict=True))[: sample.outputs]
        largest = max((error for error, _ in of_outputs if not np.isnan(error)), default=float("nan"))
        if unseen:
            self.comparison.refused.update(_refused(unseen, np.nan, of))
        elif wrong:
            self.comparison.refused.update(_refused([wrong[0][0]], wrong[0][1], of))
        elif any(error > limit for error, limit in of_outputs):
            if not folds:
                raise ValueError(self._unlike(key, sample))
            self.comparison.refused.update(_refused(folds, largest, of))
        elif self._usage.models[key] is self._model:
            self.comparison.error = largest
            self._tell_of_outputs_without_numbers(errors[: len(graph.output_values)], of)

    def _tell_of_outputs_without_numbers(self, errors: list[float], of: str) -> None:
        count = sum(map(np.isnan, errors))
        if count:
            self.comparison.remarks.append(
                f"{count} of {len(errors)} outputs of the model were not compared, as nothing in them is "
                f"finite on {of}. Pass as `inputs` a few rows of data of which the model makes numbers."
            )

    def _unlike(self, key: int, sample: _Sample) -> str:
        """Return the error for a copy that computes something else although nothing is folded in it."""
        graph = self._usage.graphs[key]
        for call in graph.calls:
            old, new = (
                equivalence.Prober(
                    [of[value] for value in graph.inputs], [of[value] for value in call.outputs]
                )
                for of in (graph.tensors, self._copy.tensors)
            )
            dtypes = [value.dtype for value in call.outputs]
            errors, limits = equivalence.compared(
                old, sample.arrays, old(sample.arrays), new(sample.arrays), dtypes
            )
            if any(error > limit for error, limit in zip(errors, limits, strict=True)):
                return _unlike_layer(call.operation)
        return f"A copy of the model does not compute the same. Received: model={self._model}"

    def _go_without_outputs(self, key: int) -> None:
        """Compare layers whose code is not Keras's by themselves, where their model takes no inputs."""
        calls = {id(call.operation): call for call in reversed(self._usage.graphs[key].calls)}
        custom = [call for call in calls.values() if self._is_own(call.operation)]
        unchecked = [call.operation.name for call in custom if not self._is_like_its_copy(key, call)]
        path = self._usage.paths[key].rstrip("/")
        verb = "was" if len(unchecked) == 1 else "were"
        self.comparison.remarks.append(
            f"The outputs of {repr(path) if path else 'the model'} were not compared, as it takes no "
            "random inputs. Pass `inputs`, a few rows of its data. Each fold was checked by itself"
            + (f"; {_named(tuple(unchecked))} {verb} not checked at all." if unchecked else ".")
        )

    def _is_own(self, layer: Any) -> bool:
        of_keras = type(layer).__module__.split(".")[0] == "keras"
        return isinstance(layer, keras.Layer) and not of_keras and id(layer) in self._copy.operations

    def _is_like_its_copy(self, key: int, call: Call) -> bool:
        """Return whether a layer takes inputs of its own, of which its copy makes the same."""
        try:
            if computes_the_same(self._usage.graphs[key], self._copy, key, call):
                return True
        except sample_inputs.NoInputsError:
            return False
        raise ValueError(_unlike_layer(call.operation))


def _unlike_layer(layer: Any) -> str:
    return (
        f"A copy of {layer.name!r} does not compute the same. Give its class a `get_config` that tells "
        f"every argument of `__init__`. Received: layer={layer}"
    )


def _refused(folds: list[Fold], error: float, of: str) -> dict[int, str]:
    if np.isnan(error):
        return {
            id(
                fold.source
            ): f"What {fold.source.name!r} makes of {of} is not finite, so that its fold into "
            f"{_named(fold.into)} cannot be checked."
            for fold in folds
        }
    return {
        id(
            fold.source
        ): f"Folded into {_named(fold.into)} it made a relative error of {error:.1e} on {of}, "
        "which is more than rounding does."
        for fold in folds
    }


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)
