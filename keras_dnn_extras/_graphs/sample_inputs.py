"""Inputs that look like data: drawn by the statistics and vocabularies of the layers that take them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_dnn_extras._graphs.equivalence import random_inputs, shape_of
from keras_dnn_extras._graphs.graph import Call, Graph, Value, values_of
from keras_dnn_extras._graphs.no_ops import IDLE, is_idle

SIZES = (32, 64, 16, 128, 224, 8, 299, 4, 2, 1)  # of axes of unknown length, one after the other
LONG_SIZES = tuple(2**power for power in range(9, 17))  # where a layer cuts off thousands of steps
LARGEST = 2**22  # numbers in a row
WORDS = 8  # in a text


class NoInputsError(Exception):
    """A model takes none of the inputs that were drawn for it."""


def like_data(model: Any, tensors: Sequence[Any], size: int, seed: int = 0) -> list[Any]:
    """Return an array for each input of a model that looks like what the model was trained on.

    Numbers have the mean and the deviation that a Normalization or BatchNormalization near the input has,
    also behind a `Rescaling`. Ids are from all of the vocabulary of the layers that look them up, strings
    too. Where no layer tells, numbers are standard normal, and integers zeros and ones.

    Args:
        model: any Keras model.
        tensors: what stands for its inputs, flat: anything with a `shape` and a `dtype`.
        size: length of axes of unknown length.
    """
    graph = Graph.of(model)
    if graph is None:
        return _by_embeddings(model, tensors, size, seed)
    return drawn(graph.inputs, graph.calls, size, seed, tensors)


def drawn(
    values: Sequence[Value], calls: Sequence[Call], size: int, seed: int = 0, tensors: Any = None
) -> list[Any]:
    """Return an array for each of `values`, as `like_data`, by what `calls` do with it.

    Args:
        tensors: whose shapes and dtypes the arrays have, or None: the values.
    """
    users: dict[Value, list[Call]] = {}
    for call in calls:
        for value in dict.fromkeys(call.inputs):
            users.setdefault(value, []).append(call)
    rng = np.random.default_rng(seed)
    shown = values if tensors is None else tensors
    arrays = random_inputs(shown, size, seed)
    for place, (value, tensor) in enumerate(zip(values, shown, strict=True)):
        likeness = _likeness(value, users)
        if likeness is not None:
            arrays[place] = likeness.draw(rng, shape_of(tensor, size), _dtype(tensor))
    return arrays


def taken_inputs(
    model: Any, tensors: Sequence[Any], prober: Callable[[list[Any]], list[np.ndarray]]
) -> tuple[list[Any], list[np.ndarray]]:
    """Return inputs that a model takes, like data if possible, and what `prober` computes of them.

    Raises:
        NoInputsError: it takes none, or makes tensors without a number of all of them.
    """
    last: Any = "what it makes of them is empty"
    for draw in _candidates(model, tensors):
        try:
            arrays = draw()
        except NoInputsError as error:
            last = error
            continue
        try:
            outputs = prober(arrays)
        except Exception as error:  # of whatever kind a layer raises for an image that is too small
            last = error
            continue
        if all(output.size for output in outputs):
            return arrays, outputs
    raise NoInputsError(str(last)) from (last if isinstance(last, Exception) else None)


def _candidates(model: Any, tensors: Sequence[Any]) -> Iterator[Callable[[], list[Any]]]:
    """Yield what draws inputs that a model may take: like data first, of one length after the other."""
    for size in sizes(tensors):
        yield partial(like_data, model, tensors, size)
    for size in sizes(tensors):
        yield partial(random_inputs, tensors, size)


def sizes(tensors: Sequence[Any]) -> list[int]:
    """Return lengths to try for the axes of unknown length, the usual ones first."""
    flexible = [sum(length is None for length in tensor.shape[1:]) for tensor in tensors]
    if not any(flexible):
        return [SIZES[0]]
    numbers = [int(np.prod([n for n in t.shape[1:] if n], dtype="int64")) for t in tensors]

    def fits(size: int) -> bool:
        return all(n * size**axes <= LARGEST for n, axes in zip(numbers, flexible, strict=True))

    return [*SIZES, *filter(fits, LONG_SIZES)]


# -- what a value looks like ------------------------------------------------------------------------------


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


def _likeness(value: Value, users: Mapping[Value, list[Call]]) -> Likeness | None:
    """Return what `value` looks like to those who take it, or None where nobody tells."""
    seen = [_seen_by(call, value, users) for call in users.get(value, [])]
    shared = [likeness for likeness in seen if likeness is not None]
    ids = [likeness for likeness in shared if isinstance(likeness, Ids)]
    if ids:  # which all of them take
        return min(ids, key=lambda likeness: likeness.count)
    return shared[0] if shared else None


def _seen_by(call: Call, value: Value, users: Mapping[Value, list[Call]]) -> Likeness | None:
    operation = call.operation
    for kind, tell in _TELLING.items():
        if isinstance(operation, kind):
            return tell(operation, value, call)
    if isinstance(operation, layers.Rescaling):
        return _before_rescaling(operation, _likeness(call.outputs[0], users))
    if len(call.outputs) == 1 and (move := _movement(call, value)) is not None:
        behind = _likeness(call.outputs[0], users)
        return behind.map(move) if isinstance(behind, Normal) else behind
    if "int" in value.dtype and isinstance(operation, keras.Layer) and call.args[:1] == (value,):
        return _ids_of(operation)
    return None


def _ids_of(layer: Any) -> Ids | None:
    """Return the ids that all embeddings in a layer have, where it has some."""
    counts = [part.input_dim for part in layer._flatten_layers() if isinstance(part, layers.Embedding)]
    return Ids(min(counts)) if counts else None


def _by_embeddings(model: Any, tensors: Sequence[Any], size: int, seed: int) -> list[Any]:
    """Return inputs for a model of a `call` of its own: ids that all of its embeddings have."""
    arrays, ids, rng = random_inputs(tensors, size, seed), _ids_of(model), np.random.default_rng(seed)
    for place, tensor in enumerate(tensors):
        if ids is not None and "int" in _dtype(tensor):
            arrays[place] = ids.draw(rng, shape_of(tensor, size), _dtype(tensor))
    return arrays


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


# -- layers that pass it on -------------------------------------------------------------------------------

# Of `keras.ops`, whose classes are not public. What they take is what they return, in other places.
_MOVING = {"GetItem", "Reshape", "ExpandDims", "Squeeze", "Transpose", "Ravel", "Cast"}
_SAME = {*IDLE, layers.Masking}
_RESIZING = {layers.Resizing, layers.CenterCrop, layers.RandomCrop}


def _before_rescaling(layer: Any, behind: Likeness | None) -> Normal | None:
    scale, offset = (np.asarray(array, "float64") for array in (layer.scale, layer.offset))
    if np.any(scale == 0) or isinstance(behind, (Ids, Words)):
        return None
    normal = behind or Normal(np.zeros(()), np.ones(()))
    return Normal((normal.mean - offset) / scale, normal.deviation / np.abs(scale))


def _movement(call: Call, value: Value) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return how elements of what a call returns go back to the places that they have in `value`.

    Where that is not known all of them get the mean.
    """
    operation, kind = call.operation, type(call.operation)
    is_cast = operation is keras.ops.cast or kind.__name__ == "Cast"
    if kind in _RESIZING:
        return _resizing(value.shape, call.outputs[0].shape)
    is_random = kind.__name__.startswith("Random")  # and changes nothing at inference
    if is_cast or is_random or kind in _SAME or is_idle(operation):
        return lambda array: array
    behind: Any = (1, *call.outputs[0].shape[1:])
    if kind is layers.Concatenate:
        return _part(call, value, behind)
    before: Any = (1, *value.shape[1:])
    known = None not in (*before, *behind)
    if kind is layers.Permute:
        back = np.argsort([0, *operation.dims])
        return lambda array: np.broadcast_to(array, behind).transpose(back) if known else np.mean(array)
    if kind in (layers.Flatten, layers.Reshape) or kind.__name__ in _MOVING:
        whole = known and np.prod(behind) == np.prod(before)
        channels_first = getattr(operation, "data_format", None) == "channels_first"
        in_order = kind in (layers.Flatten, layers.Reshape) and not channels_first
        return _reshaping(before, behind) if whole and in_order else np.mean
    return None


