"""Which calls of the step callbacks have announced, and whether it does what they rely on."""

import contextlib
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import keras

from keras_dnn_extras._keras_internals import wrapped_methods


class _Announcement(NamedTuple):
    batch: int
    loop: tuple | None  # which function announces the batch, and will run the step


class StepGuard:
    """Knows which steps are those of the fit, and refuses a fit whose steps callbacks cannot reach."""

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer):
        self._model = model
        self._optimizer = optimizer
        self._announcement: _Announcement | None = None
        self._has_run = False  # an announced step, in this epoch
        self._has_applied = False  # gradients, through the optimizer, in this fit
        self._updates = 0  # in the last call of the step, as far as they can be counted

    def begin_epoch(self) -> None:
        """Forget the steps of the epoch before."""
        self._has_run = False
        self._announcement = None

    def announce(self, batch: int, loop: FrameType | None) -> None:
        """Expect the next step from `loop`, the frame that announces it."""
        self._announcement = _Announcement(batch, self._identity(loop))

    def refuse_unreached_before(self, batch: int) -> None:
        """Raise if the step of an earlier batch was announced and did not run."""
        if self._announcement is not None and self._announcement.batch != batch:
            self._refuse_unreached()

    def begin_step(self, loop: FrameType | None) -> bool:
        """Return whether the step that `loop` runs was announced, and take it for done."""
        announcement = self._announcement
        if announcement is None or announcement.loop not in (None, self._identity(loop)):
            return False
        self._announcement, self._has_run, self._updates = None, True, 0
        return True

    def end_step(self) -> int:
        """Return how many updates the step has applied, or raise if it applied none through the optimizer.

        Counted where Python sees them: a step that was traced before counts none.
        """
        if not self._has_applied and self._model.optimizer is self._optimizer:
            self._refuse_unused()
        return self._updates

    def end_epoch(self, *, updated: bool) -> None:
        """Check that callbacks reached the steps of the epoch.

        Args:
            updated: whether the optimizer has applied updates in it.

        Raises:
            RuntimeError: they did not.
        """
        if self._announcement is not None or (updated and not self._has_run):
            self._refuse_unreached()
        if updated and not self._has_applied:
            self._refuse_unused()

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Count the updates of the step while it is traced or runs."""
        with wrapped_methods(self._optimizer, apply_gradients=self._counting):
            yield

    def _counting(self, apply_gradients: Callable) -> Callable:
        def count(gradients: list, variables: list) -> Any:
            self._has_applied = True
            self._updates += 1
            return apply_gradients(gradients, variables)

        return count

    def _identity(self, loop: FrameType | None) -> tuple | None:
        # Not the frame itself, which would keep the data of `fit` alive after an exception. Its address
        # may be given to a later one then: to another function's, or to that of a `fit` of its own
        # history.
        if loop is None:
            return None
        return id(loop), loop.f_code, getattr(self._model, "history", None)

    def _refuse_unreached(self) -> None:
        raise RuntimeError(
            "A step of `fit` was not the one that callbacks reach. Either another callback replaced "
            "`model.train_function` after the batch had begun, or a callback overrides "
            "`on_train_batch_begin` without `super().on_train_batch_begin(batch, logs)`, or a `fit` of "
            "your own does not call `callbacks.on_train_batch_begin` and `model.train_function` from one "
            f"and the same function. Received: model={self._model}"
        )

    def _refuse_unused(self) -> None:
        raise RuntimeError(
            f"The training step did not apply gradients through `{type(self._optimizer).__name__}"
            "._backend_apply_gradients`, so callbacks cannot reach it. In a custom `train_step` use "
            "`self.optimizer.apply`, where `self.optimizer` is the one that `Model.compile` was given; in "
            "a custom optimizer override `update_step`, not `apply`. "
            f"Received: model={self._model}, optimizer={self._optimizer}"
        )
