"""The layers of a model, and what they are called."""

import difflib
from collections.abc import Container, Iterator
from typing import Any

import keras

from keras_dnn_extras._keras_internals import flat_layers

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
    assigned: set[str] = set()
    for kind in _KINDS:
        for path, layer, of_kind in walked:
            if of_kind == kind and id(layer) not in paths:
                paths[id(layer)] = unique_name(path, assigned)
                assigned.add(paths[id(layer)])
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
    paths: dict[int, str] = {}
    for path, layer in layers_by_path(model).items():
        for variable in layer.weights:
            paths.setdefault(id(variable), path)
    return paths


def similar_names(name: str, paths: Any) -> str:
    """Return a sentence that tells which of `paths` are like `name`, or else some of them."""
    same_end = [path for path in paths if path.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1]]
    similar = same_end or difflib.get_close_matches(name, paths, n=5, cutoff=0.5)
    if similar:
        return f"Near names: {', '.join(map(repr, similar[:5]))}."
    first = [repr(path) for path in list(paths)[:8]]
    return f"Its layers are: {', '.join(first)}{', ...' if len(paths) > len(first) else ''}."


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
    inside = layer.layers if is_model else flat_layers(layer, include_self=False, recursive=False)
    for inner in inside:
        yield prefix + inner.name, inner, _INNER
        yield from _walk_inner(inner, f"{prefix}{inner.name}/")
