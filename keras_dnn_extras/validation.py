"""Validation data, tried before training: `fit` itself looks at it after the first epoch."""

from typing import Any

import keras
from keras import tree
from keras.src import backend  # private, as Keras has no other way to try a model without values

from keras_dnn_extras.data_shapes import are_arrays, first_batch, is_array, number_of_rows
from keras_dnn_extras.model_state import loss_unbuilt_again, random_states_kept
from keras_dnn_extras.surgery import functional_of

_REMEDY = "Pass what `fit` takes: `(x, y)`, or a dataset of batches like those of the training data."


def with_checked_validation(model: keras.Model, fit_arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fit`, after `validation_data` has been tried on `model`, by shapes alone.

    A model that is not compiled is tried without the targets. A generator is replaced by one that still
    begins with its first batch.

    Raises:
        ValueError: `fit` would fail on it, after the first epoch.
        TypeError: it is no data.
    """
    data = fit_arguments.get("validation_data")
    if data is None:
        return dict(fit_arguments)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    rows = fit_arguments.get("validation_batch_size") or fit_arguments.get("batch_size") or 32
    with random_states_kept():  # a data loader may draw its order
        batch, x = first_batch(x, rows)
    if batch is None:
        raise TypeError(
            f"Expected `validation_data` to be data. {_REMEDY} Received: validation_data={data}"
        )
    if are_arrays(x):
        _check_rows((x, y, sample_weight), data)
        batch = (batch, *(first_batch(part, rows)[0] for part in (y, sample_weight)))
    else:
        data = x
    _try(model, *keras.utils.unpack_x_y_sample_weight(batch))
    return {**fit_arguments, "validation_data": data}


def _check_rows(parts: tuple, data: Any) -> None:
    lengths = {number_of_rows(array) for array in tree.flatten(parts) if is_array(array)}
    if len(lengths) != 1 or not lengths.isdisjoint({None, 0}):
        raise ValueError(
            "Expected all arrays of `validation_data` to have the same number of rows, and at least one. "
            f"{_REMEDY} Received: validation_data with {sorted(map(str, lengths))} rows"
        )


def _try(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> None:
    own_step = not type(model).test_step.__module__.startswith("keras.")
    if own_step or getattr(model, "run_eagerly", False):  # may do what shapes alone do not allow
        return
    try:
        with loss_unbuilt_again(model):
            if functional_of(model) is not None:
                outputs = model.compute_output_spec(x)
            else:
                outputs = backend.compute_output_spec(model, x, training=False)
            if getattr(model, "compiled", False) and y is not None:
                backend.compute_output_spec(
                    model._compute_loss, x, y, outputs, sample_weight=sample_weight, training=False
                )
    except (ValueError, TypeError, RuntimeError) as error:  # of a shape, by one or another backend
        shapes = tree.map_structure(lambda spec: getattr(spec, "shape", spec), (x, y, sample_weight))
        raise ValueError(
            f"`validation_data` does not fit the model: {error} {_REMEDY} Received: validation_data with "
            f"batches of shapes {shapes}"
        ) from error
