"""Models built without a call."""

from typing import Any

import keras

from keras_dnn_extras._backends import random_generators, strategy_scope
from keras_dnn_extras._keras_internals import is_built, output_spec
from keras_dnn_extras._models.data_shapes import are_arrays, first_batch, spec_of
from keras_dnn_extras._rollback import rolled_back


def built(model: keras.Model, x: Any, batch_size: int) -> Any:
    """Build `model` on the first batch of `x` where that is left to do, and return `x`, still whole.

    Without it the first weights would be made and changed in one and the same step of `fit`.
    """
    if is_built(model):
        return x
    with rolled_back(random_generators()):  # a data loader may draw its order
        batch, x = first_batch(x, batch_size)
    if batch is not None:
        build(model, batch if are_arrays(x) else keras.utils.unpack_x_y_sample_weight(batch)[0])
    return x


def build(model: keras.Model, batch: Any) -> None:
    """Build `model` for any number of inputs like `batch`, where that is left to do: computes nothing."""
    if is_built(model):
        return
    batch = keras.tree.map_structure(spec_of, batch)
    with strategy_scope(model):
        if isinstance(model, keras.Sequential) and hasattr(batch, "shape"):
            model.build((None, *batch.shape[1:]))
        if not is_built(model):  # as `fit` does it on JAX and torch
            output_spec(model, batch, training=False)
