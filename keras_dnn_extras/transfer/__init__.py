"""Train a pretrained model further: freeze, replace the head, fine-tune."""

from keras_dnn_extras.transfer.fine_tuning import fine_tune
from keras_dnn_extras.transfer.freezing import freeze, unfreeze
from keras_dnn_extras.transfer.gradual_unfreezing import GradualUnfreezing
from keras_dnn_extras.transfer.head_replacement import replace_head

__all__ = [
    "GradualUnfreezing",
    "fine_tune",
    "freeze",
    "replace_head",
    "unfreeze",
]
