"""Inputs that look like data: drawn by the statistics and vocabularies of the layers that take them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._graphs.equivalence import random_inputs, shape_of
from keras_dnn_extras._graphs.graph import Graph
from keras_dnn_extras._graphs.likeness import NoInputsError, ids_of, likeness_of

SIZES = (32, 64, 16, 128, 224, 8, 299, 4, 2, 1)  # of axes of unknown length, one after the other
LONG_SIZES = tuple(2**power for power in range(9, 17))  # where a layer cuts off thousands of steps
LARGEST = 2**22  # numbers in a row


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
    return drawn(graph, size, seed, tensors)


def drawn(graph: Graph, size: int, seed: int = 0, tensors: Sequence[Any] | None = None) -> list[Any]:
    """Return an array for each input of a graph, as `like_data`, by what its calls do with it.

    Args:
        tensors: whose shapes and dtypes the arrays have, or None: the inputs.
    """
    rng = np.random.default_rng(seed)
    shown: Sequence[Any] = graph.inputs if tensors is None else tensors
    arrays = random_inputs(shown, size, seed)
    for place, (value, tensor) in enumerate(zip(graph.inputs, shown, strict=True)):
        likeness = likeness_of(value, graph)
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


def _by_embeddings(model: Any, tensors: Sequence[Any], size: int, seed: int) -> list[Any]:
    """Return inputs for a model of a `call` of its own: ids that all of its embeddings have."""
    arrays, ids, rng = random_inputs(tensors, size, seed), ids_of(model), np.random.default_rng(seed)
    for place, tensor in enumerate(tensors):
        if ids is not None and "int" in _dtype(tensor):
            arrays[place] = ids.draw(rng, shape_of(tensor, size), _dtype(tensor))
    return arrays


def _dtype(tensor: Any) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)
