"""Callbacks that decay the learning rate: exponential, power and piecewise constant."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import keras
import numpy as np

from keras_dnn_extras._arguments import (
    PACKAGE,
    check_bool,
    check_choice,
    check_rate,
    config_of,
)
from keras_dnn_extras._training_step import LossProbe, Timeline, TrainingStep, UpdateFreq
from keras_dnn_extras.learning_rates import curves
from keras_dnn_extras.learning_rates.curves import Curve
from keras_dnn_extras.learning_rates.decay_arguments import (
    check_boundary,
    check_list,
    check_none_of,
    check_one_of,
    checked_initial,
)
from keras_dnn_extras.learning_rates.learning_rate_callback import FitToCome, LearningRateCallback
from keras_dnn_extras.learning_rates.range_test_result import LearningRateSearch
from keras_dnn_extras.learning_rates.schedules import PowerDecay

BoundaryUnit = Literal["epoch", "update"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class ExponentialLR(LearningRateCallback):
    """Multiply the learning rate by a constant factor from update to update.

    The rate of update `i` is `initial * factor**i`, or `initial * decay_rate**(i / decay_steps)`, or
    `initial * decay_rate**(e / decay_epochs)` with `e` the number of epochs gone by. With `factor > 1` it
    is a learning-rate range test, and `losses` over `rates` is its picture; `find_learning_rate` does it
    with smoothing and suggestions, and restores the model.

    Args:
        factor: float > 0, from one update to the next. Either this or `decay_rate`.
        decay_rate: float > 0, the factor per `decay_steps` or per `decay_epochs`.
        decay_steps: float > 0, in updates.
        decay_epochs: float > 0, in epochs.
        initial_learning_rate: float > 0, the rate of update 0, or a `LearningRateSearch` for its
            `suggestion`. None: that of the optimizer when `fit` is called. A `fit` that continues another
            from `initial_epoch` needs to be told.
        staircase: bool. True changes the rate only after each whole `decay_steps` or `decay_epochs`.
        update_freq: `"epoch"`, `"batch"` or an int > 0. With the latter two the logs of each batch, as
            `TensorBoard(update_freq="batch")` writes them, have `learning_rate` and `momentum` of the last
            update, read after each batch or so many batches; those before the first reading of an epoch
            have none. `"epoch"` costs the least.
        verbose: 1 prints the rate after each epoch.

    Attributes:
        rates: list of floats, the learning rate of each update of the last `fit`.
        losses: list of floats, the loss of each of its batches: of the batch itself, where the logs of
            Keras have the mean of the epoch so far. As many as `rates`, or `gradient_accumulation_steps`
            times as many.
        history: dict of lists with one float per update, under `"learning_rate"` and, where the
            optimizer has one, `"momentum"`. Epoch logs have the last of each epoch.
            After a resume, it begins there; so does the plot.

    Raises:
        ValueError: a value is out of its range, or none or both of `factor` and `decay_rate` are given,
            or none or both of `decay_steps` and `decay_epochs`, or the search has no suggestion. When `fit`
            begins: the model is not compiled, or its optimizer has no single learning rate, or a schedule
            for it; another callback sets the rate too; `decay_epochs` is given and the length of an epoch
            is unknown.
        TypeError: a value is of the wrong type.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), loss="mse")
    >>> decay = ExponentialLR(decay_rate=0.1, decay_epochs=1)
    >>> x, y = np.ones((4, 2)), np.ones((4, 1))
    >>> history = model.fit(x, y, batch_size=2, epochs=2, callbacks=[decay], verbose=0)
    >>> [round(rate, 4) for rate in decay.rates]
    [0.1, 0.0316, 0.01, 0.0032]

    Reference:
        Géron, Hands-On Machine Learning, the chapter "Training Deep Neural Networks".
    """

    _scale = "log"

    def __init__(
        self,
        factor: float | None = None,
        *,
        decay_rate: float | None = None,
        decay_steps: float | None = None,
        decay_epochs: float | None = None,
        initial_learning_rate: float | LearningRateSearch | None = None,
        staircase: bool = False,
        update_freq: UpdateFreq = "epoch",
        verbose: int = 0,
    ):
        super().__init__(verbose, update_freq)
        self.factor = factor
        self.decay_rate = decay_rate
        self.decay_steps = decay_steps
        self.decay_epochs = decay_epochs
        self.initial_learning_rate = checked_initial(initial_learning_rate)
        self.staircase = staircase
        self.losses: list[float] = []
        check_one_of(factor=factor, decay_rate=decay_rate)
        if factor is None:
            check_one_of(decay_steps=decay_steps, decay_epochs=decay_epochs)
        else:
            check_none_of("factor", decay_steps=decay_steps, decay_epochs=decay_epochs)
        check_bool("staircase", staircase)

    @property
    def rates(self) -> list[float]:
        return list(self.history.get("learning_rate", ()))

    def get_config(self) -> dict[str, Any]:
        names = ("factor", "decay_rate", "decay_steps", "decay_epochs", "initial_learning_rate")
        return {**super().get_config(), **config_of(self, *names, "staircase")}

    def _has_steps(self) -> bool:
        return self.staircase

    def _instead_of_length(self) -> str | None:
        return None if self.decay_epochs is None else "`decay_steps`"

    def _curves_for(self, fit: Timeline | FitToCome, initial: Callable[[], float]) -> dict[str, Curve]:
        first = self.initial_learning_rate or initial()
        if self.factor is not None:
            return {"learning_rate": curves.exponential(first, self.factor, 1)}
        rate = float(self.decay_rate or 1)
        if self.staircase and self.decay_epochs is not None:
            stairs = curves.exponential(first, rate, self.decay_epochs, staircase=True)
            return {"learning_rate": lambda i: stairs(fit.epoch_at(i))}
        steps = _decay_steps(self, fit)
        return {"learning_rate": curves.exponential(first, rate, steps, staircase=self.staircase)}

    def _set_up(self, callbacks: list[keras.callbacks.Callback]) -> None:
        super()._set_up(callbacks)
        self.losses = []

    def _join_step(self, step: TrainingStep) -> None:
        super()._join_step(step)
        step.part(LossProbe).record_for(self)

    def _update_logs(self, epoch: int, logs: dict) -> None:
        super()._update_logs(epoch, logs)
        self.losses.extend(self._step.part(LossProbe).losses(self)[1].tolist())


@keras.saving.register_keras_serializable(package=PACKAGE)
class PowerLR(LearningRateCallback):
    """Power scheduling: the learning rate falls fast at first, then ever more slowly.

    The rate of update `i` is `initial / (1 + i / decay_steps) ** power`, or the same with epochs gone by
    over `decay_epochs`.

    Args:
        decay_steps: float > 0, in updates. Either this or `decay_epochs`.
        decay_epochs: float > 0, in epochs.
        power: float >= 0.
        initial_learning_rate: float > 0, the rate of update 0, or a `LearningRateSearch` for its
            `suggestion`. None: that of the optimizer when `fit` is called. A `fit` that continues another
            from `initial_epoch` needs to be told.
        update_freq: `"epoch"`, `"batch"` or an int > 0. With the latter two the logs of each batch, as
            `TensorBoard(update_freq="batch")` writes them, have `learning_rate` and `momentum` of the last
            update, read after each batch or so many batches; those before the first reading of an epoch
            have none. `"epoch"` costs the least.
        verbose: 1 prints the rate after each epoch.

    Attributes:
        history: dict of lists with one float per update of the last `fit`, under `"learning_rate"`
            and, where the optimizer has one, `"momentum"`. Epoch logs have the last of each epoch.
            After a resume, it begins there; so does the plot.

    Raises:
        ValueError: a value is out of its range, or none or both of `decay_steps` and `decay_epochs` are
            given, or the search has no suggestion. When `fit` begins: the model is not compiled, or its
            optimizer has no single learning rate, or a schedule for it; another callback sets the rate too;
            `decay_epochs` is given and the length of an epoch is unknown.
        TypeError: a value is of the wrong type.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), loss="mse")
    >>> decay = PowerLR(decay_steps=2)
    >>> x, y = np.ones((4, 2)), np.ones((4, 1))
    >>> history = model.fit(x, y, batch_size=1, callbacks=[decay], verbose=0)
    >>> [round(rate, 4) for rate in decay.history["learning_rate"]]
    [0.1, 0.0667, 0.05, 0.04]

    Reference:
        Géron, Hands-On Machine Learning, the chapter "Training Deep Neural Networks".
    """

    _scale = "log"

    def __init__(
        self,
        *,
        decay_steps: float | None = None,
        decay_epochs: float | None = None,
        power: float = 1.0,
        initial_learning_rate: float | LearningRateSearch | None = None,
        update_freq: UpdateFreq = "epoch",
        verbose: int = 0,
    ):
        super().__init__(verbose, update_freq)
        self.decay_steps = decay_steps
        self.decay_epochs = decay_epochs
        self.power = power
        self.initial_learning_rate = checked_initial(initial_learning_rate)
        check_one_of(decay_steps=decay_steps, decay_epochs=decay_epochs)
        PowerDecay(1.0, 1.0, power)  # checks `power`

    def get_config(self) -> dict[str, Any]:
        names = ("decay_steps", "decay_epochs", "power", "initial_learning_rate")
        return {**super().get_config(), **config_of(self, *names)}

    def _instead_of_length(self) -> str | None:
        return None if self.decay_epochs is None else "`decay_steps`"

    def _curves_for(self, fit: Timeline | FitToCome, initial: Callable[[], float]) -> dict[str, Curve]:
        first = self.initial_learning_rate or initial()
        return {"learning_rate": curves.power(first, _decay_steps(self, fit), self.power)}


@keras.saving.register_keras_serializable(package=PACKAGE)
class PiecewiseConstantLR(LearningRateCallback):
    """A constant learning rate, and another from each boundary on.

    `values[0]` before `boundaries[0]`, `values[1]` from there on: update or epoch `boundaries[0]` is the
    first that has `values[1]`. (Keras's `PiecewiseConstantDecay` changes one update later.)

    Args:
        boundaries: increasing list of numbers >= 0. An epoch may be a float: 2.5 is in its middle.
        values: list of floats >= 0, one more than `boundaries`.
        unit: `"epoch"` or `"update"`, what the boundaries count, from 0.
        update_freq: `"epoch"`, `"batch"` or an int > 0. With the latter two the logs of each batch, as
            `TensorBoard(update_freq="batch")` writes them, have `learning_rate` and `momentum` of the last
            update, read after each batch or so many batches; those before the first reading of an epoch
            have none. `"epoch"` costs the least.
        verbose: 1 prints the rate after each epoch.

    Attributes:
        history: dict of lists with one float per update of the last `fit`, under `"learning_rate"`
            and, where the optimizer has one, `"momentum"`. Epoch logs have the last of each epoch.
            After a resume, it begins there; so does the plot.

    Raises:
        ValueError: a value is out of its range, or the lists do not match. When `fit` begins: the model
            is not compiled, or its optimizer has no single learning rate, or a schedule for it; another
            callback sets the rate too; a boundary lies within an epoch whose length is unknown.
        TypeError: a value is of the wrong type.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(), loss="mse")
    >>> steps = PiecewiseConstantLR([1, 2.5], [0.1, 0.01, 0.001])
    >>> x, y = np.ones((4, 2)), np.ones((4, 1))
    >>> history = model.fit(x, y, batch_size=2, epochs=3, callbacks=[steps], verbose=0)
    >>> steps.history["learning_rate"]
    [0.1, 0.1, 0.01, 0.01, 0.01, 0.001]

    Reference:
        Géron, Hands-On Machine Learning, the chapter "Training Deep Neural Networks".
    """

    _scale = "log"

    def __init__(
        self,
        boundaries: Sequence[float],
        values: Sequence[float],
        *,
        unit: BoundaryUnit = "epoch",
        update_freq: UpdateFreq = "epoch",
        verbose: int = 0,
    ):
        super().__init__(verbose, update_freq)
        self.boundaries = boundaries
        self.values = values
        self.unit = unit
        for name, check in (("boundaries", check_boundary), ("values", check_rate)):
            check_list(name, getattr(self, name), check)
        if any(a >= b for a, b in pairwise(boundaries)):
            raise ValueError(f"Expected `boundaries` to increase. Received: boundaries={boundaries}")
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                "Expected `values` to have one element more than `boundaries`. "
                f"Received: boundaries={boundaries}, values={values}"
            )
        check_choice("unit", unit, BoundaryUnit)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **config_of(self, "boundaries", "values", "unit")}

    def _has_steps(self) -> bool:
        return True

    def _instead_of_length(self) -> str | None:
        within = self.unit == "epoch" and any(boundary % 1 for boundary in self.boundaries)
        return 'whole epochs as `boundaries` or `unit="update"`' if within else None

    def _curves_for(self, fit: Timeline | FitToCome, initial: Callable[[], float]) -> dict[str, Curve]:
        curve = curves.piecewise_constant(self.boundaries, self.values)
        if self.unit == "update":
            return {"learning_rate": lambda i: curve(np.asarray(i, "float64"))}
        return {"learning_rate": lambda i: curve(fit.epoch_at(i))}


def _decay_steps(callback: Any, fit: Timeline | FitToCome) -> float:
    """Return the `decay_steps` of `callback` in updates, or its `decay_epochs` in updates of `fit`."""
    if callback.decay_steps is not None:
        return callback.decay_steps
    return callback.decay_epochs * fit.updates_per_epoch
