"""What a call that fails, or is interrupted, has changed in a model by then: put back."""

import contextlib
from collections.abc import Iterable, Iterator

import keras

from keras_dnn_extras.model_state import recompile, set_optimizer
from keras_dnn_extras.optimizer_state import unchanged_by_failure
from keras_dnn_extras.optimizers import iterations, unscaled
from keras_dnn_extras.trainable import flags, put_back


@contextlib.contextmanager
def trained_as_before_on_error(model: keras.Model) -> Iterator[None]:
    """Leave `model` with the layers frozen, and the optimizer, that it had, if this fails.

    Where it has been trained meanwhile, the optimizer is one that goes on from there.
    """
    before, optimizer = flags(model), getattr(model, "optimizer", None)
    accepted = getattr(model, "_compiled_trainable_state", None)
    updates = _updates(model)
    try:
        yield
    except BaseException:
        put_back(before)
        if _updates(model) != updates:
            recompile(model)
        elif getattr(model, "optimizer", None) is not optimizer:
            set_optimizer(model, optimizer)
            model._compiled_trainable_state = accepted
        raise


@contextlib.contextmanager
def unfrozen_as_before_on_error(model: keras.Model) -> Iterator[None]:
    """Leave the layers of `model` frozen, and its optimizer with the variables, as they are if this fails.

    Within a `fit`, between two steps: the optimizer stays the same object, and trains nothing meanwhile.
    """
    before, accepted = flags(model), getattr(model, "_compiled_trainable_state", None)
    with unchanged_by_failure(model.optimizer):
        try:
            yield
        except BaseException:
            put_back(before)
            if accepted is not None:
                model._compiled_trainable_state = accepted
            raise


def _updates(model: keras.Model) -> int | None:
    optimizer = unscaled(getattr(model, "optimizer", None))
    return None if optimizer is None else iterations(optimizer)


@contextlib.contextmanager
def unconnected_on_error(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Leave `layers` with the names, and in the graphs, that they had if this fails.

    A symbolic call that went well before another one failed has put a node into the layer: its next call
    would be known as the second one.
    """
    before = [
        (layer, layer.name, len(layer._inbound_nodes), len(layer._outbound_nodes), set(vars(layer)))
        for layer in layers
    ]
    try:
        yield
    except BaseException:
        for layer, name, inbound, outbound, attributes in before:
            if layer.name != name:
                layer.name = name
            del layer._inbound_nodes[inbound:]
            del layer._outbound_nodes[outbound:]
            if "get_config" not in attributes:  # by which a tied layer marks its Dense as shared
                vars(layer).pop("get_config", None)
        raise
