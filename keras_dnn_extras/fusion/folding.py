"""Folds of the layers of one graph: which layer goes into which others, and why some cannot."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np

from keras_dnn_extras._graphs import Call, Changes, Edit, EditedGraph, ObstacleError, Usage, Value
from keras_dnn_extras._models import kernel_obstacle
from keras_dnn_extras.fusion import algebra, propagation
from keras_dnn_extras.fusion.affine_layers import PREPROCESSING, cancellation_of, flows_of, keeps_kind
from keras_dnn_extras.fusion.foldable_layers import LINEAR, NORMALIZING, Flow, Linear, Weights, precision_of

Direction = Literal["backward", "forward"]

_WITH_NORMALIZING = {**LINEAR, **NORMALIZING}


@dataclass(frozen=True)
class Fold:
    """A layer that goes into others.

    Attributes:
        source: the layer.
        targets: the others.
        direction: `"backward"` into layers before it, `"forward"` into one after it.
        value: one that is the same before and after.
    """

    source: Any
    targets: tuple[Any, ...]
    direction: Direction
    value: Value

    @property
    def into(self) -> tuple[str, ...]:
        """The names of the others."""
        return tuple(layer.name for layer in self.targets)


@dataclass
class Decisions:
    """What is decided about the layers of a model, for all of its graphs.

    Attributes:
        changes: for `copy_model`.
        reasons: why layers stay, by `id` of the layer.
        changed: values of the original that are others in the copy.
    """

    changes: Changes = field(default_factory=Changes)
    reasons: dict[int, str] = field(default_factory=dict)
    changed: set[Value] = field(default_factory=set)


class Folder:
    """Folds the layers of one graph.

    Args:
        decisions: that of other graphs, to which it adds its own.
        usage: of the whole model.
        graph: from which it erases what it folds.
        is_outermost: whether it is the graph of the whole model.
    """

    def __init__(self, decisions: Decisions, usage: Usage, graph: EditedGraph, is_outermost: bool):
        self._decisions = decisions
        self._usage = usage
        self._graph = graph
        # There the names of the layers that make the outputs are the names of the outputs.
        self._names_outputs = is_outermost and not isinstance(graph.model, keras.Sequential)
        self._calls = list(graph.calls)
        self._weights: dict[int, Weights] = {}
        self._folds: list[Fold] = []

    def fold(self) -> list[Fold]:
        """Fold all that can be folded: backward first, which is better in floats."""
        while self._all_backward(LINEAR) or self._all_forward() or self._all_backward(_WITH_NORMALIZING):
            pass
        for call in self._sources(NORMALIZING):
            self._decisions.reasons[id(call.operation)] = self._why_not(call)
        self._note_edits()
        order = [id(call.operation) for call in self._calls]
        return sorted(self._folds, key=lambda fold: order.index(id(fold.source)))

    def _sources(self, kinds: Mapping[type, Any]) -> list[Call]:
        changes = self._decisions.changes
        settled = self._decisions.reasons.keys() | changes.replaced_by_identity
        calls = self._graph.calls
        return [c for c in calls if type(c.operation) in kinds and id(c.operation) not in settled]

    def _all_backward(self, kinds: Mapping[type, Linear]) -> bool:
        sources = self._sources(NORMALIZING)
        return sum(_succeeds(self._backward, call, kinds) for call in sources) > 0

    def _all_forward(self) -> bool:
        sources = reversed(self._sources({**NORMALIZING, **PREPROCESSING}))
        return sum(_succeeds(self._forward, call) for call in sources) > 0

    def _why_not(self, call: Call) -> str:
        reasons = []
        try:
            self._flows(call)
        except ObstacleError as obstacle:
            return f"{sentence(str(obstacle))}."
        for fold in (lambda: self._backward(call, _WITH_NORMALIZING), lambda: self._forward(call)):
            try:
                fold()
            except ObstacleError as obstacle:
                reasons.append(str(obstacle))
        return f"Not into layers before it: {reasons[0]}. Not into layers after it: {reasons[1]}."

    # -- one fold ----------------------------------------------------------------------------------------

    def _backward(self, call: Call, kinds: Mapping[type, Linear]) -> None:
        flow = self._flows(call)[0]
        if not keeps_kind(call):
            raise ObstacleError(f"{call.operation.name!r} changes the dtype of what goes through it")
        targets: list[tuple[Any, Weights]] = []
        passed: set[Value] = set()
        self._find_before(self._graph.resolved(call.args[0]), flow, kinds, targets, passed)
        self._commit(call, "backward", targets, passed, call.outputs[0])

    def _find_before(
        self, value: Value, flow: Flow, kinds: Mapping[type, Linear], targets: list, passed: set[Value]
    ) -> None:
        """Fold `flow`, which is to come out as `value`, into the nearest layers that make it."""
        producer = self._graph.producer(value)
        self._graph.only_use(value)
        passed.add(value)
        layer = producer.operation
        if type(layer) in kinds:
            self._check_target(layer)
            targets.append((layer, kinds[type(layer)].backward(producer, self._weights_of(layer), flow)))
            return
        for before, branch in propagation.before(producer, flow):
            self._find_before(self._graph.resolved(before), branch, kinds, targets, passed)

    def _forward(self, call: Call) -> None:
        obstacle = None
        for flow in self._flows(call):
            try:
                return self._forward_as(call, flow)
            except ObstacleError as error:
                obstacle = error
        raise obstacle or ObstacleError("it is not known what it does")

    def _forward_as(self, call: Call, flow: Flow) -> None:
        value, passed = call.outputs[0], {call.outputs[0]}
        consumer, alias = self._graph.only_use(value)
        _check_casts(call, consumer)
        while type(consumer.operation) not in LINEAR:
            flow = propagation.after(consumer, alias, flow)
            value = consumer.outputs[0]
            passed.add(value)
            consumer, alias = self._graph.only_use(value)
        layer = consumer.operation
        self._check_target(layer)
        weights = LINEAR[type(layer)].forward(consumer, alias, self._weights_of(layer), flow)
        self._check_cancellation(call, layer)
        self._commit(call, "forward", [(layer, weights)], passed, consumer.outputs[0])

    def _commit(
        self,
        call: Call,
        direction: Direction,
        targets: list[tuple[Any, Weights]],
        passed: set[Value],
        value: Value,
    ) -> None:
        for layer, weights in targets:
            _check_fits(layer, weights)
        self._weights.update({id(layer): weights for layer, weights in targets})
        self._decisions.changed.update(*map(self._graph.aliases, passed))
        self._folds.append(Fold(call.operation, tuple(layer for layer, _ in targets), direction, value))
        if self._names_outputs and call.outputs[0] in self._graph.outputs:
            self._decisions.changes.replaced_by_identity.add(id(call.operation))
        else:
            self._graph.erase(call)
            self._decisions.changes.removed.add(id(call.operation))

    # -- layers ------------------------------------------------------------------------------------------

    def _weights_of(self, layer: Any) -> Weights:
        if id(layer) in self._weights:
            return self._weights[id(layer)]
        return _WITH_NORMALIZING[type(layer)].weights(layer)

    def _statistics_of(self, layer: Any) -> Weights | None:
        return self._weights_of(layer) if type(layer) in NORMALIZING else None

    def _check_target(self, layer: Any) -> None:
        self._usage.check_called_once(layer)
        obstacle = kernel_obstacle(layer)
        if obstacle is not None:
            raise ObstacleError(obstacle)

    def _flows(self, call: Call) -> list[Flow]:
        self._check_target(call.operation)
        return flows_of(call, self._statistics_of(call.operation))

    def _check_cancellation(self, call: Call, target: Any) -> None:
        times = cancellation_of(call, self._statistics_of(call.operation))
        if times > algebra.LARGEST_CANCELLATION[precision_of(target)]:
            raise ObstacleError(
                f"{target.name!r} would be ill-conditioned: means of {call.operation.name!r} are "
                f"{times:.3g} times their deviations, and that many roundings of {precision_of(target)} "
                "would be seen"
            )

    # -- what is different in the layers that stay ---------------------------------------------------------

    def _note_edits(self) -> None:
        changes = self._decisions.changes
        for layer in {id(call.operation): call.operation for call in self._graph.calls}.values():
            is_gone = id(layer) in changes.removed | changes.replaced_by_identity
            edit = None if is_gone or not isinstance(layer, keras.Layer) else self._edit_of(layer)
            if edit is not None:
                changes.edits[id(layer)] = edit

    def _edit_of(self, layer: Any) -> Edit | None:
        """Return other weights of a layer, and another config where it would look at other numbers."""
        config: dict[str, Any] = {}
        arrays: dict[str, np.ndarray] = {}
        if self._has_other_outputs(layer) and getattr(layer, "activity_regularizer", None) is not None:
            config["activity_regularizer"] = None
        if id(layer) in self._weights:
            weights = self._weights[id(layer)]
            config |= _without_regularizers(layer)
            config |= _WITH_NORMALIZING[type(layer)].config(layer, weights)
            arrays = {path: array for path, array in weights.items() if array is not None}
        return Edit(config, arrays) if config or arrays else None

    def _has_other_outputs(self, layer: Any) -> bool:
        calls = self._usage.calls[id(layer)]
        return any(value in self._decisions.changed for call in calls for value in call.outputs)


def sentence(clause: str) -> str:
    """Return `clause` as the beginning of a sentence."""
    return clause if clause.startswith("'") else clause[:1].upper() + clause[1:]


def _succeeds(fold: Callable[..., None], *arguments: Any) -> bool:
    try:
        fold(*arguments)
    except ObstacleError:
        return False
    return True


def _check_fits(layer: Any, weights: Weights) -> None:
    arrays = [array for array in weights.values() if array is not None]
    if not all(algebra.fits(array, precision_of(layer)) for array in arrays):
        raise ObstacleError(
            f"weights of {layer.name!r} are not finite, or would be too large for {precision_of(layer)}"
        )


def _check_casts(call: Call, consumer: Call) -> None:
    """Raise where `call` changes the dtype, unless `consumer` would do that itself."""
    source, output, layer = call.args[0], call.outputs[0], consumer.operation
    if source.dtype == output.dtype:
        return
    casts = isinstance(layer, keras.Layer) and layer.autocast and layer.compute_dtype == output.dtype
    if not (casts and "float" in source.dtype and "float" in output.dtype):
        raise ObstacleError(f"{call.operation.name!r} changes the dtype of what goes through it")


def _without_regularizers(layer: Any) -> dict[str, Any]:
    """Return what to change in a config for weights that are none of those that were trained."""
    suffixes = ("_regularizer", "_constraint")
    config = layer.get_config().items()
    return {
        name: None
        for name, value in config
        if value is not None and name.endswith(suffixes) and name != "activity_regularizer"
    }
