"""The learning-rate range test: which rate to train with, found in about a hundred batches."""

import types
from collections.abc import Mapping
from numbers import Integral

import keras
import numpy as np

from keras_dnn_extras._arguments import check_bool, check_positive, check_verbose
from keras_dnn_extras._models import Data, built, innermost_optimizer, rolled_back_training
from keras_dnn_extras.learning_rates.decay_callbacks import ExponentialLR
from keras_dnn_extras.learning_rates.range_test_arguments import (
    check_data,
    check_divergence_factor,
    check_range,
    checked_class_weight,
    no_batch,
)
from keras_dnn_extras.learning_rates.range_test_result import LearningRateSearch
from keras_dnn_extras.learning_rates.range_test_watch import MOST_SKIPPED, RangeTestWatch


def find_learning_rate(
    model: keras.Model,
    x: Data,
    y: Data | None = None,
    *,
    batch_size: int = 32,
    min_learning_rate: float = 1e-7,
    max_learning_rate: float = 10.0,
    steps: int = 100,
    divergence_factor: float = 4.0,
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Data | None = None,
    verbose: int = 1,
) -> LearningRateSearch:
    """Train for some batches at a growing learning rate, see where the loss falls, and undo it all.

    In update `i` of the test the rate is
    `min_learning_rate * (max_learning_rate / min_learning_rate) ** (i / (steps - 1))`. The loss of each
    batch is that of the batch itself, before its update. The test ends early where the loss diverges.

    Afterwards the model is as it was, bit for bit, also after an exception or Ctrl-C: weights,
    BatchNormalization statistics, optimizer, learning rate, seed generators and metrics; and so are the
    global random generators. A model that was not built yet is built. What cannot be put back is the
    data: a generator has been advanced, and a dataset that shuffles anew each time has done so.

    Args:
        model: a compiled model. Its optimizer may have a schedule, which the test replaces by its own.
        x, y: data as `fit` takes it: arrays, `tf.data.Dataset`, `PyDataset`, generator, torch
            `DataLoader`. It is gone through as often as is needed.
        batch_size: int > 0, for arrays.
        min_learning_rate: float of 1.2e-38 or more, the rate of the first update.
        max_learning_rate: float > `min_learning_rate`, to 3.4e38, the rate of the last.
        steps: int >= 2, the number of updates. With `gradient_accumulation_steps` each has several
            batches, whose mean loss is taken. No more than there are float32 rates, which is 150 million
            from 1e-7 to 10.
        divergence_factor: float > 1. The test ends when the smoothed loss is so many times its least.
        shuffle, class_weight, sample_weight: as in `fit`. Pass what you train with.
        verbose: 1 shows a progress bar, 0 does not.

    Returns:
        A `LearningRateSearch`: `learning_rates` and `losses`, arrays of up to `steps` floats, `suggestion`
        and the `reason` for it.

    Raises:
        ValueError: a value is out of its range, the model is not compiled or has no trainable weights, or
            `fit` would not take the data. Where that is seen, the model is not even built.
        TypeError: a value is of the wrong type.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(256, 4))
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss="mse")
    >>> search = find_learning_rate(model, x, x.sum(axis=1), verbose=0)
    >>> 1e-3 < search.suggestion < 1
    True

    Reference:
        Smith, Cyclical Learning Rates for Training Neural Networks, 2017
        (https://arxiv.org/abs/1506.01186).
    """
    check_positive("batch_size", batch_size, Integral)
    check_range(min_learning_rate, max_learning_rate, steps)
    check_divergence_factor(divergence_factor)
    check_bool("shuffle", shuffle)
    check_verbose(verbose)
    class_weight = checked_class_weight(class_weight)
    accumulation = innermost_optimizer(model).gradient_accumulation_steps or 1
    check_data(x, y, sample_weight, class_weight)
    watch = RangeTestWatch(steps, accumulation, divergence_factor, verbose)
    low, high = float(min_learning_rate), float(max_learning_rate)
    growth = ExponentialLR((high / low) ** (1 / (steps - 1)), initial_learning_rate=low)

    # An epoch may have a single batch. A generator has one epoch: where it ends, another one would be its
    # first two batches, which Keras keeps.
    epochs = 1 if isinstance(x, types.GeneratorType) else steps * accumulation + MOST_SKIPPED
    x = built(model, x, batch_size)
    if model.built and not model.trainable_variables:
        raise ValueError(
            "Expected a model with trainable weights. Unfreeze some, and compile the model anew. "
            f"Received: model={model}"
        )
    with rolled_back_training(model, low):
        model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            callbacks=[growth, watch],
            verbose=0,
        )
    if not watch.batches:
        raise no_batch(x)
    rates = _rates(low, high, steps, len(watch.losses))
    return LearningRateSearch(rates, watch.losses, divergence_factor, steps)


def _rates(low: float, high: float, steps: int, count: int) -> np.ndarray:
    """Return the first `count` rates, of shape `(count,)`: all `steps` may be too many for an array."""
    rates = low * (high / low) ** (np.arange(count) / (steps - 1))
    rates[steps - 1 :] = high  # which it is except for rounding
    return rates
