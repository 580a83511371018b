"""The variables and flags of a layer by itself, without those of the layers within it."""

import contextlib
from collections.abc import Iterator

import keras

from keras_dnn_extras._keras_internals.patching import replaced
from keras_dnn_extras._keras_internals.private_names import private_attribute

_WEIGHTS, _LAYERS = "_trainable_variables", "_layers"
_FEATURE, _TYING = "Freezing and unfreezing", "`DenseTranspose`"


def weights_of_layer_alone(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights that may be trained of `layer`, without those of the layers within it."""
    return private_attribute(layer, _WEIGHTS, _FEATURE)


def weights_adapted_by_lora(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights of a layer with LoRA in the place of which it trains others."""
    return [getattr(layer, name) for name in ("_kernel", "_embeddings") if hasattr(layer, name)]


@contextlib.contextmanager
def without_inner_layers(layer: keras.layers.Layer, *, weights: bool = True) -> Iterator[None]:
    """Hide the layers within `layer` for a while, so that setting `trainable` does not reach them.

    Args:
        weights: whether it still reaches the weights of `layer` itself.
    """
    private_attribute(layer, _LAYERS, _FEATURE)
    with replaced(layer, **{_LAYERS: []}, **({} if weights else {_WEIGHTS: []})):
        yield


def add_shared_weight(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Have `variable`, of another layer, as the last of the weights of `layer`, which may be built."""
    tracker = private_attribute(layer, "_tracker", _TYING)
    locked = tracker.locked
    tracker.unlock()
    # Not as Keras sorts it in: `trainable` would not reach a variable that is frozen now.
    tracker.add_to_store("trainable_variables", variable)
    private_attribute(layer, "_post_track_variable", _TYING)(variable)
    if locked:
        tracker.lock()


def remove_weight(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Have `variable` no more as one of the weights of `layer`."""
    private_attribute(layer, "_untrack_variable", _TYING)(variable)
