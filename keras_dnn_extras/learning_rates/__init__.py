"""Find a learning rate, and schedule it."""

from keras_dnn_extras.learning_rates.curves import Curve
from keras_dnn_extras.learning_rates.decay_callbacks import ExponentialLR, PiecewiseConstantLR, PowerLR
from keras_dnn_extras.learning_rates.learning_rate_callback import FitToCome, LearningRateCallback
from keras_dnn_extras.learning_rates.one_cycle_scheduler import OneCycleScheduler
from keras_dnn_extras.learning_rates.range_test import find_learning_rate
from keras_dnn_extras.learning_rates.range_test_result import LearningRateSearch
from keras_dnn_extras.learning_rates.schedules import OneCycle, PowerDecay, Warmup
from keras_dnn_extras.learning_rates.suggested_rate import rate_of

__all__ = [
    "Curve",
    "ExponentialLR",
    "FitToCome",
    "LearningRateCallback",
    "LearningRateSearch",
    "OneCycle",
    "OneCycleScheduler",
    "PiecewiseConstantLR",
    "PowerDecay",
    "PowerLR",
    "Warmup",
    "find_learning_rate",
    "rate_of",
]
