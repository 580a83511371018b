"""Values that travel into the compiled training step and out of it."""

from keras_dnn_extras._training_step.batch_logs import BatchLogsCallback, UpdateFreq
from keras_dnn_extras._training_step.gradient_measurements import GradientMeasurements
from keras_dnn_extras._training_step.gradient_probe import GradientProbe
from keras_dnn_extras._training_step.hyperparameters import ScheduledHyperparameters
from keras_dnn_extras._training_step.learning_rate_multipliers import LearningRateMultipliers
from keras_dnn_extras._training_step.loss_probe import LossProbe
from keras_dnn_extras._training_step.step import TrainingStep
from keras_dnn_extras._training_step.step_callback import StepCallback
from keras_dnn_extras._training_step.timeline import Timeline

__all__ = [
    "BatchLogsCallback",
    "GradientMeasurements",
    "GradientProbe",
    "LearningRateMultipliers",
    "LossProbe",
    "ScheduledHyperparameters",
    "StepCallback",
    "Timeline",
    "TrainingStep",
    "UpdateFreq",
]
