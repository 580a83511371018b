"""The variables and flags of a layer by itself, without those of the layers within it."""

import contextlib
from collections.abc import Iterator

import keras

from keras_dnn_extras._keras_internals.patching import replaced

_WEIGHTS = "_trainable_variables"


def weights_of_layer_alone(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights that may be trained of `layer`, without those of the layers within it."""
    return getattr(layer, _WEIGHTS)


def weights_adapted_by_lora(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights in the place of which LoRA trains its own."""
    if not getattr(layer, "lora_enabled", False):
        return []
    return [getattr(layer, name) for name in ("_kernel", "_embeddings") if hasattr(layer, name)]


@contextlib.contextmanager
def without_inner_layers(layer: keras.layers.Layer, *, weights: bool = True) -> Iterator[None]:
    """Hide the layers within `layer` for a while, so that setting `trainable` does not reach them.

    Args:
        weights: whether it still reaches the weights of `layer` itself.
    """
    with replaced(layer, _layers=[], **({} if weights else {_WEIGHTS: []})):
        yield


def add_shared_weight(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Have `variable`, of another layer, as the last of the weights of `layer`, which may be built."""
    tracker = layer._tracker
    locked = tracker.locked
    tracker.unlock()
    # Not as Keras sorts it in: `trainable` would not reach a variable that is frozen now.
    tracker.add_to_store("trainable_variables", variable)
    layer._post_track_variable(variable)
    if locked:
        tracker.lock()


def remove_weight(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Have `variable` no more as one of the weights of `layer`."""
    layer._untrack_variable(variable)
