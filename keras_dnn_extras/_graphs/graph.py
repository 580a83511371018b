"""Models as graphs: calls of operations, and the values that go from one call to the next.

The words are those of torch.fx and onnx-ir. A `Value` is a tensor of the graph. A `Call` takes values and
makes others: it is the *producer* of these, and a *consumer* of those. The *ancestors* of a value are the
calls that it is computed from, its *descendants* the calls that it has an effect on.

    graph = Graph.of(model)
    for call in graph.calls:                      # in an order in which they can be computed
        print(call.operation, [graph.producer(value) for value in call.inputs])
    graph.run(standardized_inputs(model, x))      # the same as `model(x, training=False)`

A graph holds no model, so that what was made of it can outlive one.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from keras_dnn_extras._graphs.calls import Call, Value, fill_in, values_of
from keras_dnn_extras._graphs.graph_reading import InlineReader, LevelReader
from keras_dnn_extras._keras_internals import functional_of


@dataclass(frozen=True, eq=False)
class Graph:
    """A functional or sequential model, or a part of one, as a list of calls.

    Attributes:
        inputs: values that come from outside: those of a whole model in the order of `model.inputs`.
        calls: each after those that make its inputs.
        outputs: values that are computed, in the structure in which the model returns them.
        tensors: the Keras tensor of each value, in a graph that keeps nested models; else empty.
    """

    inputs: list[Value]
    calls: list[Call]
    outputs: Any
    tensors: dict[Value, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any, nested: Literal["inline", "keep"] = "inline") -> "Graph | None":
        """Return the graph of `model`, or None where its `call` is its own and nobody can look into it.

        Args:
            nested: `"inline"` puts the calls of a nested model in the place of its own call, where that
                call is no more than these; a first axis of the batch size that the model has is None.
                `"keep"` leaves nested models as operations among others, and all shapes as they are.
        """
        functional = functional_of(model)
        if functional is None:
            return None
        reader = InlineReader() if nested == "inline" else LevelReader()
        inputs = [reader.input(tensor) for tensor in functional.inputs]
        outputs = reader.read(functional, inputs)
        return cls(inputs, reader.calls, outputs, reader.tensors)

    # -- who makes and takes what --------------------------------------------------------------------------

    @property
    def output_values(self) -> list[Value]:
        """The outputs, flat."""
        return values_of(self.outputs)

    def producer(self, value: Value) -> Call | None:
        """Return the call that makes `value`, or None for what comes from outside."""
        return self._producers.get(value)

    def consumers(self, value: Value) -> list[Call]:
        """Return the calls that take `value`, each once, in order."""
        return self._consumers.get(value, [])

    def ancestors(
        self, values: Iterable[Value], until: Callable[[Value], bool] | None = None
    ) -> list[Call]:
        """Return the calls that `values` are computed from, in order.

        Args:
            until: tells of other values whether to stop there, and leave their producers out.
        """
        return self._walked_back(values, until)[0]

    def descendants(self, values: Iterable[Value]) -> list[Call]:
        """Return the calls that take `values`, or anything that is computed from them, in order."""
        reached = set(values)
        calls = []
        for call in self.calls:
            if not reached.isdisjoint(call.inputs):
                calls.append(call)
                reached.update(call.outputs)
        return calls

    # -- parts ---------------------------------------------------------------------------------------------

    def part(self, outputs: Any, until: Callable[[Value], bool] | None = None) -> "Graph":
        """Return the graph of what computes `outputs`. Its inputs are where the walk back stopped.

        Args:
            outputs: a structure of values of this graph.
            until: as for `ancestors`.
        """
        calls, border = self._walked_back(values_of(outputs), until)
        return dataclasses.replace(self, inputs=border, calls=calls, outputs=outputs)

    def split(self, is_late: Callable[[Any], bool]) -> "tuple[Graph, Graph]":
        """Divide the graph in two: certain operations, and all that depends on them, are in the second.

        Args:
            is_late: tells of an operation whether it is one of those.

        Returns:
            The first graph, whose outputs are a list, and the second, which takes these as its inputs.
        """
        made_late = [value for call in self.calls if is_late(call.operation) for value in call.outputs]
        later = set(self.descendants(made_late))
        late = [call for call in self.calls if call in later or is_late(call.operation)]
        early = [call for call in self.calls if call not in set(late)]
        wanted = [value for call in late for value in call.inputs] + self.output_values
        of_late = {value for call in late for value in call.outputs}
        border = [value for value in dict.fromkeys(wanted) if value not in of_late]
        first = dataclasses.replace(self, calls=early, outputs=border)
        return first, dataclasses.replace(self, inputs=border, calls=late)

    # -- computing -----------------------------------------------------------------------------------------

    def run(self, tensors: Sequence[Any], run_call: Callable[[Call, dict], None] = Call.run) -> Any:
        """Compute the outputs, in inference mode.

        Args:
            tensors: one for each input.
            run_call: what computes one call, of the call and of the tensors of all values so far, to which
                it adds the outputs.
        """
        computed = dict(zip(self.inputs, tensors, strict=True))
        for call in self.calls:
            run_call(call, computed)
        return fill_in(self.outputs, computed)

    @cached_property
    def _producers(self) -> dict[Value, Call]:
        return {value: call for call in self.calls for value in call.outputs}

    @cached_property
    def _consumers(self) -> dict[Value, list[Call]]:
        consumers: dict[Value, list[Call]] = {}
        for call in self.calls:
            for value in dict.fromkeys(call.inputs):
                consumers.setdefault(value, []).append(call)
        return consumers

    def _walked_back(
        self, values: Iterable[Value], until: Callable[[Value], bool] | None
    ) -> tuple[list[Call], list[Value]]:
        """Return the calls on the way back from `values`, in order, and the values where it stopped."""
        goals, waiting = set(values), list(values)
        border: dict[Value, None] = {}
        passed: set[Call] = set()
        while waiting:
            value = waiting.pop()
            producer = self.producer(value)
            if producer is None or (until is not None and value not in goals and until(value)):
                border[value] = None
            elif producer not in passed:
                passed.add(producer)
                waiting.extend(producer.inputs)
        return [call for call in self.calls if call in passed], list(border)
