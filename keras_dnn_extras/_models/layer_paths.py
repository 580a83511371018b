"""The layers of a model: what they are called, and which of them a user means."""

import difflib
import re
from collections.abc import Container, Iterator
from numbers import Integral
from typing import Any

import keras

from keras_dnn_extras._arguments import counted

_KINDS = _LAYER, _MODEL, _INNER = "layer", "nested model", "inner layer"


def layers_by_path(
    model: keras.Model, *, nested_models: bool = False, inner_layers: bool = False
) -> dict[str, keras.layers.Layer]:
    """Return the layers of `model` from the first to the last, those of nested models by `outer/inner`.

    A layer that is made of layers but no model, as `Bidirectional` is, is one layer. One that is shared
    has its first path. Layers of the same path, which subclassed models may have, are told apart by a
    number: `dense`, `dense_2`. A model with weights of its own is there too, after its layers. What is
    asked for besides changes no path of the others.

    Args:
        nested_models: whether to have all nested models too, each before its layers.
        inner_layers: whether to have the layers within layers too, each after that layer: `both/cell`,
            and the layers of models within layers, `frames/cnn/conv`.
    """
    walked = list(_walk(model, ""))
    paths: dict[int, str] = {}
    taken: set[str] = set()
    for kind in _KINDS:
        for path, layer, of_kind in walked:
            if of_kind == kind and id(layer) not in paths:
                paths[id(layer)] = unique_name(path, taken)
                taken.add(paths[id(layer)])
    wanted = {_LAYER: True, _MODEL: nested_models, _INNER: inner_layers}
    return {paths[id(layer)]: layer for _, layer, kind in walked if wanted[kind]}


def unique_name(name: str, names: Container[str], first: int = 2) -> str:
    """Return `name`, or, where it is among `names`, the first of `name_2`, `name_3`, ... that is not.

    Args:
        first: the number to begin with.
    """
    unique, number = name, first
    while unique in names:
        unique, number = f"{name}_{number}", number + 1
    return unique


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
    found = {id(layer): layer for item in items for layer in _meant(model, by_path, item, name)}
    order = {id(layer): i for i, layer in enumerate(by_path.values())}
    return sorted(found.values(), key=lambda layer: order.get(id(layer), len(order)))


def _meant(
    model: keras.Model, by_path: dict[str, keras.layers.Layer], item: Any, name: str
) -> list[keras.layers.Layer]:
    if item is None:
        return [model]
    if isinstance(item, str):
        return [by_path[_path_meant(by_path, item, name)]]
    if isinstance(item, re.Pattern):
        if isinstance(item.pattern, bytes):
            raise TypeError(
                f"Expected the regular expression in `{name}` to be one of strings: names are no bytes. "
                f"Received: {name}={item!r}"
            )
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


def _path_meant(by_path: dict[str, keras.layers.Layer], item: str, name: str) -> str:
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
            f"The model has no layer of the name {item!r}. {near(item, by_path)} Received: {name}={item!r}"
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


def near(name: str, paths: Any) -> str:
    """Return a sentence that tells which of `paths` are like `name`, or else some of them."""
    inner = [path for path in paths if path.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1]]
    like = inner or difflib.get_close_matches(name, paths, n=5, cutoff=0.5)
    if like:
        return f"Near names: {', '.join(map(repr, like[:5]))}."
    some = [repr(path) for path in list(paths)[:8]]
    return f"Its layers are: {', '.join(some)}{', ...' if len(paths) > len(some) else ''}."


def _walk(model: keras.Model, prefix: str) -> Iterator[tuple[str, keras.layers.Layer, str]]:
    """Yield each layer with its path and its kind, once for each place that it has."""
    for layer in model.layers:
        path = prefix + layer.name
        if isinstance(layer, keras.Model):
            yield path, layer, _MODEL
            yield from _walk(layer, f"{path}/")
        else:
            yield path, layer, _LAYER
            yield from _walk_inner(layer, f"{path}/")
    of_layers = {id(variable) for layer in model.layers for variable in layer.variables}
    if any(id(variable) not in of_layers for variable in model.variables):
        yield prefix.rstrip("/") or model.name, model, _LAYER


def _walk_inner(layer: keras.layers.Layer, prefix: str) -> Iterator[tuple[str, keras.layers.Layer, str]]:
    is_model = isinstance(layer, keras.Model)
    inside = layer.layers if is_model else layer._flatten_layers(include_self=False, recursive=False)
    for inner in inside:
        yield prefix + inner.name, inner, _INNER
        yield from _walk_inner(inner, f"{prefix}{inner.name}/")
