"""What was frozen when a `fit` began that has not come to its end: it may be resumed in this process."""

from collections.abc import Iterable
from weakref import WeakKeyDictionary, WeakSet

import keras

from keras_dnn_extras._keras_internals import flat_layers
from keras_dnn_extras._models import set_trainable

# Weak within too: a frozen model, or a layer that refers to it, would keep its own entry alive.
_FROZEN: WeakKeyDictionary[keras.Model, WeakSet[keras.layers.Layer]] = WeakKeyDictionary()


def remember_frozen(model: keras.Model) -> None:
    """Remember what is frozen in `model`, as a `fit` begins."""
    _FROZEN[model] = WeakSet(layer for layer in flat_layers(model) if not layer.trainable)


def freeze_again(model: keras.Model) -> None:
    """Freeze what was frozen when the `fit` of `model` began that was interrupted, if one was."""
    set_trainable(model, _FROZEN.get(model, ()), False)


def forget_frozen(model: keras.Model, layers: Iterable[keras.layers.Layer] | None = None) -> None:
    """Forget that `layers` and what contains them were frozen, or all of it: the `fit` has ended."""
    if layers is None:
        _FROZEN.pop(model, None)
        return
    unfrozen = set(map(id, layers))
    for layer in list(_FROZEN.get(model, ())):
        if not unfrozen.isdisjoint(map(id, flat_layers(layer))):
            _FROZEN[model].discard(layer)
