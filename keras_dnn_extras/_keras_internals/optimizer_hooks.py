"""What callbacks in the training step need of an optimizer, and Keras keeps private."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras

from keras_dnn_extras._keras_internals.optimizer_variables import (
    ALL,
    COUNTER,
    FORGET,
    RATE,
    WEIGHTS,
    weights_of_optimizer,
)
from keras_dnn_extras._keras_internals.patching import replaced
from keras_dnn_extras._keras_internals.private_names import missing

# Methods of optimizers by what they do. `update_weight` and `update_weights_together` are two ways to the
# same: `updates_together` tells which one an optimizer goes.
_METHODS = {
    "apply": "apply",
    "apply_gradients": "_backend_apply_gradients",
    "clip_gradients": "_clip_gradients",
    "decay_weights": "_apply_weight_decay",
    "sum_over_replicas": "_all_reduce_sum_gradients",  # on TensorFlow alone
    "update_weight": "update_step",
    "update_weights": "_backend_update_step",
    "update_weights_together": "_parallel_update_step",  # on PyTorch alone
}

# A callback that missed one of these would silently do nothing, so `fit` checks them when it begins.
_RELIED_ON: dict[type, tuple[str, ...]] = {
    keras.Model: ("make_train_function", "_loss_tracker"),
    keras.optimizers.Optimizer: (
        "_apply_weight_decay",
        "_backend_apply_gradients",
        "_backend_update_step",
        "_clip_gradients",
        "_get_variable_index",
        "_use_weight_decay",
        *(ALL, COUNTER, FORGET, RATE, WEIGHTS),
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
                raise missing(f"{kind.__name__}.{name}", f"`{feature}`")


def wrapped_methods(
    optimizer: keras.optimizers.Optimizer, **wrappers: Callable[[Callable], Callable]
) -> AbstractContextManager[None]:
    """Wrap methods of `optimizer` for a while, on the instance.

    Args:
        wrappers: by what the method does, as `clip_gradients`: takes the method, returns its replacement.
    """
    methods = {_METHODS[name]: wrap for name, wrap in wrappers.items()}
    return replaced(optimizer, **{name: wrap(getattr(optimizer, name)) for name, wrap in methods.items()})


def updates_together(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return whether `optimizer` updates many weights in one call, as on PyTorch."""
    return hasattr(optimizer, _METHODS["update_weights_together"])


def weight_of_optimizer(optimizer: keras.optimizers.Optimizer, variable: Any) -> keras.Variable:
    """Return the weight that `variable` is, which may be the backend's own variable."""
    return weights_of_optimizer(optimizer)[optimizer._get_variable_index(variable)]


def decays(optimizer: keras.optimizers.Optimizer, weight: Any) -> bool:
    """Return whether `optimizer` applies weight decay to `weight`."""
    return optimizer._use_weight_decay(weight)
