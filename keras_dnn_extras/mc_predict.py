"""Monte-Carlo predictions: many thinned networks at the price of a few."""

import functools
import math
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import ml_dtypes
import numpy as np
from keras import ops, tree
from keras.src.models.functional import Functional

from keras_dnn_extras.arguments import check_bool, check_number, check_positive, check_verbose
from keras_dnn_extras.batches import batches, number_of_batches, with_first
from keras_dnn_extras.compiled import compiled
from keras_dnn_extras.dropout_noise import DropoutNoise, Request, Streams, dropout_layers
from keras_dnn_extras.model_state import build
from keras_dnn_extras.surgery import Call, Graph, Value, fill_in
from keras_dnn_extras.thinned import Thinned
from keras_dnn_extras.uncertainty import Moments, predictive_entropy
from keras_dnn_extras.wording import counted

_FEWEST = 20  # samples before the standard error is believed, and between two looks at it
_ROWS = 4096  # samples times inputs that go through the model at once: more gain nothing
_THINNED = 256  # inputs from which on it pays to cut the kernels of each sample out
_BYTES = 2**26  # of tensors that are there at once, as far as one can tell
_CACHED = 2**25  # bytes of masks that all batches share
_KEPT = "_keras_dnn_extras_sampler"  # the attribute of a model that holds its sampler


@dataclass(frozen=True)
class MCPrediction:
    """What the samples of `mc_predict` say. Each field has the structure of the model's outputs.

    Attributes:
        mean: of the samples, as the outputs of `predict`.
        variance: over the samples, divided by their number.
        num_samples: an int.
        expected_entropy: mean of the entropies of the samples, in nats: the aleatoric part, what more data
            would not change. This and the next one are without the last axis, and None for outputs that are
            no class probabilities: whose last axis has a single entry, or does not sum to 1.
        variation_ratio: the share of samples whose class is not the most frequent one.
        samples: of shape `(samples, n, ...)`, with `keep_samples=True`, else None.
    """

    mean: Any
    variance: Any
    num_samples: int
    expected_entropy: Any
    variation_ratio: Any
    samples: Any = None

    @property
    def std(self) -> Any:
        """Standard deviation over the samples."""
        return tree.map_structure(np.sqrt, self.variance)

    @property
    def standard_error(self) -> Any:
        """Of the mean: `std / sqrt(num_samples)`."""
        return tree.map_structure(lambda std: std / math.sqrt(self.num_samples), self.std)

    @property
    def predictive_entropy(self) -> Any:
        """Entropy of the mean, in nats: all the uncertainty. None where there are no probabilities."""
        return tree.map_structure(
            lambda mean, other: None if other is None else predictive_entropy(mean),
            self.mean,
            self.expected_entropy,
        )

    @property
    def mutual_information(self) -> Any:
        """`predictive_entropy - expected_entropy`, at least 0: the epistemic part, which more data reduces.

        Of few samples it is too small: about `1 - 1 / num_samples` of what it would be of many.
        """
        return tree.map_structure(
            lambda total, expected: None if total is None else np.maximum(total - expected, 0),
            self.predictive_entropy,
            self.expected_entropy,
        )

    def quantile(self, q: Any) -> Any:
        """Return the quantiles `q` over the samples, as `numpy.quantile` does.

        Args:
            q: float or list of floats in [0, 1].

        Raises:
            ValueError: the samples were not kept.
        """
        if self.samples is None:
            raise ValueError(
                "Quantiles need all samples. Pass `keep_samples=True` to `mc_predict`. "
                "Received: samples=None"
            )
        return tree.map_structure(lambda samples: np.quantile(samples, q, axis=0), self.samples)


