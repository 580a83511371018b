"""Arguments that are models and layers: checked in Keras's words."""

from typing import Any

import keras


def check_model(name: str, model: Any) -> None:
    """Raise unless `model` is a Keras model."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected `{name}` to be a Keras model. Received: {name}={model!r}")


def layers_of_head(head: Any) -> list[keras.layers.Layer]:
    """Return the layers of `head`: a layer, a list of layers or a model. Raise where it is none of them."""
    layers = list(head) if isinstance(head, (list, tuple)) else [head]
    if not layers or not all(isinstance(layer, keras.layers.Layer) for layer in layers):
        raise TypeError(
            f"Expected `head` to be a layer, a list of layers or a model. Received: head={head!r}"
        )
    return layers
