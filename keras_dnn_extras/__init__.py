"""Custom layers and callbacks that train deep networks with Keras 3."""

from keras_dnn_extras.gradient_norms import GradientNormMonitor
from keras_dnn_extras.learning_rate_search import LearningRateSearch, find_learning_rate
from keras_dnn_extras.mc_dropout import (
    MCAlphaDropout,
    MCDropout,
    MCGaussianDropout,
    MCSpatialDropout1D,
    MCSpatialDropout2D,
    MCSpatialDropout3D,
)
from keras_dnn_extras.schedulers import ExponentialLR, OneCycleScheduler, PiecewiseConstantLR, PowerLR
from keras_dnn_extras.schedules import OneCycle, PowerDecay, Warmup

__version__ = "0.1.0"

__all__ = [
    "ExponentialLR",
    "GradientNormMonitor",
    "LearningRateSearch",
    "MCAlphaDropout",
    "MCDropout",
    "MCGaussianDropout",
    "MCSpatialDropout1D",
    "MCSpatialDropout2D",
    "MCSpatialDropout3D",
    "OneCycle",
    "OneCycleScheduler",
    "PiecewiseConstantLR",
    "PowerDecay",
    "PowerLR",
    "Warmup",
    "find_learning_rate",
]
