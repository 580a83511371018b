"""Fold batch normalizations into the layers around them."""

from keras_dnn_extras.fusion.batch_norm import fuse_batch_norm
from keras_dnn_extras.fusion.report import FusionReport, FusionResult

__all__ = [
    "FusionReport",
    "FusionResult",
    "fuse_batch_norm",
]
