"""Where a `fit` is: its updates, batches and epochs."""

from dataclasses import dataclass


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