def mc_predict(
    model: keras.Model,
    x: Any,
    samples: int = 100,
    *,
    batch_size: int = 32,
    seed: int | None = None,
    masks: str = "shared",
    tolerance: float | None = None,
    max_samples: int | None = None,
    keep_samples: bool = False,
    verbose: int = 0,
) -> MCPrediction:
    """Predict with dropout active, many times, and tell mean, spread and uncertainty.

    All dropout is active: layers, those within nested models and wrappers, `dropout` and
    `recurrent_dropout` of recurrent layers, attention dropout; of a plain model as of one of MC layers. The
    rest is in inference mode, BatchNormalization with its moving averages. Nothing of the model changes,
    but that one which was not built is built.

    What lies before the first dropout is computed once for each batch of inputs, and only the rest is
    sampled. Masks depend on `seed`, the number of the sample, the place of the layer, and with
    `masks="independent"` the row alone, not on the layers' own seeds, the backend, or `batch_size`.

    Args:
        model: a Keras model, functional, sequential or subclassed, compiled or not.
        x: as for `predict`: arrays in the structure of the inputs, `tf.data.Dataset`, `PyDataset`,
            generator, torch `DataLoader`.
        samples: int > 0.
        batch_size: int > 0, inputs at a time. Datasets have their own.
        seed: int >= 0 or None, which draws one, repeatable with `keras.utils.set_random_seed`.
        masks: `"shared"`: sample k is one thinned network for all inputs, so that results do not depend on
            the order of the rows. `"independent"`: each input has its own masks.
        tolerance: float > 0 or None: sample until the largest standard error of all outputs is below it, at
            least 20 and at most `max_samples` times, in steps of 20, instead of `samples` times. What lies
            before the first dropout is kept in memory for all inputs.
        max_samples: int >= 20 or None, which is ten times `samples`.
        keep_samples: bool, whether to return all samples, too.
        verbose: 1 shows a progress bar.

    Returns:
        An `MCPrediction`.

    Raises:
        ValueError: an argument is out of its range, the model has no dropout in it, there is no input, or
            a layer draws random numbers that cannot be told apart by sample.
        TypeError: an argument is of the wrong type.

    Example:

    >>> import numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> layers = [keras.layers.Dense(30, activation="relu"), keras.layers.Dropout(0.2)]
    >>> model = keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])
    >>> prediction = mc_predict(model, np.ones((5, 4)), samples=50)
    >>> prediction.mean.shape, prediction.mutual_information.shape
    ((5, 3), (5,))
    >>> bool((prediction.std > 0).all())
    True

    Reference:
        Gal & Ghahramani, Dropout as a Bayesian Approximation, 2016 (https://arxiv.org/abs/1506.02142).
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected `model` to be a Keras model. Received: model={model!r}")
    check_positive("samples", samples, Integral)
    check_positive("batch_size", batch_size, Integral)
    if seed is not None:
        check_number("seed", seed, "at least 0", lambda value: value >= 0, Integral)
    if masks not in ("shared", "independent"):
        raise ValueError(f'Expected `masks` to be "shared" or "independent". Received: masks={masks!r}')
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    if max_samples is not None:
        check_number("max_samples", max_samples, f"at least {_FEWEST}", lambda v: v >= _FEWEST, Integral)
        if tolerance is None:
            raise ValueError(
                "`max_samples` limits what `tolerance` asks for. Pass both. "
                f"Received: max_samples={max_samples}"
            )
    check_bool("keep_samples", keep_samples)
    check_verbose(verbose)
    first, found = with_first(batches(x, int(batch_size)))
    if first is None or not len(tree.flatten(first)[0]):
        raise ValueError(f"Expected `x` to have at least one row. Received: x={x!r}")
    sampler = _sampler(model, first)
    noise = _Noise(
        sampler.requests, random.getrandbits(31) if seed is None else int(seed), masks == "shared"
    )
    rows = min(int(batch_size), len(tree.flatten(first)[0]))
    parts = (_Part(sampler, noise, batch, rows, keep_samples) for batch in found)
    bar = keras.utils.Progbar(number_of_batches(x, int(batch_size)), verbose=verbose, unit_name="batch")
    done = []
    if tolerance is None:
        for part in parts:
            part.sample(int(samples))
            done.append(part.finished())
            bar.update(len(done), finalize=False)
    else:
        most = 10 * int(samples) if max_samples is None else int(max_samples)
        done = _sampled_until(tolerance, max(most, _FEWEST), list(parts), bar)
    bar.update(len(done), finalize=True)
    return sampler.prediction(done)


def _sampled_until(tolerance: float, most: int, parts: list["_Part"], bar: Any) -> list["_Part"]:
    count, error = 0, math.inf
    while count < most and not error < tolerance:
        count = min(count + _FEWEST, most)
        for part in parts:
            part.sample(count)
        error = max(float(tally.moments.standard_error.max()) for part in parts for tally in part.tallies)
        bar.update(len(parts), [("standard error", error)], finalize=False)
    if not error < tolerance:
        warnings.warn(
            f"The largest standard error after {counted(count, 'sample')} is {error:.3g}, not below "
            f"`tolerance` {tolerance:g}. Raise `max_samples` or the tolerance.",
            stacklevel=3,
        )
    return [part.finished() for part in parts]


def _sampler(model: keras.Model, batch: Any) -> "_Sampler":
    """Return the sampler of `model`: that of the last time, if the model is still the same."""
    build(model, batch)
    known = vars(model).get(_KEPT)
    if known is None or known.signature != _signature(model):
        known = vars(model)[_KEPT] = _Sampler(model, batch)  # past Keras, which would track it
    return known


def _signature(model: keras.Model) -> tuple:
    """Return what a sampler was made for: layers may be added to a model, and attributes set."""
    drops = ("rate", "dropout", "recurrent_dropout", "noise_shape")
    attributes = (*drops, "dtype_policy", "activation", "lora_enabled")
    return tuple(
        (id(layer), *(str(getattr(layer, name, None)) for name in attributes))
        for layer in model._flatten_layers()
    )


class _Sampler:
    """A model divided into what is computed once and what is sampled, both compiled.

    Attributes:
        head: computes of inputs the tensors at the border.
        requests: what noise the tail takes.
        outputs: shape and dtype of a row of each output, flat.
        rows: how many inputs times samples should go through the tail at once.
    """

    def __init__(self, model: keras.Model, batch: Any):
        layers = dropout_layers(model)
        if not layers:
            raise ValueError(
                "There is no dropout in the model, all samples would be the same. Add a layer such as "
                f"`keras.layers.Dropout` or `MCDropout`, and train with it. Received: model={model}"
            )
        _refuse_fixed_batches(model)
        self.signature = _signature(model)
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
        self._structure = tree.map_structure(lambda _: 0, found)
        found = tree.flatten(found)
        self.outputs = [(tuple(o.shape)[1:], keras.backend.standardize_dtype(o.dtype)) for o in found]
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

            kinds = [tf.TensorSpec((None, *shape), dtype) for shape, dtype in self.outputs]
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
        return self._sums(found), found if keep else []

    def _sums(self, outputs: list) -> Any:
        """Return in one vector, which is one transfer, the pieces that `Tally.add` takes apart."""
        pieces = []
        dtype = "float64" if any(dtype == "float64" for _, dtype in self.outputs) else "float32"
        for output in outputs:
            output = ops.cast(output, dtype)
            change = output - output[:1]
            pieces += [output[0], ops.sum(change, axis=0), ops.sum(ops.square(change), axis=0)]
            if _may_be_classes(tuple(output.shape)[2:]):
                classes = output.shape[-1]
                positive = ops.where(output > 0, output, ops.ones_like(output))
                votes = ops.one_hot(ops.argmax(output, axis=-1), classes, dtype=dtype)
                error = ops.max(ops.abs(ops.sum(output, axis=-1) - 1))
                entropies = -ops.sum(positive * ops.log(positive), axis=-1)
                pieces += [ops.sum(entropies, axis=0), ops.sum(votes, axis=0), ops.min(output), error]
        return ops.concatenate([ops.reshape(piece, (-1,)) for piece in pieces])

    def prediction(self, parts: list["_Part"]) -> MCPrediction:
        """Put the batches together."""

        def joined(of: Callable[[Tally], Any], axis: int = 0) -> Any:
            found = [[of(tally) for tally in part.tallies] for part in parts]
            flat = [
                None if pieces[0] is None else np.concatenate(pieces, axis=axis)
                for pieces in zip(*found, strict=True)
            ]
            return tree.pack_sequence_as(self._structure, flat)

        classes = [all(part.tallies[i].of_classes for part in parts) for i in range(len(self.outputs))]
        for part in parts:
            for tally, are_classes in zip(part.tallies, classes, strict=True):
                tally.of_classes = are_classes
        return MCPrediction(
            joined(lambda tally: tally.moments.mean),
            joined(lambda tally: tally.moments.variance),
            parts[0].tallies[0].moments.count,
            joined(lambda tally: tally.expected_entropy),
            joined(lambda tally: tally.variation_ratio),
            joined(lambda tally: np.concatenate(tally.samples), axis=1) if parts[0].keep_samples else None,
        )


class Tally:
    """What the samples of one output say so far, for one batch.

    Args:
        shape, dtype: of a row of the output.
        rows: how many.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, rows: int):
        self._shape, self._rows = shape, rows
        floating = keras.backend.is_float_dtype(dtype)
        self._tolerance = float(ml_dtypes.finfo(dtype if floating else "float32").eps) ** 0.5
        self.moments = Moments()
        self.of_classes = _may_be_classes(shape)
        self._entropies: Any = 0.0
        self._votes: Any = 0.0
        self.samples: list[np.ndarray] = []

    def add(self, sums: np.ndarray, start: int, padded: int, count: int) -> int:
        """Take the part of `sums` from `start` that tells of `count` samples, and return where it ends.

        Args:
            padded: rows in `sums`, of which the first ones are ours.
        """

        def take(*shape: int) -> np.ndarray:
            nonlocal start
            size = math.prod(shape)
            found = sums[start : start + size].reshape(shape)
            start += size
            return found

        def rows(shape: tuple[int, ...]) -> np.ndarray:
            return take(padded, *shape)[: self._rows].astype("float64")

        first, changes, squares = rows(self._shape), rows(self._shape), rows(self._shape)
        self.moments.add(count, first + changes / count, squares - np.square(changes) / count)
        if _may_be_classes(self._shape):
            self._entropies = self._entropies + rows(self._shape[:-1])
            self._votes = self._votes + rows(self._shape)
            least, error = take(2)
            self.of_classes &= bool(least >= 0 and error <= self._tolerance)
        return start

    @property
    def expected_entropy(self) -> Any:
        return self._entropies / self.moments.count if self.of_classes else None

    @property
    def variation_ratio(self) -> Any:
        return 1 - np.max(self._votes, axis=-1) / self.moments.count if self.of_classes else None


