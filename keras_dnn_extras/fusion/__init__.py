"""Fold batch normalizations into the layers around them."""

from keras_dnn_extras.fusion.batch_norm import fuse_batch_norm
from keras_dnn_extras.fusion.report import Fusion, FusionReport, FusionResult, Kept

__all__ = [
    "Fusion",
    "FusionReport",
    "FusionResult",
    "Kept",
    "fuse_batch_norm",
]
