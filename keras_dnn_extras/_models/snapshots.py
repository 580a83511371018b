"""The pieces of state that `rolled_back` can put back: of a model, its layers and its variables."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_dnn_extras._backends import value_on_host
from keras_dnn_extras._keras_internals import connections, flat_layers, trainable_at_compile
from keras_dnn_extras._models.optimizers import iterations, unscaled
from keras_dnn_extras._models.recompiling import other_optimizers, recompile, set_optimizer
from keras_dnn_extras._rollback import Snapshot, together


def variable_values(variables: Iterable[keras.Variable]) -> Snapshot:
    """Return a snapshot of the values of `variables`."""
    values = [(variable, value_on_host(variable)) for variable in variables]

    def restore() -> None:
        for variable, value in values:
            variable.assign(value)

    return restore


def variables_in_training(model: keras.Model) -> list[keras.Variable]:
    """Return all variables that `fit` may change, but for those of the optimizer of `model`."""
    variables = [*model.variables, *model.metrics_variables]
    for layer in flat_layers(model):  # the states of stateful recurrent layers are not among them
        states = keras.tree.flatten(vars(layer).get("states"))
        variables += [state for state in states if isinstance(state, keras.Variable)]
    variables += [variable for other in other_optimizers(model) for variable in other.variables]
    return list({id(variable): variable for variable in variables}.values())


def torch_buffers(model: keras.Model) -> Snapshot:
    """Return a snapshot of what modules of torch within `model` keep besides variables."""
    if keras.backend.backend() != "torch":
        return lambda: None
    layers: list[Any] = flat_layers(model)  # all are modules; that of a wrapper is within the wrapper
    buffers = list({id(buffer): buffer for layer in layers for buffer in layer.buffers()}.values())
    values = [buffer.clone() for buffer in buffers]

    def restore() -> None:
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)

    return restore


def compiled_optimizer(model: keras.Model) -> Snapshot:
    """Return a snapshot of which optimizer `model` has. Name it before the trainable flags.

    Where the model has been trained meanwhile, it gets one that goes on from there.
    """
    optimizer, updates = getattr(model, "optimizer", None), _updates(model)
    trainable = trainable_at_compile(model)

    def restore() -> None:
        if _updates(model) != updates:
            recompile(model)
        elif getattr(model, "optimizer", None) is not optimizer:
            set_optimizer(model, optimizer)
            trainable()

    return restore


def _updates(model: keras.Model) -> int | None:
    optimizer = unscaled(getattr(model, "optimizer", None))
    return None if optimizer is None else iterations(optimizer)


def graph_nodes(layers: Iterable[keras.layers.Layer]) -> Snapshot:
    """Return a snapshot of the names of `layers`, and of those within, and of the graphs they are in."""
    inner_layers = {id(inner): inner for layer in layers for inner in flat_layers(layer)}
    return together(*map(connections, inner_layers.values()))
