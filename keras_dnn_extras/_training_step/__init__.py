"""Values that travel into the compiled training step and out of it."""

from keras_dnn_extras._training_step.gradient_probe import Measured
from keras_dnn_extras._training_step.step import StepState
from keras_dnn_extras._training_step.step_callback import StepCallback

__all__ = [
    "Measured",
    "StepCallback",
    "StepState",
]
