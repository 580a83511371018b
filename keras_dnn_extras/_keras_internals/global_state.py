"""What Keras holds for each thread: the generator of seeds, the objects of a file, the call that runs."""

from typing import Any

import keras

# Private, as Keras shows its global attributes nowhere else.
from keras.src.backend.common import global_state

_SEED_GENERATOR = "global_seed_generator"


def global_seed_generator() -> keras.random.SeedGenerator | None:
    """Return the generator that draws where no seed is given, or None before the first draw."""
    return global_state.get_global_attribute(_SEED_GENERATOR)


def set_global_seed_generator(generator: keras.random.SeedGenerator | None) -> None:
    global_state.set_global_attribute(_SEED_GENERATOR, generator)


def objects_of_file() -> dict[Any, Any] | None:
    """Return the shared objects of the file that is being loaded, by their number in it, or None."""
    return global_state.get_global_attribute("shared_objects/id_to_obj_map")


def configs_of_file() -> dict[int, Any] | None:
    """Return the configs of the file that is being written, by the `id` of their object, or None."""
    return global_state.get_global_attribute("shared_objects/id_to_config_map")


def outermost_call() -> keras.layers.Layer | None:
    """Return the layer or model that is being called, and not by another layer, or None."""
    context = global_state.get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer
