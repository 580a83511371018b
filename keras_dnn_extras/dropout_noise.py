"""Dropout with noise that is given: which layers drop, in what shapes, and the masks of each sample.

A mask is a function of (seed, call of a layer, sample, and row where rows differ) alone. It is
drawn by NumPy, so that it does not depend on the backend, the batch, or how many samples run at once.
"""

import contextlib
import copy
import functools
import inspect
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from keras_dnn_extras.always_on import (
    draws_at_inference,
    dropping_class,
    is_known,
    known_class,
    likeness,
    way_out,
)
from keras_dnn_extras.attributes import replaced

_DROPOUT = (keras.layers.Dropout, keras.layers.AlphaDropout, keras.layers.GaussianDropout)
_ATTENTION = (keras.layers.Attention, keras.layers.AdditiveAttention)
_REPLACING = threading.Lock()  # of layers, which models may share: by one thread at a time
_SELU_LEAST = -1.6732632423543772 * 1.0507009873554805  # where SELU saturates


@dataclass(frozen=True)
class Request:
    """The noise that one call of a layer takes.

    Attributes:
        call: the place among all calls of such layers, in the order in which they are computed.
        shape: of a row's noise.
        rate: the share that is dropped.
        gaussian: whether the noise is normal, or says what is kept.
    """

    call: int
    shape: tuple[int, ...]
    rate: float
    gaussian: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def dropout_layers(model: keras.Model, lengths: Sequence[int] = ()) -> list[keras.layers.Layer]:
    """Return the layers of `model` that drop something in training, in the model's order.

    Args:
        lengths: of the axes of inputs that are there, which layers can be tried with.

    Raises:
        ValueError: a layer draws random numbers in a way of its own, or drops within a loop over time.
    """
    found: list[keras.layers.Layer] = []
    within: set[int] = set()  # layers of loops over time
    for layer in model._flatten_layers(include_self=False):
        if (
            not is_known(layer)
            and _draws(layer)
            and (not drops(layer) or likeness(layer, lengths) == "other")
        ):
            raise ValueError(
                f"The layer {layer.name!r} of class `{type(layer).__name__}` draws random numbers of its "
                f"own, which cannot be told apart by sample and input. "
                f"{untried(layer, lengths)}{way_out(layer)}. "
                f"Received: layer={layer}"
            )
        if id(layer) in within and isinstance(layer, _DROPOUT) and layer.rate > 0:
            raise ValueError(
                f"The layer {layer.name!r} drops within a loop over time, where each step would need a "
                "mask of its own. Apply it to the whole sequence, or use `dropout` and `recurrent_dropout` "
                f"of the recurrent layer. Received: layer={layer}"
            )
        if isinstance(layer, (keras.layers.RNN, keras.layers.TimeDistributed)):
            own = {id(inner) for inner in layer._flatten_layers(include_self=False)}
            within |= own - {id(_of_each_step(layer))}
        if drops(layer) and not (found and layer is _of_each_step(found[-1])):
            found.append(layer)
    return list(dict.fromkeys(found))


def plain_classes_of_own(model: keras.Model) -> dict[type, type]:
    """Return the class of Keras for each class of the user's own in `model` that draws in every call.

    Raises:
        ValueError: one draws in every call, and does more than the layer that it is made from.
    """
    classes = {}
    for layer in model._flatten_layers():
        base = dropping_class(layer)
        if base is None or type(layer) is known_class(layer) or not drops_within(layer):
            continue
        found = likeness(layer)
        if found == "always":
            classes[type(layer)] = base
        elif found == "other" and draws_at_inference(layer) is not False:
            raise ValueError(
                f"The layer {layer.name!r} of class `{type(layer).__name__}` draws random numbers in every "
                "call, and does more than a layer of Keras that could be put in its place. "
                f"{untried(layer)}{way_out(layer)}. Received: layer={layer}"
            )
    return classes


def untried(layer: Any, lengths: Sequence[int] = ()) -> str:
    """Return a remark on a layer that could not be called, of which the worst is supposed."""
    if draws_at_inference(layer, lengths) is not None:
        return ""
    return "That is only supposed, as it took no inputs that it was tried with. "


def drops_within(layer: Any) -> bool:
    """Return whether a layer, or one within it, drops something in training."""
    return any(map(drops, layer._flatten_layers()))


def _of_each_step(layer: Any) -> Any:
    """Return the dropout layer that `TimeDistributed` applies to each step, if it is no more than that."""
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else None
    plain = isinstance(inner, _DROPOUT) and getattr(inner, "noise_shape", None) is None
    return inner if plain and not hasattr(inner, "_get_noise_shape") else None


def drops(layer: Any) -> bool:
    """Return whether a layer itself drops something in training, apart from the layers within it."""
    if isinstance(layer, keras.layers.RNN):
        return any(cell.dropout > 0 or cell.recurrent_dropout > 0 for cell in _cells(layer))
    if isinstance(layer, _ATTENTION):
        return layer.dropout > 0
    layer = _of_each_step(layer) or layer
    return isinstance(layer, _DROPOUT) and layer.rate > 0


