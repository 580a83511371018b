"""What is counted of samples, output by output: moments, entropies, votes.

What an output holds is decided by the activation that makes it. Where that is not known, as in a model of
its own `call`, its values decide.
"""

import math
from dataclasses import dataclass
from typing import Any

import keras
import ml_dtypes
import numpy as np
from keras import ops

from keras_dnn_extras._graphs import OF_CLASSES, OF_ONE_UNIT
from keras_dnn_extras.uncertainty.metrics import Moments


@dataclass(frozen=True)
class Reading:
    """How an output of a model is read.

    Attributes:
        shape, dtype: of a row of it.
        activation: the name of the one that makes it, `""` for one that makes no probabilities, or None if
            nobody knows.
        logits: whether the output is turned into probabilities first.
    """

    shape: tuple[int, ...]
    dtype: str
    activation: str | None = None
    logits: bool = False

    @property
    def classes(self) -> int:
        """How many classes there may be: 0 if the output cannot be of probabilities."""
        if len(self.shape) > 0 and self.shape[-1] > 1:
            return self.shape[-1] if self.logits or self.activation in (None, *OF_CLASSES) else 0
        # Of whole numbers, and of numbers without an axis, values would say too little.
        by_values = self.activation is None and len(self.shape) > 0 and self._is_floating
        return 2 if self.logits or by_values or self.activation in OF_ONE_UNIT else 0

    @property
    def read_dtype(self) -> str:
        """The dtype of what is read."""
        return "float32" if self.logits and self.dtype != "float64" else self.dtype

    @property
    def is_certain(self) -> bool:
        """Whether these are probabilities, whatever the values are."""
        return self.classes > 0 and (self.logits or self.activation is not None)

    @property
    def places(self) -> tuple[int, ...]:
        """The shape of what has classes: that of the output without its last axis."""
        return self.shape[:-1]

    @property
    def rounding(self) -> float:
        """By how much probabilities may miss a sum of 1."""
        return float(ml_dtypes.finfo(self.dtype if self._is_floating else "float32").eps) ** 0.5

    @property
    def _is_floating(self) -> bool:
        return keras.backend.is_float_dtype(self.dtype)

    def read(self, output: Any) -> Any:
        """Return the output of many samples and rows, or the probabilities that its logits make."""
        if not self.logits:
            return output
        output = ops.cast(output, self.read_dtype)
        return ops.softmax(output, axis=-1) if self.shape and self.shape[-1] > 1 else ops.sigmoid(output)

    def pieces(self, output: Any) -> list:
        """Return what a `Tally` takes of an output that was read, of shape `(samples, rows, ...)`."""
        change = output - output[:1]
        moments = [output[0], ops.sum(change, axis=0), ops.sum(ops.square(change), axis=0)]
        if not self.classes:
            return moments
        each = _of_classes(output, self.shape)
        positive = ops.where(each > 0, each, ops.ones_like(each))
        entropies = -ops.sum(positive * ops.log(positive), axis=-1)
        votes = ops.one_hot(ops.argmax(each, axis=-1), self.classes, dtype=output.dtype)
        error = ops.max(ops.abs(ops.sum(each, axis=-1) - 1))
        return [*moments, ops.sum(entropies, axis=0), ops.sum(votes, axis=0), ops.min(each), error]


def _of_classes(output: Any, shape: tuple[int, ...]) -> Any:
    """Return the probabilities of all classes, of the second of which alone `output` may tell."""
    if shape and shape[-1] > 1:
        return output
    second = output[..., 0] if shape else output
    return ops.stack([1 - second, second], axis=-1)


class Tally:
    """What the samples of one output say so far, for one batch.

    Args:
        reading: how the output is read.
        rows: how many there are.
    """

    def __init__(self, reading: Reading, rows: int):
        self._reading, self._rows = reading, rows
        self.moments = Moments()
        self.of_classes = reading.classes > 0
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
            piece = sums[start : start + size].reshape(shape)
            start += size
            return piece

        def rows(shape: tuple[int, ...]) -> np.ndarray:
            return take(padded, *shape)[: self._rows].astype("float64")

        reading = self._reading
        first, changes, squares = rows(reading.shape), rows(reading.shape), rows(reading.shape)
        self.moments.add(count, first + changes / count, squares - np.square(changes) / count)
        if reading.classes:
            self._entropies = self._entropies + rows(reading.places)
            self._votes = self._votes + rows((*reading.places, reading.classes))
            least, error = take(2)
            by_values = bool(least >= 0 and error <= reading.rounding)
            self.of_classes &= by_values or reading.is_certain
        return start

    @property
    def expected_entropy(self) -> Any:
        return self._entropies / self.moments.count if self.of_classes else None

    @property
    def variation_ratio(self) -> Any:
        return 1 - np.max(self._votes, axis=-1) / self.moments.count if self.of_classes else None
