"""Model graphs as lists of calls, in order: with nested models laid open, or one level of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from keras_dnn_extras._keras_internals import functional_of


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph, which one call makes and others take.

    Attributes:
        shape, dtype: as Keras knows them: None is the batch, or unknown.
    """

    shape: tuple[int | None, ...]
    dtype: str

    @property
    def has_batch(self) -> bool:
        return len(self.shape) > 0 and self.shape[0] is None


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation.

    Attributes:
        operation: a layer, another Keras operation, or a function.
        args, kwargs: its arguments, with a `Value` in place of each tensor.
        outputs: what it returns, flat.
    """

    operation: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]

    @property
    def inputs(self) -> list[Value]:
        return values_of((self.args, self.kwargs))

    def run(self, known: dict[Value, Any], training: bool | None = False) -> None:
        """Compute the outputs from the inputs, which are `known`, in inference mode unless told."""
        args, kwargs = _mapped(lambda value: known.get(value), (self.args, self.kwargs))
        if getattr(self.operation, "_call_has_training_arg", False):
            kwargs["training"] = training
        known.update(zip(self.outputs, tree.flatten(self.operation(*args, **kwargs)), strict=True))


@dataclass(frozen=True, eq=False)
class Graph:
    """A functional or sequential model as a list of calls, each after those that it needs.

    Attributes:
        inputs: in the order of `model.inputs`.
        outputs: in the structure of the model's outputs.
        standardized: turns what the model takes into its inputs, flat and in their dtypes, as Keras does.
    """

    inputs: list[Value]
    calls: list[Call]
    outputs: Any

    standardized: Callable[[Any], list]

    @classmethod
    def of(cls, model: keras.Model) -> "Graph | None":
        """Return the graph of `model`, or None where its `call` is its own."""
        functional = functional_of(model)
        if functional is None:
            return None
        calls: list[Call] = []
        inputs = [_value(tensor, tensor.shape[0]) for tensor in functional.inputs]
        outputs = _lay_open(functional, inputs, calls)

        def standardized(given: Any) -> list:
            if model._convert_input_args:
                policy, dtype = model.dtype_policy, model.input_dtype
                given = tree.map_structure(lambda x: policy.convert_input(x, model.autocast, dtype), given)
            return functional._standardize_inputs(given)

        return cls(inputs, calls, outputs, standardized)

    def split(self, is_in_tail: Callable[[Any], bool]) -> "tuple[list[Call], list[Value], list[Call]]":
        """Divide the calls: those of certain operations and all that depends on them come last.

        Args:
            is_in_tail: tells it of an operation.

        Returns:
            The calls of the head, the values that the tail or the outputs take from it, or from the
            inputs, and the calls of the tail.
        """
        head, tail = [], []
        late: set[Value] = set()
        for call in self.calls:
            if is_in_tail(call.operation) or not late.isdisjoint(call.inputs):
                tail.append(call)
                late.update(call.outputs)
            else:
                head.append(call)
        wanted = [value for call in tail for value in call.inputs] + values_of(self.outputs)
        border = [value for value in dict.fromkeys(wanted) if value not in late]
        return head, border, tail


@dataclass(frozen=True, eq=False)
class Level:
    """What a functional or sequential model itself calls, with nested models as operations among others.

    Attributes:
        inputs, calls, outputs: as those of a `Graph`.
        tensors: the Keras tensor of each value.
    """

    inputs: list[Value]
    calls: list[Call]
    outputs: Any
    tensors: dict[Value, Any]

    @classmethod
    def of(cls, model: keras.Model) -> "Level | None":
        """Return the level of `model`, or None where its `call` is its own."""
        functional = functional_of(model)
        if functional is None:
            return None
        calls: list[Call] = []
        inputs = [_value(tensor, None) for tensor in functional.inputs]
        tensors = dict(zip(inputs, functional.inputs, strict=True))
        return cls(inputs, calls, _lay_open(functional, inputs, calls, tensors), tensors)


def fill_in(structure: Any, known: dict[Value, Any]) -> Any:
    """Return `structure` with tensors in place of each `Value`."""
    return _mapped(lambda value: known[value], structure)


def _lay_open(
    functional: Any, inputs: list[Value], calls: list[Call], tensors: dict[Value, Any] | None = None
) -> Any:
    """Append the calls of a model that is called with `inputs`, and return its outputs.

    With `tensors` nested models stay closed, and the tensors of values are put there.
    """
    known = dict(zip(map(id, functional.inputs), inputs, strict=True))
    for _, nodes in sorted(functional._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if node.is_input or any(id(tensor) not in known for tensor in node.input_tensors):
                continue  # as Keras does
            args, kwargs = tree.map_structure(
                lambda a: known[id(a)] if isinstance(a, keras.KerasTensor) else a,
                (tuple(node.arguments.args), dict(node.arguments.kwargs)),
            )
            if tensors is None:
                outputs = _outputs_of(node, args, kwargs, functional.inputs[0].shape[0], calls)
            else:
                outputs = [_value(tensor, None) for tensor in node.outputs]
                calls.append(Call(node.operation, args, kwargs, tuple(outputs)))
                tensors.update(zip(outputs, node.outputs, strict=True))
            known.update(zip(map(id, node.outputs), outputs, strict=True))
    return tree.map_structure(lambda tensor: known[id(tensor)], functional._outputs_struct)


def _outputs_of(
    node: Any, args: tuple, kwargs: dict[str, Any], rows: int | None, calls: list[Call]
) -> list[Value]:
    nested = functional_of(node.operation)
    if nested is not None and _is_plain(nested, args, kwargs):
        values = [
            _converted(value, node.operation, inner.dtype, calls)
            for value, inner in zip(values_of(args), nested.inputs, strict=True)
        ]
        return values_of(_lay_open(nested, values, calls))
    call = Call(node.operation, args, kwargs, tuple(_value(tensor, rows) for tensor in node.outputs))
    calls.append(call)
    return list(call.outputs)


def _is_plain(nested: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Return whether a call of a nested model is no more than a call of its layers."""
    if len(args) != 1 or any(v is not None for name, v in kwargs.items() if name != "training"):
        return False
    given, taken = values_of(args), nested.inputs
    if len(given) != len(tree.flatten(args)) or len(given) != len(taken):
        return False
    if len(given) > 1:
        try:
            tree.assert_same_structure(args[0], nested._inputs_struct)
        except (TypeError, ValueError):
            return False
    return all(len(g.shape) == len(t.shape) for g, t in zip(given, taken, strict=True))


def _converted(value: Value, model: Any, dtype: str, calls: list[Call]) -> Value:
    """Return `value` in the dtype that the nested `model` turns it into, as Keras does, in two steps."""
    through = [dtype]
    if "float" in value.dtype and model.autocast and model._convert_input_args:  # of `Sequential` alone
        through = [model.compute_dtype, dtype]
    for dtype in through:
        if value.dtype != dtype:
            cast = Value(value.shape, dtype)
            calls.append(Call(keras.ops.cast, (value, dtype), {}, (cast,)))
            value = cast
    return value


def _value(tensor: Any, rows: int | None) -> Value:
    """Return the value for `tensor` of a model for `rows` inputs: `predict` makes such a `Sequential`."""
    shape = tuple(tensor.shape)
    if rows is not None and shape[:1] == (rows,):
        shape = (None, *shape[1:])
    return Value(shape, keras.backend.standardize_dtype(tensor.dtype))


def values_of(structure: Any) -> list[Value]:
    """Return the values in a structure of arguments or outputs."""
    return [item for item in tree.flatten(structure) if isinstance(item, Value)]


def _mapped(function: Callable[[Value], Any], structure: Any) -> Any:
    return tree.map_structure(lambda item: function(item) if isinstance(item, Value) else item, structure)
