"""Fine-tune a pretrained model in one call: its head first, then all of it."""

from numbers import Integral, Real
from typing import Any

import keras

from keras_dnn_extras._arguments import check_in_float32, check_number, check_positive, positive_float
from keras_dnn_extras._models import (
    Data,
    built,
    check_recompilable,
    compiled_optimizer,
    innermost_optimizer,
    is_batch_norm,
    recompile,
    set_trainable,
    trainable_flags,
    with_checked_validation,
    with_inner_layers,
)
from keras_dnn_extras._rollback import rolled_back
from keras_dnn_extras.learning_rates import LearningRateSearch, rate_of
from keras_dnn_extras.transfer.fine_tune_schedule import FineTuneSchedule
from keras_dnn_extras.transfer.gradual_unfreezing import GradualUnfreezing
from keras_dnn_extras.transfer.head_and_body import head_and_body, learning_rate_multipliers
from keras_dnn_extras.transfer.training_plan import training_plan


def fine_tune(
    model: keras.Model,
    x: Data,
    y: Data | None = None,
    *,
    epochs: int,
    frozen_epochs: int = 1,
    learning_rate: float | LearningRateSearch = 1e-3,
    learning_rate_divisor: float = 100.0,
    layer_decay: float | None = None,
    **fit_arguments: Any,
) -> keras.callbacks.History:
    """Train the head of a pretrained model alone, then all of it with a lower learning rate.

    It is one `fit` of `epochs` epochs. In the first `frozen_epochs` the head trains, on a one-cycle
    schedule up to `learning_rate`; then all layers do, on another one up to
    `learning_rate / learning_rate_divisor`. Momentum runs the other way, as in `OneCycleScheduler`. The
    head is what is trainable if the rest is frozen, as `replace_head` leaves it; if nothing is frozen, or
    everything, it is the layers with weights that the outputs come from. BatchNormalization of the body
    stays in inference mode throughout. After an exception the same layers are frozen as before the call, so
    that it can be called again, with `BackupAndRestore` to go on where it stopped.

    Args:
        model: a compiled Keras model, with a float learning rate, which is not used.
        x, y: data as in `fit`.
        epochs: int > 0, how many in all.
        frozen_epochs: int from 0 to `epochs`, how many of them for the head alone.
        learning_rate: float > 0, the largest of the first cycle, or a `LearningRateSearch` for its
            `suggestion`.
        learning_rate_divisor: float > 0, by which that of the second is lower.
        layer_decay: float > 0, at most 1, or None for 1. The `i`-th layer with weights to train, counted
            from 0 at the output, has the share `layer_decay**i` of the learning rate: in models of many
            layers take 0.9 or more.
        **fit_arguments: other arguments of `fit`: `validation_data`, `batch_size`, `callbacks` and so on.
            With `verbose` other than 0, a table tells which layers train when, at what rate.

    Returns:
        The `History` of all epochs. The learning rate of each epoch's last update is in it.

    Raises:
        ValueError: a value is out of its range, or the search has no suggestion; the model is not compiled,
            has no weights, or its optimizer has a schedule; a callback sets the learning rate, too; the
            length of an epoch is unknown and `steps_per_epoch` not given.
        TypeError: a value is of the wrong type.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = fine_tune(model, x, y, epochs=3, verbose=0)
    >>> len(history.history["loss"])
    3

    Reference:
        Howard & Gugger, fastai: A Layered API for Deep Learning, 2020 (https://arxiv.org/abs/2002.04688).
    """
    learning_rate = positive_float("learning_rate", rate_of("learning_rate", learning_rate))
    divisor = positive_float("learning_rate_divisor", learning_rate_divisor)
    check_in_float32("learning_rate / learning_rate_divisor", learning_rate / divisor)
    _check_arguments(epochs, frozen_epochs, layer_decay)
    innermost_optimizer(model)
    check_recompilable(model)
    x = built(model, x, fit_arguments.get("batch_size") or 32)
    x, fit_arguments = with_checked_validation(model, x, y, fit_arguments)
    head, body = head_and_body(model)
    later = [layer for layer in body if not is_batch_norm(layer)]
    rates = learning_rate, learning_rate / divisor
    decay = 1.0 if layer_decay is None else float(layer_decay)
    multipliers = learning_rate_multipliers(model, head + later, decay)
    schedule = FineTuneSchedule(epochs, frozen_epochs, rates, multipliers)
    callbacks = [*_as_list(fit_arguments.pop("callbacks", None)), schedule]
    if later and frozen_epochs < epochs:
        callbacks.append(GradualUnfreezing({frozen_epochs: later}))
    # After an error the layers that are trainable tell the next call the head.
    with rolled_back(compiled_optimizer(model), trainable_flags(model), only_on_error=True):
        if (fit_arguments.get("initial_epoch") or 0) <= frozen_epochs:  # else it goes on with all of it
            set_trainable(model, with_inner_layers(body), False)
        set_trainable(model, head, True)
        recompile(model)
        if fit_arguments.get("verbose", "auto") != 0:
            print(training_plan(model, schedule, later))
        return model.fit(x, y, epochs=epochs, callbacks=callbacks, **fit_arguments)


def _as_list(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


def _check_arguments(epochs: Any, frozen_epochs: Any, layer_decay: Any) -> None:
    check_positive("epochs", epochs, Integral)
    check_number(
        "frozen_epochs",
        frozen_epochs,
        f"from 0 to `epochs`, which is {epochs}",
        lambda n: 0 <= n <= epochs,
        Integral,
    )
    if layer_decay is not None:
        check_number("layer_decay", layer_decay, "above 0 and at most 1", lambda d: 0 < d <= 1, Real)
