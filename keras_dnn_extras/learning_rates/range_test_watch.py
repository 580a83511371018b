"""The callback that watches a learning-rate range test."""

import keras
import numpy as np

from keras_dnn_extras._training_step import LossProbe, StepCallback, TrainingStep
from keras_dnn_extras.learning_rates import suggestions

MOST_SKIPPED = 50  # updates in a row that loss scaling may skip before it is given up


class RangeTestWatch(StepCallback):
    """Records the losses of a range test, and ends it: after its steps, or where the loss diverges.

    Attributes:
        losses: of each update, the mean of its batches.
        batches: the losses of the batches of each update.
    """

    def __init__(self, steps: int, accumulation: int, divergence_factor: float, verbose: int):
        super().__init__()
        self.steps = steps
        self.accumulation = accumulation
        self.divergence_factor = divergence_factor
        self.losses: list[float] = []
        self.batches: dict[int, list[float]] = {}
        self.means: list[suggestions.Smoothing] = []  # after each of the losses
        self.bar = keras.utils.Progbar(steps, verbose=verbose, stateful_metrics=["loss"])

    def _join_step(self, step: TrainingStep) -> None:
        step.part(LossProbe).record_for(self)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        probe = self._step.part(LossProbe)
        probe.download()
        for update, loss in zip(*probe.losses(self), strict=True):
            self.batches.setdefault(int(update), []).append(float(loss))
            if len(self.batches[update]) >= self.accumulation:  # more, where loss scaling tries again
                self.record(update, float(np.mean(self.batches[update])))
        del self.losses[self.steps :]
        if self.losses:
            self.bar.update(len(self.losses), [("loss", self.losses[-1])], finalize=False)
        if len(self.losses) == self.steps or self.diverges() or self.is_stuck():
            self.model.stop_training = True

    def record(self, update: int, loss: float) -> None:
        """Record the `loss` of `update`, and forget later ones: the update is tried again."""
        del self.losses[update:], self.means[update:]
        before = self.means[-1] if self.means else suggestions.Smoothing()
        self.losses.append(loss)
        self.means.append(before.after(loss))

    def diverges(self) -> bool:
        """Return whether the smoothed loss does, after the last update."""
        if not self.means:
            return False
        last = self.means[-1]
        return suggestions.diverges(np.array([last.least, last.mean]), self.divergence_factor)

    def is_stuck(self) -> bool:
        """Return whether loss scaling skips one update after the other."""
        return len(self.batches[max(self.batches)]) > self.accumulation + MOST_SKIPPED

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        self.bar.update(len(self.losses), finalize=True)
