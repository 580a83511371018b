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
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras.attributes import replaced
from keras_dnn_extras.batch_losses import BatchLosses
from keras_dnn_extras.curves import Curve
from keras_dnn_extras.in_step import REMEDY, depending_on, stand_in, strategy_scope, table_dtype
from keras_dnn_extras.optimizers import (
    Clock,
    innermost_optimizer,
    iterations,
    learning_rate,
    seen_batches,
)

# Internals of Keras that the mechanism rests on. They are private, so their absence is told here
# and not by a fit that silently does nothing.
_RELIED_ON = {
    keras.optimizers.Optimizer: ("_backend_apply_gradients", "_backend_update_step"),
    keras.Model: ("make_train_function",),
}
for _owner, _names in _RELIED_ON.items():
    for _name in _names:
        if not hasattr(_owner, _name):
            raise ImportError(
                f"keras_dnn_extras needs `{_owner.__name__}.{_name}`, which this version of Keras does "
                f"not have. Install a version that is supported. Received: keras=={keras.__version__}"
            )

_ROWS = 4096  # of the tables, each an update
_ANNOUNCING = keras.callbacks.CallbackList.on_train_batch_begin.__code__


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
        self._curves: dict[str, Curve] = {}
        self._numbers: dict[str, float] = {}
        self._measures: dict[Any, tuple[int, Callable]] = {}
        self._records: dict[Any, list[np.ndarray]] = {}
        self._losses: dict[Any, list[np.ndarray]] = {}
        self._batch_losses: BatchLosses | None = None
        self._plain = model.train_function
        self._traced: Any = None
        self._table: Any = None
        self._ring: Any = None
        self._announced: tuple | None = None
        self._reached = self._driven = False
        self._applied = self._most_applied = 0  # updates in a step, as far as they can be counted
        self._uploaded = self._read_until = 0  # `iterations` at the last exchange
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

    def initial_rate(self, own: float) -> float:
        """Return the learning rate that the fit began with, of which this call may be a later part.

        Args:
            own: the optimizer's learning rate when `fit` was called.
        """
        earlier = self._earlier
        if self.position() > 0 and earlier and earlier._first_rate and earlier._last_rate in (None, own):
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

    def drive(self, name: str, curve: Curve) -> None:
        """Let `curve(i)` be the optimizer's hyperparameter `name` in update `i` of the fit.

        Args:
            name: `"learning_rate"`, or a float attribute of the optimizer.
            curve: takes a NumPy array of update numbers, returns the values. Called first when the
                first batch begins.
        """
        if name in self._curves:
            raise ValueError(f"`{name}` is driven by another callback of this fit already.")
        if name != "learning_rate":
            self._numbers[name] = vars(self.optimizer)[name]
        self._curves[name] = curve

    def measure(self, callback: Any, size: int, function: Callable[[list, list], Any]) -> None:
        """Let `function(gradients, clipped_gradients)` be recorded at every update.

        It is traced into the step and returns `size` floats. Not under a multi-replica
        `tf.distribute` strategy, where it would see the gradient of one replica.
        """
        strategy = getattr(self._model, "distribute_strategy", None)
        if strategy is not None and strategy.num_replicas_in_sync > 1:
            raise ValueError(f"Cannot measure under a distribution strategy. Received: {strategy}")
        self._measures[callback] = (size, function)
        self._records[callback] = []

    def record_losses(self, callback: Any) -> None:
        """Have the loss of each batch recorded."""
        self._losses[callback] = []

    def recorded_losses(self, callback: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of the batches since the last call, and before them the updates they go into.

        An update of several batches is there several times. It may be called between two steps.
        """
        self._download_losses()
        rows, self._losses[callback] = self._losses[callback], []
        updates, losses = np.concatenate([np.empty((0, 2)), *rows]).T
        return updates.astype(int) - self._clock.origin, losses

    def measured(self, callback: Any) -> np.ndarray:
        """Return what was measured since the last call, of shape `(updates, size)`."""
        self._download()
        rows, self._records[callback] = self._records[callback], []
        return np.concatenate([np.empty((0, self._measures[callback][0]), "float32"), *rows])

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
            self._rows = max(_ROWS, self._steps_in_a_call())
            self._uploaded = self._read_until = iterations(self.optimizer)
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
        self._announced = batch, self._caller(_loop_of_fit())

    def end_epoch(self) -> None:
        """Check that the epoch's updates were ours to drive and to measure.

        Raises:
            RuntimeError: they were not.
        """
        moved = iterations(self.optimizer) != self._first_of_epoch
        if self._announced is not None or (moved and not self._driven):
            self._refuse_unreached()
        if moved and not self._reached:
            self._refuse_unused()
        self._check_rows()

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
        self._check_rows()
        self._download()
        self._upload()
        self._exchanged_at = batch
        self._set_next_exchange()
        if self._traced is None:
            self._trace()

    def _set_next_exchange(self) -> None:
        batches = self._rows // max(self._most_applied, 1) - self._steps_in_a_call() + 1
        self._exchange_at = self._exchanged_at + max(batches, 1)

    def _steps_in_a_call(self) -> int:
        return getattr(self._model, "steps_per_execution", 1)

    def _check_rows(self) -> None:
        updates = iterations(self.optimizer) - self._uploaded
        if updates > self._rows:
            raise RuntimeError(
                f"{updates} updates were applied where at most {self._rows} were expected, and had "
                "values that were not theirs. Apply gradients fewer times in a training step. "
                f"Received: model={self._model}"
            )

    def _upload(self) -> None:
        """Write the values of the updates to come, each in the row `iterations % rows`."""
        if self._measures and self._ring is None:
            width = sum(size for size, _ in self._measures.values())
            self._ring = self._variable((self._rows, width), "float32")
        self._uploaded = now = iterations(self.optimizer)
        if self._losses and self._batch_losses is None:
            self._batch_losses = BatchLosses(self._model, self.optimizer, self._rows, now)
            self._batch_losses.build(self._variable)
        if not self._curves:
            return
        coming = np.arange(now, now + self._rows)
        columns = []
        for name, curve in self._curves.items():
            with np.errstate(over="ignore"):  # in rows past the end of the fit: 1.2 ** 4096
                values = np.asarray(curve(coming - self._clock.origin), "float64")
            # `1 - beta_1` would not be the nearest float32 if the step computed it in float32.
            columns += [values] if name == "learning_rate" else [values, 1.0 - values]
        table = np.empty((self._rows, len(columns)))
        table[coming % self._rows] = np.stack(columns, axis=1)
        if self._table is None:
            self._table = self._variable(table.shape, table_dtype())
        with np.errstate(over="ignore"):
            self._table.assign(table.astype(table_dtype()))

    def _download(self) -> None:
        """Take what was measured since the last time out of the rows of its updates."""
        now = iterations(self.optimizer)
        if self._ring is not None and now > self._read_until:
            ring = ops.convert_to_numpy(self._ring)[np.arange(self._read_until, now) % self._rows]
            first = 0
            for callback, (size, _) in self._measures.items():
                self._records[callback].append(ring[:, first : first + size])
                first += size
        self._read_until = now
        self._download_losses()

    def _download_losses(self) -> None:
        if self._batch_losses is not None:
            found = self._batch_losses.read()
            for rows in self._losses.values():
                rows.append(found)

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
        if self._announced is None or self._announced[1] not in (None, self._caller(sys._getframe(1))):
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

    def _variables(self) -> list[keras.Variable]:
        losses = self._batch_losses.variables if self._batch_losses else []
        return [v for v in (self._table, self._ring, *losses) if v is not None]

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        """Put the step's own methods, and on JAX its variables, in the optimizer while it runs."""
        methods: dict[str, Any] = {"_backend_apply_gradients": self._apply_gradients}
        if self._measures:
            methods |= {
                "_clip_gradients": self._clip_gradients,
                "_backend_update_step": self._update_step,
            }
        self._keras = {name: getattr(self.optimizer, name) for name in methods}
        added = self._variables() if keras.backend.backend() == "jax" else []
        known = self.optimizer._variables[:]
        self.optimizer._variables.extend(added)
        losses = self._batch_losses.in_place() if self._batch_losses else contextlib.nullcontext()
        try:
            with replaced(self.optimizer, **methods), losses:
                yield
        finally:
            if added:  # else the optimizer may have been built meanwhile, and keeps what it made
                self.optimizer._variables[:] = known

    def _apply_gradients(self, gradients: list, variables: list) -> Any:
        self._reached = True
        self._applied += 1
        apply = self._keras["_backend_apply_gradients"]
        if not self._curves:
            return apply(gradients, variables)
        with depending_on(gradients):
            row = ops.take(self._table.value, self._row(), axis=0)
            values = [row[i] for i in range(self._table.shape[1])]
            in_step = {}
            for name in self._curves:
                if name == "learning_rate":
                    self.optimizer.learning_rate.assign(values.pop(0))
                else:
                    in_step[name] = stand_in(self._numbers[name], values.pop(0), values.pop(0))
        own = vars(self.optimizer)
        own.update(in_step)
        try:
            return apply(gradients, variables)
        except TypeError as error:
            if in_step:
                error.add_note(
                    f"{', '.join(in_step)}: driven by a callback, tensors in this step. {REMEDY}"
                )
            raise
        finally:
            # The known numbers, not those found: replicas of a MirroredStrategy come and go in
            # threads of their own, and find each other's.
            own.update(self._numbers)

    def _clip_gradients(self, gradients: list) -> list:
        clipped = self._keras["_clip_gradients"](gradients)
        self._gradients = (gradients, clipped)
        return clipped

    def _update_step(self, gradients: list, variables: list, learning_rate: Any) -> Any:
        rows = [function(*self._gradients) for _, function in self._measures.values()]
        row = ops.concatenate([ops.cast(row, "float32") for row in rows])
        del self._gradients
        index = ops.reshape(self._row(), (1, 1))
        self._ring.assign(ops.scatter_update(self._ring.value, index, row[None]))
        return self._keras["_backend_update_step"](gradients, variables, learning_rate)

    def _row(self) -> Any:
        return ops.mod(ops.cast(self.optimizer.iterations, "int32"), self._rows)


def _loop_of_fit() -> FrameType | None:
    """Return the frame that is calling the callbacks of a batch, which will call the step as well.

    An exception, in another callback say, may keep it from doing so. The announced step is the one that
    this very frame calls, and no later one. None where a loop of the user's own calls the callback.
    """
    frame: FrameType | None = sys._getframe(2)
    by_keras = False
    while frame is not None and frame.f_code.co_name == _ANNOUNCING.co_name:
        by_keras |= frame.f_code is _ANNOUNCING
        frame = frame.f_back
    return frame if by_keras else None
