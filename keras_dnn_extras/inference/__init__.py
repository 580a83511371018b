"""Make single predictions fast, and models small."""

from keras_dnn_extras.inference.compilation import CompiledModel, compile_for_inference
from keras_dnn_extras.inference.measuring import Candidates, Latency
from keras_dnn_extras.inference.pruning import KernelSparsity, Sparsity, sparsity, zero_small_weights

__all__ = [
    "Candidates",
    "CompiledModel",
    "KernelSparsity",
    "Latency",
    "Sparsity",
    "compile_for_inference",
    "sparsity",
    "zero_small_weights",
]
