"""Validation data, tried before training: `fit` itself looks at it after the first epoch."""

import re
from typing import Any

import keras
from keras import tree

from keras_dnn_extras._backends import random_generators
from keras_dnn_extras._keras_internals import compiled_loss, loss_of_step, output_spec
from keras_dnn_extras._models.data_shapes import are_arrays, first_batch, is_array, number_of_rows
from keras_dnn_extras._rollback import rolled_back

_REMEDY = "Pass what `fit` takes: `(x, y)`, or a dataset of batches like those of the training data."
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # in which Keras prints a part of its messages


def with_checked_validation(
    model: keras.Model, x: Any, y: Any, fit_arguments: dict[str, Any], *, targets: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Return `x` and the arguments of `fit`, after `validation_data` has been tried on `model`.

    The trial is by shapes alone. A model that has a `fit` or `evaluate` of its own is not tried, since they
    may take any data. A generator is replaced by one that still begins with its first batch.

    Args:
        model: what trains, or, without `targets`, a part of what does.
        x, y: the training data.
        fit_arguments: all others of `fit`.
        targets: whether the loss that `model` is compiled with is tried, too.

    Raises:
        ValueError: `fit` would fail on it, after the first epoch.
        TypeError: it is no data.
    """
    fit_arguments = dict(fit_arguments)
    data = fit_arguments.get("validation_data")
    if data is None or (targets and _is_own(model, "fit", "evaluate")):
        return x, fit_arguments
    rows = fit_arguments.get("batch_size") or 32
    with rolled_back(random_generators()):  # a data loader may draw its order
        batch, fit_arguments["validation_data"] = _first_of(
            data, fit_arguments.get("validation_batch_size") or rows
        )
        if targets and (_is_own(model, "test_step") or getattr(model, "run_eagerly", False)):
            return x, fit_arguments  # they may do what shapes alone do not allow
        error = _error_of_trial(model, batch, targets)
        if error is not None:
            training, x = _first_batch_of((x, y, fit_arguments.get("sample_weight")), rows)
            # Where the training data fails, too, it is the trial that fails: of code that needs values.
            if _error_of_trial(model, training, targets) is None:
                raise _misfit(error, batch) from error
    return x, fit_arguments


def _is_own(model: keras.Model, *methods: str) -> bool:
    """Return whether one of `methods` is not Keras's."""
    return any(not getattr(type(model), name).__module__.startswith("keras.") for name in methods)


def _first_of(data: Any, rows: int) -> tuple[tuple, Any]:
    """Return what the first batch of `validation_data` looks like, and `validation_data`, still whole."""
    parts = tuple(data) if isinstance(data, (list, tuple)) else (data,)
    if len(parts) > 3:
        raise ValueError(
            "Expected `validation_data` to have the format `x`, `(x, y)` or `(x, y, sample_weight)`. "
            f"{_REMEDY} Received: validation_data={_described(data)}"
        )
    x, y, sample_weight = parts + (None,) * (3 - len(parts)) if parts else (None, None, None)
    batch, whole = _first_batch_of((x, y, sample_weight), rows)
    if batch[0] is None:
        raise TypeError(
            f"Expected `validation_data` to be data. {_REMEDY} Received: validation_data={_described(data)}"
        )
    if are_arrays(x):
        _check_rows((x, y, sample_weight))
    if whole is x:
        return batch, data
    return batch, whole if x is data else (whole, *parts[1:])


def _first_batch_of(parts: tuple, rows: int) -> tuple[tuple, Any]:
    """Return inputs, targets and weights of the first batch, and the first of `parts`, still whole."""
    x, *beside = parts
    batch, whole = first_batch(x, rows)
    if batch is None or are_arrays(x):
        return (batch, *(first_batch(part, rows)[0] for part in beside)), whole
    return keras.utils.unpack_x_y_sample_weight(batch), whole


def _described(data: Any) -> Any:
    """Return the types and shapes in `data`."""
    return tree.map_structure(
        lambda value: (
            f"{type(value).__name__} of shape {tuple(value.shape)}"
            if hasattr(value, "shape")
            else type(value).__name__
        ),
        data,
    )


def _check_rows(parts: tuple) -> None:
    lengths = {number_of_rows(array) for array in tree.flatten(parts) if is_array(array)}
    if len(lengths) != 1 or not lengths.isdisjoint({None, 0}):
        raise ValueError(
            "Expected all arrays of `validation_data` to have the same number of rows, and at least one. "
            f"{_REMEDY} Received: validation_data with {sorted(map(str, lengths))} rows"
        )


def _error_of_trial(model: keras.Model, batch: tuple, targets: bool) -> Exception | None:
    """Return what `model`, and its loss if it is compiled, raise of data like `batch`, or None.

    Code of the user runs in it, so that the error may be of any kind.
    """
    x, y, sample_weight = batch
    try:
        with rolled_back(compiled_loss(model)):
            # No `model.compute_output_spec`: it asks layers for shapes, which need not know the batch size.
            outputs = output_spec(model, x, training=False)
            if targets and getattr(model, "compiled", False) and y is not None:
                loss = loss_of_step(model)
                output_spec(loss, x, y, outputs, sample_weight=sample_weight, training=False)
    except Exception as error:
        return error
    return None


def _misfit(error: Exception, batch: tuple) -> ValueError:
    message = str(error.args[0]) if error.args else ""  # `str` of a KeyError is that of a literal
    lines = [line.strip(" .") for line in _COLOURS.sub("", message).splitlines()]
    reasons = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    reason = ": ".join([type(error).__name__, *reasons[:1]])
    shapes = tree.map_structure(lambda spec: getattr(spec, "shape", spec), batch)
    return ValueError(
        f"`validation_data` does not fit the model ({reason}). {_REMEDY} Received: validation_data with "
        f"batches of shapes {shapes}"
    )
