"""Copies of functional and sequential models by their graphs: one new layer for each, others, or none."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree

from keras_dnn_extras._graphs.calls import Call, Value, fill_in
from keras_dnn_extras._graphs.graph import Graph
from keras_dnn_extras._graphs.layer_copies import (
    Edit,
    assign,
    config_of,
    copy_others,
    copy_state,
    deserialized,
    is_alike,
    no_copy,
)
from keras_dnn_extras._graphs.sample_inputs import drawn, sizes
from keras_dnn_extras._keras_internals import (
    input_structure,
    operation_of,
    sharing_objects,
    stacked_layers,
    with_code,
)


@dataclass
class Changes:
    """What differs in the copy of a model, by `id(layer)`.

    Attributes:
        edits: layers of another config or other weights.
        removed: layers that are left out: what goes into them takes the place of what comes out.
        replaced_by_identity: the same, for those whose name is the name of an output.
    """

    edits: dict[int, Edit] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    replaced_by_identity: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Copy:
    """A copy of a model.

    Attributes:
        model: the copy.
        models: the copies of it and of all models in it, by `id` of the original.
        tensors: what stands in the copy for each value of the original's graphs, in a copy by the graph.
        operations: the copies of layers and other operations, by `id` of the original.
    """

    model: keras.Model
    models: dict[int, keras.Model]
    tensors: dict[Value, Any]
    operations: dict[int, Any]


def copied_by_graph(model: keras.Model, graphs: Mapping[int, Graph], changes: Changes) -> Copy:
    """Return a copy of `model` with `changes`. No layer of the original is called.

    Args:
        graphs: of `model` and of each functional or sequential model that it calls, with nested models
            kept, by `id(model)`.

    Raises:
        ValueError: a layer cannot be made anew from its config.
    """
    with sharing_objects(), with_code():
        builder = _Builder(graphs, changes)
        copy = Copy(builder.model(model), builder.models, builder.tensors, builder.operations)
    builder.finish()
    return copy


class _Builder:
    def __init__(self, graphs: Mapping[int, Graph], changes: Changes):
        self.models: dict[int, keras.Model] = {}
        self.tensors: dict[Value, Any] = {}
        self.operations: dict[int, Any] = {}
        self._graphs = graphs
        self._changes = changes
        self._unfinished: list[tuple[Any, Any]] = []
        # All before the first is made: a layer that is in two others is the same in both by its config.
        operations = [call.operation for graph in graphs.values() for call in graph.calls]
        operations += [operation_of(t) for graph in graphs.values() for t in _inputs(graph)]
        self._configs = {
            id(operation): config_of(operation) for operation in operations if id(operation) not in graphs
        }

    def model(self, model: Any) -> Any:
        if id(model) not in self.models:
            build = self._sequential if isinstance(model, keras.Sequential) else self._functional
            new = self.models[id(model)] = build(model)
            if new.dtype_policy != model.dtype_policy:
                new.dtype_policy = model.dtype_policy
        return self.models[id(model)]

    def finish(self) -> None:
        """Copy the state of layers that make weights when they are first called with numbers."""
        calls = [call for graph in self._graphs.values() for call in graph.calls]
        for old, new in self._unfinished:
            _called_once(new, next(call for call in calls if call.operation is old))
            if not is_alike(old, new):
                raise no_copy(old)
            copy_state(old, new)

    def _functional(self, model: Any) -> keras.Model:
        graph, tensors = self._graphs[id(model)], self.tensors
        for value, tensor in zip(graph.inputs, _inputs(graph), strict=True):
            tensors[value] = self._operation(operation_of(tensor)).output
        for call in graph.calls:
            tensors.update(zip(call.outputs, self._outputs(call), strict=True))
        inputs = tree.pack_sequence_as(input_structure(model), [tensors[value] for value in graph.inputs])
        outputs = fill_in(graph.outputs, tensors)
        return keras.Model(inputs, outputs, name=model.name, trainable=model.trainable)

    def _outputs(self, call: Call) -> list:
        if id(call.operation) in self._changes.removed:
            return [self.tensors[call.args[0]]]
        if id(call.operation) in self._changes.replaced_by_identity:
            return [self._operation(call.operation)(self.tensors[call.args[0]])]
        args, kwargs = fill_in((call.args, call.kwargs), self.tensors)
        return tree.flatten(self._operation(call.operation)(*args, **kwargs))

    def _sequential(self, model: Any) -> keras.Sequential:
        graph, tensors = self._graphs[id(model)], self.tensors
        layers = [layer for layer in stacked_layers(model) if id(layer) not in self._changes.removed]
        new = keras.Sequential(
            [self._operation(layer) for layer in layers], name=model.name, trainable=model.trainable
        )
        again: Any = Graph.of(new, nested="keep")
        tensors.update(zip(graph.inputs, _inputs(again), strict=True))
        copies = iter(_layer_calls(again, new))
        for call in _layer_calls(graph, model):
            if id(call.operation) in self._changes.removed:
                tensors[call.outputs[0]] = tensors[call.args[0]]
            else:
                tensors.update(zip(call.outputs, map(again.tensors.get, next(copies).outputs), strict=True))
        return new

    def _operation(self, operation: Any) -> Any:
        if id(operation) in self._graphs:
            return self.model(operation)
        if id(operation) not in self.operations:
            self.operations[id(operation)] = self._copied(operation)
        return self.operations[id(operation)]

    def _copied(self, operation: Any) -> Any:
        if id(operation) in self._changes.replaced_by_identity:
            return keras.layers.Identity(name=operation.name, dtype=operation.compute_dtype)
        edit = self._changes.edits.get(id(operation))
        config = self._configs[id(operation)]
        if edit is not None:
            config = {**config, "config": {**config["config"], **edit.config}}
        new = deserialized(config, operation)
        if isinstance(operation, keras.Layer):
            if edit is None and not is_alike(operation, new):
                self._unfinished.append((operation, new))
            elif edit is None:
                copy_state(operation, new)
            else:
                copy_others(operation, new, edit.weights)
                assign(new, edit.weights)
        return new


def _inputs(graph: Graph) -> list:
    return [graph.tensors[value] for value in graph.inputs]


def _layer_calls(graph: Graph, model: Any) -> list[Call]:
    """Return the calls of the layers of a sequential model, in order, without those that make masks."""
    layers = set(map(id, stacked_layers(model)))
    return [call for call in graph.calls if id(call.operation) in layers]


def _called_once(layer: Any, call: Call) -> None:
    """Call a copy of a layer as the layer is called, with inputs drawn for it."""
    graph = Graph(list(dict.fromkeys(call.inputs)), [call], list(call.outputs))
    of_copy = dataclasses.replace(graph, calls=[dataclasses.replace(call, operation=layer)])
    for size in sizes(graph.inputs):
        try:
            of_copy.run(drawn(graph, size))
        except Exception:  # of whatever kind a layer raises for an image that is too small
            continue
        return
    raise no_copy(call.operation)
