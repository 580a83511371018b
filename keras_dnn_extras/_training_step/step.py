"""Values that travel through the compiled training step: hyperparameters in, measurements out.

Keras bakes `momentum`, `beta_1` and the like into the traced step as Python floats, and gives a
callback no cheap way to reach it: on JAX each access to the model copies the whole training state.
So the values of the coming updates are uploaded together, as a table, and the step itself looks up
the row of its update; what it measures it writes into a second table, which is read as rarely.

Everything is in place only while `model.train_function` runs. Between two steps, in every callback
and after an exception the optimizer and the model are as Keras made them, so that whatever is saved
or read there is plain Keras.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._keras_internals import loop_of_fit, loop_of_step, replaced
from keras_dnn_extras._models import (
    accept_trainable,
    innermost_optimizer,
    iterations,
    learning_rate,
    rebuild,
    seen_batches,
)
from keras_dnn_extras._training_step.gradient_probe import GradientMeasurements, Measured, widths
from keras_dnn_extras._training_step.hyperparameters import Driving
from keras_dnn_extras._training_step.learning_rate_multipliers import Pacing
from keras_dnn_extras._training_step.loss_probe import BatchLosses
from keras_dnn_extras._training_step.ring_buffer import Ring
from keras_dnn_extras._training_step.timeline import Clock

_ROWS = 4096  # of the tables, each an update
_NUMBERS = 2**18  # in what is measured, 1 MiB: where it is more, there are fewer rows


class StepState:
    """What travels through the training step of one `fit`: the model's `train_function` meanwhile.

    Callbacks join it when training begins and share it. A step that no callback has announced by
    `begin_batch` (one of a later fit, or `train_on_batch` within this one) is passed on to the train
    function that Keras made.
    """

    def __init__(self, model: keras.Model, fit: Any):
        self.optimizer = innermost_optimizer(model)
        self._clock: Any = None  # a `Clock` from the beginning of the first epoch on
        self._interrupted: int | None = None
        self._first_rate: float | None = None  # if the fit was to begin with the optimizer's own
        self._last_rate: float | None = None  # from `leave` on
        self._earlier: StepState | None = None
        self._rows = 0
        self._model = model
        self._fit = fit
        self._users: list[Any] = []
        self._driving = Driving(self.optimizer)
        self._pacing = Pacing(self.optimizer)
        self._losses: dict[Any, list] = {}  # by callback, what it has not yet asked for
        self._batch_losses: BatchLosses | None = None
        self._records: dict[Any, list] = {}
        self._to_train: list[Callable[[], list[keras.Variable]]] = []
        self._changes = False  # whether those of the weights are measured
        self._measurements: GradientMeasurements | None = None
        if model.train_function is None:  # a loop of the user's own, and no `fit` before
            model.make_train_function()
        self._plain = model.train_function
        self._traced: Any = None
        self._announced: tuple | None = None
        self._reached = self._driven = False
        self._applied = self._most_applied = 0  # updates in a step, as far as they can be counted
        self._uploaded = 0  # `iterations` at the last exchange
        self._exchanged_at = self._exchange_at = 0  # batches

    @classmethod
    def join(cls, callback: Any, last: "StepState | None" = None) -> "StepState":
        """Return the state of the fit that `callback` takes part in, made by the first who asks.

        Args:
            last: the state of the fit before, as far as `callback` remembers it.
        """
        model, fit = callback.model, callback.params
        current = model.train_function
        if isinstance(current, cls):
            if current._fit is fit and callback not in current._users:
                current._users.append(callback)
                return current
            model.train_function = current._plain  # left by a fit that an exception ended
        state = cls(model, fit)
        if isinstance(current, cls) and current._clock and current.optimizer is state.optimizer:
            state._interrupted = current._clock.start
            last = current
        if last is not None and last.optimizer is state.optimizer:
            last._earlier = None  # no chain of all fits
            state._earlier = last
        state._users.append(callback)
        model.train_function = state
        return state

    def leave(self, callback: Any) -> None:
        """Take back what `callback` asked for; the last one restores the model."""
        if callback in self._users:
            self._users.remove(callback)
        if not self._users:
            self._traced = None
            self._last_rate = learning_rate(self.optimizer)
            if self._model.train_function is self:
                self._model.train_function = self._plain

    @property
    def total(self) -> int | None:
        """The number of updates in the fit, or None if unknown. Known when its first epoch begins."""
        return self._clock.total

    @property
    def updates_per_epoch(self) -> float | None:
        """The number of updates in an epoch, or None if unknown. It may have a fraction."""
        return self._clock.steps and self._clock.steps / self._clock.accumulation

    def position(self) -> int:
        """Return the number of the fit's next update. Between two epochs; it asks the device."""
        return iterations(self.optimizer) - self._clock.origin

    def epoch_at(self, i: Any) -> Any:
        """Return in which epoch of the fit update `i` of the current one is applied, as a float.

        Told from the beginning of the epoch on, so that updates that loss scaling skipped in earlier
        epochs do not matter. The whole part alone is right where the length of an epoch is unknown.
        """
        clock, epoch, first, rest = self._clock, *self._epoch
        if clock.steps is None:
            return np.full(np.shape(i), float(epoch))
        batch = (np.asarray(i) - first + 1) * clock.accumulation - 1 - rest
        # One division of integers: the float that is nearest, as the user's 0.3 is to 3 / 10.
        return (epoch * clock.steps + batch) / clock.steps

    def batches_until(self, epoch: int, now: int) -> int:
        """Return how many batches the optimizer had seen when `epoch` began, some epochs before `now`."""
        clock = self._clock
        steps = clock.steps
        if steps is None:  # epochs are taken to be equally long
            steps = (seen_batches(self.optimizer) - clock.start) / max(now, 1)
        return clock.start + round(epoch * steps)

    def initial_rate(self, own: float) -> float:
        """Return the learning rate that the fit began with, of which this call may be a later part.

        Args:
            own: the optimizer's learning rate when `fit` was called.
        """
        earlier = self._earlier
        if (
            self.position() > 0
            and earlier
            and earlier._first_rate is not None
            and earlier._last_rate in (None, own)
        ):
            own = earlier._first_rate
        elif self._clock.continues:
            raise ValueError(
                "The learning rate that training began with is not known: this `fit` goes on from "
                "`initial_epoch`, and the optimizer may have a rate from the middle of the curve. Pass "
                f"`initial_learning_rate`. Received: initial_learning_rate=None, learning_rate={own}"
            )
        self._first_rate = own
        return own

    # -- asked by callbacks -----------------------------------------------------------------------

    def drive(
        self, name: str, curve: Callable[[np.ndarray], Any], refuse_other_writer: Callable[[str], None]
    ) -> None:
        """Let `curve(i)` be the optimizer's hyperparameter `name` in update `i` of the fit.

        Args:
            name: `"learning_rate"`, or a float attribute of the optimizer.
            curve: takes a NumPy array of update numbers, returns the values. Called first when the
                first batch begins.
            refuse_other_writer: called with `name` between two steps, if anything else wrote it. It raises.
        """
        self._driving.add(name, curve, refuse_other_writer)

    def share_rate(self, weights: list[keras.Variable], share: float) -> None:
        """Let `weights` train at this `share` of the learning rate. Before the first batch."""
        self._pacing.share(weights, share)

    def follow_trainable(self, started: dict[int, int]) -> None:
        """Train the weights that are trainable now. At the beginning of an epoch.

        The state of those that were trained already is kept. All others begin as if the optimizer did.

        Args:
            started: by `id(weight)`, how many batches the optimizer had seen when it first trained it, of
                those for which that is not the beginning of all.
        """
        model, optimizer = self._model, self._model.optimizer
        # First of all: after an interrupt there must be no step that trains the former ones.
        model.make_train_function(force=True)
        self._plain, self._traced = model.train_function, None
        model.train_function = self
        if optimizer.built:
            with strategy_scope(model):
                rebuild(optimizer, model.trainable_variables)
        self._pacing.starts = started
        self._measurements = None  # which has a column for each of them. All was read when the epoch ended
        accept_trainable(model)

    def will_train(self, weights: Callable[[], list[keras.Variable]]) -> None:
        """Tell of weights that `follow_trainable` will train in a later epoch. Before the first epoch.

        Args:
            weights: returns them, once the model is built.
        """
        self._to_train.append(weights)

    @property
    def weights_of_fit(self) -> list[keras.Variable]:
        """The weights that are trained in this fit, now or later. None before the model is built."""
        later = [variable for weights in self._to_train for variable in weights()]
        return [*self._model.trainable_variables, *later]

    def record_losses(self, callback: Any) -> None:
        """Have the loss of each batch recorded."""
        self._losses[callback] = []

    def recorded_losses(self, callback: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of the batches since the last call, and before them the updates they go into.

        An update of several batches is there several times. It may be called between two steps.
        """
        self._download()
        updates, (losses,) = _joined(self._losses, callback, [1])
        return updates - self._clock.origin, losses[:, 0]

    def measure_gradients(self, callback: Any, *, changes: bool = False) -> None:
        """Have the norms of the gradients recorded, and those of the changes of the weights maybe."""
        self._records[callback] = []
        self._changes |= changes

    @property
    def measured_variables(self) -> list[keras.Variable]:
        """The variables that have a column in what is measured. None before the model is built."""
        if self._measurements is not None:
            return self._measurements.variables
        return list(self._model.trainable_variables)

    def measured(self, callback: Any) -> Measured:
        """Return what was measured since the last call. It may be called between two steps."""
        self._download()
        of_tables = widths(len(self.measured_variables), self._changes)
        updates, blocks = _joined(self._records, callback, of_tables)
        return Measured.of_blocks(updates - self._clock.origin, blocks)

    def begin_epoch(self, epoch: int, *, before: int, params: dict) -> None:
        """Set the clock by the first epoch, and have the tables exchanged before the next step."""
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
            most = min(_ROWS, _NUMBERS // self._width()) if self._records else _ROWS
            self._rows = max(most, self._steps_in_a_call())
            self._driving.begin()
            self._uploaded = iterations(self.optimizer)
        self._first_of_epoch = iterations(self.optimizer)
        accumulation = self._clock.accumulation
        rest = seen_batches(self.optimizer) % accumulation if accumulation > 1 else 0
        self._epoch = epoch, self._first_of_epoch - self._clock.origin, rest
        self._driven = False
        self._exchange_at = 0
        self._announced = None

    def begin_batch(self, batch: int) -> None:
        """Announce the next step. Nothing is computed here, but for one exchange in many batches."""
        if self._announced is not None and self._announced[0] != batch:
            self._refuse_unreached()
        if self._model.train_function is not self:  # another callback had it rebuilt
            if self._model.train_function is None:
                raise RuntimeError(
                    "The model was compiled anew during `fit`. Compile it before, and call `fit` again. "
                    f"Received: model={self._model}"
                )
            self._plain = self._model.train_function
            self._model.train_function = self
            self._traced = None
        if batch >= self._exchange_at or self._traced is None:
            self._exchange(batch)
        self._announced = batch, self._caller(loop_of_fit())

    def end_epoch(self) -> None:
        """Check that the epoch's updates were ours to drive and to measure.

        Raises:
            RuntimeError: they were not.
        """
        now = iterations(self.optimizer)
        moved = now != self._first_of_epoch
        if self._announced is not None or (moved and not self._driven):
            self._refuse_unreached()
        if moved and not self._reached:
            self._refuse_unused()
        self._check_rows(now)
        self._driving.refuse_other_writers()

    def _caller(self, frame: FrameType | None) -> tuple | None:
        # Not the frame itself, which would keep the data of `fit` alive after an exception. Its address
        # may be given to a later one then: to another function's, or to that of a `fit` of its own
        # history.
        if frame is None:
            return None
        return id(frame), frame.f_code, getattr(self._model, "history", None)

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
            f"The training step did not apply gradients through `{type(self.optimizer).__name__}"
            "._backend_apply_gradients`, so callbacks cannot reach it. In a custom `train_step` use "
            "`self.optimizer.apply`, where `self.optimizer` is the one that `Model.compile` was given; in "
            "a custom optimizer override `update_step`, not `apply`. "
            f"Received: model={self._model}, optimizer={self.optimizer}"
        )

    # -- the tables -------------------------------------------------------------------------------

    def _exchange(self, batch: int) -> None:
        self._users[0].model  # noqa: B018 - on JAX, brings the state back into the variables
        now = iterations(self.optimizer)
        self._check_rows(now)
        if batch:  # else the epoch before has done it when it ended
            self._driving.refuse_other_writers()
        self._download()
        self._upload(now)
        self._exchanged_at = batch
        self._set_next_exchange()
        if self._traced is None:
            self._trace()

    def _set_next_exchange(self) -> None:
        batches = self._rows // max(self._most_applied, 1) - self._steps_in_a_call() + 1
        self._exchange_at = self._exchanged_at + max(batches, 1)

    def _steps_in_a_call(self) -> int:
        return getattr(self._model, "steps_per_execution", 1)

    def _check_rows(self, now: int) -> None:
        updates = now - self._uploaded
        if updates > self._rows:
            raise RuntimeError(
                f"{updates} updates were applied where at most {self._rows} were expected, and had "
                "values that were not theirs. Apply gradients fewer times in a training step. "
                f"Received: model={self._model}"
            )

    def _upload(self, now: int) -> None:
        self._uploaded = now
        if self._losses and self._batch_losses is None:
            self._batch_losses = BatchLosses(self._model, self.optimizer, self._ring([1]))
        if self._records and self._measurements is None:
            self._measurements = GradientMeasurements(
                self._model, self.optimizer, self._changes, self._ring
            )
        if self._driving:
            coming = np.arange(now, now + self._rows)
            self._driving.upload(coming, self._clock.origin, self._variable)

    def _download(self) -> None:
        """Take what was written since the last time, for all who asked for it."""
        for part, records in ((self._batch_losses, self._losses), (self._measurements, self._records)):
            if part is not None and part.ring is not None:
                found = part.ring.read()
                for rows in records.values():
                    rows.append(found)

    def _width(self) -> int:
        return sum(widths(len(self.measured_variables), self._changes))

    def _ring(self, of_tables: list[int]) -> Ring:
        return Ring(of_tables, self._rows, self._uploaded, self._variable)

    def _variable(self, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        with strategy_scope(self._model):
            return keras.Variable(
                np.zeros(shape),
                dtype=dtype,
                trainable=False,
                aggregation="only_first_replica",
                name="step_state",
            )

    # -- the step ---------------------------------------------------------------------------------

    def __call__(self, *args: Any) -> Any:
        """Run one step, or a group of them, as `model.train_function`."""
        if self._announced is None or self._announced[1] not in (None, self._caller(loop_of_step())):
            self._exchange_at = 0  # it may apply updates, which move on in the table
            return self._plain(*args)
        self._announced = None
        self._driven, self._applied = True, 0
        with self._in_place():
            result = self._run(*args)
        if not self._reached and self._model.optimizer is self.optimizer:
            self._refuse_unused()
        if self._applied > self._most_applied:
            self._most_applied = self._applied
            self._set_next_exchange()
        return result

    def _trace(self) -> None:
        with self._in_place():
            step = self._model.train_step
            # `jax.jit` knows `model.train_step` again by equality, and would give what it compiled for an
            # earlier fit. A function made here equals no other.
            own_step = {"train_step": lambda state, data: step(state, data)}
            if keras.backend.backend() != "jax":
                own_step = {}
            with replaced(self._model, **own_step):
                self._model.make_train_function(force=True)
        self._traced, self._model.train_function = self._model.train_function, self

    def _run(self, *args: Any) -> Any:
        if keras.backend.backend() != "jax":
            return self._traced(*args)
        # JAX: the step is a pure function, what it reads and writes goes in and out with the
        # optimizer's variables.
        added = self._variables()
        (weights, others, own, metrics), iterator = args
        state = (weights, others, [*own, *(v.value for v in added)], metrics)
        logs, (weights, others, own, metrics) = self._traced(state, iterator)
        kept = len(own) - len(added)
        for variable, value in zip(added, own[kept:], strict=True):
            variable.assign(value)
        return logs, (weights, others, own[:kept], metrics)

    def _parts(self) -> list[Any]:
        parts = [self._batch_losses, self._measurements, self._driving, self._pacing]
        return [part for part in parts if part]

    def _variables(self) -> list[keras.Variable]:
        added = list(self._driving.variables)
        for part in (self._batch_losses, self._measurements):
            if part is not None and part.ring is not None:
                added += part.ring.variables
        return added

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        """Put the step's own methods, and on JAX its variables, in the optimizer while it runs."""
        added = self._variables() if keras.backend.backend() == "jax" else []
        known = self.optimizer._variables[:]
        try:
            self.optimizer._variables.extend(added)
            with contextlib.ExitStack() as stack:
                for part in self._parts():
                    stack.enter_context(part.in_place())
                apply = self._counting(self.optimizer._backend_apply_gradients)
                stack.enter_context(replaced(self.optimizer, _backend_apply_gradients=apply))
                yield
        finally:
            if added:  # else the optimizer may have been built meanwhile, and keeps what it made
                self.optimizer._variables[:] = known

    def _counting(self, apply_gradients: Callable) -> Callable:
        def count(gradients: list, variables: list) -> Any:
            self._reached = True
            self._applied += 1
            return apply_gradients(gradients, variables)

        return count


def _joined(
    records: dict[Any, list], callback: Any, of_tables: list[int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Take all that is recorded for `callback`, and join it."""
    nothing = np.empty(0, int), [np.empty((0, width)) for width in of_tables]
    chunks, records[callback] = [nothing, *records[callback]], []
    updates, blocks = zip(*chunks, strict=True)
    return np.concatenate(updates), [np.concatenate(tables) for tables in zip(*blocks, strict=True)]
