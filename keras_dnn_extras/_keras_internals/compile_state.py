"""What `compile` and `fit` leave in a model, next to its variables."""

from collections.abc import Callable
from typing import Any

import keras

from keras_dnn_extras._keras_internals.private_names import private_attribute
from keras_dnn_extras._rollback import Snapshot

_METRICS, _LOSS, _TRAINABLE = "_compile_metrics", "_compile_loss", "_compiled_trainable_state"
_JAX_STATE = "_jax_state_synced"
_OF_FIT = (
    "optimizer",
    _METRICS,
    "train_function",
    "history",
    "stop_training",
    "_eval_epoch_iterator",
    "_jax_state",
    _JAX_STATE,
)


def attributes_of_fit(model: keras.Model) -> Snapshot:
    """Return a snapshot of the attributes that `fit` and `compile` set."""
    for name in (_METRICS, _JAX_STATE) if keras.backend.backend() == "jax" else (_METRICS,):
        private_attribute(model, name, "Training that is undone, as by `find_learning_rate`,")
    return _attributes(model, _OF_FIT)


def trainable_at_compile(model: keras.Model) -> Snapshot:
    """Return a snapshot of what Keras takes for trainable when `model` was compiled."""
    return _attributes(model, (_TRAINABLE,))


def _attributes(model: keras.Model, names: tuple[str, ...]) -> Snapshot:
    attributes = {name: vars(model)[name] for name in names if name in vars(model)}

    def restore() -> None:
        for name in names:
            vars(model).pop(name, None)
        vars(model).update(attributes)

    return restore


def set_trainable_at_compile(model: keras.Model, flags: dict[keras.layers.Layer, bool]) -> None:
    """Let Keras take `flags` for what was trainable when `model` was compiled: it warns of all others."""
    if hasattr(model, _TRAINABLE):
        setattr(model, _TRAINABLE, flags)


def replace_optimizer(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Let `model` train with `optimizer`, and say so in files."""
    model.optimizer = optimizer
    config = getattr(model, "_compile_config", None)
    if config is not None and "optimizer" in config.config:
        config.config["optimizer"] = optimizer
    model.train_function = model.test_function = model.predict_function = None


def train_without_metrics(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Let `model` train with `optimizer` until `attributes_of_fit` are put back, without its metrics."""
    vars(model).update({"optimizer": optimizer, _METRICS: None, "train_function": None})


def compiled_loss(model: keras.Model) -> Snapshot:
    """Return a snapshot of the losses that were chosen for the data, if none have been yet."""
    loss = private_attribute(model, _LOSS, "Trying a loss on data")
    if loss is None or loss.built:
        return lambda: None
    attributes = dict(vars(loss))

    def restore() -> None:
        vars(loss).update(attributes)
        private_attribute(loss, "_metrics", "Trying a loss on data").clear()

    return restore


def loss_of_step(model: keras.Model) -> Callable[..., Any]:
    """Return the function that computes the loss in the steps of `fit`, by a `compute_loss` of any kind."""
    return private_attribute(model, "_compute_loss", "Trying a loss on data")
