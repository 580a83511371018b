"""Which batch normalizations of a model can be folded into which layers, and why others cannot."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_dnn_extras._graphs import Call, Changes, EditedGraph, Usage, Value, is_no_op
from keras_dnn_extras.fusion.affine_layers import keeps_kind
from keras_dnn_extras.fusion.folding import Decisions, Fold, Folder, sentence


class Plan:
    """What can be folded in a model, without changing it.

    Args:
        usage: of the model.
        refused: why some layers are not to be folded after all, by `id` of the layer.

    Attributes:
        folds: by `id` of the model that has them, in the order of the calls.
        no_ops: layers that are left out because they do nothing at inference, by their paths.
    """

    def __init__(self, usage: Usage, refused: Mapping[int, str]):
        self._decisions = Decisions(reasons=dict(refused))
        self.folds: dict[int, list[Fold]] = {}
        self.no_ops: dict[str, Any] = {}
        graphs = {
            key: EditedGraph(usage.models[key], graph)
            for key, graph in usage.graphs.items()
            if key not in usage.frozen
        }
        self._leave_out_no_ops(usage, graphs)
        for key, graph in graphs.items():
            self.folds[key] = Folder(
                self._decisions, usage, graph, is_outermost=not usage.paths[key]
            ).fold()
        for key, reason in usage.frozen.items():
            for call in usage.graphs[key].calls:
                self.reasons.setdefault(id(call.operation), f"{sentence(reason)}.")

    @property
    def changes(self) -> Changes:
        """For `copy_model`."""
        return self._decisions.changes

    @property
    def reasons(self) -> dict[int, str]:
        """Why layers stay, by `id` of the layer."""
        return self._decisions.reasons

    @property
    def changed(self) -> set[Value]:
        """Values of the original that are others in the copy."""
        return self._decisions.changed

    def _leave_out_no_ops(self, usage: Usage, graphs: Mapping[int, EditedGraph]) -> None:
        """Leave out layers that do nothing, where this holds for all calls of them."""
        no_ops = [id(call.operation) for graph in graphs.values() for call in _no_op_calls(graph)]
        for key, graph in graphs.items():
            for call in list(graph.calls):
                layer = call.operation
                if id(layer) in no_ops and no_ops.count(id(layer)) == len(usage.calls[id(layer)]):
                    graph.erase(call)
                    if id(layer) not in self.changes.removed:
                        self.no_ops[usage.paths[key] + layer.name] = layer
                    self.changes.removed.add(id(layer))


def _no_op_calls(graph: EditedGraph) -> Iterator[Call]:
    """Yield the calls of layers that do nothing, and whose names are not those of outputs."""
    is_sequential = isinstance(graph.model, keras.Sequential)
    calls = [call for call in graph.calls if is_no_op(call.operation) and keeps_kind(call)]
    if is_sequential and len(calls) == len(graph.calls):
        calls = calls[:-1]  # a model has at least one layer
    for call in calls:
        if is_sequential or call.outputs[0] not in graph.outputs:
            yield call
