"""Graphs from which calls are erased, one after the other, as torch.fx erases nodes."""

import keras

from keras_dnn_extras._graphs.calls import Call, Value
from keras_dnn_extras._graphs.graph import Graph
from keras_dnn_extras._graphs.obstacles import ObstacleError


class EditedGraph:
    """A graph while calls are erased: which remain, and who takes what they make.

    A value whose producer was erased is an *alias* of the value that takes its place.

    Attributes:
        model: that the graph is of.
        calls: those that remain, in order.
        outputs: values that the model returns.
    """

    def __init__(self, model: keras.Model, graph: Graph):
        self.model = model
        self.calls = list(graph.calls)
        self.outputs = set(graph.output_values)
        self._graph = graph
        self._replacements: dict[Value, Value] = {}
        # By value: who takes it, and as which of its aliases.
        self._uses: dict[Value, list[tuple[Call, Value]]] = {
            value: [(call, value) for call in graph.consumers(value)]
            for value in dict.fromkeys(value for call in graph.calls for value in call.inputs)
        }

    def erase(self, call: Call) -> None:
        """Leave out a call: its consumers take its input in place of its output."""
        self.calls.remove(call)
        output, source = call.outputs[0], self.resolved(call.args[0])
        for value in dict.fromkeys(map(self.resolved, call.inputs)):
            self._uses[value] = [use for use in self._uses[value] if use[0] is not call]
        self._uses.setdefault(source, []).extend(self._uses.pop(output, []))
        self._replacements[output] = source
        if output in self.outputs:
            self.outputs.add(source)

    def resolved(self, value: Value) -> Value:
        """Return what stands for `value` now."""
        while value in self._replacements:
            value = self._replacements[value]
        return value

    def aliases(self, value: Value) -> set[Value]:
        """Return `value` and the values that it stands for."""
        return {value, *(alias for alias in self._replacements if self.resolved(alias) is value)}

    def producer(self, value: Value) -> Call:
        """Return the call that makes `value`."""
        call = self._graph.producer(value)
        if call is None:
            raise ObstacleError("an input of the model comes before it")
        return call

    def only_use(self, value: Value) -> tuple[Call, Value]:
        """Return the one call that takes `value`, and as which of its aliases it does."""
        uses = self._uses.get(value, [])
        producer = self._graph.producer(value)
        name = repr(producer.operation.name) if producer else "an input"
        if value in self.outputs:
            raise ObstacleError(f"what {name} makes is an output of the model")
        if len(uses) != 1:
            names = ", ".join(repr(call.operation.name) for call, _ in uses)
            raise ObstacleError(f"what {name} makes goes to several layers ({names})")
        return uses[0]
