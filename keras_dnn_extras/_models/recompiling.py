"""Optimizers made anew for the weights that are trainable now."""

from typing import Any

import keras

from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._keras_internals import refuse_in_fit
from keras_dnn_extras._models.optimizer_state import carry_over, same_optimizer


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
    model.optimizer = optimizer
    config = getattr(model, "_compile_config", None)
    if config is not None and "optimizer" in config.config:
        config.config["optimizer"] = optimizer
    model.train_function = model.test_function = model.predict_function = None
    accept_trainable(model)


def check_recompilable(model: keras.Model) -> None:
    """Raise what `recompile` would raise of `model`, before anything is changed in it."""
    refuse_in_fit(model)
    if not getattr(model, "compiled", False) or model.optimizer is None:
        return
    others = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and value is not model.optimizer and value.built
    ]
    if others or isinstance(model.optimizer, getattr(keras.optimizers, "MultiOptimizer", ())):
        raise ValueError(
            "The model is trained by more than one optimizer, of which it cannot be told which weights are "
            "theirs. Set `trainable` before they are built, and compile the model yourself. "
            f"Received: model={model}, optimizer={model.optimizer}"
        )
    same_optimizer(model.optimizer)


def accept_trainable(model: keras.Model) -> None:
    """Let Keras take what is trainable now for what the model was compiled with: it warns otherwise."""
    if hasattr(model, "_compiled_trainable_state"):
        model._compiled_trainable_state = {layer: layer.trainable for layer in model._flatten_layers()}
