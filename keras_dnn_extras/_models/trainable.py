"""Which layers of a model are trained, told so that it means the same in a saved and loaded model."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_dnn_extras._keras_internals import replaced
from keras_dnn_extras._models.layer_paths import chosen_layers
from keras_dnn_extras._models.weight_kinds import has_lora


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
        for layer in model._flatten_layers():  # those set apart from it would come to life with it
            _set(layer, False)
    changed = {id(layer) for layer in layers}
    for layer in layers:
        _set(layer, value)
        for weight in _adapted(layer):
            weight.trainable = False
    if not value:
        return
    for outer in model._flatten_layers():
        if outer.trainable or changed.isdisjoint(map(id, outer._flatten_layers(include_self=False))):
            continue
        with replaced(outer, _layers=[], _trainable_variables=[]):
            outer.trainable = True


def within(layers: Iterable[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Return `layers` and all layers within them, each once."""
    return list({id(inner): inner for layer in layers for inner in layer._flatten_layers()}.values())


def weights_of(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights of `layer`, and of those within it, that may be trained."""
    found = [variable for inner in layer._flatten_layers() for variable in inner._trainable_variables]
    return list({id(variable): variable for variable in found}.values())


def is_batch_norm(layer: keras.layers.Layer) -> bool:
    """Return whether `layer` normalizes by the batch while it is trainable."""
    return isinstance(layer, keras.layers.BatchNormalization)


def to_unfreeze(
    model: keras.Model, layers: Any, batch_norm: bool, name: str = "layers"
) -> list[keras.layers.Layer]:
    """Return the layers that unfreezing `layers` sets, those within them included."""
    found = within(chosen_layers(model, layers, name))
    if batch_norm:
        return found
    others = [layer for layer in found if not is_batch_norm(layer)]
    if not others:
        raise ValueError(
            "BatchNormalization stays frozen unless `batch_norm=True`, and there is nothing else in "
            f"`{name}`. Received: {name}={layers!r}, batch_norm=False"
        )
    return others


def flags(model: keras.Model) -> list[tuple[keras.layers.Layer, bool, list[bool]]]:
    """Return what `put_back` needs to undo `set_trainable`."""
    return [
        (layer, layer.trainable, [variable.trainable for variable in layer._trainable_variables])
        for layer in model._flatten_layers()
    ]


def put_back(found: list[tuple[keras.layers.Layer, bool, list[bool]]]) -> None:
    """Make the layers as trainable as `flags` found them."""
    for layer, value, of_variables in found:
        _set(layer, value)
        for variable, own in zip(layer._trainable_variables, of_variables, strict=False):
            variable.trainable = own


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
    with replaced(layer, _layers=[]):
        layer.trainable = not value  # TensorFlow takes no notice where it is the same
        layer.trainable = value


def _adapted(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights in the place of which LoRA trains its own."""
    if not has_lora(layer):
        return []
    return [getattr(layer, name) for name in ("_kernel", "_embeddings") if hasattr(layer, name)]
