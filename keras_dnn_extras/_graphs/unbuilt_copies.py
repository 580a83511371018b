"""Copies of layers that are not built, to try calls on first: a layer cannot be unbuilt again."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_dnn_extras._backends import random_generators
from keras_dnn_extras._graphs.config_copies import copied_by_config
from keras_dnn_extras._graphs.layer_configs import NO_CONFIG
from keras_dnn_extras._keras_internals import flat_layers, is_built
from keras_dnn_extras._rollback import rolled_back


def trial_copies(layers: Sequence[keras.layers.Layer]) -> list[keras.layers.Layer] | None:
    """Return `layers`, with copies in place of those that are not built.

    Returns:
        None where there is nothing to try: all are built, or one cannot be copied as it is.
    """
    unbuilt = {id(layer): layer for layer in layers if not is_built(layer)}
    if not unbuilt:
        return None
    try:
        with rolled_back(random_generators()):  # a copy may draw a seed
            copies = {key: copied_by_config(layer) for key, layer in unbuilt.items()}
    except (*NO_CONFIG, ValueError, KeyError):  # of its config
        return None
    if not all(_is_alike(layer, copies[key]) for key, layer in unbuilt.items()):
        return None
    return [copies.get(id(layer), layer) for layer in layers]


def _is_alike(layer: keras.layers.Layer, copy: keras.layers.Layer) -> bool:
    """Return whether classes of the user's have told in their configs all that their layers are."""
    parts, copies = flat_layers(layer), flat_layers(copy)
    return len(parts) == len(copies) and all(
        _settings(part) == _settings(twin)
        for part, twin in zip(parts, copies, strict=True)
        if not type(part).__module__.startswith("keras.")
    )


def _settings(layer: Any) -> dict[str, Any]:
    """Return those attributes that are plain values."""
    kinds = bool, int, float, str, type(None)
    return {name: value for name, value in vars(layer).items() if isinstance(value, kinds)}