def _draws(layer: Any) -> bool:
    if isinstance(layer, DropoutRNNCell):  # which has a generator in any case, for masks that we replace
        return False
    return bool(getattr(layer, "_seed_generators", None))


def _cells(layer: keras.layers.RNN) -> list[Any]:
    return [cell for cell in layer._flatten_layers() if isinstance(cell, DropoutRNNCell)]


class DropoutNoise:
    """Dropout layers that take their noise from outside while they are called.

    Args:
        layers: those of `dropout_layers`.
    """

    def __init__(self, layers: list[keras.layers.Layer]):
        self._layers = layers
        self._calls = {id(r): _recurrent_call(r) for r in layers if isinstance(r, keras.layers.RNN)}
        self._thread = threading.local()

    @contextlib.contextmanager
    def recorded(self, requests: list[Request]) -> Iterator[None]:
        """While inside, note in `requests` what noise calls of the layers take: without any effect."""
        with self._in_place(lambda request: requests.append(request)):
            yield

    @contextlib.contextmanager
    def given(self, noise: list[Any]) -> Iterator[None]:
        """While inside, give `noise` to the calls of the layers, in the order of the requests.

        Args:
            noise: tensors of shape `(samples, rows, ...)`, where rows is 1 if all have the same. The
                inputs of the layers are rows of the first sample, then of the second, and so on.
        """
        left = iter(noise)
        with self._in_place(lambda request: next(left)):
            yield

    @contextlib.contextmanager
    def _in_place(self, take: Callable[[Request], Any]) -> Iterator[None]:
        places = itertools.count()

        def taken(layer: Any, shape: tuple, rate: float, gaussian: bool = False) -> Any:
            if None in shape:
                raise ValueError(
                    "Masks of an unknown shape cannot be drawn. Give the inputs of the model a shape "
                    f"without None. Received: layer={layer}, shape={shape}"
                )
            return take(Request(next(places), tuple(map(int, shape)), rate, gaussian))

        with _REPLACING, contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(self._replaced(layer, taken))
            self._thread.active = True
            try:
                yield
            finally:
                self._thread.active = False

    def _replaced(self, layer: Any, taken: Callable) -> Any:
        """Replace what `layer` calls for its randomness, in this thread: others may predict meanwhile."""
        outer, name = layer, "call"
        wrap: Callable
        if isinstance(layer, keras.layers.RNN):
            wrap = _recurrent
        elif isinstance(layer, _ATTENTION):
            name, wrap = "_apply_scores", _attention
        else:
            wrap = _dropout
            layer = _of_each_step(layer) or layer
        original = getattr(outer, name)
        own = wrap(layer, self._calls.get(id(layer), original), lambda *request: taken(outer, *request))

        def call(*args: Any, **kwargs: Any) -> Any:
            there = getattr(self._thread, "active", False)
            return own(*args, **kwargs) if there else original(*args, **kwargs)

        return replaced(outer, **{name: call})


def _recurrent_call(layer: Any) -> Callable:
    """Return what computes a recurrent layer in training, where its cells have their masks."""
    if not is_known(layer) and likeness(layer) != "other":
        return functools.partial(dropping_class(layer).call, layer, training=True)
    parameters = inspect.signature(layer.call).parameters
    takes_training = "training" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return functools.partial(layer.call, training=True) if takes_training else layer.call


def _dropout(layer: Any, _: Callable, taken: Callable) -> Callable:
    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        shape = tuple(inputs.shape)
        if isinstance(layer, keras.layers.GaussianDropout):
            noise = taken(shape[1:], layer.rate, True)
            return inputs if noise is None else _by_row(inputs, noise, ops.multiply)
        own = layer._get_noise_shape(inputs) if hasattr(layer, "_get_noise_shape") else layer.noise_shape
        if own is not None:
            own = (1,) * (len(shape) - len(own)) + tuple(own)
            shape = tuple(n if o is None else o for n, o in zip(shape, own, strict=True))
        noise = taken(shape[1:], layer.rate)
        if noise is None:
            return inputs
        kept = ops.cast(noise, inputs.dtype)
        if isinstance(layer, keras.layers.AlphaDropout):
            scale = ((1 - layer.rate) * (1 + layer.rate * _SELU_LEAST**2)) ** -0.5
            shift = _SELU_LEAST * (1 - kept) * scale - scale * _SELU_LEAST * layer.rate
            return _by_row(_by_row(inputs, kept * scale, ops.multiply), shift, ops.add)
        return _by_row(inputs, kept * _scale(layer.rate), ops.multiply)

    return call


def _attention(layer: Any, apply_scores: Callable, taken: Callable) -> Callable:
    def call(scores: Any, value: Any, scores_mask: Any = None, training: Any = False) -> Any:
        result, weights = apply_scores(scores, value, scores_mask=scores_mask, training=False)
        noise = taken(tuple(weights.shape)[1:], layer.dropout)
        if noise is None:
            return result, weights
        kept = ops.cast(noise, weights.dtype) * _scale(layer.dropout)
        weights = _by_row(weights, kept, ops.multiply)
        return ops.matmul(weights, value), weights

    return call


