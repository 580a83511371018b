"""Optimizers made anew for the weights that are trainable now."""

from typing import Any

import keras

from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._keras_internals import (
    flat_layers,
    refuse_in_fit,
    replace_optimizer,
    set_trainable_at_compile,
)
from keras_dnn_extras._models.optimizer_copies import same_optimizer
from keras_dnn_extras._models.optimizer_state import carry_over


def recompile(model: keras.Model, learning_rate: Any = None) -> None:
    """Have the weights that are trainable now trained by a fresh optimizer, where `model` is compiled.

    It is of the same class and settings, and has the state of the weights that the old one knows. All else
    that the model was compiled with is not touched.

    Args:
        learning_rate: of the fresh optimizer, or None for what the old one has.

    Raises:
        ValueError: the optimizer cannot be made anew, or there are more than one.
        RuntimeError: `model` is in the middle of `fit`.
    """
    if not getattr(model, "compiled", False) or model.optimizer is None:
        return
    optimizer = model.optimizer
    with strategy_scope(model):
        fresh = same_optimizer(optimizer, learning_rate)
        if optimizer.built:
            fresh.build(model.trainable_variables)
            carry_over(optimizer, fresh)
    set_optimizer(model, fresh)


def set_optimizer(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Let `model` train with `optimizer` what is trainable now, as if it had been compiled with it."""
    replace_optimizer(model, optimizer)
    accept_trainable(model)


def other_optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers that `model` has for a `train_step` of its own, besides the compiled one."""
    optimizers = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    return [optimizer for optimizer in optimizers if optimizer is not model.optimizer]


def check_recompilable(model: keras.Model) -> None:
    """Raise what `recompile` would raise of `model`, before anything is changed in it."""
    refuse_in_fit(model)
    if not getattr(model, "compiled", False) or model.optimizer is None:
        return
    several = isinstance(model.optimizer, getattr(keras.optimizers, "MultiOptimizer", ()))
    if several or any(other.built for other in other_optimizers(model)):
        raise ValueError(
            "The model is trained by more than one optimizer, of which it cannot be told which weights are "
            "theirs. Set `trainable` before they are built, and compile the model yourself. "
            f"Received: model={model}, optimizer={model.optimizer}"
        )
    same_optimizer(model.optimizer)


def accept_trainable(model: keras.Model) -> None:
    """Let Keras take what is trainable now for what the model was compiled with: it warns otherwise."""
    set_trainable_at_compile(model, {layer: layer.trainable for layer in flat_layers(model)})
