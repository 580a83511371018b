"""Each fold checked by itself: the few layers that it changes, on inputs of their own."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import keras
import numpy as np
from keras import activations, layers

from keras_dnn_extras._graphs import (
    Call,
    Copy,
    Graph,
    Value,
    equivalence,
    sample_inputs,
    without_activation,
)
from keras_dnn_extras.fusion.foldable_layers import LINEAR
from keras_dnn_extras.fusion.folding import Fold
from keras_dnn_extras.fusion.planning import Plan

DISTURBANCE = 0.01
"""The relative error in each number of a kernel that a comparison has to notice."""

SCALES = (1.0, 1e3, 1e6)
"""Of the inputs: larger ones show errors in weights that were trained on data which are not normalized."""

_WITH_ACTIVATION_LAST = LINEAR.keys() - {
    *(layers.LSTM, layers.GRU, layers.SimpleRNN, layers.MultiHeadAttention, layers.GroupQueryAttention)
}


@dataclass(frozen=True)
class FoldChecks:
    """What came of the checks of the folds of one graph.

    Attributes:
        errors: of each fold that makes a difference beyond rounding, the relative one.
        unverified: folds in which the check would not have noticed an error.
    """

    errors: list[tuple[Fold, float]]
    unverified: list[Fold]


def checked_folds(graph: Graph, plan: Plan, copy: Copy, key: int) -> FoldChecks:
    """Compare the layers around each fold of a graph with their copies, on inputs of their own.

    They are compared without the activation in them, and with the statistics that each layer expects, so
    that every number of a kernel counts, whatever reaches it in the model. The kernels of the copy are then
    disturbed, to see whether the comparison notices an error in them.
    """
    folds = plan.folds.get(key, [])
    regions = _regions(graph, plan, copy, key)
    old, new = (_program([pair[i] for pair in regions]) for i in (0, 1))
    sample = _sample(regions, old) if regions else None
    if sample is None:
        return FoldChecks([], list(folds))
    kernels = [_kernels(plan, copy, *pair) for pair in regions]
    checks = _Checks(old, new, kernels, [part.output.dtype for part, _ in regions])
    for scale in SCALES:
        checks.run(*sample, scale)
        if len(checks.verified) == len(regions):
            break
    verified = {id(fold) for place in checks.verified for fold in regions[place][0].folds}
    failed = [(regions[place][0].folds[-1], error) for place, error in checks.failed.items()]
    return FoldChecks(failed, [fold for fold in folds if id(fold) not in verified])


class _Checks:
    """Compares parts of a model with those of its copy, and disturbs these.

    Args:
        old, new: what computes the parts.
        kernels: of each part of the copy, the variables of each layer in it that has a fold.
        dtypes: of what comes out of each part.

    Attributes:
        failed: the error of each part that differs beyond rounding, by its place.
        verified: places of parts in which an error would have been noticed.
    """

    def __init__(
        self,
        old: equivalence.Program,
        new: equivalence.Program,
        kernels: list[list[Any]],
        dtypes: list[str],
    ):
        self.failed: dict[int, float] = {}
        self.verified: set[int] = set()
        self._old = old
        self._new = new
        self._kernels = kernels
        self._dtypes = dtypes

    def run(self, arrays: list[np.ndarray], expected: list[np.ndarray], scale: float) -> None:
        """Compare, and disturb, with `arrays` times `scale`; `expected` is what comes of them unscaled."""
        if scale != 1:
            arrays = [a * np.asarray(scale, a.dtype) if a.dtype.kind == "f" else a for a in arrays]
            expected = self._old(arrays)
        errors, limits = equivalence.compared(self._old, arrays, expected, self._new(arrays), self._dtypes)
        for place, (error, limit) in enumerate(zip(errors, limits, strict=True)):
            if error > limit or (scale == 1 and np.isnan(error)):
                self.failed[place] = error
        noticed = self._noticed(arrays, expected, limits)
        self.verified |= {place for place, is_noticed in enumerate(noticed) if is_noticed}

    def _noticed(
        self, arrays: list[np.ndarray], expected: list[np.ndarray], limits: list[float]
    ) -> list[bool]:
        """Return of each part whether it shows when each layer with a fold in it is disturbed."""
        noticed = [bool(of_part) for of_part in self._kernels]
        disturbance = max(DISTURBANCE, 4 * equivalence.tolerance(self._dtypes))
        for turn in range(max(map(len, self._kernels))):
            layers_disturbed = [layer for of_part in self._kernels for layer in of_part[turn : turn + 1]]
            variables = [variable for of_layer in layers_disturbed for variable in of_layer]
            results = self._new.disturbed(arrays, variables, disturbance)
            for place, error in enumerate(equivalence.relative_errors(results, expected)):
                if turn < len(self._kernels[place]):
                    noticed[place] = noticed[place] and error > limits[place]
        return noticed


def computes_the_same(graph: Graph, copy: Copy, key: int, call: Call) -> bool:
    """Return whether one call of a layer and its copy agree on inputs of their own.

    Raises:
        NoInputsError: the layer takes none.
    """
    new_graph: Any = Graph.of(copy.models[key], nested="keep")
    layer = copy.operations[id(call.operation)]
    new_call = next(each for each in new_graph.calls if each.operation is layer)
    originals = dict(zip(new_call.inputs, call.inputs, strict=True))
    part = _Part(_of_one_call(graph, call, call.inputs))
    new_part = _Part(_of_one_call(new_graph, new_call, list(originals)), list(originals.values()))
    old, new = (_program([each]) for each in (part, new_part))
    sample = _sample([(part, new_part)], old)
    if sample is None:
        raise sample_inputs.NoInputsError(f"{call.operation.name!r} takes no random inputs")
    arrays, expected = sample
    dtypes = [part.output.dtype]
    [error], [limit] = equivalence.compared(old, arrays, expected, new(arrays), dtypes)
    return not error > limit


# -- parts of a graph -------------------------------------------------------------------------------------


@dataclass
class _Part:
    """A part of a graph that makes one value from others.

    Attributes:
        graph: the part.
        originals: of a part of a copy, what stands for its inputs in the original.
        folds: in a part of the original, in order: the last makes the value.
        places: of its inputs among the arrays of a program.
        stand_ins: layers in the place of others, by the `id` of these, without their activations.
    """

    graph: Graph
    originals: list[Value] = dataclasses.field(default_factory=list)
    folds: list[Fold] = dataclasses.field(default_factory=list)
    places: list[int] = dataclasses.field(default_factory=list)
    stand_ins: dict[int, Any] = dataclasses.field(default_factory=dict)

    @property
    def output(self) -> Value:
        return self.graph.output_values[0]


def _of_one_call(graph: Graph, call: Call, inputs: list[Value]) -> Graph:
    """Return the graph of one call, which computes the first of what it makes."""
    inputs = list(dict.fromkeys(inputs))
    return dataclasses.replace(graph, inputs=inputs, calls=[call], outputs=call.outputs[0])


def _regions(graph: Graph, plan: Plan, copy: Copy, key: int) -> list[tuple[_Part, _Part]]:
    """Return what makes each value that folds leave as it was from others of the kind, here and there."""
    new_graph: Any = Graph.of(copy.models[key], nested="keep")
    new_values = {id(tensor): value for value, tensor in new_graph.tensors.items()}
    new_of = {v: new_values.get(id(tensor)) for v, tensor in copy.tensors.items() if v in graph.tensors}

    def stays(value: Value) -> bool:
        # Masks are of what they mask: inputs of their own would not fit.
        return "float" in value.dtype and value not in plan.changed and new_of.get(value) is not None

    folds = plan.folds.get(key, [])
    regions = []
    for fold in folds:
        if fold.value in plan.changed:
            continue
        part = _Part(graph.part(fold.value, until=stays))
        sources = {id(call.operation) for call in part.graph.calls}
        part.folds += [each for each in folds if id(each.source) in sources and each is not fold] + [fold]
        originals = {
            new_of[value]: value for value in [*graph.inputs, *part.graph.inputs] if new_of.get(value)
        }
        new = _Part(new_graph.part(new_of[fold.value], until=originals.__contains__))
        if all(value in originals for value in new.graph.inputs):
            new.originals += [originals[value] for value in new.graph.inputs]
            regions.append((_without_last_activation(part), _without_last_activation(new)))
    return regions


def _without_last_activation(part: _Part) -> _Part:
    """Return `part` with what an activation in its last layer is given, as that may hide errors."""
    for place, call in enumerate(part.graph.calls):
        layer = call.operation
        activation = getattr(layer, "activation", None)
        is_last = part.output in call.outputs and type(layer) in _WITH_ACTIVATION_LAST
        if is_last and activation not in (None, activations.linear):
            part.stand_ins[id(layer)] = without_activation(layer)
            part.graph.calls[place] = dataclasses.replace(call, operation=part.stand_ins[id(layer)])
    return part


def _kernels(plan: Plan, copy: Copy, part: _Part, new: _Part) -> list[list[Any]]:
    """Return the variables of each layer of the copy that has a fold in it, and that multiply."""
    targets = {id(target): None for fold in part.folds for target in fold.targets}
    kernels = []
    for target in targets:
        edit = plan.changes.edits.get(target)
        if edit is not None:
            layer = copy.operations[target]
            layer = new.stand_ins.get(id(layer), layer)
            paths = [path for path in edit.weights if path.endswith(("kernel", "gamma"))]
            kernels.append([attrgetter(path)(layer) for path in paths])
    return [variables for variables in kernels if variables]


# -- computing them ---------------------------------------------------------------------------------------


def _program(parts: Sequence[_Part]) -> equivalence.Program:
    """Return what computes the value of each part from what goes into all of them."""
    calls = [call for part in parts for call in part.graph.calls]
    operations = {id(call.operation): call.operation for call in calls}.values()
    variables = {
        id(variable): variable
        for operation in operations
        if isinstance(operation, keras.Layer)
        for variable in operation.variables
    }

    def function(arrays: list) -> list:
        return [_computed(part, arrays) for part in parts]

    return equivalence.Program(function, list(variables.values()), len(calls) >= equivalence.MANY)


def _computed(part: _Part, arrays: list) -> Any:
    tensors = [
        keras.ops.convert_to_tensor(arrays[place], None if value.dtype == "string" else value.dtype)
        for value, place in zip(part.graph.inputs, part.places, strict=True)
    ]
    return part.graph.run(tensors)


def _sample(
    regions: Sequence[tuple[_Part, _Part]], program: equivalence.Program
) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """Return inputs for all parts that all of them take, and what `program` makes of them."""
    values = [list(dict.fromkeys([*part.graph.inputs, *new.originals])) for part, new in regions]
    start = 0
    for (part, new), of_region in zip(regions, values, strict=True):
        part.places = [start + of_region.index(value) for value in part.graph.inputs]
        new.places = [start + of_region.index(value) for value in new.originals]
        start += len(of_region)
    graphs = [
        dataclasses.replace(part.graph, inputs=of_region)
        for (part, _), of_region in zip(regions, values, strict=True)
    ]
    for size in sample_inputs.sizes([value for of_region in values for value in of_region]):
        try:
            arrays = [array for graph in graphs for array in sample_inputs.drawn(graph, size)]
        except sample_inputs.NoInputsError:
            continue
        try:
            expected = program(arrays)
        except Exception:  # of whatever kind a layer raises for an image that is too small
            continue
        if all(array.size for array in expected):
            return arrays, expected
    return None