def _recurrent(layer: Any, original: Callable, taken: Callable) -> Callable:
    def call(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = tuple(sequences.shape)[2:]
        states = layer.get_initial_state(batch_size=1)
        cells = layer.cell.cells if hasattr(layer.cell, "cells") else [layer.cell]
        states = states if hasattr(layer.cell, "cells") else [states]
        with contextlib.ExitStack() as stack:
            for cell, state in zip(cells, states, strict=True):
                state = state[0] if isinstance(state, (list, tuple)) else state
                units = tuple(state.shape)[1:]
                if isinstance(cell, DropoutRNNCell):
                    stack.enter_context(_masks(cell, sequences, inputs, units, taken))
                inputs = units
            kwargs.pop("training", None)
            return original(sequences, *args, **kwargs)

    return call


def _masks(cell: Any, sequences: Any, inputs: tuple, units: tuple, taken: Callable) -> Any:
    """Give `cell` its masks, which are the same in all steps."""
    count = getattr(cell, "dropout_mask_count", None)

    def made(shape: tuple, rate: float) -> Any:
        if rate <= 0:
            return None
        noise = [taken(shape, rate) for _ in range(count or 1)]
        if noise[0] is None:
            masks = [ops.ones((1, *shape), cell.compute_dtype)] * len(noise)
        else:
            scaled = [ops.cast(kept, cell.compute_dtype) * _scale(rate) for kept in noise]
            rows = ops.ones_like(ops.reshape(sequences, (-1, math.prod(sequences.shape[1:])))[:, :1])
            rows = ops.reshape(ops.cast(rows, cell.compute_dtype), (-1, *[1] * len(shape)))
            masks = [_by_row(rows, mask, ops.multiply) for mask in scaled]
        return masks if count else masks[0]

    return replaced(
        cell,
        _dropout_mask=made(inputs, cell.dropout),
        _recurrent_dropout_mask=made(units, cell.recurrent_dropout),
    )


def _by_row(inputs: Any, noise: Any, function: Callable) -> Any:
    """Apply `function` to `inputs` of shape `(samples * rows, ...)` and `noise`, `(samples, rows, ...)`."""
    samples = noise.shape[0]
    shape = tuple(inputs.shape)[1:]
    result = function(ops.reshape(inputs, (samples, -1, *shape)), noise)
    return ops.reshape(result, (-1, *tuple(result.shape)[2:]))


def _scale(rate: float) -> float:
    return 1 / (1 - rate) if rate < 1 else 0.0


class Streams:
    """The noise of all requests, sample after sample.

    Args:
        seed: int >= 0.
        shared: whether all rows of a sample have the same.
        is_once: whether each sample is asked for once, where they are not shared: no generator is kept.
    """

    def __init__(self, seed: int, shared: bool, is_once: bool = False):
        self._seed = seed
        self._shared = shared
        self._is_once = is_once
        self._generators: dict[tuple, Any] = {}

    def draw(self, request: Request, first: int, samples: int, rows: int) -> np.ndarray:
        """Return the noise of `samples` samples from `first`, of shape `(samples, rows or 1, ...)`.

        With shared noise the samples have to be asked for in order; else of each sample the rows.
        """
        if self._shared:
            generator = self._generator(request)
            return _drawn(generator, request, samples).reshape(samples, 1, *request.shape)
        drawn = [_drawn(self._generator(request, k), request, rows) for k in range(first, first + samples)]
        return np.stack(drawn).reshape(samples, rows, *request.shape)

    def position(self) -> dict[tuple, Any]:
        """Return how far the noise is drawn, for `move_to`."""
        return copy.deepcopy(self._generators)

    def move_to(self, position: dict[tuple, Any]) -> None:
        """Go on behind the noise that was drawn up to `position`, by these streams or by equal ones."""
        self._generators = copy.deepcopy(position)

    def _generator(self, request: Request, *sample: int) -> np.random.Generator:
        key = (request.call, *sample)
        if key in self._generators:
            return self._generators[key]
        entropy = np.random.SeedSequence(self._seed, spawn_key=key)
        generator = np.random.Generator(np.random.SFC64(entropy))
        if self._shared or not self._is_once:
            self._generators[key] = generator
        return generator


def _drawn(generator: np.random.Generator, request: Request, count: int) -> np.ndarray:
    """Return the next `count` pieces of noise of the generator, the same ones however many come at once."""
    if request.gaussian:
        deviation = math.sqrt(request.rate / (1 - request.rate))
        noise = generator.standard_normal((count, request.size), "float32")
        return 1 + np.float32(deviation) * noise
    words = -(-request.size // 2)
    bits = (
        generator.bit_generator.random_raw(count * words)
        .astype("<u8")
        .view("<u4")
        .reshape(count, 2 * words)
    )
    return bits[:, : request.size] >= np.uint32(min(round(request.rate * 2**32), 2**32 - 1))
