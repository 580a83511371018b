"""The training step that callbacks take part in: hyperparameters in, measurements out.

Keras gives a callback no cheap way to reach the compiled step: on JAX each access to the model copies the
whole training state. So the values of the coming updates are uploaded together, as a table, and the step
itself looks up the row of its update; what it measures it writes into a second table, which is read as
rarely.

Everything is in place only while `model.train_function` runs. Between two steps, in every callback
and after an exception the optimizer and the model are as Keras made them, so that whatever is saved
or read there is plain Keras.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import keras

from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._keras_internals import (
    loop_of_fit,
    loop_of_step,
    make_train_function,
    replaced,
    with_variables,
)
from keras_dnn_extras._models import accept_trainable, innermost_optimizer, rebuild
from keras_dnn_extras._training_step.exchange import Exchange
from keras_dnn_extras._training_step.step_guard import StepGuard
from keras_dnn_extras._training_step.step_part import StepPart
from keras_dnn_extras._training_step.timeline import Timeline

Part = TypeVar("Part", bound=StepPart)


class TrainingStep:
    """The training step of one `fit` with all of its parts: the model's `train_function` meanwhile.

    Callbacks join it by `join_step` when training begins, and share it. A step that no callback has
    announced by `begin_batch` (one of a later fit, or `train_on_batch` within this one) is passed on to the
    train function that Keras made.

    Attributes:
        optimizer: the model's innermost optimizer.
        timeline: where the fit stands.
    """

    def __init__(self, model: keras.Model, fit: Any):
        self.optimizer = innermost_optimizer(model)
        self.timeline = Timeline(self.optimizer)
        self._model = model
        self._fit = fit  # what tells two fits apart
        self._callbacks: list[keras.callbacks.Callback] = []
        self._parts: dict[type, StepPart] = {}
        self._weights_to_come: list[Callable[[], list[keras.Variable]]] = []
        self._guard = StepGuard(model, self.optimizer)
        self._exchange = Exchange(model, self.timeline)
        # A loop of the user's own has no function yet if there was no `fit` before.
        self._plain = model.train_function or make_train_function(model)
        self._traced: Any = None

    # -- asked by callbacks -----------------------------------------------------------------------

    def admits(self, callback: keras.callbacks.Callback) -> bool:
        """Let `callback` take part if its fit is this one, and return whether it does so now."""
        if callback.params is not self._fit or callback in self._callbacks:
            return False
        self._callbacks.append(callback)
        return True

    def leave(self, callback: keras.callbacks.Callback) -> None:
        """End the part that `callback` takes; the last one restores the model."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)
        if not self._callbacks:
            self._traced = None
            self.timeline.end()
            if self._model.train_function is self:
                self.restore()

    def restore(self) -> None:
        """Give the model back the train function that Keras made."""
        self._model.train_function = self._plain

    def part(self, kind: type[Part]) -> Part:
        """Return the part of this class, made by the first who asks before the first batch or `rebuild`."""
        if kind not in self._parts:
            self._parts[kind] = kind(self._model, self.optimizer, self.timeline)
        return self._parts[kind]  # type: ignore[return-value]

    def expect_weights(self, weights: Callable[[], list[keras.Variable]]) -> None:
        """Note weights that will be trained from a later epoch on. Before the first epoch.

        Args:
            weights: returns them, once the model is built.
        """
        self._weights_to_come.append(weights)

    @property
    def weights_of_fit(self) -> list[keras.Variable]:
        """The weights that are trained in this fit, now or later. None before the model is built."""
        later = [variable for weights in self._weights_to_come for variable in weights()]
        return [*self._model.trainable_variables, *later]

    def rebuild(self) -> None:
        """Train the weights that are trainable now. At the beginning of an epoch.

        The optimizer keeps the state of those that were trained before.
        """
        model, optimizer = self._model, self._model.optimizer
        # First of all: after an interrupt there must be no step that trains the former ones.
        self._plain, self._traced = make_train_function(model, force=True), None
        model.train_function = self
        if optimizer.built:
            with strategy_scope(model):
                rebuild(optimizer, model.trainable_variables)
        for part in self._parts.values():
            part.reset()
        accept_trainable(model)

    # -- the fit goes on --------------------------------------------------------------------------

    def begin_epoch(self, epoch: int, *, before: int, params: dict) -> None:
        """Note that an epoch begins, as each callback says.

        Args:
            before: batches that the optimizer had seen when `fit` was called.
            params: of the fit, as Keras tells them to callbacks.
        """
        is_first = not self.timeline.has_begun
        self.timeline.begin_epoch(epoch, before=before, params=params)
        if is_first:
            self._exchange.begin(self._parts.values())
        self._exchange.request()
        self._guard.begin_epoch()

    def begin_batch(self, batch: int) -> None:
        """Announce the next step. Nothing is computed here, but for one exchange in many batches."""
        self._guard.refuse_unreached_before(batch)
        self._take_place()
        if self._exchange.is_due(batch) or self._traced is None:
            self._callbacks[0].model  # noqa: B018 - on JAX, brings the state back into the variables
            self._exchange.run(self._parts.values(), batch)
        if self._traced is None:
            self._trace()
        self._guard.announce(batch, loop_of_fit())

    def _take_place(self) -> None:
        """Be the model's train function again, where another callback had it rebuilt."""
        if self._model.train_function is self:
            return
        if self._model.train_function is None:
            raise RuntimeError(
                "The model was compiled anew during `fit`. Compile it before, and call `fit` again. "
                f"Received: model={self._model}"
            )
        self._plain, self._traced = self._model.train_function, None
        self._model.train_function = self

    def end_epoch(self) -> None:
        """Check that callbacks reached the steps of the epoch, and read what these have written.

        Raises:
            RuntimeError: they did not.
        """
        updated = self.timeline.read_updates() != self.timeline.epoch_began_at
        self._guard.end_epoch(updated=updated)
        self._exchange.end_epoch(self._parts.values())

    # -- the step ---------------------------------------------------------------------------------

    def __call__(self, *args: Any) -> Any:
        """Run one step, or a group of them, as `model.train_function`."""
        if not self._guard.begin_step(loop_of_step()):
            self._exchange.request()  # it may apply updates, which move on in the table
            return self._plain(*args)
        with self._in_place():
            result = self._run(*args)
        self._exchange.note_updates(self._guard.end_step())
        return result

    def _trace(self) -> None:
        with self._in_place(), self._unequal_train_step():
            self._traced = make_train_function(self._model, force=True)
        self._model.train_function = self

    @contextlib.contextmanager
    def _unequal_train_step(self) -> Iterator[None]:
        """Let JAX compile the step of this fit: it compares `train_step` to earlier ones by equality."""
        step = self._model.train_step
        is_jax = keras.backend.backend() == "jax"
        unequal = {"train_step": lambda state, data: step(state, data)} if is_jax else {}
        with replaced(self._model, **unequal):
            yield

    def _run(self, *args: Any) -> Any:
        if keras.backend.backend() != "jax":
            return self._traced(*args)
        # JAX: the step is a pure function, what it reads and writes goes in and out with the
        # optimizer's variables.
        added = self._variables()
        (weights, non_trainable, of_optimizer, metrics), iterator = args
        state = (weights, non_trainable, [*of_optimizer, *(v.value for v in added)], metrics)
        logs, (weights, non_trainable, of_optimizer, metrics) = self._traced(state, iterator)
        count = len(of_optimizer) - len(added)
        for variable, value in zip(added, of_optimizer[count:], strict=True):
            variable.assign(value)
        return logs, (weights, non_trainable, of_optimizer[:count], metrics)

    def _variables(self) -> list[keras.Variable]:
        return [variable for part in self._parts.values() for variable in part.variables]

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        """Put the parts, and on JAX their variables, in the optimizer while the step runs."""
        added = self._variables() if keras.backend.backend() == "jax" else []
        with contextlib.ExitStack() as stack:
            stack.enter_context(with_variables(self.optimizer, added))
            for part in self._parts.values():
                stack.enter_context(part.in_place())
            stack.enter_context(self._guard.in_place())
            yield


def join_step(callback: keras.callbacks.Callback, last: TrainingStep | None = None) -> TrainingStep:
    """Return the step of the fit that `callback` takes part in, made for the first callback that joins.

    Args:
        last: the step of the fit before, as far as `callback` remembers it.
    """
    model = callback.model
    current = model.train_function
    if isinstance(current, TrainingStep):
        if current.admits(callback):
            return current
        current.restore()  # left by a fit that an exception ended
    step = TrainingStep(model, callback.params)
    interrupted = (
        isinstance(current, TrainingStep)
        and current.timeline.has_begun
        and current.optimizer is step.optimizer
    )
    last = current if interrupted else last
    if last is not None:
        step.timeline.follow(last.timeline, interrupted=interrupted)
    step.admits(callback)
    model.train_function = step
    return step
