"""The layers within a layer."""

import keras


def flat_layers(
    layer: keras.layers.Layer, *, include_self: bool = True, recursive: bool = True
) -> list[keras.layers.Layer]:
    """Return `layer` and the layers within it, of all levels or of the next one alone."""
    return layer._flatten_layers(include_self=include_self, recursive=recursive)


def is_built(model: keras.Model) -> bool:
    """Return whether `model` and all of its layers have their weights."""
    return all(layer.built for layer in flat_layers(model))


def has_inner_layers(layer: keras.layers.Layer) -> bool:
    """Return whether there are layers within `layer`."""
    return bool(flat_layers(layer, include_self=False, recursive=False))
