"""What is called in a model and the models in it, and who takes what, while layers are left out."""

from dataclasses import dataclass, field
from typing import Any

import keras

from keras_dnn_extras.linear_layers import ObstacleError
from keras_dnn_extras.surgery import Call, Level, Value, functional_of, values_of


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


class Wiring:
    """One level while layers are left out: which calls remain, and who takes what they make.

    Attributes:
        model: of the level.
        calls: those that remain, in order.
        outputs: values that the model returns.
    """

    def __init__(self, model: keras.Model, level: Level):
        self.model = model
        self.calls = list(level.calls)
        self.outputs = set(values_of(level.outputs))
        self._makers = {value: call for call in self.calls for value in call.outputs}
        self._others: dict[Value, Value] = {}
        self._users: dict[Value, list[tuple[Call, Value]]] = {}
        for call in self.calls:
            for value in dict.fromkeys(call.inputs):
                self._users.setdefault(value, []).append((call, value))

    def remove(self, call: Call) -> None:
        """Connect those who take what a call makes with what goes into it."""
        self.calls.remove(call)
        made, taken = call.outputs[0], self.real(call.args[0])
        for value in dict.fromkeys(map(self.real, call.inputs)):
            self._users[value] = [use for use in self._users[value] if use[0] is not call]
        self._users.setdefault(taken, []).extend(self._users.pop(made, []))
        self._others[made] = taken
        if made in self.outputs:
            self.outputs.add(taken)

    def real(self, value: Value) -> Value:
        """Return what stands for `value` now."""
        while value in self._others:
            value = self._others[value]
        return value

    def names(self, value: Value) -> set[Value]:
        """Return `value` and the values that it stands for."""
        return {value, *(other for other in self._others if self.real(other) is value)}

    def maker(self, value: Value) -> Call:
        """Return the call that makes `value`."""
        if value not in self._makers:
            raise ObstacleError("an input of the model comes before it")
        return self._makers[value]

    def only_user(self, value: Value) -> tuple[Call, Value]:
        """Return the one call that takes `value`, and by which name it does: itself, or one left out."""
        users = self._users.get(value, [])
        maker = self._makers.get(value)
        name = repr(maker.operation.name) if maker else "an input"
        if value in self.outputs:
            raise ObstacleError(f"what {name} makes is an output of the model")
        if len(users) != 1:
            names = ", ".join(repr(call.operation.name) for call, _ in users)
            raise ObstacleError(f"what {name} makes goes to several layers ({names})")
        return users[0]