class _Part:
    """One batch, and what its samples say so far."""

    def __init__(self, sampler: _Sampler, noise: "_Noise", batch: Any, rows: int, keep_samples: bool):
        own = len(tree.flatten(batch)[0])
        self._sampler, self._noise, self.keep_samples = sampler, noise, keep_samples
        self._own, self._rows = own, max(own, rows)
        self._draw = noise.of_batch()
        self._thin = sampler.thins(self._rows, noise.shared)
        if own < rows:  # the last one: a trace for its shape would take longer
            batch = tree.map_structure(
                lambda array: np.concatenate([array] + [array[-1:]] * (rows - own)), batch
            )
        self._border = sampler.head(batch)
        self.tallies = [Tally(shape, dtype, own) for shape, dtype in sampler.outputs]
        self._count = 0

    def sample(self, until: int) -> None:
        """Take samples until there are so many."""
        left = until - self._count
        most = 8 if self._thin else max(1, self._sampler.rows // self._rows)
        chunks = -(-left // most)
        size = -(-left // chunks)
        while self._count < until:
            self._take(min(size, until - self._count))

    def _take(self, count: int) -> None:
        noise = self._draw(self._count, count, self._own, self._rows)
        self._count += count
        sums, samples = self._sampler.tail(self._border, noise, thin=self._thin, keep=self.keep_samples)
        for tally, sample in zip(self.tallies, samples, strict=False):
            tally.samples.append(ops.convert_to_numpy(sample)[:, : self._own])
        sums, start = ops.convert_to_numpy(sums), 0
        for tally in self.tallies:
            start = tally.add(sums, start, self._rows, count)

    def finished(self) -> "_Part":
        """Forget what only further samples need."""
        del self._border, self._draw
        return self


class _Noise:
    """The noise of all batches."""

    def __init__(self, requests: list[Request], seed: int, shared: bool):
        self._requests, self._seed, self.shared = requests, seed, shared
        self._streams = Streams(seed, shared)
        self._size = sum(request.size * (4 if request.gaussian else 1) for request in requests)
        self._kept: dict[tuple[int, int], list] = {}

    def of_batch(self) -> Callable[[int, int, int, int], list]:
        """Return a function of (first sample, samples, rows, rows to pad to) that draws a batch's noise."""
        streams = Streams(self._seed, shared=True) if self.shared else self._streams

        def draw(first: int, samples: int, rows: int, padded: int) -> list:
            if not self.shared:
                return [_padded(streams.draw(r, first, samples, rows), padded) for r in self._requests]
            if (first, samples) in self._kept:
                return self._kept[first, samples]
            noise = [ops.convert_to_tensor(streams.draw(r, first, samples, 1)) for r in self._requests]
            if (first + samples) * self._size <= _CACHED:
                self._kept[first, samples] = noise
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


def _may_be_classes(shape: tuple[int, ...]) -> bool:
    return len(shape) > 0 and shape[-1] > 1


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
