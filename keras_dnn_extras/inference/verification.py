"""What a model computes of examples, which engines are compared with."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras._backends import called_at_inference, no_trace
from keras_dnn_extras._graphs import NoInputsError, equivalence, like_data
from keras_dnn_extras._keras_internals import flat_layers, functional_of, output_structure
from keras_dnn_extras.inference.engines import rounding_of_products
from keras_dnn_extras.inference.signatures import EngineError, Run, Signature, first_line

_SEEDS = (0, 1, 2)  # of the inputs that are drawn
_ROWS = (1, 2, 5)  # of them, where any number of rows may come


class DrawsError(Exception):
    """Two calls of the model gave different outputs."""


class Truth:
    """What the model computes of examples.

    Args:
        sample: arrays, flat, or None for inputs that are drawn to look like data.

    Attributes:
        inputs: list of examples, each a list of arrays.
        structure: of the outputs.

    Raises:
        ValueError: the model does not take them, makes nothing finite of them, or returns no numbers.
        DrawsError: it draws random numbers, or changes variables.
    """

    def __init__(self, model: keras.Model, signature: Signature, sample: list | None = None):
        self._model = model
        self._signature = signature
        self.structure: Any = None
        dtypes = [layer.compute_dtype for layer in flat_layers(model)]
        self._dtypes = [dtype for dtype in dtypes if dtype in equivalence.ROUNDING]
        self._rounding = max(equivalence.tolerance(self._dtypes), rounding_of_products())
        self.inputs, self._outputs = self._of_sample(sample) if sample else self._of_data()

    def _of_sample(self, sample: list) -> tuple[list, list]:
        inputs = _in_batches(sample, self._signature.shapes[0][0])
        try:
            return inputs, [self._computed(arrays) for arrays in inputs]
        except _NowhereFiniteError as error:
            raise ValueError(
                "An output that the model makes of the sample data is nowhere finite. Pass other rows. "
                f"Received: model={self._model}, inputs of shapes {[array.shape for array in sample]}"
            ) from error
        except _NotTakenError as error:
            shapes = [array.shape for array in sample]
            raise ValueError(
                f"The model does not take the sample data ({first_line(error)}). Pass what `model.predict` "
                f"takes. Received: model={self._model}, inputs of shapes {shapes}"
            ) from error

    def _of_data(self) -> tuple[list, list]:
        tensors = [_tensors(self._signature, rows) for rows in _ROWS]
        draws = [lambda like, seed: like_data(self._model, like, 1, seed)]
        draws.append(lambda like, seed: equivalence.random_inputs(like, 1, seed))
        for draw in draws:
            try:
                inputs = [draw(like, seed) for like, seed in zip(tensors, _SEEDS, strict=True)]
                return inputs, [self._computed(arrays) for arrays in inputs]
            except (_NotTakenError, NoInputsError) as error:
                last = error
        raise ValueError(
            "The model takes none of the inputs that were drawn to compare engines "
            f"({first_line(last)}). Pass sample data as `inputs`. Received: model={self._model}"
        ) from last

    def _computed(self, arrays: list) -> list[np.ndarray]:
        with no_trace():  # in which seeds move on from the first call to the second
            outputs = self._called(arrays)
            if self.structure is None:
                self._check_repeats(outputs, self._called(arrays))
                self.structure = outputs
        return tree.flatten(outputs)

    def _called(self, arrays: list) -> Any:
        tensors = [keras.ops.convert_to_tensor(x) for x in arrays]
        try:
            outputs = called_at_inference(self._model, self._signature.packed(tensors))
        except Exception as error:  # of whatever kind a layer raises for an image that is too small
            raise _NotTakenError(first_line(error)) from error
        outputs = tree.map_structure(lambda y: np.asarray(keras.ops.convert_to_numpy(y)), outputs)
        arrays = _comparable(tree.flatten(outputs))
        if any(array.dtype.kind not in "fiubc" for array in arrays):
            raise ValueError(
                "Expected the model to return numbers. Compile it without the layers that make strings, "
                "and call these on what it returns. "
                f"Received: model={self._model}, outputs of dtypes {[str(array.dtype) for array in arrays]}"
            )
        if any(array.size and not np.isfinite(array).any() for array in arrays):
            raise _NowhereFiniteError("nothing in an output is finite")
        return outputs

    def _check_repeats(self, first: Any, second: Any) -> None:
        flat = [_comparable(tree.flatten(outputs)) for outputs in (first, second)]
        if not all(error <= self._rounding for error in equivalence.relative_errors(*flat)):
            raise DrawsError

    def check(self, run: Run) -> None:
        """Raise unless an engine computes the same, as far as rounding allows."""
        for arrays, expected in zip(self.inputs, self._outputs, strict=True):
            with no_trace():
                results = run(arrays)
            for result, expected_array in zip(results, expected, strict=True):
                if result.shape != expected_array.shape or result.dtype != expected_array.dtype:
                    raise EngineError(
                        f"its output is of shape {result.shape} and dtype {result.dtype}, not "
                        f"{expected_array.shape} and {expected_array.dtype}"
                    )
            errors = equivalence.relative_errors(*map(_comparable, (results, expected)))
            if all(error <= self._rounding for error in errors):
                continue
            for error, limit in zip(errors, self._limits(arrays), strict=True):
                if not error <= limit:
                    raise EngineError(
                        f"its outputs differ from the model's by {error:.1e} of the largest, which is more "
                        "than rounding does"
                    )

    def _limits(self, arrays: list) -> list[float]:
        """Return what errors may be where the model itself makes much of one rounding of its weights."""
        functional = functional_of(self._model)
        if functional is None:
            return [self._rounding] * len(tree.flatten(self.structure))
        prober = equivalence.Prober(functional.inputs, tree.flatten(output_structure(functional)))
        coarsest = max(self._dtypes, key=equivalence.ROUNDING.__getitem__, default="float32")
        return [max(self._rounding, 4 * noise) for noise in prober.noise(arrays, coarsest)]


class _NotTakenError(Exception):
    """The model does not compute anything of an example."""


class _NowhereFiniteError(_NotTakenError):
    """Nothing in an output of the model is finite."""


def _tensors(signature: Signature, rows: int) -> list[keras.KerasTensor]:
    specs = zip(signature.shapes, signature.dtypes, strict=True)
    return [keras.KerasTensor((shape[0] or rows, *shape[1:]), dtype) for shape, dtype in specs]


def _in_batches(sample: list, rows: int | None) -> list[list[np.ndarray]]:
    """Return batches of `rows` rows of the sample, which is repeated, or all of it and one row."""
    count = len(sample[0])
    if rows is None:
        places = [np.arange(count), np.arange(1)][: 1 if count == 1 else 2]
    else:
        batches = min(len(_SEEDS), -(-count // rows))
        places = [np.arange(i * rows, (i + 1) * rows) % count for i in range(batches)]
    return [[array[rows_of_batch] for array in sample] for rows_of_batch in places]


def _comparable(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [array.astype("float32") if str(array.dtype) == "bfloat16" else array for array in arrays]
