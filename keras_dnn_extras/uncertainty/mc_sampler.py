"""Models divided into what is computed once and what is sampled, both compiled for one shape of inputs."""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from keras.src.models.functional import Functional

from keras_dnn_extras._backends import compiled
from keras_dnn_extras._graphs import Call, Graph, Value, fill_in, is_of_probabilities, output_activations
from keras_dnn_extras._models import build
from keras_dnn_extras.uncertainty.dropout_layers import dropout_layers
from keras_dnn_extras.uncertainty.mask_injection import DropoutNoise
from keras_dnn_extras.uncertainty.masks import Request, Streams
from keras_dnn_extras.uncertainty.mc_tally import Reading, Tally
from keras_dnn_extras.uncertainty.thinned_network import Thinned
from keras_dnn_extras.uncertainty.traced_settings import are_same, settings_in

_ROWS = 4096  # samples times inputs that go through the model at once: more gain nothing
_THINNED = 256  # inputs from which on it pays to cut the kernels of each sample out
_BYTES = 2**26  # of tensors that are there at once, as far as one can tell
_CACHED = 2**25  # bytes of masks that all batches share
_SHAPES = 32  # of inputs, for which samplers are kept
_KEPT = "_keras_dnn_extras_samplers"  # the attribute of a model that holds them


def samplers_of(model: keras.Model, batch: Any) -> "Samplers":
    """Return the samplers of `model`, built for `batch`: those of last time, if it is still the same."""
    build(model, batch)
    known = vars(model).get(_KEPT)
    if known is None or not known.are_of(model):
        known = vars(model)[_KEPT] = Samplers(model)  # past Keras, which would track it
    return known


