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
from dataclasses import dataclass
from types import FrameType
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras.curves import Curve
from keras_dnn_extras.in_step import depending_on, stand_in, table_dtype

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

# What optimizers call their momentum. Muon has two: one for matrices, one for its Adam half.
_MOMENTUM_NAMES = ("momentum", "beta_1", "adam_beta_1")
_MOST_ROWS = 4096
_ANNOUNCING = keras.callbacks.CallbackList.on_train_batch_begin.__code__


def innermost_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """Return the optimizer of `model` that updates its weights, without loss scaling around it.

    Raises:
        ValueError: the model is not compiled, or its optimizer cannot be served.
    """
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if isinstance(getattr(optimizer, "learning_rate", None), keras.Variable):
        return optimizer
    rate = getattr(optimizer, "_learning_rate", None)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) or callable(rate):
        return optimizer
    raise ValueError(
        "Expected a model compiled with a Keras optimizer that has one learning rate. Compile the "
        f"model with one, `keras.optimizers.SGD` for instance. Received: optimizer={optimizer}"
    )


def momentum_names(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """Return the names of the momenta that `optimizer` has in use, as `["beta_1"]`."""
    found = {name: vars(optimizer).get(name) for name in _MOMENTUM_NAMES}
    return [name for name, value in found.items() if isinstance(value, (int, float)) and value > 0]


def iterations(optimizer: keras.optimizers.Optimizer) -> int:
    """Return the number of updates that `optimizer` has applied."""
    return int(keras.ops.convert_to_numpy(optimizer.iterations))


@dataclass(frozen=True)
class Clock:
    """The place of a `fit` on the time line of its optimizer.

    Attributes:
        origin: the optimizer's `iterations` at update 0 of the fit, which lies before the first
            update that is applied where the fit resumes another.
        total: updates in the whole fit, or None where the length of an epoch is unknown.
    """

    origin: int
    total: int | None

    @classmethod
    def of_fit(
        cls,
        *,
        before: int,
        now: int,
        first_epoch: int,
        epochs: int,
        steps: int | None,
        accumulation: int,
    ) -> "Clock":
        """Return the clock of a fit.

        Args:
            before: batches that the optimizer had seen when `fit` was called.
            now: the same when the first epoch begins, after callbacks have restored it.
            first_epoch: index of that epoch.
            epochs: index of the epoch to stop before.
            steps: batches in an epoch, or None if unknown.
            accumulation: batches in an update.
        """
        done = first_epoch * (steps or 0)
        total = None if steps is None else epochs * steps
        if now != before or not first_epoch:  # `fit` began where the optimizer stood, or was restored
            start = before
        elif before == 0:  # weights restored before `fit`, without an optimizer
            return cls(-(done // accumulation), total and total // accumulation)
        else:
            # Restored before `fit` with its optimizer, which has seen the batches of those epochs:
            # more where it was trained before, fewer where loss scaling skipped some.
            start = max(before - done, 0) if steps else 0
        return cls(start // accumulation, total and (start % accumulation + total) // accumulation)


class StepState:
    """What travels through the training step of one `fit`: the model's `train_function` meanwhile.

    Callbacks join it when training begins and share it. A step that no callback has announced by
    `begin_batch` (one of a later fit, or `train_on_batch` within this one) is passed on to the train
    function that Keras made.
    """

    def __init__(self, model: keras.Model, fit: Any):
        self.optimizer = innermost_optimizer(model)
        self._clock: Any = None  # a `Clock` from the beginning of the first epoch on
        self._rows = 0
        self._model = model
        self._fit = fit
        self._users: list[Any] = []
        self._curves: dict[str, Curve] = {}
        self._numbers: dict[str, float] = {}
        self._measures: dict[Any, tuple[int, Callable]] = {}
        self._records: dict[Any, list[np.ndarray]] = {}
        self._plain = model.train_function
        self._traced: Any = None
        self._table: Any = None
        self._ring: Any = None
        self._announced: tuple[int, FrameType | None] | None = None
        self._reached = False
        self._exchange_at = 0
        self._read_until = 0

    @classmethod
    def join(cls, callback: Any) -> "StepState":
        """Return the state of the fit that `callback` takes part in, made by the first who asks."""
        model, fit = callback.model, callback.params
        current = model.train_function
        if isinstance(current, cls):
            if current._fit is fit and callback not in current._users:
                current._users.append(callback)
                return current
            model.train_function = current._plain  # left by a fit that an exception ended
        state = cls(model, fit)
        state._users.append(callback)
        model.train_function = state
        return state

    def leave(self, callback: Any) -> None:
        """Take back what `callback` asked for; the last one restores the model."""
        if callback in self._users:
            self._users.remove(callback)
        if not self._users and self._model.train_function is self:
            self._model.train_function = self._plain

    @property
    def total(self) -> int | None:
        """The number of updates in the fit, or None if unknown. Known when its first epoch begins."""
        return self._clock.total

    def position(self) -> int:
        """Return the number of the fit's next update. Between two epochs; it asks the device."""
        return iterations(self.optimizer) - self._clock.origin

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
            self._numbers[name] = float(vars(self.optimizer)[name])
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
                epochs=params["epochs"],
                steps=params.get("steps"),
                accumulation=self.optimizer.gradient_accumulation_steps or 1,
            )
            self._rows = max(
                min(params.get("steps") or _MOST_ROWS, _MOST_ROWS),
                getattr(self._model, "steps_per_execution", 1),
            )
            self._read_until = iterations(self.optimizer)
        self._exchange_at = 0
        self._announced = None

    def begin_batch(self, batch: int) -> None:
        """Announce the next step. Nothing is computed here, but for one exchange in many batches."""
        if self._model.train_function is not self:  # another callback had it rebuilt
            self._plain = self._model.train_function
            self._model.train_function = self
            self._traced = None
        if batch >= self._exchange_at or self._traced is None:
            self._exchange(batch)
        if self._announced is not None and self._announced[0] != batch:
            raise RuntimeError(
                "The loop of `fit` did not call `model.train_function` itself after it began a batch, so "
                "callbacks cannot reach the training step. In a `fit` of your own, call it from the same "
                f"function as `callbacks.on_train_batch_begin`. Received: model={self._model}"
            )
        self._announced = batch, _loop_of_fit()

    # -- the tables -------------------------------------------------------------------------------

    def _exchange(self, batch: int) -> None:
        self._users[0].model  # noqa: B018 - on JAX, brings the state back into the variables
        self._download()
        self._upload()
        steps = getattr(self._model, "steps_per_execution", 1)
        self._exchange_at = batch + self._rows - steps + 1
        if self._traced is None:
            self._trace()

    def _upload(self) -> None:
        """Write the values of the updates to come, each in the row `iterations % rows`."""
        if self._measures and self._ring is None:
            width = sum(size for size, _ in self._measures.values())
            self._ring = self._variable((self._rows, width), "float32")
        if not self._curves:
            return
        now = iterations(self.optimizer)
        coming = np.arange(now, now + self._rows)
        columns = []
        for name, curve in self._curves.items():
            values = np.asarray(curve(coming - self._clock.origin), "float64")
            # `1 - beta_1` would not be the nearest float32 if the step computed it in float32.
            columns += [values] if name == "learning_rate" else [values, 1.0 - values]
        table = np.empty((self._rows, len(columns)))
        table[coming % self._rows] = np.stack(columns, axis=1)
        if self._table is None:
            self._table = self._variable(table.shape, table_dtype())
        self._table.assign(table)

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

    def _variable(self, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        strategy = getattr(self._model, "distribute_strategy", None)
        with strategy.scope() if strategy is not None else contextlib.nullcontext():
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
        if self._announced is None or self._announced[1] not in (None, sys._getframe(1)):
            return self._plain(*args)
        self._announced = None
        with self._in_place():
            result = self._run(*args)
        if not self._reached and self._model.optimizer is self.optimizer:
            raise RuntimeError(
                f"The training step did not apply gradients through `{type(self.optimizer).__name__}"
                "._backend_apply_gradients`, so callbacks cannot reach it. In a custom `train_step` "
                "use `self.optimizer.apply`; in a custom optimizer override `update_step`, not "
                f"`apply`. Received: model={self._model}, optimizer={self.optimizer}"
            )
        return result

    def _trace(self) -> None:
        step = self._model.train_step
        # `jax.jit` knows `model.train_step` again by equality, and would give what it compiled for an
        # earlier fit. A function made here equals no other.
        own_step = {"train_step": lambda state, data: step(state, data)}
        if keras.backend.backend() != "jax":
            own_step = {}
        with self._in_place(), _replaced(vars(self._model), own_step):
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
        return [v for v in (self._table, self._ring) if v is not None]

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
        try:
            with _replaced(vars(self.optimizer), methods):
                yield
        finally:
            if added:  # else the optimizer may have been built meanwhile, and keeps what it made
                self.optimizer._variables[:] = known

    def _apply_gradients(self, gradients: list, variables: list) -> Any:
        self._reached = True
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


@contextlib.contextmanager
def _replaced(attributes: dict[str, Any], others: dict[str, Any]) -> Iterator[None]:
    """Put `others` into the `vars` of an object for a while, past its own `__setattr__`."""
    found = {name: attributes[name] for name in others if name in attributes}
    attributes.update(others)
    try:
        yield
    finally:
        for name in others:
            attributes.pop(name, None)
        attributes.update(found)


def seen_batches(optimizer: keras.optimizers.Optimizer) -> int:
    """Return the number of batches whose gradients `optimizer` has been given."""
    return int(keras.ops.convert_to_numpy(optimizer._iterations))


class StepCallback(keras.callbacks.Callback):
    """A callback that takes part in the step: it joins, keeps time with it and leaves.

    Subclasses override `set_up`, and `update_logs` where they have something to log.
    """

    step_state: StepState  # of the last fit

    def set_up(self, others: list[keras.callbacks.Callback]) -> None:
        """Check the fit that begins, change nothing. `others`: the fit's other callbacks."""

    def take_part(self, step_state: StepState) -> None:
        """Tell `step_state` what to drive and to measure."""

    def update_logs(self, epoch: int, logs: dict) -> None:
        """Write what the epoch has brought into `logs`."""

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # Before any callback restores anything: `BackupAndRestore` may come before this one.
        optimizer = getattr(model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        self._before = seen_batches(optimizer) if hasattr(optimizer, "_iterations") else 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        fit = _fit_of(self)
        self.set_up([c for c in fit if c is not self])
        # Loggers that stand before this one in the user's list have to see what it logs. Moving the
        # element that a loop is at to the front leaves the rest of the loop as it is.
        if fit:
            fit.remove(self)
            fit.insert(0, self)
        self.step_state = StepState.join(self)
        self.take_part(self.step_state)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.step_state.begin_epoch(epoch, before=self._before, params=self.params)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.step_state.begin_batch(batch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.update_logs(epoch, {} if logs is None else logs)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.step_state.leave(self)


def _fit_of(callback: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
    """Return the list of the callbacks that `fit` is calling, `callback` among them.

    Keras tells a callback its model and the number of epochs, but not which others there are. The
    `CallbackList` stands a frame or two above; where a loop of the user's own calls the callback,
    there is none.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList) and callback in owner.callbacks:
            return owner.callbacks
        frame = frame.f_back
    return []


def _loop_of_fit() -> FrameType | None:
    """Return the frame that is calling the callbacks of a batch, which will call the step as well.

    An exception, in another callback say, may keep it from doing so. The announced step is the one that
    this very frame calls, and no later one.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _ANNOUNCING:
        frame = frame.f_back
    return frame.f_back if frame is not None else None
