"""The internals of Keras that callbacks in the training step rest on."""

from typing import Any

import keras

# They are private, so their absence is told when a `fit` begins, and not by one that silently does nothing.
_RELIED_ON = {
    keras.Model: ("make_train_function", "_loss_tracker"),
    keras.optimizers.Optimizer: (
        "_apply_weight_decay",
        "_backend_apply_gradients",
        "_backend_update_step",
        "_clip_gradients",
        "_get_variable_index",
        "_iterations",
        "_learning_rate",
        "_trainable_variables",
        "_untrack_variable",
        "_use_weight_decay",
        "_variables",
    ),
}
if keras.backend.backend() == "tensorflow":
    _RELIED_ON[keras.optimizers.Optimizer] += ("_all_reduce_sum_gradients",)


def check_internals(model: keras.Model, optimizer: Any, feature: str) -> None:
    """Raise unless `model` and its innermost optimizer have the internals of Keras that `feature` rests on.

    Raises:
        RuntimeError: one is missing in this version of Keras.
    """
    for instance, (kind, names) in zip((model, optimizer), _RELIED_ON.items(), strict=True):
        for name in names:
            if isinstance(instance, kind) and not hasattr(instance, name):
                raise RuntimeError(
                    f"`{feature}` needs `{kind.__name__}.{name}`, which this version of Keras does not "
                    f"have. Install a version that is supported. Received: keras=={keras.__version__}"
                )
