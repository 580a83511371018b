"""The names that Keras gives to layers."""

import re

import keras


def is_automatic_name(layer: keras.layers.Layer) -> bool:
    """Return whether `layer` has a name that Keras may have made of its class: `dense`, `dense_2`."""
    name_of_class = keras.src.utils.naming.to_snake_case(type(layer).__name__)
    return re.fullmatch(rf"{name_of_class}(_\d+)?", layer.name) is not None
