"""Which objects of a file are shared, and which layers are being called."""

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

import keras

from keras_dnn_extras._keras_internals.global_state import configs_of_file, objects_of_file, outermost_call
from keras_dnn_extras._keras_internals.layer_tree import flat_layers
from keras_dnn_extras._keras_internals.private_names import private_object

# The layers that share another one, and that one: weak, as it holds them by the graph that both are in.
_SHARED: WeakKeyDictionary[keras.layers.Layer, "ref[keras.layers.Layer]"] = WeakKeyDictionary()


def mark_shared(layer: keras.layers.Layer, by: keras.layers.Layer) -> None:
    """Let files say that `layer` is shared, wherever in them it comes first, while `by` exists.

    Keras numbers a shared object when it meets it for the second time, and then in the first place too.
    If that is within a nested model, it has already handed out a copy of the config, without the number
    (Keras 3.15, `Functional.get_config`), and a loaded model would have two objects. So the object is
    known to each file from its beginning. Nothing is left on `layer` itself.

    Raises:
        RuntimeError: this version of Keras begins files in another way.
    """
    _begin_files_with_shared_layers()
    _SHARED[by] = ref(layer)


def _begin_files_with_shared_layers() -> None:
    """Add to what Keras does at the beginning of a file, once in a process.

    A file begins where no code of a layer runs, so there is no moment to put this in for one file alone.
    """
    scope = private_object("keras.src.saving.serialization_lib", "ObjectSharingScope", "`DenseTranspose`")
    if not hasattr(scope.__enter__, "begins_with_shared_layers"):
        scope.__enter__ = _with_shared_layers(scope.__enter__)


def _with_shared_layers(enter: Callable) -> Callable:
    @functools.wraps(enter)
    def enter_with_shared_layers(scope: Any) -> Any:
        entered = enter(scope)
        configs = configs_of_file()
        layers = [reference() for reference in list(_SHARED.values())]
        if configs is not None:
            configs.update((id(layer), {}) for layer in layers if layer is not None)
        return entered

    enter_with_shared_layers.begins_with_shared_layers = True  # type: ignore[attr-defined]
    return enter_with_shared_layers


def shared_object(config: dict[str, Any]) -> Any:
    """Return the object that this `config` in a file told before, or None."""
    objects = objects_of_file()
    return None if objects is None else objects.get(config.get("shared_object_id"))


def is_loading() -> bool:
    """Return whether objects are being made from a file, or as from one: those it shares are known."""
    return objects_of_file() is not None


def layers_in_call() -> list[keras.layers.Layer]:
    """Return the layers of the outermost model that is being called."""
    outermost = outermost_call()
    return [] if outermost is None else flat_layers(outermost)
