"""The only place that touches what is private in Keras."""

from keras_dnn_extras._keras_internals.attention import PROJECTIONS, WEIGHTED_SUM, projection
from keras_dnn_extras._keras_internals.backup_files import metadata_file, weights_file
from keras_dnn_extras._keras_internals.call_arguments import built_shapes, takes_training
from keras_dnn_extras._keras_internals.compile_state import (
    attributes_of_fit,
    compiled_loss,
    loss_of_step,
    replace_optimizer,
    set_trainable_at_compile,
    train_without_metrics,
    trainable_at_compile,
)
from keras_dnn_extras._keras_internals.dropout_cells import (
    computes_noise_shape,
    draws_numbers,
    is_dropout_cell,
    noise_shape_of,
)
from keras_dnn_extras._keras_internals.fit_frames import (
    callbacks_of_fit,
    loop_of_fit,
    loop_of_step,
    refuse_in_fit,
)
from keras_dnn_extras._keras_internals.functional import (
    converts_inputs,
    functional_of,
    input_structure,
    is_functional,
    output_structure,
    standardized_inputs,
)
from keras_dnn_extras._keras_internals.global_state import global_seed_generator, set_global_seed_generator
from keras_dnn_extras._keras_internals.layer_connections import connections, recorded_node
from keras_dnn_extras._keras_internals.layer_names import is_automatic_name
from keras_dnn_extras._keras_internals.layer_tree import (
    flat_layers,
    is_built,
    own_variables,
    stacked_layers,
)
from keras_dnn_extras._keras_internals.layer_variables import (
    add_shared_weight,
    remove_weight,
    weights_adapted_by_lora,
    weights_of_layer_alone,
    without_inner_layers,
)
from keras_dnn_extras._keras_internals.nodes import first_node, nodes_in_order, operation_of
from keras_dnn_extras._keras_internals.optimizer_hooks import (
    check_internals,
    decays,
    updates_together,
    weight_of_optimizer,
    wrapped_methods,
)
from keras_dnn_extras._keras_internals.optimizer_variables import (
    attributes_of_optimizer,
    batch_counter,
    config_without_learning_rate,
    counts_batches,
    learning_rate_or_schedule,
    moving_averages,
    scalar_variables,
    set_rate_and_batches,
    slot_variables,
    unbuild_optimizer,
    variables_of_optimizer,
    weight_decay_exclusions,
    weights_of_optimizer,
    with_variables,
)
from keras_dnn_extras._keras_internals.patching import replaced
from keras_dnn_extras._keras_internals.serialization import (
    noted_arguments,
    output_shape_of,
    sharing_objects,
    with_code,
)
from keras_dnn_extras._keras_internals.set_by_keras import (
    MASKS_OF_CELLS,
    SET_IN_TRAINING,
    TRACKED_BY_TENSORFLOW,
)
from keras_dnn_extras._keras_internals.shared_objects import (
    is_loading,
    layers_in_call,
    mark_shared,
    shared_object,
)
from keras_dnn_extras._keras_internals.symbolic_calls import output_spec
from keras_dnn_extras._keras_internals.thread_patching import replaced_in_thread
from keras_dnn_extras._keras_internals.train_function import (
    batches_of_fit,
    loss_metric,
    make_train_function,
    without_model,
)

__all__ = [
    "MASKS_OF_CELLS",
    "PROJECTIONS",
    "SET_IN_TRAINING",
    "TRACKED_BY_TENSORFLOW",
    "WEIGHTED_SUM",
    "add_shared_weight",
    "attributes_of_fit",
    "attributes_of_optimizer",
    "batch_counter",
    "batches_of_fit",
    "built_shapes",
    "callbacks_of_fit",
    "check_internals",
    "compiled_loss",
    "computes_noise_shape",
    "config_without_learning_rate",
    "connections",
    "converts_inputs",
    "counts_batches",
    "decays",
    "draws_numbers",
    "first_node",
    "flat_layers",
    "functional_of",
    "global_seed_generator",
    "input_structure",
    "is_automatic_name",
    "is_built",
    "is_dropout_cell",
    "is_functional",
    "is_loading",
    "layers_in_call",
    "learning_rate_or_schedule",
    "loop_of_fit",
    "loop_of_step",
    "loss_metric",
    "loss_of_step",
    "make_train_function",
    "mark_shared",
    "metadata_file",
    "moving_averages",
    "nodes_in_order",
    "noise_shape_of",
    "noted_arguments",
    "operation_of",
    "output_shape_of",
    "output_spec",
    "output_structure",
    "own_variables",
    "projection",
    "recorded_node",
    "refuse_in_fit",
    "remove_weight",
    "replace_optimizer",
    "replaced",
    "replaced_in_thread",
    "scalar_variables",
    "set_global_seed_generator",
    "set_rate_and_batches",
    "set_trainable_at_compile",
    "shared_object",
    "sharing_objects",
    "slot_variables",
    "stacked_layers",
    "standardized_inputs",
    "takes_training",
    "train_without_metrics",
    "trainable_at_compile",
    "unbuild_optimizer",
    "updates_together",
    "variables_of_optimizer",
    "weight_decay_exclusions",
    "weight_of_optimizer",
    "weights_adapted_by_lora",
    "weights_file",
    "weights_of_layer_alone",
    "weights_of_optimizer",
    "with_code",
    "with_variables",
    "without_inner_layers",
    "without_model",
    "wrapped_methods",
]
