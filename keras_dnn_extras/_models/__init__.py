"""What a model and its optimizer hold: layers, weights, states, and the data that they take."""

from keras_dnn_extras._models.argument_types import (
    ByName,
    Data,
    Head,
    LayerChoices,
    Losses,
    Metrics,
    OptimizerChoice,
)
from keras_dnn_extras._models.batching import as_array, batches, dense_array, number_of_batches, with_first
from keras_dnn_extras._models.building import build, built
from keras_dnn_extras._models.data_shapes import are_arrays, is_array, number_of_rows, spec_of
from keras_dnn_extras._models.layer_paths import layers_by_path, owners, similar_names, unique_name
from keras_dnn_extras._models.layer_selection import chosen_layers
from keras_dnn_extras._models.model_arguments import check_model, layers_of_head
from keras_dnn_extras._models.optimizer_copies import same_optimizer
from keras_dnn_extras._models.optimizer_state import (
    check_rebuildable,
    optimizer_attributes,
    rebuild,
    variables_if_built,
)
from keras_dnn_extras._models.optimizers import (
    innermost_optimizer,
    iterations,
    learning_rate,
    momentum_names,
    recovers_weights_by_momentum,
    schedule_of,
    seen_batches,
    unscaled,
    weights_with_state,
)
from keras_dnn_extras._models.recompiling import accept_trainable, check_recompilable, recompile
from keras_dnn_extras._models.snapshots import compiled_optimizer, graph_nodes, variable_values
from keras_dnn_extras._models.trainable import (
    is_batch_norm,
    layers_to_unfreeze,
    set_trainable,
    trainable_flags,
    weights_of,
    with_inner_layers,
)
from keras_dnn_extras._models.trial_training import rolled_back_training
from keras_dnn_extras._models.validation_data import with_checked_validation
from keras_dnn_extras._models.weight_kinds import (
    computes_with_its_kernel,
    has_lora,
    is_quantized,
    kernel_obstacle,
)

__all__ = [
    "ByName",
    "Data",
    "Head",
    "LayerChoices",
    "Losses",
    "Metrics",
    "OptimizerChoice",
    "accept_trainable",
    "are_arrays",
    "as_array",
    "batches",
    "build",
    "built",
    "check_model",
    "check_rebuildable",
    "check_recompilable",
    "chosen_layers",
    "compiled_optimizer",
    "computes_with_its_kernel",
    "dense_array",
    "graph_nodes",
    "has_lora",
    "innermost_optimizer",
    "is_array",
    "is_batch_norm",
    "is_quantized",
    "iterations",
    "kernel_obstacle",
    "layers_by_path",
    "layers_of_head",
    "layers_to_unfreeze",
    "learning_rate",
    "momentum_names",
    "number_of_batches",
    "number_of_rows",
    "optimizer_attributes",
    "owners",
    "rebuild",
    "recompile",
    "recovers_weights_by_momentum",
    "rolled_back_training",
    "same_optimizer",
    "schedule_of",
    "seen_batches",
    "set_trainable",
    "similar_names",
    "spec_of",
    "trainable_flags",
    "unique_name",
    "unscaled",
    "variable_values",
    "variables_if_built",
    "weights_of",
    "weights_with_state",
    "with_checked_validation",
    "with_first",
    "with_inner_layers",
]