class Samplers:
    """The samplers of a model, one for each shape, dtype and structure of its inputs.

    What was traced holds the numbers and functions that the layers had: with others, these are void.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._settings = settings_in(model)
        self._by_inputs: dict[Any, Sampler] = {}

    def are_of(self, model: keras.Model) -> bool:
        """Return whether `model` still has the layers, and its layers the attributes, that they had."""
        return are_same(settings_in(model), self._settings)

    def note(self) -> None:
        """Take what the layers hold now for what they had: a layer may keep something of a call."""
        self._settings = settings_in(self._model)

    def of(self, batch: Any, from_logits: Any) -> "Sampler":
        """Return the sampler for inputs like those of `batch`."""
        kinds = tree.map_structure(lambda array: (array.shape[1:], str(array.dtype)), batch)
        key = repr((kinds, from_logits))
        sampler = self._by_inputs.pop(key, None) or Sampler(self._model, batch, from_logits)
        self._by_inputs[key] = sampler  # the last used one is the last
        if len(self._by_inputs) > _SHAPES:
            del self._by_inputs[next(iter(self._by_inputs))]
        return sampler


class Sampler:
    """A model divided into what is computed once and what is sampled, both compiled.

    Attributes:
        head: computes of inputs the tensors at the border.
        requests: what noise the tail takes.
        structure: that of the outputs.
        readings: how each output is read, flat.
        rows: how many inputs times samples should go through the tail at once.
    """

    def __init__(self, model: keras.Model, batch: Any, from_logits: Any = False):
        lengths = {length for array in tree.flatten(batch) for length in array.shape}
        layers = dropout_layers(model, sorted(lengths))
        if not layers:
            raise ValueError(
                "There is no dropout in the model, all samples would be the same. Add a layer such as "
                f"`keras.layers.Dropout` or `MCDropout`, and train with it. Received: model={model}"
            )
        _refuse_fixed_batches(model)
        self._noise = DropoutNoise(layers)
        row = tree.map_structure(lambda array: array[:1], batch)
        graph = Graph.of(model)
        self.requests: list[Request] = []
        places: dict[Call, int] = {}
        if graph is None:
            head, self._tail = tree.flatten, _whole(model, row)
        else:
            ids = set(map(id, layers))
            first, values, last = graph.split(lambda operation: _has(operation, ids))
            _refuse_sums_over_rows(last)
            head = _first(graph, first, values)

            def run(known: dict[Value, Any]) -> None:
                for call in last:
                    places.setdefault(call, len(self.requests))
                    call.run(known)

            self._tail = _last(graph, values, run)
        self.head = compiled(head, model)
        border = self.head(row)
        self._by_row = [True] * len(border) if graph is None else [value.has_batch for value in values]
        with self._noise.recorded(self.requests):
            found = compiled(self._tail, model)(border)
        if not self.requests:
            raise ValueError(
                "No dropout in the model takes part in its outputs, all samples would be the same. "
                f"Received: model={model}"
            )
        self.structure = tree.map_structure(lambda _: 0, found)
        found = tree.flatten(found)
        self.readings = _readings(graph, found, _flat_logits(from_logits, self.structure))
        sizes = [math.prod(tuple(tensor.shape)[1:]) for tensor in (*border, *found)]
        sizes += [request.size for request in self.requests]
        self.rows = max(1, min(_ROWS, _BYTES // (4 * sum(sizes))))
        self._thinned: tuple[Thinned, Callable] | None = None
        if graph is not None and keras.backend.backend() != "jax":  # where shapes may not vary by sample
            thinned = Thinned(last, graph.outputs, places)
            if thinned.saves:
                self._thinned = thinned, _last(graph, values, thinned.run)
        self._tails = {
            (thin, keep): compiled(functools.partial(self._sums_and_samples, thin, keep), model)
            for thin in (False, True)
            for keep in (False, True)
        }

    def _samples(self, border: list, noise: list) -> list:
        """Return the outputs of all samples, each of shape `(samples, rows, ...)`."""
        count = noise[0].shape[0]
        border = [
            _repeated(tensor, count) if by_row else tensor
            for tensor, by_row in zip(border, self._by_row, strict=True)
        ]
        with self._noise.given(noise):
            found = tree.flatten(self._tail(border))
        return [ops.reshape(output, (count, -1, *tuple(output.shape)[1:])) for output in found]

    def _thinned_samples(self, border: list, noise: list) -> list:
        """Return the same with masks that all rows share, one sample after the other."""
        if self._thinned is None:
            raise RuntimeError("There is nothing to leave out: ask `thins` first.")
        count, (thinned, tail) = noise[0].shape[0], self._thinned
        kernels = thinned.kernels()

        def sample(k: Any) -> list:
            own = [tensor[k] for tensor in noise]
            with self._noise.given([n[None] for i, n in enumerate(own) if i not in thinned.places]):
                return tree.flatten(tail(border, lambda place: ops.reshape(own[place], (-1,)), kernels))

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            kinds = [tf.TensorSpec((None, *reading.shape), reading.dtype) for reading in self.readings]
            return tf.map_fn(sample, tf.range(count), fn_output_signature=kinds, parallel_iterations=4)
        found = [sample(k) for k in range(count)]
        return [ops.stack(outputs) for outputs in zip(*found, strict=True)]

    def thins(self, rows: int, shared: bool) -> bool:
        """Return whether what is dropped is left out of the arithmetic."""
        return self._thinned is not None and shared and rows >= _THINNED

    def tail(self, border: list, noise: list, *, thin: bool, keep: bool) -> tuple[Any, list]:
        """Compute of the tensors at the border and of noise what all samples say together: one vector.

        Returns:
            It, and the samples if they are to be kept.
        """
        return self._tails[thin, keep](border, noise)

    def _sums_and_samples(self, thin: bool, keep: bool, border: list, noise: list) -> tuple[Any, list]:
        found = (self._thinned_samples if thin else self._samples)(border, noise)
        found = [reading.read(output) for reading, output in zip(self.readings, found, strict=True)]
        return self._sums(found), found if keep else []

    def _sums(self, outputs: list) -> Any:
        """Return in one vector, which is one transfer, the pieces that `Tally.add` takes apart."""
        is_double = any(reading.dtype == "float64" for reading in self.readings)
        pieces = [
            piece
            for reading, output in zip(self.readings, outputs, strict=True)
            for piece in reading.pieces(ops.cast(output, "float64" if is_double else "float32"))
        ]
        return ops.concatenate([ops.reshape(piece, (-1,)) for piece in pieces])

    def bytes_of(self, samples: int, rows: int) -> int:
        """Return how much memory all samples of so many rows take."""
        sizes = [
            np.dtype(reading.read_dtype).itemsize * math.prod(reading.shape) for reading in self.readings
        ]
        return samples * rows * sum(sizes)


class Part:
    """One batch, and what its samples say so far."""

    def __init__(self, sampler: Sampler, noise: "Noise", batch: Any, rows: int, keep_samples: bool):
        own = len(tree.flatten(batch)[0])
        self.sampler, self.keep_samples = sampler, keep_samples
        self._own, self._rows = own, max(own, rows)
        self._draw = noise.of_batch(sampler.requests)
        self._thin = sampler.thins(self._rows, noise.shared)
        if own < rows:  # the last one: a trace for its shape would take longer
            batch = tree.map_structure(
                lambda array: np.concatenate([array] + [array[-1:]] * (rows - own)), batch
            )
        self._border = sampler.head(batch)
        self.tallies = [Tally(reading, own) for reading in sampler.readings]
        self._count = 0

    def sample(self, until: int) -> None:
        """Take samples until there are so many."""
        left = until - self._count
        most = 8 if self._thin else max(1, self.sampler.rows // self._rows)
        chunks = -(-left // most)
        size = -(-left // chunks)
        while self._count < until:
            self._take(min(size, until - self._count))

    def _take(self, count: int) -> None:
        noise = self._draw(self._count, count, self._own, self._rows)
        self._count += count
        sums, samples = self.sampler.tail(self._border, noise, thin=self._thin, keep=self.keep_samples)
        for tally, sample in zip(self.tallies, samples, strict=False):
            tally.samples.append(ops.convert_to_numpy(sample)[:, : self._own])
        sums, start = ops.convert_to_numpy(sums), 0
        for tally in self.tallies:
            start = tally.add(sums, start, self._rows, count)

    def finished(self) -> "Part":
        """Forget what only further samples need."""
        del self._border, self._draw
        return self


class Noise:
    """The noise of all batches.

    Args:
        seed: int >= 0.
        shared: whether all rows of a sample have the same.
        is_of_one_batch: whether there is only one.
    """

    def __init__(self, seed: int, shared: bool, is_of_one_batch: bool):
        self._seed, self.shared = seed, shared
        self._streams = Streams(seed, shared, is_of_one_batch)
        self._kept: dict[tuple, tuple[list, dict]] = {}

    def of_batch(self, requests: list[Request]) -> Callable[[int, int, int, int], list]:
        """Return a function of (first sample, samples, rows, rows to pad to) that draws a batch's noise."""
        streams = Streams(self._seed, shared=True) if self.shared else self._streams
        size = sum(request.size * (4 if request.gaussian else 1) for request in requests)
        position: dict | None = None  # behind noise that was not drawn here, as it was kept

        def draw(first: int, samples: int, rows: int, padded: int) -> list:
            nonlocal position
            if not self.shared:
                return [_padded(streams.draw(r, first, samples, rows), padded) for r in requests]
            key = (*requests, first, samples)
            if key in self._kept:
                noise, position = self._kept[key]
                return noise
            if position is not None:
                streams.move_to(position)
                position = None
            noise = [ops.convert_to_tensor(streams.draw(r, first, samples, 1)) for r in requests]
            if (first + samples) * size <= _CACHED:
                self._kept[key] = noise, streams.position()
            return noise

        return draw


