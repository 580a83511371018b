"""Custom layers and callbacks that train deep networks with Keras 3."""

from keras_dnn_extras._version import __version__ as __version__
from keras_dnn_extras.command_line import answer_early

answer_early()  # before Keras is imported below, which takes seconds
del answer_early

from keras_dnn_extras.fusion import Fusion, FusionReport, FusionResult, Kept, fuse_batch_norm
from keras_dnn_extras.gradients import GradientFinding, GradientNormMonitor
from keras_dnn_extras.guidance import Recipe, dnn, recipe
from keras_dnn_extras.inference import (
    Candidates,
    CompiledModel,
    KernelSparsity,
    Latency,
    Sparsity,
    compile_for_inference,
    sparsity,
    zero_small_weights,
)
from keras_dnn_extras.learning_rates import (
    ExponentialLR,
    LearningRateSearch,
    OneCycle,
    OneCycleScheduler,
    PiecewiseConstantLR,
    PowerDecay,
    PowerLR,
    Warmup,
    find_learning_rate,
)
from keras_dnn_extras.pretraining import (
    DenseTranspose,
    build_autoencoder,
    pretrain_autoencoder,
    pretrain_auxiliary,
)
from keras_dnn_extras.reports import training_report
from keras_dnn_extras.transfer import GradualUnfreezing, fine_tune, freeze, replace_head, unfreeze
from keras_dnn_extras.uncertainty import (
    Entropies,
    MCAlphaDropout,
    MCDropout,
    MCGaussianDropout,
    MCPrediction,
    MCSpatialDropout1D,
    MCSpatialDropout2D,
    MCSpatialDropout3D,
    RiskCoverage,
    brier_score,
    entropy_decomposition,
    expected_calibration_error,
    mc_predict,
    negative_log_likelihood,
    plot_band,
    plot_reliability,
    plot_uncertainty,
    risk_coverage,
    to_deterministic,
    to_mc_dropout,
)

__all__ = [
    "Candidates",
    "CompiledModel",
    "DenseTranspose",
    "Entropies",
    "ExponentialLR",
    "Fusion",
    "FusionReport",
    "FusionResult",
    "GradientFinding",
    "GradientNormMonitor",
    "GradualUnfreezing",
    "Kept",
    "KernelSparsity",
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
    "training_report",
    "unfreeze",
    "zero_small_weights",
]


def __dir__() -> list[str]:
    return ["__version__", *__all__]
