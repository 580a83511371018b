"""The learning rates of `fine_tune`: a cycle for the head, then one for all layers."""

from collections.abc import Callable

import keras
import numpy as np

from keras_dnn_extras._models import momentum_names, recovers_weights_by_momentum, weights_of
from keras_dnn_extras._training_step import LearningRateMultipliers, Timeline, TrainingStep
from keras_dnn_extras.learning_rates import Curve, FitToCome, LearningRateCallback, OneCycle

_MOMENTA = 0.95, 0.85  # at the ends of a cycle and in its middle, as in `OneCycleScheduler`


class FineTuneSchedule(LearningRateCallback):
    """A one-cycle schedule for the head, and another one for all layers, each of which has a multiplier.

    Args:
        epochs, frozen_epochs: as in `fine_tune`.
        rates: the largest learning rate of each of the two.
        multipliers: by what they are multiplied for each layer, from the first layer to the last.
    """

    def __init__(
        self,
        epochs: int,
        frozen_epochs: int,
        rates: tuple[float, float],
        multipliers: list[tuple[keras.layers.Layer, float]],
    ):
        super().__init__()
        self.epochs, self.frozen_epochs = epochs, frozen_epochs
        self.rates, self.multipliers = rates, multipliers

    @property
    def _display_name(self) -> str:
        return "fine_tune"

    def _instead_of_length(self) -> str | None:
        return "data of a known length"

    def _curves_for(self, fit: Timeline | FitToCome, initial: Callable[[], float]) -> dict[str, Curve]:
        total = fit.total or 1
        first = int(np.sum(fit.epoch_at(np.arange(total)) < self.frozen_epochs))
        cycles = [
            OneCycle(rate, max(n, 1)) for rate, n in zip(self.rates, (first, total - first), strict=True)
        ]
        ends, middle = _MOMENTA
        momenta = [cycle.cycle(ends, middle, ends) for cycle in cycles]
        return {
            "learning_rate": _in_turn(cycles[0].curve, cycles[1].curve, first),
            "momentum": _in_turn(momenta[0], momenta[1], first),
        }

    def _scheduled_momenta(self, optimizer: keras.optimizers.Optimizer) -> list[str]:
        return [] if recovers_weights_by_momentum(optimizer) else momentum_names(optimizer)

    def _join_step(self, step: TrainingStep) -> None:
        super()._join_step(step)
        for layer, multiplier in self.multipliers:
            step.part(LearningRateMultipliers).multiply(weights_of(layer), multiplier)


def _in_turn(before: Curve, after: Curve, first: int) -> Curve:
    """Return the curve that is `before` in the first updates, and `after` from the update `first` on."""
    return lambda i: np.where(np.asarray(i) < first, before(i), after(np.maximum(np.asarray(i) - first, 0)))
