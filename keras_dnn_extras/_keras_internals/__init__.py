"""The only place that touches what is private in Keras."""

from keras_dnn_extras._keras_internals.fit_frames import (
    callbacks_of_fit,
    loop_of_fit,
    loop_of_step,
    refuse_in_fit,
)
from keras_dnn_extras._keras_internals.functional import functional_of
from keras_dnn_extras._keras_internals.layer_tree import is_built
from keras_dnn_extras._keras_internals.optimizer_hooks import (
    batch_counter,
    check_internals,
    counts_batches,
    decays,
    learning_rate_or_schedule,
    set_rate_and_batches,
    updates_together,
    weight_of_optimizer,
    weights_of_optimizer,
    with_variables,
    wrapped_methods,
)
from keras_dnn_extras._keras_internals.patching import replaced
from keras_dnn_extras._keras_internals.shared_objects import (
    is_loading,
    layers_in_call,
    mark_shared,
    shared_object,
)
from keras_dnn_extras._keras_internals.train_function import (
    batches_of_fit,
    loss_metric,
    make_train_function,
    without_model,
)

__all__ = [
    "batch_counter",
    "batches_of_fit",
    "callbacks_of_fit",
    "check_internals",
    "counts_batches",
    "decays",
    "functional_of",
    "is_built",
    "is_loading",
    "layers_in_call",
    "learning_rate_or_schedule",
    "loop_of_fit",
    "loop_of_step",
    "loss_metric",
    "make_train_function",
    "mark_shared",
    "refuse_in_fit",
    "replaced",
    "set_rate_and_batches",
    "shared_object",
    "updates_together",
    "weight_of_optimizer",
    "weights_of_optimizer",
    "with_variables",
    "without_model",
    "wrapped_methods",
]
