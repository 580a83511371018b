"""What the layers of a model are called: by their names, in a nested model by their paths."""

from collections.abc import Iterator

import keras


def layers_by_path(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the layers of `model` from the first to the last, those of nested models by `outer/inner`.

    A layer that is made of layers but no model, as `Bidirectional` is, is one layer. One that is shared
    has its first path. Layers of the same path, which subclassed models may have, are told apart by a
    number: `dense`, `dense_2`. A model with weights of its own is there too, after its layers.
    """
    found: dict[str, keras.layers.Layer] = {}
    seen = set()
    for path, layer in _walk(model, ""):
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
    """Return the path of the layer that each trainable variable belongs to, by `id(variable)`."""
    found: dict[int, str] = {}
    for path, layer in layers_by_path(model).items():
        for variable in layer.trainable_variables:
            found.setdefault(id(variable), path)
    return found


def _walk(model: keras.Model, prefix: str) -> Iterator[tuple[str, keras.layers.Layer]]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _walk(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer
    of_layers = {id(variable) for layer in model.layers for variable in layer.variables}
    if any(id(variable) not in of_layers for variable in model.variables):
        yield prefix.rstrip("/") or model.name, model
