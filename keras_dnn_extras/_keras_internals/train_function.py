"""The training step that Keras makes of a model, and what belongs to it."""

from typing import Any

import keras

from keras_dnn_extras._keras_internals.private_names import private_object


def make_train_function(model: keras.Model, *, force: bool = False) -> Any:
    """Have Keras make the function that `fit` calls for each step, anew with `force`, and return it."""
    model.make_train_function(force=force)
    return model.train_function


def loss_metric(model: keras.Model) -> keras.metrics.Metric:
    """Return the metric that keeps the mean of the losses of a compiled model."""
    return model._loss_tracker


def batches_of_fit(x: Any, y: Any, sample_weight: Any, class_weight: Any) -> int | None:
    """Return how many batches `fit` would make of the data, or None if they do not tell.

    Keras checks the data of `fit` nowhere else, and there when the model is built already.
    """
    module = "keras.src.trainers.data_adapters"
    get_data_adapter = private_object(module, "get_data_adapter", "`find_learning_rate`")
    return get_data_adapter(x, y, sample_weight, class_weight=class_weight).num_batches


def without_model(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a callback, to be copied or pickled, without the model that it is set to."""
    return state | {"_model": None}
