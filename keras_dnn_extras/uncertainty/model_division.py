"""Models divided where their first dropout is: what is the same in all samples, and what is not."""

import weakref
from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from keras_dnn_extras._backends import called_at_inference
from keras_dnn_extras._graphs import Call, Graph, output_activations
from keras_dnn_extras._keras_internals import flat_layers, standardized_inputs


class Division:
    """A model divided into a prefix, which is deterministic, and a suffix, which draws noise.

    It holds layers of the model, and not the model, which may go before it.

    Args:
        batch: arrays as the model takes them.
        layers: those of `dropout_layers`.

    Attributes:
        suffix_graph: that of the suffix, or None of a model that computes in code of its own: all of it is
            the suffix.
        activations: the names of those that make the outputs, flat, as `output_activations` tells them; or
            None without a graph.
        places: of each call in the suffix, how many pieces of noise were drawn before it.
    """

    def __init__(self, model: keras.Model, batch: Any, layers: Sequence[keras.layers.Layer]):
        self._model = weakref.ref(model)
        self._structure = tree.map_structure(lambda _: 0, batch)
        self.suffix_graph: Graph | None = None
        self.activations: list[str | None] | None = None
        self.places: dict[Call, int] = {}
        graph = Graph.of(model)
        if graph is not None:
            self._divide(graph, set(map(id, layers)))

    def _divide(self, graph: Graph, ids: set[int]) -> None:
        self._prefix_graph, self.suffix_graph = graph.split(lambda operation: _has(operation, ids))
        self.activations = output_activations(graph)
        _refuse_sums_over_rows(self.suffix_graph.calls)

    def prefix(self, batch: Any) -> list:
        """Return the tensors at the border, which the suffix takes."""
        if self.suffix_graph is None:
            return tree.flatten(batch)
        return self._prefix_graph.run(standardized_inputs(self._model(), batch))

    def suffix(self, border: list, requests: Sequence[Any]) -> Any:
        """Return the outputs, in their structure.

        Args:
            border: the tensors that `prefix` returns.
            requests: of noise so far, to which each layer that draws adds its own.
        """
        if self.suffix_graph is None:
            return called_at_inference(self._model(), tree.pack_sequence_as(self._structure, border))

        def run_call(call: Call, tensors: dict) -> None:
            self.places.setdefault(call, len(requests))
            call.run(tensors)

        return self.suffix_graph.run(border, run_call)

    def has_rows(self, border: list) -> list[bool]:
        """Return of each tensor at the border whether its first axis is that of the rows."""
        if self.suffix_graph is None:
            return [True] * len(border)
        return [value.has_batch for value in self.suffix_graph.inputs]


def _has(operation: Any, ids: set[int]) -> bool:
    """Return whether an operation is one of certain layers, or has one within it."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    return any(id(layer) in ids for layer in flat_layers(operation))


def _refuse_sums_over_rows(calls: list[Call]) -> None:
    for call in calls:
        if not all(value.has_batch for value in call.outputs):
            name = getattr(call.operation, "name", call.operation)
            raise ValueError(
                f"`{name}` takes all rows of a batch together, and so would mix samples. Compute it before "
                "the first dropout, or outside of the model. "
                f"Received: shapes {[value.shape for value in call.outputs]}"
            )
