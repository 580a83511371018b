"""Where a `fit` is: its updates, batches and epochs."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_dnn_extras._models import iterations, learning_rate, seen_batches


@dataclass(frozen=True)
class Clock:
    """The place of a `fit` on the time line of its optimizer.

    Attributes:
        start: batches that the optimizer had seen at update 0 of the fit, which lies before the first
            batch of this call where the fit resumes another.
        accumulation: batches in an update.
        total: updates in the whole fit, or None where the length of an epoch is unknown.
        steps: batches in an epoch, or None if unknown.
        continues: whether the model came to `fit` with an optimizer that has done the fit's first
            epochs already, in a file for instance, and no callback restored it.
    """

    start: int
    accumulation: int
    total: int | None
    steps: int | None
    continues: bool

    @property
    def origin(self) -> int:
        """The optimizer's `iterations` at update 0 of the fit."""
        return -(-self.start // self.accumulation) if self.start < 0 else self.start // self.accumulation

    @classmethod
    def of_fit(
        cls,
        *,
        before: int,
        now: int,
        first_epoch: int,
        epochs: int | None,
        steps: int | None,
        accumulation: int,
        interrupted: int | None = None,
    ) -> "Clock":
        """Return the clock of a fit.

        Args:
            before: batches that the optimizer had seen when `fit` was called.
            now: the same when the first epoch begins, after callbacks have restored it.
            first_epoch: index of that epoch.
            epochs: index of the epoch to stop before, or None if unknown.
            steps: batches in an epoch, or None if unknown.
            accumulation: batches in an update.
            interrupted: the `start` of a fit with the same optimizer that an exception ended, or None.
        """
        done = first_epoch * (steps or 0)
        if now != before:  # a callback has restored the optimizer
            if interrupted is not None and interrupted <= now:
                start = interrupted
            else:
                start = before if before <= now else max(now - done, 0)
        elif not first_epoch:
            start = before
        elif before == 0:  # weights restored before `fit`, without an optimizer
            start = -done
        else:
            # Restored before `fit` with its optimizer, which has seen the batches of those epochs:
            # more where it was trained before, fewer where loss scaling skipped some.
            start = max(before - done, 0) if steps else 0
        total = None
        if epochs is not None and steps is not None:
            total = (max(start, 0) % accumulation + epochs * steps) // accumulation
        return cls(start, accumulation, total, steps, continues=before == now > 0 and first_epoch > 0)


class _Rates(NamedTuple):
    """Learning rates of a fit that follows a curve."""

    first: float | None = None  # if the fit was to begin with the optimizer's own
    last: float | None = None  # when it ended


class Timeline:
    """Tells where a fit stands, by the counters of its optimizer. Set by the first epoch of the fit.

    Attributes:
        optimizer: whose counters these are.
        epoch: the index of the epoch that began last.
        epoch_began_at: the optimizer's `iterations` when it began.
        updates: the optimizer's `iterations` when they were last read.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self.epoch = self.epoch_began_at = self.updates = 0
        self.optimizer = optimizer
        self._clock: Any = None  # a `Clock` from the beginning of the first epoch on
        self._waiting = 0  # batches whose gradients were accumulated, and not applied, when it began
        self._interrupted: int | None = None
        self._rates_before = self.rates = _Rates()  # of the fit before, and of this one

    def follow(self, earlier: "Timeline", *, interrupted: bool) -> None:
        """Remember the fit before this one, which an exception may have ended.

        It does not count if it was another optimizer's.
        """
        if earlier.optimizer is self.optimizer:
            self._rates_before = earlier.rates
            self._interrupted = earlier.start if interrupted else None

    def begin_epoch(self, epoch: int, *, before: int, params: dict) -> None:
        """Note that `epoch` begins, and set the clock by the first one.

        Args:
            before: batches that the optimizer had seen when `fit` was called.
            params: of the fit, as Keras tells them to callbacks.
        """
        if self._clock is None:
            self._clock = Clock.of_fit(
                before=before,
                now=seen_batches(self.optimizer),
                first_epoch=epoch,
                epochs=params.get("epochs"),
                steps=params.get("steps"),
                accumulation=self.optimizer.gradient_accumulation_steps or 1,
                interrupted=self._interrupted,
            )
        self.epoch, self.epoch_began_at = epoch, self.read_updates()
        accumulation = self._clock.accumulation
        self._waiting = seen_batches(self.optimizer) % accumulation if accumulation > 1 else 0

    def read_updates(self) -> int:
        """Read the optimizer's `iterations` into `updates`. Between two steps; it asks the device."""
        self.updates = iterations(self.optimizer)
        return self.updates

    def end(self) -> None:
        """Note that the fit ends."""
        self.rates = self.rates._replace(last=learning_rate(self.optimizer))

    @property
    def has_begun(self) -> bool:
        """Whether the first epoch has begun, from which on all else is known."""
        return self._clock is not None

    @property
    def start(self) -> int:
        """The batches that the optimizer had seen at update 0 of the fit."""
        return self._clock.start

    @property
    def origin(self) -> int:
        """The optimizer's `iterations` at update 0 of the fit."""
        return self._clock.origin

    @property
    def total(self) -> int | None:
        """The number of updates in the fit, or None if unknown."""
        return self._clock.total

    @property
    def updates_per_epoch(self) -> float | None:
        """The number of updates in an epoch, or None if unknown. It may have a fraction."""
        return self._clock.steps and self._clock.steps / self._clock.accumulation

    @property
    def position(self) -> int:
        """The number of the fit's next update when the updates were last read."""
        return self.updates - self.origin

    def epoch_at(self, i: Any) -> Any:
        """Return in which epoch of the fit update `i` of the current one is applied, as a float.

        Counted from the beginning of the epoch, so that updates that loss scaling skipped in earlier
        epochs do not matter. Only the whole part is right where the length of an epoch is unknown.
        """
        steps = self._clock.steps
        if steps is None:
            return np.full(np.shape(i), float(self.epoch))
        updates = np.asarray(i) - (self.epoch_began_at - self.origin) + 1
        batch = updates * self._clock.accumulation - 1 - self._waiting
        # One division of integers: the float that is nearest, as the user's 0.3 is to 3 / 10.
        return (self.epoch * steps + batch) / steps

    def batches_until(self, epoch: int, now: int) -> int:
        """Return how many batches the optimizer had seen when `epoch` began, some epochs before `now`."""
        steps = self._clock.steps
        if steps is None:  # epochs are taken to be equally long
            steps = (seen_batches(self.optimizer) - self.start) / max(now, 1)
        return self.start + round(epoch * steps)

    def initial_rate(self, current: float) -> float:
        """Return the learning rate that the fit began with, of which this call may be a later part.

        Args:
            current: the optimizer's learning rate when `fit` was called.
        """
        before, initial = self._rates_before, current
        if self.position > 0 and before.first is not None and before.last in (None, current):
            initial = before.first
        elif self._clock.continues:
            raise ValueError(
                "The learning rate that training began with is not known: this `fit` goes on from "
                "`initial_epoch`, and the optimizer may have a rate from the middle of the curve. Pass "
                f"`initial_learning_rate`. Received: initial_learning_rate=None, learning_rate={current}"
            )
        self.rates = _Rates(first=initial)
        return initial
