"""What the inputs of a graph look like, as far as the layers that take them tell."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_dnn_extras._graphs.calls import Call, Value
from keras_dnn_extras._graphs.graph import Graph
from keras_dnn_extras._graphs.moved_elements import movement
from keras_dnn_extras._keras_internals import flat_layers

WORDS = 8  # in a text


class NoInputsError(Exception):
    """A model takes none of the inputs that were drawn for it."""


# -- kinds of data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normal:
    """Numbers of a mean and a deviation, arrays that broadcast with the value, its batch included."""

    mean: np.ndarray
    deviation: np.ndarray

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        for statistic in (self.mean, self.deviation):
            if not _broadcasts(np.shape(statistic), shape):
                raise NoInputsError(f"{shape} is not a shape for statistics of shape {np.shape(statistic)}")
        array = self.mean + self.deviation * rng.normal(size=shape)
        if "int" in dtype:
            limits = np.iinfo(dtype)
            return np.clip(np.rint(array), limits.min, limits.max).astype(dtype)
        return array.astype("float32" if dtype == "bfloat16" else dtype)

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "Normal":
        """Return it for elements in other places."""
        return Normal(function(self.mean), function(self.deviation))


@dataclass(frozen=True)
class Ids:
    """Integers from 0 to `count - 1`."""

    count: int

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        ids = rng.integers(0, self.count, shape)
        # The last one too, whatever was drawn: one more is already out of range.
        ids.flat[:1] = self.count - 1
        return ids.astype("float32" if dtype == "bfloat16" else dtype)


@dataclass(frozen=True)
class Words:
    """Entries of a vocabulary, or texts of them."""

    vocabulary: tuple
    in_texts: bool = False

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        words = np.asarray(self.vocabulary)
        if self.in_texts:
            texts = [" ".join(rng.choice(words, WORDS)) for _ in range(int(np.prod(shape)))]
            return np.array(texts).reshape(shape)
        array = rng.choice(words, shape)
        return array if dtype == "string" else array.astype(dtype)


Likeness = Normal | Ids | Words


# -- what a value looks like ------------------------------------------------------------------------------


def likeness_of(value: Value, graph: Graph) -> Likeness | None:
    """Return what `value` looks like to those who take it, or None where nobody tells."""
    seen = [_seen_by(call, value, graph) for call in graph.consumers(value)]
    shared = [likeness for likeness in seen if likeness is not None]
    ids = [likeness for likeness in shared if isinstance(likeness, Ids)]
    if ids:  # which all of them take
        return min(ids, key=lambda likeness: likeness.count)
    return shared[0] if shared else None


def _seen_by(call: Call, value: Value, graph: Graph) -> Likeness | None:
    operation = call.operation
    for kind, tell in _TELLING.items():
        if isinstance(operation, kind):
            return tell(operation, value, call)
    if isinstance(operation, layers.Rescaling):
        return _before_rescaling(operation, likeness_of(call.outputs[0], graph))
    if len(call.outputs) == 1 and (move := movement(call, value)) is not None:
        behind = likeness_of(call.outputs[0], graph)
        return behind.map(move) if isinstance(behind, Normal) else behind
    if "int" in value.dtype and isinstance(operation, keras.Layer) and call.args[:1] == (value,):
        return ids_of(operation)
    return None


def ids_of(layer: Any) -> Ids | None:
    """Return the ids that all embeddings in a layer have, where it has some."""
    counts = [part.input_dim for part in flat_layers(layer) if isinstance(part, layers.Embedding)]
    return Ids(min(counts)) if counts else None


# -- layers that tell what they take ----------------------------------------------------------------------


def _normalization(layer: Any, value: Value, call: Call) -> Normal | None:
    if layer.invert or layer.mean is None:
        return None
    mean, variance = (_float64(array) for array in (layer.mean, layer.variance))
    # Of features that never change too: the least deviation that the layer divides by.
    return Normal(mean, np.maximum(np.sqrt(variance), keras.config.epsilon()))


def _batch_normalization(layer: Any, value: Value, call: Call) -> Normal | None:
    if layer.moving_mean is None:
        return None
    shape = [1] * len(value.shape)
    shape[layer.axis] = -1
    mean, variance = (
        _float64(array).reshape(shape) for array in (layer.moving_mean, layer.moving_variance)
    )
    return Normal(mean, np.sqrt(np.maximum(variance + layer.epsilon, 0)))


def _discretization(layer: Any, value: Value, call: Call) -> Normal | None:
    boundaries = np.asarray(layer.bin_boundaries if layer.bin_boundaries is not None else [], "float64")
    return Normal(boundaries.mean(), boundaries.std() + 1e-3) if boundaries.size else None


def _lookup(layer: Any, value: Value, call: Call) -> Likeness | None:
    if layer.invert:
        return Ids(layer.vocabulary_size())
    words = [word for word in layer.get_vocabulary(include_special_tokens=False) if word != ""]
    if words and layer.num_oov_indices:
        words.append("out-of-vocabulary" if isinstance(words[0], str) else max(words) + 1)
    return Words(tuple(words)) if words else None


def _text(layer: Any, value: Value, call: Call) -> Words | None:
    words = layer.get_vocabulary(include_special_tokens=False)
    return Words(tuple(words), in_texts=True) if words else None


def _hashing(layer: Any, value: Value, call: Call) -> Likeness:
    return Words(tuple("abcdefghijklmnop")) if value.dtype == "string" else Ids(1000)


_TELLING: dict[type, Callable[[Any, Value, Call], Likeness | None]] = {
    layers.Normalization: _normalization,
    layers.BatchNormalization: _batch_normalization,
    layers.Discretization: _discretization,
    layers.Embedding: lambda layer, value, call: Ids(layer.input_dim),
    layers.CategoryEncoding: lambda layer, value, call: Ids(layer.num_tokens),
    layers.TextVectorization: _text,
    layers.StringLookup: _lookup,
    layers.IntegerLookup: _lookup,
    layers.Hashing: _hashing,
    layers.HashedCrossing: _hashing,
}


def _before_rescaling(layer: Any, behind: Likeness | None) -> Normal | None:
    scale, offset = (np.asarray(array, "float64") for array in (layer.scale, layer.offset))
    if np.any(scale == 0) or isinstance(behind, (Ids, Words)):
        return None
    normal = behind or Normal(np.zeros(()), np.ones(()))
    return Normal((normal.mean - offset) / scale, normal.deviation / np.abs(scale))


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(length in (1, other) for length, other in pairs)


def _float64(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")
