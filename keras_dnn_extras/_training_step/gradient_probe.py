"""The norms of the gradients that the optimizer applies, taken in the training step itself."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._backends import after, depending_on, out_of_step, sum_over_replicas, value_of
from keras_dnn_extras._keras_internals import replaced
from keras_dnn_extras._training_step.ring_buffer import Ring
from keras_dnn_extras._training_step.tensor_norms import is_smaller, norms, scaled_norm, without_duplicates

_NOT_APPLIED = -1.0  # in the place of a norm: of a variable that an update was not given


@dataclass(frozen=True)
class Measured:
    """What some updates of a `fit` have brought. Norms are L2 norms, of shape `(updates, columns)`.

    Attributes:
        updates: their numbers, from 0 at the beginning of the fit.
        gradient_norms: before clipping, unscaled, accumulated, and added over replicas. A column for
            each trainable variable of the model, and one for all others that the step applied.
        applied: of the same shape: whether the optimizer was given the variable in that update. Where it
            was not, as where another optimizer trains it, the norms mean nothing.
        clipped_norm: of shape `(updates,)`: of all gradients together, after clipping.
        clipped: of shape `(updates,)`: whether clipping changed any of them.
        change_norms, weight_norms: of what the update did to the weights, and of the weights before it,
            or None where nobody asked for them.
    """

    updates: np.ndarray
    gradient_norms: np.ndarray
    applied: np.ndarray
    clipped_norm: np.ndarray
    clipped: np.ndarray
    change_norms: np.ndarray | None = None
    weight_norms: np.ndarray | None = None

    @classmethod
    def of_blocks(cls, updates: np.ndarray, blocks: list[np.ndarray]) -> "Measured":
        first = blocks[0]
        norms = first[:, :-2]
        halves = np.split(blocks[1], 2, axis=1) if len(blocks) > 1 else []
        return cls(updates, norms, norms != _NOT_APPLIED, first[:, -2], first[:, -1] > 0, *halves)


class GradientMeasurements:
    """Listens to the optimizer in the step, and writes norms into a ring.

    Args:
        changes: whether to measure the change of the weights too, which takes a copy of them.
        make_ring: makes the ring by the widths of its tables.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        changes: bool,
        make_ring: Callable[[list[int]], Ring],
    ):
        self._model = model
        self._optimizer = optimizer
        self._changes = changes
        self._make_ring = make_ring
        self._taken = threading.local()  # replicas of a MirroredStrategy are threads
        self.variables: list[keras.Variable] = []  # those with a column of their own
        self._ring: Ring | None = None
        if model.trainable_variables:
            self._build()

    def _build(self) -> Ring:
        """Make the ring, in the trace where TensorFlow builds the model no earlier."""
        if self._ring is None:
            with out_of_step():
                self.variables = list(self._model.trainable_variables)
                self._columns = {id(variable): i for i, variable in enumerate(self.variables)}
                self._ring = self._make_ring(widths(len(self.variables), self._changes))
        return self._ring

    @property
    def ring(self) -> Ring | None:
        """The ring, or None before the model is built."""
        return self._ring

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Listen to the optimizer while the step is traced or runs."""
        optimizer = self._optimizer
        others = {
            "_backend_apply_gradients": self._noting_variables(optimizer._backend_apply_gradients),
            "_clip_gradients": self._noting_gradients(optimizer._clip_gradients),
        }
        if keras.backend.backend() == "tensorflow":  # whose optimizers add up the replicas
            adding = optimizer._all_reduce_sum_gradients
            others["_all_reduce_sum_gradients"] = self._measuring_sums(adding)
        else:
            others["_backend_update_step"] = self._measuring(optimizer._backend_update_step)
        others["apply"] = self._noting_applied(optimizer.apply)
        if self._changes:
            others["apply"] = self._measuring_changes(others["apply"])
        with replaced(optimizer, **others):
            yield

    def _noting_applied(self, apply: Callable) -> Callable:
        # Keras takes out those without a gradient afterwards, which no layer of the loss leads to: on JAX
        # they have a gradient of 0, and so they have on all backends.
        def note(grads: list, trainable_variables: list | None = None) -> Any:
            if trainable_variables is not None:
                trainable_variables = list(trainable_variables)
            self._taken.applied = self._variables_of(trainable_variables)
            return apply(grads, trainable_variables)

        return note

    def _variables_of(self, trainable_variables: list | None) -> list:
        """Return the variables that `apply(..., trainable_variables)` updates."""
        if trainable_variables is None:
            return self._optimizer._trainable_variables
        return trainable_variables

    def _noting_variables(self, apply_gradients: Callable) -> Callable:
        def note(gradients: list, variables: list) -> Any:
            self._taken.variables = variables
            return apply_gradients(gradients, variables)

        return note

    def _noting_gradients(self, clip_gradients: Callable) -> Callable:
        def note(gradients: list) -> list:
            clipped = clip_gradients(gradients)
            self._taken.gradients, self._taken.clipped = gradients, clipped
            return clipped

        return note

    def _measuring(self, update_step: Callable) -> Callable:
        def measure(gradients: list, *arguments: Any) -> Any:
            self._measure(gradients)
            return update_step(gradients, *arguments)

        return measure

    def _measuring_sums(self, add: Callable) -> Callable:
        def measure(pairs: list) -> list:
            added = add(pairs)
            total = self._measure([gradient for gradient, _ in added])
            return [(after(total, gradient), variable) for gradient, variable in added]

        return measure

    def _measure(self, clipped: list) -> Any:
        """Measure the gradients of this update, which are `clipped` after clipping and adding up.

        Returns:
            The last tensor that is computed of them.
        """
        taken = vars(self._taken)
        variables, applied = taken.pop("variables"), taken.pop("applied")
        gradients, own = taken.pop("gradients"), taken.pop("clipped")
        if all(g is c for g, c in zip(gradients, own, strict=True)):
            gradients = clipped
        else:  # Keras clips the gradient of each replica
            gradients = sum_over_replicas(gradients)
        same = gradients is clipped
        gradients = [without_duplicates(g) for g in gradients]
        found = norms(gradients)
        if same:
            total, smaller = scaled_norm(found), ops.zeros((), "float32")
        else:
            clipped = [without_duplicates(g) for g in clipped]
            total, smaller = scaled_norm(norms(clipped)), is_smaller(clipped, gradients)
        ring = self._build()
        with depending_on(gradients):
            update = ops.cast(self._optimizer.iterations, "int32")
            ring.append(update, *self._by_column(found, variables, applied), ops.stack([total, smaller]))
        return total

    def _measuring_changes(self, apply: Callable) -> Callable:
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
            found = [self._by_column(v, variables, variables) for v in (changes, norms(before))]
            self._build().write(1, row, *found[0], *found[1])
            return result

        return measure

    def _by_column(self, values: Any, variables: list, applied: list) -> list:
        """Return `values`, one for each of `variables`, by column, and the norm of those without a column.

        It is 0 for what was `applied` without a value, and `_NOT_APPLIED` for all other columns.
        """
        count, number = len(self._columns), len(variables)
        columns = self._columns_of(variables)
        if columns == list(range(count)):
            return [values, ops.zeros((1,), "float32")]
        zero, none = number, number + 1  # in the padded values
        places = np.full(count + 1, none, "int32")
        places[self._columns_of(applied)] = zero
        places[columns] = np.arange(number)
        others = [i for i, column in enumerate(columns) if column == count]
        padding = ops.convert_to_tensor([0.0, _NOT_APPLIED], "float32")
        padded = ops.concatenate([values, padding])
        # As int32: on JAX a NumPy array becomes float32 where `floatx` is bfloat16 (keras issue 23703).
        own, rest = (ops.convert_to_tensor(p, "int32") for p in (places[:count], [*others, zero]))
        return [ops.take(padded, own), ops.reshape(scaled_norm(ops.take(padded, rest)), (1,))]

    def _columns_of(self, variables: list) -> list[int]:
        """Return the columns of `variables`: behind the last one for those that have none of their own."""
        return [self._columns.get(id(variable), len(self._columns)) for variable in variables]


def widths(variables: int, changes: bool) -> list[int]:
    """Return the widths of the tables that measure so many variables."""
    columns = variables + 1
    return [columns + 2, 2 * columns] if changes else [columns + 2]
