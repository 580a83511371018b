"""Weights that train with a multiple of the learning rate, or as if the optimizer had begun later."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_dnn_extras._backends import value_of
from keras_dnn_extras._keras_internals import (
    batch_counter,
    decays,
    learning_rate_or_schedule,
    scalar_variables,
    set_rate_and_batches,
    updates_together,
    weight_of_optimizer,
    wrapped_methods,
)
from keras_dnn_extras._training_step.step_part import StepPart
from keras_dnn_extras._training_step.timeline import Timeline


class _Group(NamedTuple):
    """What weights have in common that are updated together."""

    multiplier: float
    start: int  # batches that the optimizer had seen when it began with them


class LearningRateMultipliers(StepPart):
    """Updates some weights, in the step, as an optimizer of their own would.

    That one has a multiple of the learning rate, as one optimizer for each layer would, and has begun
    later: Adam and its like correct their averages by the number of updates, which a weight that is new to
    them does not have behind it, and would take its first steps three times too large.

    Attributes:
        starts: by `id(weight)`, how many batches the optimizer had seen when it first trained the weight.
            0 where it is missing. Set when an epoch begins, before `TrainingStep.rebuild`.
    """

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, timeline: Timeline):
        super().__init__(model, optimizer, timeline)
        self._multipliers: dict[int, float] = {}  # by `id(weight)`
        self.starts: dict[int, int] = {}
        self._rate_and_batches: tuple[Any, Any] = (None, None)  # the optimizer's own

    def multiply(self, weights: list[keras.Variable], multiplier: float) -> None:
        """Let `weights` train with this multiple of the learning rate. Before the first batch."""
        self._multipliers |= {id(weight): multiplier for weight in weights if multiplier != 1.0}

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        optimizer = self._optimizer
        self._rate_and_batches = learning_rate_or_schedule(optimizer), batch_counter(optimizer)
        wrappers: dict[str, Callable] = {}
        if self._multipliers or any(self.starts.values()):
            wrappers["decay_weights"] = self._decaying
            if updates_together(optimizer):
                wrappers["update_weights_together"] = self._updating_together
            else:
                wrappers["update_weight"] = self._updating
        with wrapped_methods(optimizer, **wrappers):
            yield

    def _group_of(self, variable: Any) -> _Group:
        weight = id(weight_of_optimizer(self._optimizer, variable))
        return _Group(self._multipliers.get(weight, 1.0), self.starts.get(weight, 0))

    def _updating(self, update_step: Callable) -> Callable:
        def update(gradient: Any, weight: Any, learning_rate: Any) -> Any:
            with self._as_optimizer_of(self._group_of(weight), learning_rate) as rate:
                return update_step(gradient, weight, rate)

        return update

    def _updating_together(self, update_step: Callable) -> Callable:
        def update(gradients: list, weights: list, learning_rate: Any) -> None:
            shared = list(scalar_variables(self._optimizer).values())
            before = [value_of(variable) for variable in shared]
            for group, indices in self._by_group(weights).items():
                for variable, value in zip(shared, before, strict=True):
                    variable.assign(value)  # Nadam counts in one: once an update, not once a call
                of_group = [gradients[i] for i in indices], [weights[i] for i in indices]
                with self._as_optimizer_of(group, learning_rate) as rate:
                    update_step(*of_group, rate)

        return update

    def _decaying(self, decay_weights: Callable) -> Callable:
        def decay(weights: list) -> None:
            decaying = [weight for weight in weights if decays(self._optimizer, weight)]
            for group, indices in self._by_group(decaying).items():
                # Not `optimizer.learning_rate`: of replicas that take turns, another one may have set it.
                rate = self._rate_and_batches[0]
                if not isinstance(rate, keras.Variable):
                    rate = self._optimizer.learning_rate
                with self._as_optimizer_of(group._replace(start=0), rate):
                    decay_weights([decaying[i] for i in indices])

        return decay

    def _by_group(self, weights: list) -> dict[_Group, list[int]]:
        """Return the indices of the `weights` of each group."""
        indices: dict[_Group, list[int]] = {}
        for i, weight in enumerate(weights):
            indices.setdefault(self._group_of(weight), []).append(i)
        return indices

    @contextlib.contextmanager
    def _as_optimizer_of(self, group: _Group, learning_rate: Any) -> Iterator[Any]:
        """Make the optimizer the one that trains `group`, and yield its learning rate."""
        rate, batches = self._rate_and_batches
        try:
            if group.multiplier != 1.0:
                rate = learning_rate = ops.convert_to_tensor(learning_rate) * group.multiplier
            if group.start:
                batches = ops.convert_to_tensor(batches) - group.start
            set_rate_and_batches(self._optimizer, rate, batches)
            yield learning_rate
        finally:
            # The optimizer's own, not those from before: replicas of a MirroredStrategy are threads that
            # take turns.
            set_rate_and_batches(self._optimizer, *self._rate_and_batches)