def _resizing(shape: tuple, behind: tuple) -> Callable[[np.ndarray], np.ndarray]:
    """Return what takes the mean over axes that have another length behind: no place is the same there."""

    def spread(array: np.ndarray) -> np.ndarray:
        array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
        pairs = zip(shape, behind, strict=True)
        axes = tuple(axis for axis, (before, after) in enumerate(pairs) if axis and before != after)
        return array.mean(axis=axes, keepdims=True)

    return spread


def _reshaping(shape: tuple, behind: tuple) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.broadcast_to(array, behind).reshape(shape)


def _part(call: Call, value: Value, behind: tuple) -> Callable[[np.ndarray], np.ndarray] | None:
    axis = call.operation.axis % len(behind)
    joined = values_of(call.args)
    if any(other.shape[axis] is None for other in joined):
        return None
    before = joined[: next(i for i, other in enumerate(joined) if other is value)]
    start = sum(other.shape[axis] or 0 for other in before)
    part = [slice(None)] * len(behind)
    part[axis] = slice(start, start + (value.shape[axis] or 0))

    def cut(array: np.ndarray) -> np.ndarray:
        array = array.reshape((1,) * (len(behind) - array.ndim) + array.shape)
        return array[tuple(part)] if array.shape[axis] > 1 else array

    return cut


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(length in (1, other) for length, other in pairs)


def _dtype(tensor: Any) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)


def _float64(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")
