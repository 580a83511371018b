"""Layers that do nothing at inference."""

from typing import Any

import keras
from keras import layers

NO_OPS = {
    *(layers.Dropout, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.ActivityRegularization, layers.Identity),
}
"""By class, and by no subclass of it: the MC layers of this package drop something in every call."""


def is_no_op(layer: Any) -> bool:
    """Return whether `layer` returns its inputs as they are at inference."""
    if type(layer) is layers.Activation:
        return layer.activation is keras.activations.linear
    return type(layer) in NO_OPS
