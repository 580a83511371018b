"""Values and calls: what graphs are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import tree

from keras_dnn_extras._backends import called_in_mode


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a graph. Two values are the same only if they are one object.

    Attributes:
        shape: tuple of ints and None, as Keras knows it: None is the batch, or unknown.
        dtype: its name, as `"float32"`.
    """

    shape: tuple[int | None, ...]
    dtype: str

    @property
    def has_batch(self) -> bool:
        return len(self.shape) > 0 and self.shape[0] is None


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation. A layer that is called twice has two of them.

    Attributes:
        operation: a layer, another Keras operation, or a function.
        args, kwargs: its arguments, with a `Value` in place of each tensor.
        outputs: the values that it makes, flat.
    """

    operation: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]

    @property
    def inputs(self) -> list[Value]:
        """The values that it takes, flat; one that it takes twice is there twice."""
        return values_of((self.args, self.kwargs))

    def run(self, tensors: dict[Value, Any], training: bool | None = False) -> None:
        """Compute the outputs from the inputs, in inference mode unless told otherwise.

        Args:
            tensors: what stands for each value. The outputs are added to it.
        """
        args, kwargs = _mapped(lambda value: tensors.get(value), (self.args, self.kwargs))
        outputs = tree.flatten(called_in_mode(self.operation, training, *args, **kwargs))
        tensors.update(zip(self.outputs, outputs, strict=True))


def fill_in(structure: Any, tensors: dict[Value, Any]) -> Any:
    """Return `structure` with tensors in place of each `Value`."""
    return _mapped(lambda value: tensors[value], structure)


def values_of(structure: Any) -> list[Value]:
    """Return the values in a structure of arguments or outputs."""
    return [item for item in tree.flatten(structure) if isinstance(item, Value)]


def _mapped(function: Callable[[Value], Any], structure: Any) -> Any:
    return tree.map_structure(lambda item: function(item) if isinstance(item, Value) else item, structure)
