"""Which Dense layer a tied one belongs to: found again in copies."""

import warnings
from collections.abc import Iterable
from typing import Any

import keras
from keras import tree

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._keras_internals import flat_layers, layers_in_call, recorded_node
from keras_dnn_extras._models import computes_with_its_kernel, has_lora


class Tie:
    """The Dense layer that a layer is tied to. Keras does not take it for a part of that layer.

    Attributes:
        dense: the Dense layer.
        is_by_name: whether the layer was made from a config, and `dense` with it, so that another one of
            its name may be meant.
        warns: whether to tell if none is found.
    """

    def __init__(self, dense: keras.layers.Dense):
        self.dense = dense
        self.is_by_name = False
        self.warns = False

    def find_dense(self, layer: keras.layers.Layer, inputs: Any) -> keras.layers.Layer | None:
        """Return the Dense layer that is meant, if the `inputs` that `layer` is called with tell it.

        Raises:
            ValueError: there are several that may be meant, or `layer` is built for another one.
        """
        before = _layers_before(inputs)
        matches = _matching(self.dense, layers_in_call() if before is None else before)
        if len(matches) == 1 and (matches[0] is self.dense or before is not None or not layer.built):
            return matches[0]
        if matches:
            raise ValueError(
                f"The layer {layer.name!r} was made from its config, and has lost its tie to the layer "
                f"{self.dense.name!r} of the model that calls it: they have a kernel each. Call "
                f"`layer.tie(dense)` with both layers, or `layer.tie(layer.dense)` if that is meant, or "
                f"copy the model by a `.keras` file, which keeps the tie. Received: "
                f"{counted(len(matches), 'layer')} of the name {self.dense.name!r}"
            )
        if before is not None and self.warns:
            # On JAX `predict` calls the layers of a model, not the model, so that no error would come.
            self.warns = False
            warnings.warn(
                f"The layer {layer.name!r} was made from its config and has a kernel of its own: the layer "
                f"{self.dense.name!r} that it was tied to is not in the same model. If it is in a model "
                "around it, call `layer.tie(dense)` with both layers.",
                stacklevel=3,
            )
        return None


def _layers_before(structure: Any) -> list[keras.layers.Layer] | None:
    """Return the layers that symbolic tensors come from, those of nested models too; None of others."""
    tensors = [t for t in tree.flatten(structure) if isinstance(t, keras.KerasTensor)]
    if not tensors:
        return None
    seen: set[int] = set()
    layers: dict[int, keras.layers.Layer] = {}
    while tensors:
        node = recorded_node(tensors.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node.operation, keras.layers.Layer):
            layers.update((id(layer), layer) for layer in flat_layers(node.operation))
        tensors += node.input_tensors
    return list(layers.values())


def _matching(layer: keras.layers.Layer, layers: Iterable[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Return those of `layers` that are `layer`, or, if it is none of them, have its class and its name."""
    alike = [other for other in layers if type(other) is type(layer) and other.name == layer.name]
    return [other for other in alike if other is layer] or alike


def check_dense(dense: Any) -> None:
    if not isinstance(dense, keras.layers.Dense):
        raise TypeError(f"Expected `dense` to be a `keras.layers.Dense`. Received: dense={dense!r}")
    if not computes_with_its_kernel(dense):
        kernel = "LoRA weights" if has_lora(dense) else f"a kernel in {dense.quantization_mode}"
        raise ValueError(
            f"The layer {dense.name!r} has {kernel}, which no other layer can share. Tie a plain `Dense`. "
            f"Received: dense={dense}"
        )


def check_dense_built(dense: keras.layers.Dense) -> None:
    if not dense.built:
        raise ValueError(
            f"The layer {dense.name!r} has no kernel yet. Call it before the layer that is tied to it, or "
            f"build it: `dense.build((None, features))`. Received: dense={dense}"
        )
