"""Which objects of a file are shared, and which layers are being called."""

from typing import Any

import keras

# Private, as Keras tells which objects of a file are shared, and what is being called, nowhere else.
from keras.src.backend.common import global_state

_OBJECTS, _CONFIGS = "shared_objects/id_to_obj_map", "shared_objects/id_to_config_map"


def mark_shared(layer: keras.layers.Layer) -> None:
    """Let files tell that `layer` is shared, wherever in them it comes first.

    Keras numbers a shared object when it meets it for the second time, and then in the first place too.
    If that is within a nested model, it has already handed out a copy of the config, without the number
    (Keras 3.15, `Functional.get_config`), and a loaded model would have two objects.
    """
    if not isinstance(vars(layer).get("get_config"), _SharedConfig):
        layer.get_config = _SharedConfig(layer)


class _SharedConfig:
    """The `get_config` of one layer, which says beforehand that it has been seen."""

    def __init__(self, layer: keras.layers.Layer):
        self._layer = layer

    def __call__(self) -> dict[str, Any]:
        configs = global_state.get_global_attribute(_CONFIGS)
        if configs is not None:
            configs.setdefault(id(self._layer), {})
        return type(self._layer).get_config(self._layer)


def shared_object(config: dict[str, Any]) -> Any:
    """Return the object that this `config` in a file told before, or None."""
    objects = global_state.get_global_attribute(_OBJECTS)
    return None if objects is None else objects.get(config.get("shared_object_id"))


def is_loading() -> bool:
    """Return whether objects are being made from a file, or as from one: those it shares are known."""
    return global_state.get_global_attribute(_OBJECTS) is not None


def layers_in_call() -> list[keras.layers.Layer]:
    """Return the layers of the outermost model that is being called."""
    context = global_state.get_global_attribute("current_call_ctx")
    return [] if context is None else context.entry_layer._flatten_layers()
