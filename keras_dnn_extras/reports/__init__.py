"""One page that tells how a training went."""

from keras_dnn_extras.reports.run_history import read_history
from keras_dnn_extras.reports.training_report import training_report

__all__ = ["read_history", "training_report"]
