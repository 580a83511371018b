"""Which layers of a model a user means."""

import re
from numbers import Integral
from typing import Any

import keras

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._keras_internals import flat_layers
from keras_dnn_extras._models.layer_paths import layers_by_path, similar_names

_Layers = dict[str, keras.layers.Layer]  # by path


def chosen_layers(model: keras.Model, layers: Any, name: str = "layers") -> list[keras.layers.Layer]:
    """Return the layers of `model` that a user means, in the order of the model, each once.

    Args:
        layers: None for all of them; a name or a path such as `backbone/conv1`, also of a layer within a
            wrapper, `frames/cnn/conv`, or, where that is the only one, `frames/conv`; an index or a slice
            of `model.layers`; a layer or a nested model; a compiled regular expression, which is searched
            for in the paths; or a list of these.
        name: of the argument, for errors.

    Raises:
        ValueError: nothing is meant by it, or by an item of the list.
        TypeError: it is none of these.
    """
    by_path = layers_by_path(model, nested_models=True, inner_layers=True)
    items = layers if isinstance(layers, (list, tuple)) else [layers]
    if not items:
        raise ValueError(f"Expected `{name}` to name at least one layer. Received: {name}={layers!r}")
    chosen = {id(layer): layer for item in items for layer in _meant(model, by_path, item, name)}
    order = {id(layer): i for i, layer in enumerate(by_path.values())}
    return sorted(chosen.values(), key=lambda layer: order.get(id(layer), len(order)))


def _meant(model: keras.Model, by_path: _Layers, item: Any, name: str) -> list[keras.layers.Layer]:
    if item is None:
        return [model]
    if isinstance(item, str):
        return [by_path[_path_meant(by_path, item, name)]]
    if isinstance(item, re.Pattern):
        return _by_pattern(by_path, item, name)
    if isinstance(item, slice) or (isinstance(item, Integral) and not isinstance(item, bool)):
        return _by_index(model, item, name)
    if isinstance(item, keras.layers.Layer):
        return [_checked_layer(model, by_path, item, name)]
    raise TypeError(
        f"Expected `{name}` to be None, a name, an int, a slice, a layer, a compiled regular expression, "
        f"or a list of these. Received: {name}={item!r}"
    )


def _by_pattern(by_path: _Layers, pattern: re.Pattern, name: str) -> list[keras.layers.Layer]:
    if isinstance(pattern.pattern, bytes):
        raise TypeError(
            f"Expected the regular expression in `{name}` to be one of strings: names are no bytes. "
            f"Received: {name}={pattern!r}"
        )
    matching = [layer for path, layer in by_path.items() if pattern.search(path)]
    if not matching:
        raise ValueError(
            f"The pattern {pattern.pattern!r} is in none of the names of the layers. "
            f"{similar_names(pattern.pattern, by_path)} Received: {name}={pattern!r}"
        )
    return matching


def _checked_layer(
    model: keras.Model, by_path: _Layers, layer: keras.layers.Layer, name: str
) -> keras.layers.Layer:
    if not any(layer is one for one in (model, *flat_layers(model))):
        raise ValueError(
            f"The layer {layer.name!r} is none of the model's: it may be that of the model that this one "
            f"was copied from. {similar_names(layer.name, by_path)} Received: {name}={layer!r}"
        )
    return layer


def _path_meant(by_path: _Layers, item: str, name: str) -> str:
    """Return the path that is `item`, or the only one that it is with some of the middle left out."""
    if item in by_path:
        return item
    meant = [path for path in by_path if _is_short_for(item, path)]
    if len(meant) > 1:
        raise ValueError(
            f"More than one layer can be meant by {item!r}. Give the whole path of one of them: "
            f"{', '.join(map(repr, meant))}. Received: {name}={item!r}"
        )
    if not meant:
        raise ValueError(
            f"The model has no layer of the name {item!r}. {similar_names(item, by_path)} "
            f"Received: {name}={item!r}"
        )
    return meant[0]


def _is_short_for(item: str, path: str) -> bool:
    first, *inner = item.split("/")
    outer, *rest = path.split("/")
    if not inner or not rest or (first, inner[-1]) != (outer, rest[-1]):
        return False
    left = iter(rest)
    return all(part in left for part in inner)


def _by_index(model: keras.Model, index: Any, name: str) -> list[keras.layers.Layer]:
    if isinstance(index, slice):
        _check_slice(index, name)
    try:
        chosen = model.layers[index]
    except IndexError:
        chosen = []
    chosen = chosen if isinstance(chosen, list) else [chosen]
    if not chosen:
        raise ValueError(
            f"The model has {counted(len(model.layers), 'layer')}, none of them at this place. "
            f"Received: {name}={index!r}"
        )
    return chosen


def _check_slice(index: slice, name: str) -> None:
    parts = [part for part in (index.start, index.stop, index.step) if part is not None]
    if not all(isinstance(part, Integral) and not isinstance(part, bool) for part in parts):
        raise TypeError(
            f"Expected a slice in `{name}` to have ints or None. Name the layers one by one, in a list. "
            f"Received: {name}={index!r}"
        )
    if index.step == 0:
        raise ValueError(
            f"Expected the step of a slice in `{name}` not to be 0. Received: {name}={index!r}"
        )
