"""What is called in a model and the models in it, and how often."""

from dataclasses import dataclass, field
from typing import Any

import keras

from keras_dnn_extras._graphs.calls import Call
from keras_dnn_extras._graphs.graph import Graph
from keras_dnn_extras._graphs.obstacles import ObstacleError
from keras_dnn_extras._keras_internals import functional_of


@dataclass
class Usage:
    """The graphs of a model and of the models in it, what is called in them, and who has which variable.

    Attributes:
        models: the outermost one, and those in it, by `id`.
        graphs: of each, with nested models kept, by `id` of the model.
        paths: of the model of a graph, with a `/` at the end; empty for the outermost.
        frozen: why nothing may be changed in a graph, by `id` of the model.
        calls: of all graphs, by `id` of the operation.
        owners: the operations that have a variable, by its `id`.
    """

    models: dict[int, Any] = field(default_factory=dict)
    graphs: dict[int, Graph] = field(default_factory=dict)
    paths: dict[int, str] = field(default_factory=dict)
    frozen: dict[int, str] = field(default_factory=dict)
    calls: dict[int, list[Call]] = field(default_factory=dict)
    owners: dict[int, dict[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.Model) -> "Usage":
        usage = cls()
        usage._add(model, "", None)
        return usage

    def _add(self, model: Any, path: str, reason: str | None) -> None:
        if reason is not None:
            self.frozen.setdefault(id(model), reason)
        if id(model) not in self.graphs:
            graph: Any = Graph.of(model, nested="keep")
            self.models[id(model)], self.graphs[id(model)], self.paths[id(model)] = model, graph, path
            for call in graph.calls:
                self._count(call)
        for call in self.graphs[id(model)].calls:
            operation = call.operation
            if functional_of(operation) is not None:
                trains = f"{operation.name!r} is called with training=True"
                self._add(
                    operation, f"{path}{operation.name}/", trains if call.kwargs.get("training") else reason
                )

    def _count(self, call: Call) -> None:
        operation = call.operation
        self.calls.setdefault(id(operation), []).append(call)
        if isinstance(operation, keras.Layer) and functional_of(operation) is None:
            for variable in operation.variables:
                self.owners.setdefault(id(variable), {})[id(operation)] = operation.name

    def check_called_once(self, layer: Any) -> None:
        """Raise unless `layer` is called once, and nothing else has its weights."""
        if len(self.calls[id(layer)]) > 1:
            raise ObstacleError(
                f"{layer.name!r} is called {len(self.calls[id(layer)])} times, with the same weights"
            )
        for variable in layer.variables:
            names = [name for key, name in self.owners[id(variable)].items() if key != id(layer)]
            if names:
                raise ObstacleError(f"{layer.name!r} shares its weights with {names[0]!r}")
