"""The variables of an optimizer, of itself alone: without those of an optimizer within it."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_dnn_extras._keras_internals.patching import replaced
from keras_dnn_extras._keras_internals.private_names import private_attribute
from keras_dnn_extras._rollback import Snapshot

WEIGHTS, ALL, COUNTER, RATE = "_trainable_variables", "_variables", "_iterations", "_learning_rate"
FORGET = "_untrack_variable"
_INDICES = "_trainable_variables_indices"
_FEATURE = "Carrying over the state of an optimizer"


def weights_of_optimizer(optimizer: Any) -> list[keras.Variable]:
    """Return the weights that `optimizer` was built for."""
    return private_attribute(optimizer, WEIGHTS, _FEATURE)


def variables_of_optimizer(optimizer: Any) -> list[keras.Variable]:
    """Return all variables that `optimizer` keeps."""
    return private_attribute(optimizer, ALL, _FEATURE)


def batch_counter(optimizer: Any) -> keras.Variable:
    """Return the variable that counts the batches whose gradients `optimizer` was given."""
    return private_attribute(optimizer, COUNTER, _FEATURE)


def learning_rate_or_schedule(optimizer: Any) -> Any:
    """Return the variable, the schedule or the function that `optimizer` was made with, or None."""
    return getattr(optimizer, RATE, None)


def counts_batches(optimizer: Any) -> bool:
    """Return whether `optimizer` is one that counts its batches: not None, and not several in one."""
    return hasattr(optimizer, COUNTER)


def set_rate_and_batches(optimizer: keras.optimizers.Optimizer, learning_rate: Any, batches: Any) -> None:
    """Let `optimizer` take these for its learning rate and its number of batches, past its own setters."""
    vars(optimizer).update({RATE: learning_rate, COUNTER: batches})


@contextlib.contextmanager
def with_variables(
    optimizer: keras.optimizers.Optimizer, added: Iterable[keras.Variable]
) -> Iterator[None]:
    """Let `optimizer` hold the variables `added` for a while, behind its own."""
    before = variables_of_optimizer(optimizer)[:]
    added = list(added)
    try:
        variables_of_optimizer(optimizer).extend(added)
        yield
    finally:
        if added:  # else the optimizer may have been built meanwhile, and keeps what it made
            variables_of_optimizer(optimizer)[:] = before


def config_without_learning_rate(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Return the config of `optimizer`, 0 for its learning rate: a schedule may have no config."""
    with replaced(optimizer, **{RATE: keras.Variable(0.0, dtype="float32", trainable=False)}):
        return {**optimizer.get_config(), "learning_rate": 0.0}


def weight_decay_exclusions(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Return what `exclude_from_weight_decay` has set in `optimizer`: it is not in the config."""
    return {name: value for name, value in vars(optimizer).items() if name.startswith("_exclude_")}


def scalar_variables(optimizer: Any) -> dict[str, keras.Variable]:
    """Return what `optimizer` keeps for all weights together, by its attributes."""
    return {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, keras.Variable) and name not in (COUNTER, RATE)
    }


def slot_variables(optimizer: Any) -> dict[tuple[str, int], keras.Variable]:
    """Return what `optimizer` keeps of each weight, by the attribute that lists it and `id(weight)`."""
    weights = weights_of_optimizer(optimizer)
    return {
        (name, id(weight)): slot
        for name, value in vars(optimizer).items()
        if isinstance(value, list) and len(value) == len(weights) and name not in (WEIGHTS, ALL)
        for weight, slot in zip(weights, value, strict=True)
        if isinstance(slot, keras.Variable)
    }


def moving_averages(optimizer: Any) -> list[keras.Variable | None]:
    """Return the moving average of each weight, where `optimizer` keeps them."""
    return private_attribute(optimizer, "_model_variables_moving_average", _FEATURE)


def unbuild_optimizer(optimizer: Any, variables: Iterable[keras.Variable]) -> None:
    """Let `optimizer` forget `variables` and its weights, to be built for others."""
    private_attribute(optimizer, _INDICES, _FEATURE)
    forget = private_attribute(optimizer, FORGET, _FEATURE)
    for variable in variables:
        forget(variable)
    setattr(optimizer, _INDICES, {})
    optimizer.built = False


def attributes_of_optimizer(optimizer: Any) -> Snapshot:
    """Return a snapshot of what `optimizer` holds: which variables, not their values.

    Lists of slots are made anew by each `build`. TensorFlow wraps the list that Keras tracks variables in.
    """
    attributes, tracker = dict(vars(optimizer)), private_attribute(optimizer, "_tracker", _FEATURE)
    tracked = [*(store for _, store in tracker.config.values()), *tracker.stored_ids.values()]
    collections = [value for value in attributes.values() if type(value) in (list, dict, set)]
    contents = [(collection, collection.copy()) for collection in (*tracked, *collections)]

    def restore() -> None:
        for name in vars(optimizer).keys() - attributes.keys():
            del vars(optimizer)[name]
        vars(optimizer).update(attributes)
        for collection, content in contents:
            collection.clear()
            (collection.extend if isinstance(collection, list) else collection.update)(content)

    return restore
