"""Models divided into what is computed once and what is sampled, both compiled for one shape of inputs."""

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_dnn_extras._backends import compiled
from keras_dnn_extras._graphs import is_of_probabilities
from keras_dnn_extras._keras_internals import flat_layers, is_functional
from keras_dnn_extras.uncertainty.dropout_layers import dropout_layers
from keras_dnn_extras.uncertainty.mask_injection import DropoutNoise
from keras_dnn_extras.uncertainty.masks import Request
from keras_dnn_extras.uncertainty.mc_tally import Reading
from keras_dnn_extras.uncertainty.model_division import Division
from keras_dnn_extras.uncertainty.thinned_network import Thinned

_ROWS = 4096  # samples times inputs that go through the model at once: more gain nothing
_THINNED = 256  # inputs from which on it pays to cut the kernels of each sample out
_BYTES = 2**26  # of tensors that are there at once, as far as one can tell


class Sampler:
    """A model divided into what is computed once and what is sampled, both compiled.

    Attributes:
        prefix: computes of inputs the tensors at the border.
        requests: what noise the suffix takes.
        structure: that of the outputs.
        readings: how each output is read, flat.
        rows: how many inputs times samples should go through the suffix at once.
    """

    def __init__(self, model: keras.Model, batch: Any, from_logits: Any = False):
        layers = _layers_to_sample(model, batch)
        self._noise = DropoutNoise(layers)
        self._division = Division(model, batch, layers)
        self.prefix = compiled(self._division.prefix, model)
        self.requests: list[Request] = []
        border = self.prefix(tree.map_structure(lambda array: array[:1], batch))
        outputs = self._recorded(model, border)
        self._has_rows = self._division.has_rows(border)
        self.structure = tree.map_structure(lambda _: 0, outputs)
        outputs = tree.flatten(outputs)
        logits = _flat_logits(from_logits, self.structure)
        self.readings = _readings(self._division.activations, outputs, logits)
        self.rows = self._rows_at_once([*border, *outputs])
        self._thinned = self._thinned_network()
        self._programs = {
            (thin, keep): compiled(functools.partial(self._sums_and_samples, thin, keep), model)
            for thin in (False, True)
            for keep in (False, True)
        }

    def _recorded(self, model: keras.Model, border: list) -> Any:
        """Note what noise the suffix takes, and return what it makes without any."""
        with self._noise.recorded(self.requests):
            outputs = compiled(self._suffix, model)(border)
        if not self.requests:
            raise ValueError(
                "No dropout in the model takes part in its outputs, all samples would be the same. "
                f"Received: model={model}"
            )
        return outputs

    def _suffix(self, border: list) -> Any:
        return self._division.suffix(border, self.requests)

    def _rows_at_once(self, tensors: list) -> int:
        sizes = [math.prod(tuple(tensor.shape)[1:]) for tensor in tensors]
        sizes += [request.size for request in self.requests]
        return max(1, min(_ROWS, _BYTES // (4 * sum(sizes))))

    def _thinned_network(self) -> Thinned | None:
        graph = self._division.suffix_graph
        if graph is None or keras.backend.backend() == "jax":  # where shapes may not vary by sample
            return None
        thinned = Thinned(graph, self._division.places)
        return thinned if thinned.saves else None

    def _samples(self, border: list, noise: list) -> list:
        """Return the outputs of all samples, each of shape `(samples, rows, ...)`."""
        count = noise[0].shape[0]
        border = [
            _repeated(tensor, count) if has_rows else tensor
            for tensor, has_rows in zip(border, self._has_rows, strict=True)
        ]
        with self._noise.given(noise):
            outputs = tree.flatten(self._suffix(border))
        return [ops.reshape(output, (count, -1, *tuple(output.shape)[1:])) for output in outputs]

    def _thinned_samples(self, border: list, noise: list) -> list:
        """Return the same with masks that all rows share, one sample after the other."""
        if self._thinned is None:
            raise RuntimeError("There is nothing to leave out: ask `thins` first.")
        count, thinned = noise[0].shape[0], self._thinned
        kernels = thinned.kernels()

        def sample(k: Any) -> list:
            masks = [tensor[k] for tensor in noise]
            in_layers = [mask[None] for i, mask in enumerate(masks) if i not in thinned.places]
            with self._noise.given(in_layers):
                outputs = thinned.run(border, lambda place: ops.reshape(masks[place], (-1,)), kernels)
            return tree.flatten(outputs)

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            kinds = [tf.TensorSpec((None, *reading.shape), reading.dtype) for reading in self.readings]
            return tf.map_fn(sample, tf.range(count), fn_output_signature=kinds, parallel_iterations=4)
        samples = [sample(k) for k in range(count)]
        return [ops.stack(outputs) for outputs in zip(*samples, strict=True)]

    def thins(self, rows: int, shared: bool) -> bool:
        """Return whether what is dropped is left out of the arithmetic."""
        return self._thinned is not None and shared and rows >= _THINNED

    def sample(self, border: list, noise: list, *, thin: bool, keep: bool) -> tuple[Any, list]:
        """Compute of the tensors at the border and of noise what all samples say together: one vector.

        Returns:
            It, and the samples if they are to be kept.
        """
        return self._programs[thin, keep](border, noise)

    def _sums_and_samples(self, thin: bool, keep: bool, border: list, noise: list) -> tuple[Any, list]:
        outputs = (self._thinned_samples if thin else self._samples)(border, noise)
        samples = [reading.read(output) for reading, output in zip(self.readings, outputs, strict=True)]
        return self._sums(samples), samples if keep else []

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


def _layers_to_sample(model: keras.Model, batch: Any) -> list[keras.layers.Layer]:
    """Return the layers of `model` that drop something.

    Raises:
        ValueError: there is none, or the model cannot take samples together.
    """
    lengths = {length for array in tree.flatten(batch) for length in array.shape}
    layers = dropout_layers(model, sorted(lengths))
    if not layers:
        raise ValueError(
            "There is no dropout in the model, all samples would be the same. Add a layer such as "
            f"`keras.layers.Dropout` or `MCDropout`, and train with it. Received: model={model}"
        )
    _refuse_fixed_batches(model)
    return layers


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


def _readings(activations: list[str | None] | None, outputs: list, logits: list[bool]) -> list[Reading]:
    """Return how outputs are read: those that are probabilities by their activation are no logits."""
    activations = activations or [None] * len(outputs)
    return [
        Reading(
            tuple(output.shape)[1:],
            keras.backend.standardize_dtype(output.dtype),
            activation,
            is_of_logits and not is_of_probabilities(activation),
        )
        for output, activation, is_of_logits in zip(outputs, activations, logits, strict=True)
    ]


def _refuse_fixed_batches(model: keras.Model) -> None:
    for layer in flat_layers(model):
        if getattr(layer, "stateful", False) and isinstance(layer, keras.layers.RNN):
            raise ValueError(
                "Samples of a stateful recurrent layer would change its states. Rebuild the model with "
                f"`stateful=False`. Received: layer={layer}"
            )
        if is_functional(layer) and any(tensor.shape[0] is not None for tensor in layer.inputs):
            raise ValueError(
                "Samples go through the model together, in larger batches than that of the model, which is "
                "fixed. Rebuild it with `Input(shape)` without a batch size. "
                f"Received: model={layer}, inputs={layer.inputs}"
            )
