"""Which layers of a model drop something, and how."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_dnn_extras._keras_internals import (
    computes_noise_shape,
    draws_numbers,
    flat_layers,
    is_dropout_cell,
)
from keras_dnn_extras.uncertainty.dropout_subclasses import (
    draws_at_inference,
    dropping_class,
    is_known,
    known_class,
    likeness,
    way_out,
)

_DROPOUT = (keras.layers.Dropout, keras.layers.AlphaDropout, keras.layers.GaussianDropout)
ATTENTION = (keras.layers.Attention, keras.layers.AdditiveAttention)


def dropout_layers(model: keras.Model, lengths: Sequence[int] = ()) -> list[keras.layers.Layer]:
    """Return the layers of `model` that drop something in training, in the model's order.

    Args:
        lengths: of the axes of inputs that are there, which layers can be tried with.

    Raises:
        ValueError: a layer draws random numbers in a way of its own, or drops within a loop over time.
    """
    dropping: list[keras.layers.Layer] = []
    within: set[int] = set()  # layers of loops over time
    for layer in flat_layers(model, include_self=False):
        if (
            not is_known(layer)
            and _draws(layer)
            and (not drops(layer) or likeness(layer, lengths) == "other")
        ):
            raise ValueError(
                f"The layer {layer.name!r} of class `{type(layer).__name__}` draws random numbers of its "
                f"own, which cannot be told apart by sample and input. "
                f"{untried(layer, lengths)}{way_out(layer)}. "
                f"Received: layer={layer}"
            )
        if id(layer) in within and isinstance(layer, _DROPOUT) and layer.rate > 0:
            raise ValueError(
                f"The layer {layer.name!r} drops within a loop over time, where each step would need a "
                "mask of its own. Apply it to the whole sequence, or use `dropout` and `recurrent_dropout` "
                f"of the recurrent layer. Received: layer={layer}"
            )
        if isinstance(layer, (keras.layers.RNN, keras.layers.TimeDistributed)):
            inner_layers = {id(inner) for inner in flat_layers(layer, include_self=False)}
            within |= inner_layers - {id(layer_of_each_step(layer))}
        if drops(layer) and not (dropping and layer is layer_of_each_step(dropping[-1])):
            dropping.append(layer)
    return list(dict.fromkeys(dropping))


def plain_classes_of_own(model: keras.Model) -> dict[type, type]:
    """Return the class of Keras for each class of the user's own in `model` that draws in every call.

    Raises:
        ValueError: one draws in every call, and does more than the layer that it is made from.
    """
    classes = {}
    for layer in flat_layers(model):
        base = dropping_class(layer)
        if base is None or type(layer) is known_class(layer) or not drops_within(layer):
            continue
        kind = likeness(layer)
        if kind == "always":
            classes[type(layer)] = base
        elif kind == "other" and draws_at_inference(layer) is not False:
            raise ValueError(
                f"The layer {layer.name!r} of class `{type(layer).__name__}` draws random numbers in every "
                "call, and does more than a layer of Keras that could be put in its place. "
                f"{untried(layer)}{way_out(layer)}. Received: layer={layer}"
            )
    return classes


def untried(layer: Any, lengths: Sequence[int] = ()) -> str:
    """Return a remark on a layer that could not be called, of which the worst is supposed."""
    if draws_at_inference(layer, lengths) is not None:
        return ""
    return "That is only supposed, as it took no inputs that it was tried with. "


def drops_within(layer: Any) -> bool:
    """Return whether a layer, or one within it, drops something in training."""
    return any(map(drops, flat_layers(layer)))


def layer_of_each_step(layer: Any) -> Any:
    """Return the dropout layer that `TimeDistributed` applies to each step, if it is no more than that."""
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else None
    plain = isinstance(inner, _DROPOUT) and getattr(inner, "noise_shape", None) is None
    return inner if plain and not computes_noise_shape(inner) else None


def drops(layer: Any) -> bool:
    """Return whether a layer itself drops something in training, apart from the layers within it."""
    if isinstance(layer, keras.layers.RNN):
        return any(cell.dropout > 0 or cell.recurrent_dropout > 0 for cell in _cells(layer))
    if isinstance(layer, ATTENTION):
        return layer.dropout > 0
    layer = layer_of_each_step(layer) or layer
    return isinstance(layer, _DROPOUT) and layer.rate > 0


def _draws(layer: Any) -> bool:
    # A cell has a generator in any case, for masks that we replace.
    return not is_dropout_cell(layer) and draws_numbers(layer)


def _cells(layer: keras.layers.RNN) -> list[Any]:
    return [cell for cell in flat_layers(layer) if is_dropout_cell(cell)]
