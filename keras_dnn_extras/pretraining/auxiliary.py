"""Pretraining on an auxiliary task."""

from numbers import Integral
from typing import Any

import keras

from keras_dnn_extras._arguments import check_positive
from keras_dnn_extras._backends import random_generators, strategy_scope
from keras_dnn_extras._graphs import trial_copies
from keras_dnn_extras._models import (
    Data,
    Head,
    Losses,
    OptimizerChoice,
    built,
    check_model,
    layers_of_head,
    with_checked_validation,
)
from keras_dnn_extras._rollback import rolled_back
from keras_dnn_extras.pretraining.fit_arguments import (
    Optimizers,
    all_frozen,
    check_data,
    check_fit_arguments,
    check_loss,
    compile_trainer,
    fit_trainer,
    history_of,
)
from keras_dnn_extras.pretraining.training_models import UnderHead


def pretrain_auxiliary(
    encoder: keras.Model,
    head: Head,
    x: Data,
    y: Data | None = None,
    *,
    loss: Losses,
    epochs: int,
    optimizer: OptimizerChoice | None = None,
    **fit_arguments: Any,
) -> keras.callbacks.History:
    """Train `encoder` under `head` on a task for which labels are easy to get.

    Such a task may be to tell by how much an image was rotated, or what a related label is. `encoder` is
    itself trained, and `head` with it; what `encoder` was compiled with is left alone. Layers that are
    frozen stay frozen. Then `replace_head(encoder, head, after=encoder.layers[-1].name)` and `fine_tune`
    go on to the task that is meant.

    Args:
        encoder: any Keras model, compiled or not.
        head: a layer, a list of layers, one after the other, or a model, that takes what `encoder` makes.
        x, y: data of the auxiliary task, as in `fit`.
        loss: of the auxiliary task, as in `compile`.
        epochs: int > 0.
        optimizer: as in `compile`; None is Adam with a learning rate of 1e-3. A fresh one of the same
            settings is used.
        **fit_arguments: other arguments of `fit`: `batch_size`, `validation_data`, `callbacks`, `verbose`
            and so on, and of `compile`: `metrics`, `weighted_metrics`, `run_eagerly`, `jit_compile`,
            `steps_per_execution`. `ModelCheckpoint` saves the encoder, but with `save_weights_only` the
            weights of the head, too.

    Returns:
        The `History`.

    Raises:
        ValueError: all layers of `encoder` are frozen; `x` has no rows; `loss` is None or not known.
        TypeError: an argument is of the wrong type.

    Example:

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "relu", name="code")])
    >>> is_turned = np.arange(64) % 2  # every second row is turned round, and that is the label
    >>> turned = np.where(is_turned[:, None], x[:, ::-1], x)
    >>> head = keras.layers.Dense(1, activation="sigmoid")
    >>> arguments = {"loss": "binary_crossentropy", "epochs": 2, "verbose": 0}
    >>> history = pretrain_auxiliary(encoder, head, turned, is_turned, **arguments)
    >>> len(history.history["loss"])
    2

    Reference:
        Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, 2018
        (https://arxiv.org/abs/1803.07728).
    """
    check_model("encoder", encoder)
    check_positive("epochs", epochs, Integral)
    heads = layers_of_head(head)
    check_data(x)
    check_loss(loss)
    check_fit_arguments(fit_arguments)
    optimizers = Optimizers(optimizer)
    x = built(encoder, x, fit_arguments.get("batch_size") or 32)
    if not encoder.trainable_variables:
        raise all_frozen(encoder)
    settings = encoder, optimizers, loss, fit_arguments
    copies = trial_copies(heads)
    if copies is None:
        trainer, x = _under_head(heads, x, *settings)
        x, fit_arguments = with_checked_validation(trainer, x, y, fit_arguments)
    else:
        with rolled_back(random_generators()):
            on_trial, x = _under_head(copies, x, *settings)
        x, fit_arguments = with_checked_validation(on_trial, x, y, fit_arguments)
        trainer, x = _under_head(heads, x, *settings)
    return history_of(encoder, fit_trainer(trainer, x, y, epochs=epochs, **fit_arguments))


def _under_head(
    layers: list[keras.layers.Layer],
    x: Any,
    encoder: keras.Model,
    optimizers: Optimizers,
    loss: Any,
    fit_arguments: dict[str, Any],
) -> tuple[UnderHead, Any]:
    """Return `encoder` and `layers` as a model, built and compiled, and `x`, still whole."""
    with strategy_scope(encoder):
        trainer = UnderHead(encoder, layers)
        x = built(trainer, x, fit_arguments.get("batch_size") or 32)
        compile_trainer(trainer, optimizers.fresh(), loss, fit_arguments)
    return trainer, x
