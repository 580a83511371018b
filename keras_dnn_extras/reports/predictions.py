"""Predictions with their labels, output by output, as rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_dnn_extras._arguments import real_array
from keras_dnn_extras._display import brief


@dataclass(frozen=True)
class ClassOutput:
    """The finite predictions of an output of classes.

    Attributes:
        name: of the output, empty where there is only one.
        probabilities: `(n, classes)`, or `(n,)`, those of the second of two classes.
        entropy, mutual_information: `(n,)`, in nats.
        labels: `(n,)`, or None.
        not_finite: how many predictions were left out.
    """

    name: str
    probabilities: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray
    labels: np.ndarray | None
    not_finite: int

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the class that each row predicts, `(n,)`."""
        second = self.probabilities
        return np.maximum(second, 1 - second) if second.ndim == 1 else second.max(axis=1)

    def correct(self, labels: np.ndarray) -> np.ndarray:
        """Return whether each row predicts its label, bools of shape `(n,)`."""
        if self.probabilities.ndim == 1:
            return (self.probabilities > 0.5) == labels.astype(bool)
        return self.probabilities.argmax(axis=1) == labels


@dataclass(frozen=True)
class NumberOutput:
    """The finite predictions of an output of numbers, all of shape `(n,)`."""

    name: str
    mean: np.ndarray
    std: np.ndarray
    y_true: np.ndarray | None
    not_finite: int

    def __len__(self) -> int:
        return len(self.mean)


def outputs_of(prediction: Any, y_true: Any) -> list[ClassOutput | NumberOutput]:
    """Return the outputs of an `MCPrediction` with their labels.

    Raises:
        ValueError: `y_true` has another structure, or another number of values.
    """
    mean = prediction.mean
    fields = (prediction.variance, prediction.predictive_entropy, prediction.mutual_information)
    variances, entropies, information = (dict(_leaves(mean, field)) for field in fields)
    labels = {} if y_true is None else dict(_leaves(mean, y_true))
    return [
        _numbers(name, values, variances[name], labels.get(name))
        if entropies[name] is None
        else _classes(name, values, entropies[name], information[name], labels.get(name))
        for name, values in _leaves(mean, mean)
    ]


def _leaves(mean: Any, values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is in `values` for each array in the structure of `mean`, by its path."""
    if isinstance(mean, Mapping):
        _check_structure(isinstance(values, Mapping) and values.keys() == mean.keys(), mean, values)
        for key in mean:
            yield from _leaves(mean[key], values[key], f"{path}/{key}".strip("/"))
    elif isinstance(mean, (list, tuple)):
        _check_structure(isinstance(values, (list, tuple)) and len(values) == len(mean), mean, values)
        for place, parts in enumerate(zip(mean, values, strict=True), 1):
            yield from _leaves(*parts, f"{path}/output {place}".strip("/"))
    else:
        _check_structure(not isinstance(values, Mapping), mean, values)
        yield path, values


def _check_structure(is_same: bool, mean: Any, values: Any) -> None:
    if not is_same:
        raise ValueError(
            "Expected `y_true` to have the structure of `prediction.mean`. "
            f"Received: {_in_words(values)} where that is {_in_words(mean)}"
        )


def _in_words(structure: Any) -> str:
    if isinstance(structure, Mapping):
        return f"a dict of {list(structure)}"
    if isinstance(structure, (list, tuple)):
        return f"a {type(structure).__name__} of {len(structure)}"
    return f"one {type(structure).__name__}"


def _numbers(name: str, mean: Any, variance: Any, y_true: Any) -> NumberOutput:
    rows, std = (np.asarray(part, "float64").reshape(-1) for part in (mean, np.sqrt(variance)))
    finite = np.isfinite(rows) & np.isfinite(std)
    true = None if y_true is None else _true_numbers(y_true, len(rows), name)[finite]
    return NumberOutput(name, rows[finite], std[finite], true, int((~finite).sum()))


def _true_numbers(y_true: Any, rows: int, name: str) -> np.ndarray:
    numbers = real_array("y_true", _labels(y_true, rows, name))
    if not np.isfinite(numbers).all():
        of_output = f" of {name!r}" if name else ""
        raise ValueError(f"Expected `y_true`{of_output} to be finite. Received: y_true={brief(y_true)}")
    return numbers


def _classes(name: str, mean: Any, entropy: Any, information: Any, y_true: Any) -> ClassOutput:
    probabilities = np.asarray(mean, "float64")
    of_single = probabilities.ndim == np.ndim(entropy) or probabilities.shape[-1] == 1
    rows = probabilities.reshape(-1) if of_single else probabilities.reshape(-1, probabilities.shape[-1])
    finite = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    scores = [np.asarray(part, "float64").reshape(-1)[finite] for part in (entropy, information)]
    labels = None if y_true is None else _labels(y_true, len(rows), name)[finite]
    return ClassOutput(name, rows[finite], scores[0], scores[1], labels, int((~finite).sum()))


def _labels(labels: Any, rows: int, name: str) -> np.ndarray:
    array = np.asarray(labels)
    if array.size != rows:
        of_output = f" of {name!r}" if name else ""
        raise ValueError(
            f"Expected `y_true`{of_output} to have a value for each of {rows} predictions: integer labels "
            "where they are classes, `y_true.argmax(axis=-1)` of one-hot ones. "
            f"Received: y_true of shape {array.shape}"
        )
    return array.reshape(-1)
