"""Mean and variance of each feature of the inputs, read from arrays or, batch by batch, from a dataset."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._display import brief
from keras_dnn_extras._models import are_arrays, batches, dense_array


class InputMoments:
    """The mean and the variance of rows that come in batches, in float64.

    Args:
        shape: of a row.

    Attributes:
        rows: how many there were.
        mean: of shape `shape`.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.rows = 0
        self.mean = np.zeros(shape)
        self.largest = 0.0  # of all entries, their size
        self._squares = np.zeros(shape)  # of the deviations from the mean, added up

    def add(self, sample: np.ndarray) -> None:
        """Take in a sample of shape `(n, *shape)`, n > 0.

        Reference: Chan et al., Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
        1979.
        """
        n = len(sample)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, squares = sample.mean(axis=0), sample.var(axis=0) * n
            if self.rows:
                difference, rows = mean - self.mean, self.rows + n
                squares += self._squares + difference**2 * (self.rows * n / rows)
                mean = self.mean + difference * (n / rows)
        self.rows, self.mean, self._squares = self.rows + n, mean, squares
        self.largest = max(self.largest, float(np.abs(sample).max()))

    @property
    def variance(self) -> np.ndarray:
        """Of shape `shape`."""
        return self._squares / self.rows


def moments_of(inputs: Any, shape: tuple[int, ...]) -> InputMoments:
    """Return the moments of `inputs`, the argument of `dnn`.

    Raises:
        ValueError: they are no samples of shape `(n, *shape)`, not finite, or have no end.
    """
    moments = InputMoments(shape)
    for sample in _samples(inputs, shape):
        if sample.shape[1:] != shape or (not len(sample) and not _is_dataset(inputs)):
            raise _misfit(f"inputs of shape {sample.shape}", shape)
        _check_finite(sample)
        if len(sample):
            moments.add(sample)
    if not moments.rows:
        raise _misfit(f"inputs={inputs!r}, which has no row", shape)
    with np.errstate(over="ignore"):
        fits = np.isfinite(moments.variance.astype("float32")).all()
    if not fits:
        raise ValueError(
            "Expected the variances of `inputs` to be numbers of float32. Scale the features down first. "
            f"Received: inputs as large as {moments.largest:.1e}"
        )
    return moments


def _samples(inputs: Any, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    if not _is_dataset(inputs):
        yield _array_of_numbers(_only(inputs) if isinstance(inputs, Mapping) else inputs, shape)
        return
    _check_rereadable(inputs)
    for batch in batches(inputs, batch_size=32, to_array=dense_array):
        yield _array_of_numbers(_only(batch), shape)


def _is_dataset(inputs: Any) -> bool:
    is_iterable = hasattr(inputs, "__iter__") and not isinstance(inputs, (str, bytes))
    return isinstance(inputs, keras.utils.PyDataset) or (is_iterable and not are_arrays(inputs))


def _check_rereadable(inputs: Any) -> None:
    """Raise where reading would never end, or would leave nothing for `fit`."""
    if hasattr(inputs, "__next__"):
        raise ValueError(
            "Expected `inputs` to be data that can be read again, an array or a dataset: `fit` could not "
            f"read this generator afterwards. Received: inputs={inputs!r}"
        )
    if isinstance(inputs, keras.utils.PyDataset):
        endless = inputs.num_batches is None
    else:
        endless = hasattr(inputs, "cardinality") and int(inputs.cardinality()) == -1
    if endless:
        raise ValueError(
            "Expected `inputs` to have an end. Take some batches of it, or leave out `repeat`. "
            f"Received: inputs={inputs!r}"
        )


def _only(structure: Any) -> Any:
    """Return the array of a single input, as it is or in a dict or list of one."""
    arrays = keras.tree.flatten(structure)
    if len(arrays) != 1:
        raise ValueError(f"Expected `inputs` to be those of one input. Received: inputs of {len(arrays)}")
    return arrays[0]


def _array_of_numbers(inputs: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = dense_array(inputs)
    except ValueError as error:  # rows of several lengths
        raise _misfit(f"inputs={brief(inputs)}", shape) from error
    if array.dtype.kind not in "biuf" and "float" not in array.dtype.name:  # bfloat16 is of no such kind
        raise ValueError(
            f"Expected `inputs` to be an array of numbers. Received: inputs of dtype {array.dtype}"
        )
    return array.astype("float64")


def _check_finite(sample: np.ndarray) -> None:
    if not np.isfinite(sample).all():
        raise ValueError(
            "Expected `inputs` to be finite. Replace what is missing first. Received: inputs with "
            f"NaN or infinity in {counted(int(np.sum(~np.isfinite(sample))), 'place')}"
        )


def _misfit(received: str, shape: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"Expected `inputs` to be a sample of shape (n, {', '.join(map(str, shape))}), n > 0, or a dataset "
        f"of such batches. Received: {received}"
    )
