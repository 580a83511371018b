"""What Keras holds for each thread: the generator of seeds, the objects of a file, the call that runs."""

from typing import Any

import keras

from keras_dnn_extras._keras_internals.private_names import private_object

_MODULE, _FEATURE = "keras.src.backend.common.global_state", "Reading what Keras holds for a thread"
_SEED_GENERATOR = "global_seed_generator"


def global_seed_generator() -> keras.random.SeedGenerator | None:
    """Return the generator that draws where no seed is given, or None before the first draw."""
    return _read(_SEED_GENERATOR)


def set_global_seed_generator(generator: keras.random.SeedGenerator | None) -> None:
    private_object(_MODULE, "set_global_attribute", _FEATURE)(_SEED_GENERATOR, generator)


def objects_of_file() -> dict[Any, Any] | None:
    """Return the shared objects of the file that is being loaded, by their number in it, or None."""
    return _read("shared_objects/id_to_obj_map")


def configs_of_file() -> dict[int, Any] | None:
    """Return the configs of the file that is being written, by the `id` of their object, or None."""
    return _read("shared_objects/id_to_config_map")


def outermost_call() -> keras.layers.Layer | None:
    """Return the layer or model that is being called, and not by another layer, or None."""
    context = _read("current_call_ctx")
    return None if context is None else context.entry_layer


def _read(name: str) -> Any:
    return private_object(_MODULE, "get_global_attribute", _FEATURE)(name)