def _padded(noise: np.ndarray, rows: int) -> np.ndarray:
    missing = rows - noise.shape[1]
    return np.pad(noise, [(0, 0), (0, missing)] + [(0, 0)] * (noise.ndim - 2)) if missing else noise


def _first(graph: Graph, calls: list[Call], border: list[Value]) -> Callable[[Any], list]:
    def run(batch: Any) -> list:
        known = dict(zip(graph.inputs, graph.standardized(batch), strict=True))
        for call in calls:
            call.run(known)
        return [known[value] for value in border]

    return run


def _last(graph: Graph, border: list[Value], run: Callable) -> Callable:
    """Return a function of the tensors at the border, and what else `run` takes, of the outputs."""

    def tail(tensors: list, *others: Any) -> Any:
        known = dict(zip(border, tensors, strict=True))
        run(known, *others)
        return fill_in(graph.outputs, known)

    return tail


def _whole(model: keras.Model, row: Any) -> Callable[[list], Any]:
    """Return the tail of a model whose `call` is its own: all of it."""
    training = {"training": False} if model._call_has_training_arg else {}
    return lambda tensors: model(tree.pack_sequence_as(row, tensors), **training)


def _has(operation: Any, ids: set[int]) -> bool:
    """Return whether an operation is one of certain layers, or has one within it."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    return any(id(layer) in ids for layer in operation._flatten_layers())


def _repeated(tensor: Any, count: int) -> Any:
    shape = tuple(tensor.shape)
    return ops.reshape(ops.broadcast_to(tensor[None], (count, *shape)), (count * shape[0], *shape[1:]))


def _flat_logits(from_logits: Any, structure: Any) -> list[bool]:
    """Return for each output whether it is of logits."""
    if isinstance(from_logits, (bool, np.bool_)):
        return [bool(from_logits)] * len(tree.flatten(structure))
    try:
        tree.assert_same_structure(from_logits, structure)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "Expected `from_logits` to be a bool, or bools in the structure of the outputs, which is "
            f"{tree.map_structure(lambda _: 'bool', structure)}. Received: from_logits={from_logits!r}"
        ) from error
    return list(map(bool, tree.flatten(from_logits)))


def _readings(graph: Graph | None, outputs: list, logits: list[bool]) -> list[Reading]:
    """Return how outputs are read: those that are probabilities by their activation are no logits."""
    activations = [None] * len(outputs) if graph is None else output_activations(graph)
    return [
        Reading(
            tuple(output.shape)[1:],
            keras.backend.standardize_dtype(output.dtype),
            activation,
            is_of_logits and not is_of_probabilities(activation),
        )
        for output, activation, is_of_logits in zip(outputs, activations, logits, strict=True)
    ]


def _refuse_sums_over_rows(calls: list[Call]) -> None:
    for call in calls:
        if not all(value.has_batch for value in call.outputs):
            name = getattr(call.operation, "name", call.operation)
            raise ValueError(
                f"`{name}` takes all rows of a batch together, and so would mix samples. Compute it before "
                "the first dropout, or outside of the model. "
                f"Received: shapes {[value.shape for value in call.outputs]}"
            )


def _refuse_fixed_batches(model: keras.Model) -> None:
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) and isinstance(layer, keras.layers.RNN):
            raise ValueError(
                "Samples of a stateful recurrent layer would change its states. Rebuild the model with "
                f"`stateful=False`. Received: layer={layer}"
            )
        if isinstance(layer, Functional) and any(tensor.shape[0] is not None for tensor in layer.inputs):
            raise ValueError(
                "Samples go through the model together, in larger batches than that of the model, which is "
                "fixed. Rebuild it with `Input(shape)` without a batch size. "
                f"Received: model={layer}, inputs={layer.inputs}"
            )
