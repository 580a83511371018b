"""Replicas of a model in a `tf.distribute` strategy."""

import contextlib
from typing import Any

import keras


def strategy_scope(model: keras.Model) -> Any:
    """Return the scope that variables of `model` are made in."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def mean_over_replicas(value: Any, weight: Any) -> Any:
    """Return the mean of the replicas' values by their weights, in a step of a `tf.distribute` strategy."""
    if replica_context() is None:
        return value
    import tensorflow as tf

    value = tf.where(weight > 0, value * weight, 0.0)  # a replica without samples has a loss of NaN
    total, weight = sum_over_replicas([value, weight])
    return total / weight


def sum_over_replicas(values: list) -> list:
    """Return the sums of the replicas' values, in a step of a `tf.distribute` strategy."""
    context = replica_context()
    if context is None:
        return values
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def replica_context() -> Any:
    """Return the context of this replica, or None if it is the only one."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    if not tf.distribute.has_strategy() or tf.distribute.in_cross_replica_context():
        return None
    context = tf.distribute.get_replica_context()
    return context if context.num_replicas_in_sync > 1 else None
