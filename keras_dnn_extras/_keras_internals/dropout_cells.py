"""How layers of Keras draw what they drop."""

from typing import Any

from keras_dnn_extras._keras_internals.private_names import private_attribute, private_object

_FEATURE = "Monte-Carlo dropout"


def is_dropout_cell(layer: Any) -> bool:
    """Return whether a layer is the cell of a recurrent layer, with masks for its inputs and its states."""
    module = "keras.src.layers.rnn.dropout_rnn_cell"
    return isinstance(layer, private_object(module, "DropoutRNNCell", _FEATURE))


def draws_numbers(layer: Any) -> bool:
    """Return whether a layer has a generator of random numbers, apart from the layers within it."""
    return bool(private_attribute(layer, "_seed_generators", _FEATURE))


def noise_shape_of(layer: Any, inputs: Any) -> Any:
    """Return the shape of the mask that a dropout layer applies to `inputs`: None is that of `inputs`."""
    if computes_noise_shape(layer):
        return layer._get_noise_shape(inputs)
    return layer.noise_shape


def computes_noise_shape(layer: Any) -> bool:
    """Return whether the mask's shape depends on the inputs, as that of spatial dropout does."""
    return hasattr(layer, "_get_noise_shape")
