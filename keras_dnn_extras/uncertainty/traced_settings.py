"""What users can set in the layers of a model: as a trace has seen it, and whether it is still the same."""

import functools
import weakref
from collections.abc import Iterator
from typing import Any

import keras

from keras_dnn_extras._keras_internals import (
    MASKS_OF_CELLS,
    SET_IN_TRAINING,
    TRACKED_BY_TENSORFLOW,
    WEIGHTED_SUM,
    flat_layers,
)

_PLAIN = (bool, int, float, complex, str, bytes)
_CONTAINERS = (list, tuple, set, frozenset)
_REPLACED_IN_SAMPLING = {"call", WEIGHTED_SUM, "get_dropout_mask", "get_recurrent_dropout_mask"}
_SETTINGS_OF_KERAS = {"name", "autocast", "supports_jit", "activity_regularizer"}


class Settings:
    """What the layers of a model hold at one time.

    Objects are held weakly: a layer may hold something that leads back to its model, which would never go.
    """

    def __init__(self, model: keras.Model):
        self._held = list(map(_held, _settings_in(model)))

    def are_of(self, model: keras.Model) -> bool:
        """Return whether `model` has the same ones still: the same objects, and equal plain values."""
        settings = _settings_in(model)
        return len(settings) == len(self._held) and all(map(_is_held, settings, self._held))


def _settings_in(model: keras.Model) -> list[Any]:
    """Return the layers of `model` and what their attributes hold, containers by what is in them."""
    settings: list[Any] = []
    skipped = _names_of_keras()
    for layer in flat_layers(model):
        settings += [layer, layer.trainable, layer.dtype_policy]
        for name, value in list(vars(layer).items()):  # at once: other threads sample meanwhile
            if name not in skipped and not name.startswith(TRACKED_BY_TENSORFLOW):
                settings += [name, *_contents(value)]
    return settings


def _held(value: Any) -> Any:
    """Return a weak reference to an object, or a plain value, or what takes no such reference, as it is."""
    try:
        return value if isinstance(value, _PLAIN) else weakref.ref(value)
    except TypeError:
        return value


def _is_held(value: Any, held: Any) -> bool:
    if isinstance(held, weakref.ref) and held() is value:
        return True
    return value is held or (isinstance(value, _PLAIN) and type(value) is type(held) and value == held)


@functools.cache
def _names_of_keras() -> frozenset[str]:
    """Return the attributes that every layer and model has from the start, except those users set."""
    of_all = set(vars(keras.Model(name="any"))) - _SETTINGS_OF_KERAS
    return frozenset(of_all | SET_IN_TRAINING | MASKS_OF_CELLS | _REPLACED_IN_SAMPLING)


def _contents(value: Any, within: tuple[int, ...] = ()) -> Iterator[Any]:
    """Yield what is in a container, the containers in it unfolded, too, or `value` itself."""
    if not isinstance(value, (dict, *_CONTAINERS)) or id(value) in within:  # it may hold itself
        yield value
        return
    items: list[Any] = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
    yield from (type(value), len(items))
    for item in items:
        yield from _contents(item, (*within, id(value)))
