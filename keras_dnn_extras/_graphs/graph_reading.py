"""Calls, read from the nodes in which Keras records what a model is made of."""

from typing import Any

import keras
from keras import tree

from keras_dnn_extras._graphs.calls import Call, Value, values_of
from keras_dnn_extras._keras_internals import (
    converts_inputs,
    functional_of,
    input_structure,
    nodes_in_order,
    output_structure,
)


class Reader:
    """Turns the nodes of functional models into calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.tensors: dict[Value, Any] = {}

    def value(self, tensor: Any) -> Value:
        """Return the value for a Keras tensor."""
        raise NotImplementedError

    def input(self, tensor: Any) -> Value:
        """Return the value for a Keras tensor that the outermost model takes."""
        return self.value(tensor)

    def outputs_of(self, node: Any, args: tuple, kwargs: dict[str, Any]) -> list[Value]:
        """Note the call that a node stands for, and return the values that it makes."""
        call = Call(node.operation, args, kwargs, tuple(map(self.value, node.outputs)))
        self.calls.append(call)
        return list(call.outputs)

    def read(self, functional: Any, inputs: list[Value]) -> Any:
        """Note the calls of a model that is called with `inputs`, and return its outputs."""
        values = dict(zip(map(id, functional.inputs), inputs, strict=True))
        for node in nodes_in_order(functional):
            if node.is_input or any(id(tensor) not in values for tensor in node.input_tensors):
                continue  # as Keras does
            args, kwargs = tree.map_structure(
                lambda a: values[id(a)] if isinstance(a, keras.KerasTensor) else a,
                (tuple(node.arguments.args), dict(node.arguments.kwargs)),
            )
            values.update(zip(map(id, node.outputs), self.outputs_of(node, args, kwargs), strict=True))
        return tree.map_structure(lambda tensor: values[id(tensor)], output_structure(functional))


class LevelReader(Reader):
    """Leaves nested models closed."""

    def value(self, tensor: Any) -> Value:
        value = Value(tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
        self.tensors[value] = tensor
        return value


class InlineReader(Reader):
    """Puts the calls of nested models in the place of the calls of these.

    A first axis of as many rows as the model is made for is one of any length: `predict` gives a batch
    size to a `Sequential`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rows: int | None = None

    def input(self, tensor: Any) -> Value:
        return _without_rows(tensor, tensor.shape[0])

    def value(self, tensor: Any) -> Value:
        return _without_rows(tensor, self._rows)

    def read(self, functional: Any, inputs: list[Value]) -> Any:
        outer, self._rows = self._rows, functional.inputs[0].shape[0]
        try:
            return super().read(functional, inputs)
        finally:
            self._rows = outer

    def outputs_of(self, node: Any, args: tuple, kwargs: dict[str, Any]) -> list[Value]:
        nested = functional_of(node.operation)
        if nested is None or not _is_plain(nested, args, kwargs):
            return super().outputs_of(node, args, kwargs)
        values = [
            self._converted(value, node.operation, inner.dtype)
            for value, inner in zip(values_of(args), nested.inputs, strict=True)
        ]
        return values_of(self.read(nested, values))

    def _converted(self, value: Value, model: Any, dtype: str) -> Value:
        """Return `value` in the dtype that a nested model turns it into, as Keras does, in two steps."""
        through = [dtype]
        if "float" in value.dtype and model.autocast and converts_inputs(model):
            through = [model.compute_dtype, dtype]
        for dtype in through:
            if value.dtype != dtype:
                cast = Value(value.shape, dtype)
                self.calls.append(Call(keras.ops.cast, (value, dtype), {}, (cast,)))
                value = cast
        return value


def _is_plain(nested: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Return whether a call of a nested model is no more than a call of its layers."""
    if len(args) != 1 or any(v is not None for name, v in kwargs.items() if name != "training"):
        return False
    passed, expected = values_of(args), nested.inputs
    if len(passed) != len(tree.flatten(args)) or len(passed) != len(expected):
        return False
    if len(passed) > 1:
        try:
            tree.assert_same_structure(args[0], input_structure(nested))
        except (TypeError, ValueError):
            return False
    return all(len(p.shape) == len(e.shape) for p, e in zip(passed, expected, strict=True))


def _without_rows(tensor: Any, rows: int | None) -> Value:
    shape = tuple(tensor.shape)
    if rows is not None and shape[:1] == (rows,):
        shape = (None, *shape[1:])
    return Value(shape, keras.backend.standardize_dtype(tensor.dtype))
