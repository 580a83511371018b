"""Snapshot and exact restore of what training changes: in a model, its optimizer and the generators."""

import contextlib
from collections.abc import Iterator

import keras

from keras_dnn_extras._backends import random_states_kept, strategy_scope, value_on_host
from keras_dnn_extras._models.optimizer_state import carry_over, same_optimizer
from keras_dnn_extras._models.optimizers import unscaled

# What `fit` and `compile` set in a model, next to its variables.
_ATTRIBUTES = (
    "optimizer",
    "_compile_metrics",
    "train_function",
    "history",
    "stop_training",
    "_eval_epoch_iterator",
    "_jax_state",
    "_jax_state_synced",
)


@contextlib.contextmanager
def rehearsal(model: keras.Model, learning_rate: float) -> Iterator[None]:
    """Train `model` as if it did not happen: within, by `learning_rate`; afterwards it is as it was.

    The optimizer is another one of the same class, settings and state, with a float learning rate where
    the model's own may follow a schedule. Compiled metrics are left out. What is restored, bit for bit:
    all variables of the model and its metrics, the random generators of Python, NumPy, Keras, TensorFlow
    and PyTorch, and what `fit` leaves in the model. Also after an exception.
    """
    variables = _variables(model)
    values = [value_on_host(variable) for variable in variables]
    attributes = {name: vars(model)[name] for name in _ATTRIBUTES if name in vars(model)}
    with random_states_kept(), _buffers_kept(model):
        try:
            with loss_unbuilt_again(model), strategy_scope(model):
                _check_weights(model)
                optimizer = same_optimizer(model.optimizer, learning_rate)
                optimizer.build(model.trainable_variables)
                if model.optimizer.built:
                    carry_over(model.optimizer, optimizer)
                vars(model).update(optimizer=optimizer, _compile_metrics=None, train_function=None)
                yield
        finally:
            for name in _ATTRIBUTES:
                vars(model).pop(name, None)
            vars(model).update(attributes)
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


def _variables(model: keras.Model) -> list[keras.Variable]:
    found = [*model.variables, *model.metrics_variables]
    for layer in model._flatten_layers():  # the states of stateful recurrent layers are not among them
        states = keras.tree.flatten(vars(layer).get("states"))
        found += [state for state in states if isinstance(state, keras.Variable)]
    # Another optimizer, of a `train_step` of the user's. The model's own is not trained with.
    others = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    found += [variable for other in others if other is not model.optimizer for variable in other.variables]
    return list({id(variable): variable for variable in found}.values())


@contextlib.contextmanager
def _buffers_kept(model: keras.Model) -> Iterator[None]:
    """Restore what modules of torch within the model keep besides variables."""
    if keras.backend.backend() != "torch":
        yield
        return
    layers = model._flatten_layers()  # all are modules; that of a wrapper is within the wrapper
    buffers = list({id(buffer): buffer for layer in layers for buffer in layer.buffers()}.values())
    values = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)


def _check_weights(model: keras.Model) -> None:
    inner = unscaled(model.optimizer)
    weights = model.trainable_variables
    if inner.built and list(map(id, inner._trainable_variables)) != list(map(id, weights)):
        raise ValueError(
            "The trainable weights of the model are not those that its optimizer was built for. Compile "
            f"the model anew. Received: model={model}"
        )


@contextlib.contextmanager
def loss_unbuilt_again(model: keras.Model) -> Iterator[None]:
    """Forget afterwards which losses were chosen for the data, if none had been before."""
    loss = getattr(model, "_compile_loss", None)
    if loss is None or loss.built:
        yield
        return
    attributes = dict(vars(loss))
    try:
        yield
    finally:
        vars(loss).update(attributes)
        loss._metrics.clear()
