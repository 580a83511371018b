"""The layers within a layer."""

import keras


def is_built(model: keras.Model) -> bool:
    """Return whether `model` and all of its layers have their weights."""
    return all(layer.built for layer in model._flatten_layers())
