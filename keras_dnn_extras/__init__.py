"""Custom layers and callbacks that train deep networks with Keras 3."""

from keras_dnn_extras.mc_dropout import (
    MCAlphaDropout,
    MCDropout,
    MCGaussianDropout,
    MCSpatialDropout1D,
    MCSpatialDropout2D,
    MCSpatialDropout3D,
)
from keras_dnn_extras.schedules import OneCycle, OneCycleScheduler

__version__ = "0.1.0"

__all__ = [
    "MCAlphaDropout",
    "MCDropout",
    "MCGaussianDropout",
    "MCSpatialDropout1D",
    "MCSpatialDropout2D",
    "MCSpatialDropout3D",
    "OneCycle",
    "OneCycleScheduler",
]
