"""The only place that touches what is private in Keras."""

from keras_dnn_extras._keras_internals.attention import PROJECTIONS, WEIGHTED_SUM, projection
from keras_dnn_extras._keras_internals.call_arguments import built_shapes, takes_training
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
from keras_dnn_extras._keras_internals.layer_tree import (
    flat_layers,
    is_built,
    own_variables,
    stacked_layers,
)
from keras_dnn_extras._keras_internals.nodes import first_node, node_of, nodes_in_order, operation_of
from keras_dnn_extras._keras_internals.optimizer_hooks import check_internals
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
from keras_dnn_extras._keras_internals.thread_patching import replaced_in_thread

__all__ = [
    "MASKS_OF_CELLS",
    "PROJECTIONS",
    "SET_IN_TRAINING",
    "TRACKED_BY_TENSORFLOW",
    "WEIGHTED_SUM",
    "built_shapes",
    "callbacks_of_fit",
    "check_internals",
    "computes_noise_shape",
    "converts_inputs",
    "draws_numbers",
    "first_node",
    "flat_layers",
    "functional_of",
    "input_structure",
    "is_built",
    "is_dropout_cell",
    "is_functional",
    "is_loading",
    "layers_in_call",
    "loop_of_fit",
    "loop_of_step",
    "mark_shared",
    "node_of",
    "nodes_in_order",
    "noise_shape_of",
    "noted_arguments",
    "operation_of",
    "output_shape_of",
    "output_structure",
    "own_variables",
    "projection",
    "refuse_in_fit",
    "replaced",
    "replaced_in_thread",
    "shared_object",
    "sharing_objects",
    "stacked_layers",
    "standardized_inputs",
    "takes_training",
    "with_code",
]
