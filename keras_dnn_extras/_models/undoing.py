"""What a call that fails, or is interrupted, has changed in a model by then: put back."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import keras

from keras_dnn_extras._models.optimizer_state import unchanged_by_failure
from keras_dnn_extras._models.optimizers import iterations, unscaled
from keras_dnn_extras._models.recompiling import recompile, set_optimizer
from keras_dnn_extras._models.trainable import flags, put_back


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
    """Leave `layers`, and those within, with the names, and in the graphs, that they had if this fails.

    A symbolic call that went well before another one failed has put a node into the layer: its next call
    would be known as the second one.
    """
    disconnect = _disconnecting(layers)
    try:
        yield
    except BaseException:
        disconnect()
        raise


@contextlib.contextmanager
def unconnected(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Do what `unconnected_on_error` does in any case: what is called here is called on trial."""
    disconnect = _disconnecting(layers)
    try:
        yield
    finally:
        disconnect()


def _disconnecting(layers: Iterable[keras.layers.Layer]) -> Callable[[], None]:
    parts = {id(part): part for layer in layers for part in layer._flatten_layers()}
    before = [
        (part, part.name, len(part._inbound_nodes), len(part._outbound_nodes), set(vars(part)))
        for part in parts.values()
    ]

    def disconnect() -> None:
        for part, name, inbound, outbound, attributes in before:
            if part.name != name:
                part.name = name
            del part._inbound_nodes[inbound:]
            del part._outbound_nodes[outbound:]
            if "get_config" not in attributes:  # by which a tied layer marks its Dense as shared
                vars(part).pop("get_config", None)

    return disconnect
