"""Which layers of a model are trained, told so that it means the same in a saved and loaded model."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_dnn_extras._keras_internals import (
    flat_layers,
    weights_adapted_by_lora,
    weights_of_layer_alone,
    without_inner_layers,
)
from keras_dnn_extras._models.layer_selection import chosen_layers
from keras_dnn_extras._models.weight_kinds import has_lora
from keras_dnn_extras._rollback import Snapshot


def set_trainable(model: keras.Model, layers: Iterable[keras.layers.Layer], value: bool) -> None:
    """Set `trainable` of `layers` of `model`, each by itself, and leave those within them alone.

    What contains a trainable layer is made trainable too: Keras takes a whole model for frozen by its own
    flag, and by that of a nested one it freezes all within when it loads it.

    Raises:
        ValueError: `value` is False, and a layer would not stand still.
    """
    layers = list(layers)
    if not value:
        _refuse_moving(layers)
    if value and not model.trainable:
        for layer in flat_layers(model):  # those set apart from it would come to life with it
            _set(layer, False)
    changed = {id(layer) for layer in layers}
    for layer in layers:
        _set(layer, value)
        for weight in weights_adapted_by_lora(layer) if has_lora(layer) else []:
            weight.trainable = False
    if not value:
        return
    for outer in flat_layers(model):
        if outer.trainable or changed.isdisjoint(map(id, flat_layers(outer, include_self=False))):
            continue
        with without_inner_layers(outer, weights=False):
            outer.trainable = True


def with_inner_layers(layers: Iterable[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Return `layers` and all layers within them, each once."""
    return list({id(inner): inner for layer in layers for inner in flat_layers(layer)}.values())


def weights_of(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights of `layer`, and of those within it, that may be trained."""
    weights = [weight for inner in flat_layers(layer) for weight in weights_of_layer_alone(inner)]
    return list({id(weight): weight for weight in weights}.values())


def is_batch_norm(layer: keras.layers.Layer) -> bool:
    """Return whether `layer` normalizes by the batch while it is trainable."""
    return isinstance(layer, keras.layers.BatchNormalization)


def layers_to_unfreeze(
    model: keras.Model, layers: Any, batch_norm: bool, name: str = "layers"
) -> list[keras.layers.Layer]:
    """Return the layers that unfreezing `layers` sets, those within them included."""
    chosen = with_inner_layers(chosen_layers(model, layers, name))
    if not batch_norm:
        chosen = [layer for layer in chosen if not is_batch_norm(layer)]
    if not chosen:
        raise ValueError(
            "BatchNormalization stays frozen unless `batch_norm=True`, and there is nothing else in "
            f"`{name}`. Received: {name}={layers!r}, batch_norm=False"
        )
    return chosen


def trainable_flags(model: keras.Model) -> Snapshot:
    """Return a snapshot of which layers and weights of `model` are trainable."""
    flags = [
        (layer, layer.trainable, [weight.trainable for weight in weights_of_layer_alone(layer)])
        for layer in flat_layers(model)
    ]

    def restore() -> None:
        for layer, trainable, of_weights in flags:
            _set(layer, trainable)
            for weight, weight_trainable in zip(weights_of_layer_alone(layer), of_weights, strict=False):
                weight.trainable = weight_trainable

    return restore


def _refuse_moving(layers: list[keras.layers.Layer]) -> None:
    for layer in layers:
        if isinstance(layer, keras.layers.SpectralNormalization):
            raise ValueError(
                f"The layer {layer.name!r}, `SpectralNormalization`, changes its weights in each training "
                "call, also when it is frozen. Leave it out, or put the layer in it in its place. "
                f"Received: layers={layers}"
            )


def _set(layer: keras.layers.Layer, value: bool) -> None:
    """Set `trainable` of `layer` alone, where Keras sets it of all within, too."""
    with without_inner_layers(layer):
        layer.trainable = not value  # TensorFlow takes no notice where it is the same
        layer.trainable = value
