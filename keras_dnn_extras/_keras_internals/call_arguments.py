"""What the `call` of a layer takes besides its inputs."""

from typing import Any

import keras

from keras_dnn_extras._keras_internals.private_names import private_attribute


def takes_training(operation: Any) -> bool:
    """Return whether an operation is a layer that is told whether it is being trained."""
    if not isinstance(operation, keras.Layer):
        return False
    return private_attribute(operation, "_call_has_training_arg", "Computing layers in inference mode")


def built_shapes(layer: Any) -> list[Any]:
    """Return the shapes of inputs that `layer` was built for, as far as Keras has recorded them."""
    return list((getattr(layer, "_build_shapes_dict", None) or {}).values())
