"""The norms of the gradients that the optimizer applies, taken in the training step itself."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._backends import after, depending_on, out_of_step, sum_over_replicas, value_of
from keras_dnn_extras._keras_internals import weights_of_optimizer, wrapped_methods
from keras_dnn_extras._training_step.gradient_columns import GradientColumns
from keras_dnn_extras._training_step.gradient_measurements import GradientMeasurements, table_widths
from keras_dnn_extras._training_step.ring_buffer import Readers, RingBuffer
from keras_dnn_extras._training_step.step_part import StepPart, step_variable
from keras_dnn_extras._training_step.tensor_norms import is_smaller, norms, scaled_norm, without_duplicates
from keras_dnn_extras._training_step.timeline import Timeline


class GradientProbe(StepPart):
    """Notes what the optimizer is given in the step, and writes norms of it into a ring buffer."""

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, timeline: Timeline):
        super().__init__(model, optimizer, timeline)
        self._readers = Readers()
        self._changes = False  # whether those of the weights are measured, which takes a copy of them
        self._columns: Any = None  # None until the ring buffer is built, as the ring itself
        self._ring: Any = None
        self._rows = self._first = 0
        self._in_step = threading.local()  # replicas of a MirroredStrategy are threads

    def record_for(self, reader: Any, *, changes: bool = False) -> None:
        """Record the norms of gradients for `reader`, with `changes` those of what updates do to weights.

        Before the first batch.
        """
        self._readers.add(reader)
        self._changes |= changes

    def measurements(self, reader: Any) -> GradientMeasurements:
        """Return what was downloaded since `reader` asked last."""
        updates, tables = self._readers.take(reader, self._widths)
        return GradientMeasurements.of_tables(updates - self._timeline.origin, tables)

    @property
    def measured_variables(self) -> list[keras.Variable]:
        """The variables that have a column in the measurements. None before the model is built."""
        if self._columns is not None:
            return self._columns.variables
        return list(self._model.trainable_variables)

    # -- the ring buffer --------------------------------------------------------------------------

    @property
    def _widths(self) -> list[int]:
        return table_widths(len(self.measured_variables), self._changes)

    @property
    def numbers_per_update(self) -> int:
        return sum(self._widths)

    @property
    def variables(self) -> list[keras.Variable]:
        return [] if self._ring is None else self._ring.variables

    def upload(self, updates: np.ndarray) -> None:
        self._rows, self._first = len(updates), int(updates[0])
        if self._model.trainable_variables:
            self._build()

    def _build(self) -> RingBuffer:
        """Make the ring buffer, in the trace where TensorFlow builds the model no earlier."""
        if self._ring is None:
            with out_of_step():
                self._columns = GradientColumns(list(self._model.trainable_variables))
                variable = partial(step_variable, self._model)
                self._ring = RingBuffer(self._widths, self._rows, self._first, variable)
        return self._ring

    def download(self) -> None:
        if self._ring is not None:
            self._readers.put(self._ring.read())

    def reset(self) -> None:
        self._ring = self._columns = None  # for other weights. All was read when the epoch ended

    # -- in the step ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        wrappers = {"apply_gradients": self._noting_variables, "clip_gradients": self._noting_gradients}
        wrappers["apply"] = self._measuring_changes if self._changes else self._noting_applied
        if keras.backend.backend() == "tensorflow":  # whose optimizers add up the replicas
            wrappers["sum_over_replicas"] = self._measuring_sums
        else:
            wrappers["update_weights"] = self._measuring
        with wrapped_methods(self._optimizer, **wrappers):
            yield

    def _noting_applied(self, apply: Callable) -> Callable:
        # Keras takes out those without a gradient afterwards, which no layer of the loss leads to: on JAX
        # they have a gradient of 0, and so they have on all backends.
        def note(grads: list, trainable_variables: list | None = None) -> Any:
            if trainable_variables is not None:
                trainable_variables = list(trainable_variables)
            self._in_step.applied = self._variables_of(trainable_variables)
            return apply(grads, trainable_variables)

        return note

    def _variables_of(self, trainable_variables: list | None) -> list:
        """Return the variables that `apply(..., trainable_variables)` updates."""
        return weights_of_optimizer(self._optimizer) if trainable_variables is None else trainable_variables

    def _noting_variables(self, apply_gradients: Callable) -> Callable:
        def note(gradients: list, variables: list) -> Any:
            self._in_step.variables = variables
            return apply_gradients(gradients, variables)

        return note

    def _noting_gradients(self, clip_gradients: Callable) -> Callable:
        def note(gradients: list) -> list:
            clipped = clip_gradients(gradients)
            self._in_step.gradients, self._in_step.clipped = gradients, clipped
            return clipped

        return note

    def _measuring(self, update_step: Callable) -> Callable:
        def measure(gradients: list, *arguments: Any) -> Any:
            self._measure(gradients)
            return update_step(gradients, *arguments)

        return measure

    def _measuring_sums(self, add: Callable) -> Callable:
        def measure(pairs: list) -> list:
            sums = add(pairs)
            total = self._measure([gradient for gradient, _ in sums])
            return [(after(total, gradient), variable) for gradient, variable in sums]

        return measure

    def _measure(self, clipped: list) -> Any:
        """Measure the gradients of this update, which are `clipped` after clipping and adding up.

        Returns:
            The last tensor that is computed of them.
        """
        noted = vars(self._in_step)
        variables, applied, gradients, of_replica = (
            noted.pop(name) for name in ("variables", "applied", "gradients", "clipped")
        )
        is_clipped = any(g is not c for g, c in zip(gradients, of_replica, strict=True))
        # Keras clips the gradient of each replica.
        gradients = sum_over_replicas(gradients) if is_clipped else clipped
        gradients = [without_duplicates(g) for g in gradients]
        of_variables = norms(gradients)
        if is_clipped:
            clipped = [without_duplicates(g) for g in clipped]
            total, smaller = scaled_norm(norms(clipped)), is_smaller(clipped, gradients)
        else:
            total, smaller = scaled_norm(of_variables), ops.zeros((), "float32")
        ring = self._build()
        with depending_on(gradients):
            update = ops.cast(self._optimizer.iterations, "int32")
            by_column = self._columns.arrange(of_variables, variables, applied)
            ring.append(update, *by_column, ops.stack([total, smaller]))
        return total

    def _measuring_changes(self, apply: Callable) -> Callable:
        apply = self._noting_applied(apply)

        def measure(grads: list, trainable_variables: list | None = None) -> Any:
            if trainable_variables is not None:
                trainable_variables = list(trainable_variables)
            variables = self._variables_of(trainable_variables)
            before = [value_of(variable) for variable in variables]
            row = self._build().next_row()
            result = apply(grads, trainable_variables)
            after = [value_of(variable) for variable in variables]
            changes = norms([new - old for new, old in zip(after, before, strict=True)])
            # Where gradients accumulate, the row is that of the update to come until there is one.
            blocks = [self._columns.arrange(n, variables, variables) for n in (changes, norms(before))]
            self._build().write(1, row, *blocks[0], *blocks[1])
            return result

        return measure
