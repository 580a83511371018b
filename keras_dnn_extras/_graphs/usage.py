"""What is called in a model and the models in it."""

from dataclasses import dataclass, field
from typing import Any

import keras

from keras_dnn_extras._graphs.graph import Call, Level
from keras_dnn_extras._graphs.obstacles import ObstacleError
from keras_dnn_extras._keras_internals import functional_of


@dataclass
class Census:
    """The levels of a model, what is called in them, and who has which variable.

    Attributes:
        levels: by `id` of the model.
        paths: of the model of a level, with a `/` at the end; empty for the outermost.
        frozen: why nothing may be changed in a level.
        calls: of all levels, by `id` of the operation.
        owners: the operations that have a variable, by its `id`.
    """

    models: dict[int, Any] = field(default_factory=dict)
    levels: dict[int, Level] = field(default_factory=dict)
    paths: dict[int, str] = field(default_factory=dict)
    frozen: dict[int, str] = field(default_factory=dict)
    calls: dict[int, list[Call]] = field(default_factory=dict)
    owners: dict[int, dict[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.Model) -> "Census":
        census = cls()
        census._add(model, "", None)
        return census

    def _add(self, model: Any, path: str, why: str | None) -> None:
        if why is not None:
            self.frozen.setdefault(id(model), why)
        if id(model) not in self.levels:
            level: Any = Level.of(model)
            self.models[id(model)], self.levels[id(model)], self.paths[id(model)] = model, level, path
            for call in level.calls:
                self._count(call)
        for call in self.levels[id(model)].calls:
            operation = call.operation
            if functional_of(operation) is not None:
                trains = f"{operation.name!r} is called with training=True"
                self._add(
                    operation, f"{path}{operation.name}/", trains if call.kwargs.get("training") else why
                )

    def _count(self, call: Call) -> None:
        operation = call.operation
        self.calls.setdefault(id(operation), []).append(call)
        if isinstance(operation, keras.Layer) and functional_of(operation) is None:
            for variable in operation.variables:
                self.owners.setdefault(id(variable), {})[id(operation)] = operation.name

    def check_alone(self, layer: Any) -> None:
        """Raise unless `layer` is called once, and nothing else has its weights."""
        if len(self.calls[id(layer)]) > 1:
            raise ObstacleError(
                f"{layer.name!r} is called {len(self.calls[id(layer)])} times, with the same weights"
            )
        for variable in layer.variables:
            others = [name for i, name in self.owners[id(variable)].items() if i != id(layer)]
            if others:
                raise ObstacleError(f"{layer.name!r} shares its weights with {others[0]!r}")
