"""Monitor gradients while a model trains."""

from keras_dnn_extras.gradients.findings import GradientFinding
from keras_dnn_extras.gradients.gradient_norm_monitor import GradientNormMonitor

__all__ = [
    "GradientFinding",
    "GradientNormMonitor",
]
