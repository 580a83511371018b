"""What a model and its optimizer hold: layers, weights, states, and the data that they take."""

from keras_dnn_extras._models.batches import as_array, batches, dense_array, number_of_batches, with_first
from keras_dnn_extras._models.building import build, built
from keras_dnn_extras._models.data_shapes import are_arrays, is_array, number_of_rows, spec_of
from keras_dnn_extras._models.layer_paths import chosen_layers, layers_by_path, near, owners, unique_name
from keras_dnn_extras._models.optimizer_state import (
    check_rebuildable,
    rebuild,
    same_optimizer,
    scalars,
    variables_if_built,
)
from keras_dnn_extras._models.optimizers import (
    innermost_optimizer,
    iterations,
    learning_rate,
    momentum_names,
    recovers_weights_by_momentum,
    seen_batches,
    unscaled,
)
from keras_dnn_extras._models.recompiling import accept_trainable, check_recompilable, recompile
from keras_dnn_extras._models.rollback import rehearsal
from keras_dnn_extras._models.trainable import (
    flags,
    is_batch_norm,
    put_back,
    set_trainable,
    to_unfreeze,
    weights_of,
    within,
)
from keras_dnn_extras._models.undoing import (
    trained_as_before_on_error,
    unconnected,
    unconnected_on_error,
    unfrozen_as_before_on_error,
)
from keras_dnn_extras._models.validation_data import with_checked_validation
from keras_dnn_extras._models.weight_kinds import (
    computes_with_its_kernel,
    has_lora,
    is_quantized,
    kernel_obstacle,
)

__all__ = [
    "accept_trainable",
    "are_arrays",
    "as_array",
    "batches",
    "build",
    "built",
    "check_rebuildable",
    "check_recompilable",
    "chosen_layers",
    "computes_with_its_kernel",
    "dense_array",
    "flags",
    "has_lora",
    "innermost_optimizer",
    "is_array",
    "is_batch_norm",
    "is_quantized",
    "iterations",
    "kernel_obstacle",
    "layers_by_path",
    "learning_rate",
    "momentum_names",
    "near",
    "number_of_batches",
    "number_of_rows",
    "owners",
    "put_back",
    "rebuild",
    "recompile",
    "recovers_weights_by_momentum",
    "rehearsal",
    "same_optimizer",
    "scalars",
    "seen_batches",
    "set_trainable",
    "spec_of",
    "to_unfreeze",
    "trained_as_before_on_error",
    "unconnected",
    "unconnected_on_error",
    "unfrozen_as_before_on_error",
    "unique_name",
    "unscaled",
    "variables_if_built",
    "weights_of",
    "with_checked_validation",
    "with_first",
    "within",
]
