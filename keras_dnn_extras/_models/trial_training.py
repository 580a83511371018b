"""Training that did not happen: a model is trained, and is afterwards as it was."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_dnn_extras._backends import random_generators, strategy_scope
from keras_dnn_extras._keras_internals import (
    attributes_of_fit,
    compiled_loss,
    train_without_metrics,
    weights_of_optimizer,
)
from keras_dnn_extras._models.optimizer_copies import same_optimizer
from keras_dnn_extras._models.optimizer_state import carry_over
from keras_dnn_extras._models.optimizers import unscaled
from keras_dnn_extras._models.snapshots import torch_buffers, variable_values, variables_in_training
from keras_dnn_extras._rollback import rolled_back


@contextlib.contextmanager
def rolled_back_training(model: keras.Model, learning_rate: float) -> Iterator[None]:
    """Train `model` as if it did not happen: within, by `learning_rate`; afterwards it is as it was.

    The optimizer is another one of the same class, settings and state, with a float learning rate where
    the model's own may follow a schedule. Compiled metrics are left out. What is restored, bit for bit:
    all variables of the model and its metrics, the random generators of Python, NumPy, Keras, TensorFlow
    and PyTorch, and what `fit` leaves in the model. Also after an exception.
    """
    snapshots = (
        random_generators(),
        torch_buffers(model),
        variable_values(variables_in_training(model)),
        attributes_of_fit(model),
        compiled_loss(model),
    )
    with rolled_back(*snapshots), strategy_scope(model):
        train_without_metrics(model, _optimizer_by(learning_rate, model))
        yield


def _optimizer_by(learning_rate: float, model: keras.Model) -> Any:
    """Return an optimizer like that of `model`, with its state."""
    _check_weights(model)
    optimizer = same_optimizer(model.optimizer, learning_rate)
    optimizer.build(model.trainable_variables)
    if model.optimizer.built:
        carry_over(model.optimizer, optimizer)
    return optimizer


def _check_weights(model: keras.Model) -> None:
    inner = unscaled(model.optimizer)
    weights = model.trainable_variables
    if inner.built and list(map(id, weights_of_optimizer(inner))) != list(map(id, weights)):
        raise ValueError(
            "The trainable weights of the model are not those that its optimizer was built for. Compile "
            f"the model anew. Received: model={model}"
        )
