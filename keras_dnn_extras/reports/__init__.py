"""One page that tells how a training went."""

from keras_dnn_extras.reports.training_report import training_report

__all__ = ["training_report"]
