"""What an optimizer keeps: of each weight, and for all; carried over to another, or to other weights."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_dnn_extras._backends import value_on_host
from keras_dnn_extras._keras_internals import replaced
from keras_dnn_extras._models.optimizers import unscaled

# Lists with an element for each weight that are no slots of it.
_NO_SLOTS = ("_trainable_variables", "_variables")
_AVERAGES = "_model_variables_moving_average"


def scalars(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """Return what `optimizer` keeps for all weights together, by its attributes."""
    return {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, keras.Variable) and name not in ("_iterations", "_learning_rate")
    }


def same_optimizer(optimizer: keras.optimizers.Optimizer, learning_rate: Any = None) -> Any:
    """Return another optimizer of the same class and settings, without state.

    Args:
        learning_rate: a float in the place of its own, or None for its own: the float in force, or the
            schedule.

    Raises:
        ValueError: the class does not tell all of its arguments in `get_config`.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = same_optimizer(optimizer.inner_optimizer, learning_rate)
        settings = {name: getattr(optimizer, name) for name in ("initial_scale", "dynamic_growth_steps")}
        return type(optimizer)(inner, name=optimizer.name, **settings)
    own = getattr(optimizer, "_learning_rate", None)
    if learning_rate is None:
        learning_rate = float(value_on_host(own)) if isinstance(own, keras.Variable) else own
    # A number is put in beforehand: a schedule need not be one that can be serialized.
    number = keras.Variable(0.0, dtype="float32", trainable=False)
    try:
        with replaced(optimizer, _learning_rate=number):
            config = optimizer.get_config()
        same = type(optimizer).from_config({**config, "learning_rate": learning_rate})
    except TypeError as error:
        raise ValueError(
            f"`{type(optimizer).__name__}` cannot be made anew from its config: `get_config` has to tell "
            f"every argument of its `__init__`. Received: optimizer={optimizer}"
        ) from error
    # Set by `exclude_from_weight_decay`, and not in the config.
    excluded = {name: value for name, value in vars(optimizer).items() if name.startswith("_exclude_")}
    vars(same).update(copy.deepcopy(excluded))
    return same


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
    with unchanged_by_failure(optimizer):
        kept = _unbuild(levels)
        optimizer.build(weights)
        for level, state in zip(levels, kept, strict=True):
            state.put_into(level)


def variables_if_built(optimizer: keras.optimizers.Optimizer, weights: list[keras.Variable]) -> int:
    """Return how many variables `optimizer` would have if it were built for `weights`. It stays as it is.

    Raises:
        ValueError: it could not be rebuilt, as it cannot be told what belongs to which weight.
    """
    levels, restore = _levels(optimizer), _restorer(optimizer)
    try:
        if optimizer.built:
            _unbuild(levels)
        optimizer.build(weights)
        for level in levels:
            _State.of(level)
        return len(optimizer.variables)
    finally:
        restore()


def check_rebuildable(optimizer: keras.optimizers.Optimizer, weights: list[keras.Variable]) -> None:
    """Raise what `rebuild` would raise of an `optimizer` that is built, maybe later on, for `weights`."""
    if not optimizer.built:
        variables_if_built(optimizer, weights)
        return
    for level in _levels(optimizer):
        _State.of(level)


def _unbuild(levels: list[Any]) -> list["_State"]:
    states = [_State.of(level) for level in levels]
    for level, state in zip(levels, states, strict=True):
        for variable in (*state.slots.values(), *state.scalars.values()):
            level._untrack_variable(variable)
        level._trainable_variables_indices = {}
        level.built = False
    return states


@contextlib.contextmanager
def unchanged_by_failure(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Put back what `optimizer` held if an exception or an interrupt ends what is done to it.

    The variables that it held are put back, not their values.
    """
    restore = _restorer(optimizer)
    try:
        yield
    except BaseException:
        restore()
        raise


def _restorer(optimizer: keras.optimizers.Optimizer) -> Callable[[], None]:
    before = [(level, _contents(level)) for level in _levels(optimizer)]

    def restore() -> None:
        for level, contents in before:
            _put_back(level, contents)

    return restore


def _contents(optimizer: Any) -> tuple[dict[str, Any], list[tuple[Any, Any]]]:
    """Return the attributes of `optimizer`, and what may change within them, each with a copy of it.

    Lists of slots are made anew by each `build`. TensorFlow wraps the list that Keras tracks variables in.
    """
    attributes, tracker = dict(vars(optimizer)), optimizer._tracker
    tracked = [*(store for _, store in tracker.config.values()), *tracker.stored_ids.values()]
    own = [value for value in attributes.values() if type(value) in (list, dict, set)]
    return attributes, [(collection, collection.copy()) for collection in (*tracked, *own)]


def _put_back(optimizer: Any, contents: tuple[dict[str, Any], list[tuple[Any, Any]]]) -> None:
    attributes, collections = contents
    for name in vars(optimizer).keys() - attributes.keys():
        del vars(optimizer)[name]
    vars(optimizer).update(attributes)
    for collection, copied in collections:
        collection.clear()
        (collection.extend if isinstance(collection, list) else collection.update)(copied)


@dataclass(frozen=True)
class _State:
    """The variables of an optimizer that was built.

    Attributes:
        slots: by the attribute that lists them, and by `id(weight)`.
        scalars: by their attribute: what is kept for all weights together.
        iterations: how many batches it has seen, in a variable.
    """

    slots: dict[tuple[str, int], keras.Variable]
    scalars: dict[str, keras.Variable]
    iterations: keras.Variable

    @classmethod
    def of(cls, optimizer: Any) -> "_State":
        weights, slots = optimizer._trainable_variables, {}
        for name, value in vars(optimizer).items():
            if isinstance(value, list) and len(value) == len(weights) and name not in _NO_SLOTS:
                for weight, slot in zip(weights, value, strict=True):
                    if isinstance(slot, keras.Variable):
                        slots[name, id(weight)] = slot
        state = cls(slots, scalars(optimizer), optimizer._iterations)
        known = {id(v) for v in (*slots.values(), *state.scalars.values(), optimizer._iterations)}
        for variable in optimizer._variables:
            if id(variable) not in known and variable is not optimizer._learning_rate:
                raise ValueError(
                    f"`{type(optimizer).__name__}` keeps {variable.path!r} where it cannot be told which "
                    "weight it belongs to. Keep what belongs to weights in lists, an element for each, as "
                    f"`add_optimizer_variables` returns them. Received: optimizer={optimizer}"
                )
        return state

    def put_into(self, optimizer: Any) -> None:
        new = _State.of(optimizer)
        if optimizer.use_ema:
            averages = getattr(optimizer, _AVERAGES)
            for weight, average in zip(optimizer._trainable_variables, averages, strict=True):
                if average is not None:
                    average.assign(value_on_host(weight))
        pairs = [(self.iterations, new.iterations)]
        pairs += [(self.slots[key], slot) for key, slot in new.slots.items() if key in self.slots]
        pairs += [(self.scalars[name], v) for name, v in new.scalars.items() if name in self.scalars]
        for old, variable in pairs:
            if old is not variable:
                variable.assign(value_on_host(old))


def _levels(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    inner = unscaled(optimizer)
    return [optimizer] if inner is optimizer else [optimizer, inner]
