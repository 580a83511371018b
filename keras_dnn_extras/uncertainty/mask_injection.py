"""Dropout layers that take their masks from outside."""

import contextlib
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_dnn_extras._keras_internals import (
    WEIGHTED_SUM,
    is_dropout_cell,
    noise_shape_of,
    replaced_in_thread,
)
from keras_dnn_extras.uncertainty.dropout_layers import ATTENTION, layer_of_each_step
from keras_dnn_extras.uncertainty.dropout_subclasses import dropping_class, is_known, likeness
from keras_dnn_extras.uncertainty.masks import Request

_SELU_LEAST = -1.6732632423543772 * 1.0507009873554805  # where SELU saturates


class DropoutNoise:
    """Dropout layers that take their noise from outside while they are called, in one thread.

    Other threads may predict with the same layers meanwhile, or sample with noise of their own.

    Args:
        layers: those of `dropout_layers`.
    """

    def __init__(self, layers: list[keras.layers.Layer]):
        self._layers = layers
        self._in_training = {id(r): _in_training(r) for r in layers if isinstance(r, keras.layers.RNN)}

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

        def noise_for(layer: Any, shape: tuple, rate: float, gaussian: bool = False) -> Any:
            if None in shape:
                raise ValueError(
                    "Masks of an unknown shape cannot be drawn. Give the inputs of the model a shape "
                    f"without None. Received: layer={layer}, shape={shape}"
                )
            return take(Request(next(places), tuple(map(int, shape)), rate, gaussian))

        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(self._replaced(layer, functools.partial(noise_for, layer)))
            yield

    def _replaced(self, layer: Any, noise_for: Callable) -> Any:
        """Replace what `layer` calls for its randomness."""
        if isinstance(layer, keras.layers.RNN):
            in_training = self._in_training[id(layer)]
            return replaced_in_thread(
                layer, "call", lambda original: _recurrent(layer, in_training(original), noise_for)
            )
        if isinstance(layer, ATTENTION):
            return replaced_in_thread(
                layer, WEIGHTED_SUM, lambda original: _attention(layer, original, noise_for)
            )
        dropout = layer_of_each_step(layer) or layer
        return replaced_in_thread(layer, "call", lambda original: _dropout(dropout, noise_for))


def _in_training(layer: Any) -> Callable[[Callable], Callable]:
    """Return what makes of the `call` of a recurrent layer the one in training: cells have masks there."""
    if not is_known(layer) and likeness(layer) != "other":
        return lambda call: functools.partial(dropping_class(layer).call, layer, training=True)
    parameters = inspect.signature(layer.call).parameters
    takes_training = "training" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return lambda call: functools.partial(call, training=True) if takes_training else call


def _dropout(layer: Any, noise_for: Callable) -> Callable:
    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        shape = tuple(inputs.shape)
        if isinstance(layer, keras.layers.GaussianDropout):
            noise = noise_for(shape[1:], layer.rate, True)
            return inputs if noise is None else _by_row(inputs, noise, ops.multiply)
        noise_shape = noise_shape_of(layer, inputs)
        if noise_shape is not None:
            noise_shape = (1,) * (len(shape) - len(noise_shape)) + tuple(noise_shape)
            shape = tuple(n if m is None else m for n, m in zip(shape, noise_shape, strict=True))
        noise = noise_for(shape[1:], layer.rate)
        if noise is None:
            return inputs
        mask = ops.cast(noise, inputs.dtype)
        if isinstance(layer, keras.layers.AlphaDropout):
            scale = ((1 - layer.rate) * (1 + layer.rate * _SELU_LEAST**2)) ** -0.5
            shift = _SELU_LEAST * (1 - mask) * scale - scale * _SELU_LEAST * layer.rate
            return _by_row(_by_row(inputs, mask * scale, ops.multiply), shift, ops.add)
        return _by_row(inputs, mask * _scale(layer.rate), ops.multiply)

    return call


def _attention(layer: Any, apply_scores: Callable, noise_for: Callable) -> Callable:
    def call(scores: Any, value: Any, scores_mask: Any = None, training: Any = False) -> Any:
        result, weights = apply_scores(scores, value, scores_mask=scores_mask, training=False)
        noise = noise_for(tuple(weights.shape)[1:], layer.dropout)
        if noise is None:
            return result, weights
        mask = ops.cast(noise, weights.dtype) * _scale(layer.dropout)
        weights = _by_row(weights, mask, ops.multiply)
        return ops.matmul(weights, value), weights

    return call


def _recurrent(layer: Any, original: Callable, noise_for: Callable) -> Callable:
    def call(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = tuple(sequences.shape)[2:]
        states = layer.get_initial_state(batch_size=1)
        cells = layer.cell.cells if hasattr(layer.cell, "cells") else [layer.cell]
        states = states if hasattr(layer.cell, "cells") else [states]
        with contextlib.ExitStack() as stack:
            for cell, state in zip(cells, states, strict=True):
                state = state[0] if isinstance(state, (list, tuple)) else state
                units = tuple(state.shape)[1:]
                if is_dropout_cell(cell):
                    stack.enter_context(_masks(cell, sequences, inputs, units, noise_for))
                inputs = units
            kwargs.pop("training", None)
            return original(sequences, *args, **kwargs)

    return call


@contextlib.contextmanager
def _masks(cell: Any, sequences: Any, inputs: tuple, units: tuple, noise_for: Callable) -> Iterator[None]:
    """Give `cell` its masks, which are the same in all steps."""
    of_inputs = _mask(cell, sequences, inputs, cell.dropout, noise_for)
    of_states = _mask(cell, sequences, units, cell.recurrent_dropout, noise_for)
    with (
        replaced_in_thread(cell, "get_dropout_mask", lambda _: lambda step_input: of_inputs),
        replaced_in_thread(cell, "get_recurrent_dropout_mask", lambda _: lambda step_input: of_states),
    ):
        yield


def _mask(cell: Any, sequences: Any, shape: tuple, rate: float, noise_for: Callable) -> Any:
    """Return a mask of the rows of `sequences`, or as many as the kernel of `cell` has parts."""
    if rate <= 0:
        return None
    count = getattr(cell, "dropout_mask_count", None)
    noise = [noise_for(shape, rate) for _ in range(count or 1)]
    if noise[0] is None:
        masks = [ops.ones((1, *shape), cell.compute_dtype)] * len(noise)
    else:
        scaled = [ops.cast(mask, cell.compute_dtype) * _scale(rate) for mask in noise]
        rows = ops.ones_like(ops.reshape(sequences, (-1, math.prod(sequences.shape[1:])))[:, :1])
        rows = ops.reshape(ops.cast(rows, cell.compute_dtype), (-1, *[1] * len(shape)))
        masks = [_by_row(rows, mask, ops.multiply) for mask in scaled]
    return masks if count else masks[0]


def _by_row(inputs: Any, noise: Any, function: Callable) -> Any:
    """Apply `function` to `inputs` of shape `(samples * rows, ...)` and `noise`, `(samples, rows, ...)`."""
    samples = noise.shape[0]
    shape = tuple(inputs.shape)[1:]
    result = function(ops.reshape(inputs, (samples, -1, *shape)), noise)
    return ops.reshape(result, (-1, *tuple(result.shape)[2:]))


def _scale(rate: float) -> float:
    return 1 / (1 - rate) if rate < 1 else 0.0
