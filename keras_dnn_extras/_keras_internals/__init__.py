"""The only place that touches what is private in Keras."""

from keras_dnn_extras._keras_internals.fit_frames import (
    callbacks_of_fit,
    loop_of_fit,
    loop_of_step,
    refuse_in_fit,
)
from keras_dnn_extras._keras_internals.functional import functional_of
from keras_dnn_extras._keras_internals.layer_tree import is_built
from keras_dnn_extras._keras_internals.optimizer_hooks import check_internals
from keras_dnn_extras._keras_internals.patching import replaced
from keras_dnn_extras._keras_internals.shared_objects import (
    is_loading,
    layers_in_call,
    mark_shared,
    shared_object,
)

__all__ = [
    "callbacks_of_fit",
    "check_internals",
    "functional_of",
    "is_built",
    "is_loading",
    "layers_in_call",
    "loop_of_fit",
    "loop_of_step",
    "mark_shared",
    "refuse_in_fit",
    "replaced",
    "shared_object",
]
