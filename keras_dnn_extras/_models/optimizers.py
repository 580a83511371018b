"""What is asked of an optimizer: which one it is, what momenta it has, and how far it has come."""

import math
from numbers import Real
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._backends import value_on_host
from keras_dnn_extras._keras_internals import batch_counter, learning_rate_or_schedule, weights_of_optimizer

# What optimizers call their momentum. Muon has two: one for matrices, one for its Adam half.
_MOMENTUM_NAMES = ("momentum", "beta_1", "adam_beta_1")


def innermost_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """Return the optimizer of `model` that updates its weights, without loss scaling around it.

    Raises:
        ValueError: the model is not compiled, or its optimizer cannot be served.
    """
    optimizer = unscaled(getattr(model, "optimizer", None))
    if isinstance(getattr(optimizer, "learning_rate", None), keras.Variable):
        return optimizer
    rate = learning_rate_or_schedule(optimizer)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) or callable(rate):
        return optimizer
    raise ValueError(
        "Expected a model compiled with a Keras optimizer that has one learning rate. Compile the "
        f"model with one, `keras.optimizers.SGD` for instance. Received: optimizer={optimizer}"
    )


def unscaled(optimizer: Any) -> Any:
    """Return the optimizer within a `LossScaleOptimizer`, or `optimizer` itself."""
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer.inner_optimizer if scaled else optimizer


def momentum_names(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """Return the names of the momenta that `optimizer` has in use, as `["beta_1"]`."""
    momenta = {name: vars(optimizer).get(name) for name in _MOMENTUM_NAMES}
    return [name for name, value in momenta.items() if isinstance(value, Real) and float(value) > 0]


def recovers_weights_by_momentum(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return whether `optimizer` computes weights back by its `beta_1`, which must not change then."""
    return isinstance(optimizer, getattr(keras.optimizers, "ScheduleFreeAdamW", ()))


def schedule_of(optimizer: Any) -> Any:
    """Return the schedule that sets the learning rate of `optimizer`, or None: it has a number."""
    rate = learning_rate_or_schedule(optimizer)
    return None if isinstance(rate, keras.Variable) else rate


def learning_rate(optimizer: Any) -> float:
    """Return the number that `optimizer` has as its learning rate, or NaN: it has a schedule, or none.

    Of the numbers that its variable rounds to that one, the shortest: the number that the user gave.
    """
    rate = learning_rate_or_schedule(optimizer)
    if not isinstance(rate, keras.Variable):
        return math.nan
    value = value_on_host(rate)
    if not np.isfinite(value):
        return float(value)
    shorter = (float(f"{float(value):.{digits}g}") for digits in range(1, 18))
    return next(number for number in shorter if value.dtype.type(number) == value)


def iterations(optimizer: keras.optimizers.Optimizer) -> int:
    """Return the number of updates that `optimizer` has applied."""
    return int(value_on_host(optimizer.iterations))


def seen_batches(optimizer: keras.optimizers.Optimizer) -> int:
    """Return the number of batches whose gradients `optimizer` has been given."""
    return int(value_on_host(batch_counter(optimizer)))


def weights_with_state(optimizer: keras.optimizers.Optimizer) -> set[int]:
    """Return the weights that `optimizer` has the state of, by `id(weight)`."""
    inner = unscaled(optimizer)
    return set(map(id, weights_of_optimizer(inner))) if inner.built else set()
