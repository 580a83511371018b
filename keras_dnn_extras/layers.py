"""The layers of a model: what they are called, and which of them a user means."""

import difflib
import re
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import keras

from keras_dnn_extras.arguments import counted


def layers_by_path(model: keras.Model, *, nested_models: bool = False) -> dict[str, keras.layers.Layer]:
    """Return the layers of `model` from the first to the last, those of nested models by `outer/inner`.

    A layer that is made of layers but no model, as `Bidirectional` is, is one layer. One that is shared
    has its first path. Layers of the same path, which subclassed models may have, are told apart by a
    number: `dense`, `dense_2`. A model with weights of its own is there too, after its layers.

    Args:
        nested_models: whether to have all nested models too, each before its layers.
    """
    found: dict[str, keras.layers.Layer] = {}
    seen = set()
    for path, layer in _walk(model, "", nested_models):
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        unique, count = path, 1
        while unique in found:
            count += 1
            unique = f"{path}_{count}"
        found[unique] = layer
    return found


def owners(model: keras.Model) -> dict[int, str]:
    """Return the path of the layer that each weight that may be trained belongs to, by `id(variable)`."""
    found: dict[int, str] = {}
    for path, layer in layers_by_path(model).items():
        for variable in layer.weights:
            found.setdefault(id(variable), path)
    return found


def chosen_layers(model: keras.Model, layers: Any, name: str = "layers") -> list[keras.layers.Layer]:
    """Return the layers of `model` that a user means, in the order of the model, each once.

    Args:
        layers: None for all of them; a name or a path such as `backbone/conv1`; an index or a slice of
            `model.layers`; a layer or a nested model; a compiled regular expression, which is searched
            for in the paths; or a list of these.
        name: of the argument, for errors.

    Raises:
        ValueError: nothing is meant by it, or by an item of the list.
        TypeError: it is none of these.
    """
    by_path = layers_by_path(model, nested_models=True)
    items = layers if isinstance(layers, (list, tuple)) else [layers]
    if not items:
        raise ValueError(f"Expected `{name}` to name at least one layer. Received: {name}={layers!r}")
    found = {id(layer): layer for item in items for layer in _meant(model, by_path, item, name)}
    order = {id(layer): i for i, layer in enumerate(by_path.values())}
    return sorted(found.values(), key=lambda layer: order.get(id(layer), len(order)))


def _meant(
    model: keras.Model, by_path: dict[str, keras.layers.Layer], item: Any, name: str
) -> list[keras.layers.Layer]:
    if item is None:
        return [model]
    if isinstance(item, str):
        if item in by_path:
            return [by_path[item]]
        raise ValueError(
            f"The model has no layer of the name {item!r}. {near(item, by_path)} Received: {name}={item!r}"
        )
    if isinstance(item, re.Pattern):
        found = [layer for path, layer in by_path.items() if item.search(path)]
        if not found:
            raise ValueError(
                f"The pattern {item.pattern!r} is in none of the names of the layers. "
                f"{near(item.pattern, by_path)} Received: {name}={item!r}"
            )
        return found
    if isinstance(item, slice) or (isinstance(item, Integral) and not isinstance(item, bool)):
        return _by_index(model, item, name)
    if isinstance(item, keras.layers.Layer):
        if any(item is layer for layer in (model, *model._flatten_layers())):
            return [item]
        raise ValueError(
            f"The layer {item.name!r} is none of the model's: it may be that of the model that this one "
            f"was copied from. {near(item.name, by_path)} Received: {name}={item!r}"
        )
    raise TypeError(
        f"Expected `{name}` to be None, a name, an int, a slice, a layer, a compiled regular expression, "
        f"or a list of these. Received: {name}={item!r}"
    )


def _by_index(model: keras.Model, index: Any, name: str) -> list[keras.layers.Layer]:
    try:
        found = model.layers[index]
    except IndexError:
        found = []
    found = found if isinstance(found, list) else [found]
    if not found:
        raise ValueError(
            f"The model has {counted(len(model.layers), 'layer')}, none of them at this place. "
            f"Received: {name}={index!r}"
        )
    return found


def near(name: str, paths: Any) -> str:
    """Return a sentence that tells which of `paths` are like `name`, or else some of them."""
    inner = [path for path in paths if path.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1]]
    like = inner or difflib.get_close_matches(name, paths, n=5, cutoff=0.5)
    if like:
        return f"Near names: {', '.join(map(repr, like[:5]))}."
    some = [repr(path) for path in list(paths)[:8]]
    return f"Its layers are: {', '.join(some)}{', ...' if len(paths) > len(some) else ''}."


def _walk(model: keras.Model, prefix: str, nested_models: bool) -> Iterator[tuple[str, keras.layers.Layer]]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            if nested_models:
                yield prefix + layer.name, layer
            yield from _walk(layer, f"{prefix}{layer.name}/", nested_models)
        else:
            yield prefix + layer.name, layer
    of_layers = {id(variable) for layer in model.layers for variable in layer.variables}
    if any(id(variable) not in of_layers for variable in model.variables):
        yield prefix.rstrip("/") or model.name, model
