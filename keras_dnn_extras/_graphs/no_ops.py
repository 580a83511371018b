"""Layers that do nothing at inference."""

from typing import Any

import keras
from keras import layers

IDLE = {
    *(layers.Dropout, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.ActivityRegularization, layers.Identity),
}


def is_idle(layer: Any) -> bool:
    """Return whether `layer` does nothing at inference."""
    if type(layer) is layers.Activation:
        return layer.activation is keras.activations.linear
    return type(layer) in IDLE
