"""What users can set in the layers of a model: as a trace has seen it, and whether it is still the same."""

import functools
from collections.abc import Iterator
from typing import Any

import keras

_PLAIN = (bool, int, float, complex, str, bytes)
_CONTAINERS = (list, tuple, set, frozenset)
# What Keras sets while a model is called or trained, apart from what each model has from the start.
# `_compile_config` is not among them: `compile`, which makes it anew, is how Keras is told of a change.
_SET_BY_KERAS = {
    *("history", "stop_training", "stop_evaluating", "stop_predicting", "_eval_epoch_iterator"),
    *("_jax_state", "_jax_state_synced", "_compiled_trainable_state", "_keras_dnn_extras_samplers"),
}
_REPLACED_IN_SAMPLING = {"call", "_apply_scores", "_dropout_mask", "_recurrent_dropout_mask"}
_SETTINGS_OF_KERAS = {"name", "autocast", "supports_jit", "activity_regularizer"}


def settings_in(model: keras.Model) -> list[Any]:
    """Return the layers of `model` and what their attributes hold, containers by what is in them."""
    settings: list[Any] = []
    skipped = _names_of_keras()
    for layer in model._flatten_layers():
        settings += [layer, layer.trainable, layer.dtype_policy]
        for name, value in list(vars(layer).items()):  # at once: other threads sample meanwhile
            if name not in skipped:
                settings += [name, *_contents(value)]
    return settings


def are_same(settings: list[Any], others: list[Any]) -> bool:
    """Return whether two results of `settings_in` are the same: objects, and equal plain values."""
    return len(settings) == len(others) and all(map(_is_same, settings, others))


@functools.cache
def _names_of_keras() -> frozenset[str]:
    """Return the attributes that every layer and model has from the start, except those users set."""
    of_all = set(vars(keras.Model(name="any"))) - _SETTINGS_OF_KERAS
    return frozenset(of_all | _SET_BY_KERAS | _REPLACED_IN_SAMPLING)


def _contents(value: Any, within: tuple[int, ...] = ()) -> Iterator[Any]:
    """Yield what is in a container, the containers in it unfolded, too, or `value` itself."""
    if not isinstance(value, (dict, *_CONTAINERS)) or id(value) in within:  # it may hold itself
        yield value
        return
    items: list[Any] = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
    yield from (type(value), len(items))
    for item in items:
        yield from _contents(item, (*within, id(value)))


def _is_same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, _PLAIN) and type(a) is type(b) and a == b)
