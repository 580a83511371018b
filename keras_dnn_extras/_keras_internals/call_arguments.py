"""What the `call` of a layer takes besides its inputs."""

from typing import Any

import keras

from keras_dnn_extras._keras_internals.private_names import private_attribute


def takes_training(operation: Any) -> bool:
    """Return whether an operation is a layer that is told whether it is being trained."""
    if not isinstance(operation, keras.Layer):
        return False
    return private_attribute(operation, "_call_has_training_arg", "Computing layers in inference mode")
