"""What an optimizer keeps: of each weight, and for all; carried over to another, or to other weights."""

from dataclasses import dataclass
from typing import Any

import keras

from keras_dnn_extras._backends import value_on_host
from keras_dnn_extras._keras_internals import (
    attributes_of_optimizer,
    batch_counter,
    learning_rate_or_schedule,
    moving_averages,
    scalar_variables,
    slot_variables,
    unbuild_optimizer,
    variables_of_optimizer,
    weights_of_optimizer,
)
from keras_dnn_extras._models.optimizers import unscaled
from keras_dnn_extras._rollback import Snapshot, rolled_back, together


def carry_over(source: keras.optimizers.Optimizer, target: keras.optimizers.Optimizer) -> None:
    """Give `target` the state of `source`, but for the learning rate.

    Both are built, maybe for other weights. A slot of a weight that `source` does not have is as `target`
    was built, but for the moving average of a weight, which begins with the weight.
    """
    for old, new in zip(_levels(source), _levels(target), strict=True):
        _State.of(old).put_into(new)


def rebuild(optimizer: keras.optimizers.Optimizer, weights: list[keras.Variable]) -> None:
    """Build `optimizer` once more, for other `weights`, and keep what it has of those it knew."""
    levels = _levels(optimizer)
    with rolled_back(optimizer_attributes(optimizer), only_on_error=True):
        states = _unbuild(levels)
        optimizer.build(weights)
        for level, state in zip(levels, states, strict=True):
            state.put_into(level)


def variables_if_built(optimizer: keras.optimizers.Optimizer, weights: list[keras.Variable]) -> int:
    """Return how many variables `optimizer` would have if it were built for `weights`. It stays as it is.

    Raises:
        ValueError: it could not be rebuilt, as it cannot be told what belongs to which weight.
    """
    levels = _levels(optimizer)
    with rolled_back(optimizer_attributes(optimizer)):
        if optimizer.built:
            _unbuild(levels)
        optimizer.build(weights)
        for level in levels:
            _State.of(level)
        return len(optimizer.variables)


def check_rebuildable(optimizer: keras.optimizers.Optimizer, weights: list[keras.Variable]) -> None:
    """Raise what `rebuild` would raise of an `optimizer` that is built, maybe later on, for `weights`."""
    if not optimizer.built:
        variables_if_built(optimizer, weights)
        return
    for level in _levels(optimizer):
        _State.of(level)


def optimizer_attributes(optimizer: keras.optimizers.Optimizer) -> Snapshot:
    """Return a snapshot of what `optimizer` holds: which variables, not their values."""
    return together(*map(attributes_of_optimizer, _levels(optimizer)))


def _unbuild(levels: list[Any]) -> list["_State"]:
    states = [_State.of(level) for level in levels]
    for level, state in zip(levels, states, strict=True):
        unbuild_optimizer(level, [*state.slots.values(), *state.scalars.values()])
    return states


@dataclass(frozen=True)
class _State:
    """The variables of an optimizer that was built.

    Attributes:
        slots: by the attribute that lists them, and by `id(weight)`.
        scalars: by their attribute: what is kept for all weights together.
        batches: how many it has seen, in a variable.
    """

    slots: dict[tuple[str, int], keras.Variable]
    scalars: dict[str, keras.Variable]
    batches: keras.Variable

    @classmethod
    def of(cls, optimizer: Any) -> "_State":
        state = cls(slot_variables(optimizer), scalar_variables(optimizer), batch_counter(optimizer))
        state._check_complete(optimizer)
        return state

    def _check_complete(self, optimizer: Any) -> None:
        assigned = {id(v) for v in (*self.slots.values(), *self.scalars.values(), self.batches)}
        for variable in variables_of_optimizer(optimizer):
            if id(variable) not in assigned and variable is not learning_rate_or_schedule(optimizer):
                raise ValueError(
                    f"`{type(optimizer).__name__}` keeps {variable.path!r} where it cannot be told which "
                    "weight it belongs to. Keep what belongs to weights in lists, an element for each, as "
                    f"`add_optimizer_variables` returns them. Received: optimizer={optimizer}"
                )

    def put_into(self, optimizer: Any) -> None:
        new = _State.of(optimizer)
        if optimizer.use_ema:
            _begin_averages(optimizer)
        pairs = [(self.batches, new.batches)]
        pairs += [(self.slots[key], slot) for key, slot in new.slots.items() if key in self.slots]
        pairs += [(self.scalars[name], v) for name, v in new.scalars.items() if name in self.scalars]
        for old, variable in pairs:
            if old is not variable:
                variable.assign(value_on_host(old))


def _begin_averages(optimizer: Any) -> None:
    """Let the moving average of each weight begin with the weight."""
    weights = weights_of_optimizer(optimizer)
    for weight, average in zip(weights, moving_averages(optimizer), strict=True):
        if average is not None:
            average.assign(value_on_host(weight))


def _levels(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    inner = unscaled(optimizer)
    return [optimizer] if inner is optimizer else [optimizer, inner]
