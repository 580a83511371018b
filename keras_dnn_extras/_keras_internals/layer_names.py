"""The names that Keras gives to layers."""

import re

import keras

from keras_dnn_extras._keras_internals.private_names import private_object


def is_automatic_name(layer: keras.layers.Layer) -> bool:
    """Return whether `layer` has a name that Keras may have made of its class: `dense`, `dense_2`."""
    to_snake_case = private_object("keras.src.utils.naming", "to_snake_case", "`replace_head`")
    name_of_class = to_snake_case(type(layer).__name__)
    return re.fullmatch(rf"{name_of_class}(_\d+)?", layer.name) is not None
