"""Optimizers made anew, of the same class and settings."""

import copy
from typing import Any

import keras

from keras_dnn_extras._backends import value_on_host
from keras_dnn_extras._keras_internals import (
    config_without_learning_rate,
    learning_rate_or_schedule,
    weight_decay_exclusions,
)


def same_optimizer(optimizer: keras.optimizers.Optimizer, learning_rate: Any = None) -> Any:
    """Return another optimizer of the same class and settings, without state.

    Args:
        learning_rate: a float in the place of its own, or None for its own: the float in force, or the
            schedule.

    Raises:
        ValueError: the class does not tell all of its arguments in `get_config`.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = same_optimizer(optimizer.inner_optimizer, learning_rate)
        settings = {name: getattr(optimizer, name) for name in ("initial_scale", "dynamic_growth_steps")}
        return type(optimizer)(inner, name=optimizer.name, **settings)
    if learning_rate is None:
        learning_rate = _learning_rate_in_force(optimizer)
    try:
        config = config_without_learning_rate(optimizer)
        same = type(optimizer).from_config({**config, "learning_rate": learning_rate})
    except TypeError as error:
        raise ValueError(
            f"`{type(optimizer).__name__}` cannot be made anew from its config: `get_config` has to tell "
            f"every argument of its `__init__`. Received: optimizer={optimizer}"
        ) from error
    vars(same).update(copy.deepcopy(weight_decay_exclusions(optimizer)))
    return same


def _learning_rate_in_force(optimizer: keras.optimizers.Optimizer) -> Any:
    rate = learning_rate_or_schedule(optimizer)
    return float(value_on_host(rate)) if isinstance(rate, keras.Variable) else rate
