"""Who takes what in a graph, while layers are left out."""

import keras

from keras_dnn_extras._graphs.graph import Call, Level, Value, values_of
from keras_dnn_extras._graphs.obstacles import ObstacleError


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
