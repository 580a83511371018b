"""Pretrain an encoder where labels are few."""

from keras_dnn_extras.pretraining.autoencoder import build_autoencoder
from keras_dnn_extras.pretraining.auxiliary import pretrain_auxiliary
from keras_dnn_extras.pretraining.dense_transpose import DenseTranspose
from keras_dnn_extras.pretraining.unsupervised import pretrain_autoencoder

__all__ = [
    "DenseTranspose",
    "build_autoencoder",
    "pretrain_autoencoder",
    "pretrain_auxiliary",
]
