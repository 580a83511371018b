"""Dropout layers that take their masks from outside."""

import contextlib
import functools
import inspect
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from keras_dnn_extras._keras_internals import replaced
from keras_dnn_extras.uncertainty.dropout_layers import ATTENTION, layer_of_each_step
from keras_dnn_extras.uncertainty.dropout_subclasses import dropping_class, is_known, likeness
from keras_dnn_extras.uncertainty.masks import Request

_REPLACING = threading.Lock()  # of layers, which models may share: by one thread at a time
_SELU_LEAST = -1.6732632423543772 * 1.0507009873554805  # where SELU saturates


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
        elif isinstance(layer, ATTENTION):
            name, wrap = "_apply_scores", _attention
        else:
            wrap = _dropout
            layer = layer_of_each_step(layer) or layer
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
