"""Monte-Carlo dropout, and how sure predictions are."""

from keras_dnn_extras.uncertainty.mc_conversion import (
    active_layers,
    drawing_layers,
    to_deterministic,
    to_mc_dropout,
)
from keras_dnn_extras.uncertainty.mc_layers import (
    MCAlphaDropout,
    MCDropout,
    MCGaussianDropout,
    MCSpatialDropout1D,
    MCSpatialDropout2D,
    MCSpatialDropout3D,
)
from keras_dnn_extras.uncertainty.mc_prediction import MCPrediction, mc_predict
from keras_dnn_extras.uncertainty.metrics import (
    Entropies,
    brier_score,
    entropy_decomposition,
    expected_calibration_error,
    negative_log_likelihood,
)
from keras_dnn_extras.uncertainty.plots import plot_band, plot_reliability, plot_uncertainty
from keras_dnn_extras.uncertainty.risk_coverage_curve import RiskCoverage, risk_coverage

__all__ = [
    "Entropies",
    "MCAlphaDropout",
    "MCDropout",
    "MCGaussianDropout",
    "MCPrediction",
    "MCSpatialDropout1D",
    "MCSpatialDropout2D",
    "MCSpatialDropout3D",
    "RiskCoverage",
    "active_layers",
    "brier_score",
    "drawing_layers",
    "entropy_decomposition",
    "expected_calibration_error",
    "mc_predict",
    "negative_log_likelihood",
    "plot_band",
    "plot_reliability",
    "plot_uncertainty",
    "risk_coverage",
    "to_deterministic",
    "to_mc_dropout",
]
