"""Custom layers and callbacks that train deep networks with Keras 3."""

from keras_dnn_extras.autoencoder import build_autoencoder
from keras_dnn_extras.dense_transpose import DenseTranspose
from keras_dnn_extras.fine_tuning import fine_tune
from keras_dnn_extras.fusion import FusionReport, FusionResult, fuse_batch_norm
from keras_dnn_extras.gradient_norms import GradientNormMonitor
from keras_dnn_extras.gradual_unfreezing import GradualUnfreezing
from keras_dnn_extras.inference import Candidates, CompiledModel, Latency, compile_for_inference
from keras_dnn_extras.learning_rate_search import LearningRateSearch, find_learning_rate
from keras_dnn_extras.mc_conversion import to_deterministic, to_mc_dropout
from keras_dnn_extras.mc_dropout import (
    MCAlphaDropout,
    MCDropout,
    MCGaussianDropout,
    MCSpatialDropout1D,
    MCSpatialDropout2D,
    MCSpatialDropout3D,
)
from keras_dnn_extras.mc_predict import MCPrediction, mc_predict
from keras_dnn_extras.pretraining import pretrain_autoencoder, pretrain_auxiliary
from keras_dnn_extras.recipes import Recipe, dnn, recipe
from keras_dnn_extras.schedulers import ExponentialLR, OneCycleScheduler, PiecewiseConstantLR, PowerLR
from keras_dnn_extras.schedules import OneCycle, PowerDecay, Warmup
from keras_dnn_extras.sparsity import Sparsity, sparsity, zero_small_weights
from keras_dnn_extras.transfer import freeze, replace_head, unfreeze
from keras_dnn_extras.uncertainty import (
    Entropies,
    RiskCoverage,
    brier_score,
    entropy_decomposition,
    expected_calibration_error,
    negative_log_likelihood,
    risk_coverage,
)
from keras_dnn_extras.uncertainty_plots import plot_band, plot_reliability, plot_uncertainty

__version__ = "0.1.0"

__all__ = [
    "Candidates",
    "CompiledModel",
    "DenseTranspose",
    "Entropies",
    "ExponentialLR",
    "FusionReport",
    "FusionResult",
    "GradientNormMonitor",
    "GradualUnfreezing",
    "Latency",
    "LearningRateSearch",
    "MCAlphaDropout",
    "MCDropout",
    "MCGaussianDropout",
    "MCPrediction",
    "MCSpatialDropout1D",
    "MCSpatialDropout2D",
    "MCSpatialDropout3D",
    "OneCycle",
    "OneCycleScheduler",
    "PiecewiseConstantLR",
    "PowerDecay",
    "PowerLR",
    "Recipe",
    "RiskCoverage",
    "Sparsity",
    "Warmup",
    "brier_score",
    "build_autoencoder",
    "compile_for_inference",
    "dnn",
    "entropy_decomposition",
    "expected_calibration_error",
    "find_learning_rate",
    "fine_tune",
    "freeze",
    "fuse_batch_norm",
    "mc_predict",
    "negative_log_likelihood",
    "plot_band",
    "plot_reliability",
    "plot_uncertainty",
    "pretrain_autoencoder",
    "pretrain_auxiliary",
    "recipe",
    "replace_head",
    "risk_coverage",
    "sparsity",
    "to_deterministic",
    "to_mc_dropout",
    "unfreeze",
    "zero_small_weights",
]
