"""Snapshot and exact restore of what training changes: in a model, its optimizer and the generators."""

import contextlib
import copy
import itertools
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

# Private, as Keras has no other way to build a model without a call, and to its global generator.
from keras.src import backend
from keras.src.backend.common import global_state

from keras_dnn_extras.attributes import replaced
from keras_dnn_extras.in_step import strategy_scope
from keras_dnn_extras.optimizers import unscaled

# What `fit` and `compile` set in a model, next to its variables.
_ATTRIBUTES = (
    "optimizer",
    "_compile_metrics",
    "train_function",
    "history",
    "stop_training",
    "_eval_epoch_iterator",
    "_jax_state",
    "_jax_state_synced",
)


def built(model: keras.Model, x: Any, batch_size: int) -> Any:
    """Build `model` on the first batch of `x` where that is left to do, and return `x`, still whole.

    Without it the first weights would be made and changed in one and the same step of `fit`.
    """
    if is_built(model):
        return x
    with _random_states_kept():  # a data loader may draw its order
        batch, x = _first_batch(x, batch_size)
    if batch is not None:
        build(model, batch)
    return x


def build(model: keras.Model, batch: Any) -> None:
    """Build `model` for any number of inputs like `batch`, where that is left to do: computes nothing."""
    if is_built(model):
        return
    with strategy_scope(model):
        if isinstance(model, keras.Sequential) and hasattr(batch, "shape"):
            model.build((None, *batch.shape[1:]))
        if not is_built(model):  # as `fit` does it on JAX and torch
            batch = keras.tree.map_structure(_symbolic, batch)
            backend.compute_output_spec(model, batch, training=False)


def is_built(model: keras.Model) -> bool:
    """Return whether `model` and all of its layers have their weights."""
    return all(layer.built for layer in model._flatten_layers())


def _symbolic(array: Any) -> Any:
    return keras.KerasTensor(tuple(array.shape), keras.backend.standardize_dtype(array.dtype))


def _first_batch(x: Any, batch_size: int) -> tuple[Any, Any]:
    """Return the inputs of the first batch of `x`, and `x` or a generator that still begins with it.

    The inputs are None for what is no data: `fit` says what is wrong with it.
    """
    if isinstance(x, keras.utils.PyDataset):
        batch = x[0]
    elif isinstance(x, (dict, list, tuple)) or hasattr(x, "shape"):
        arrays = keras.tree.flatten(x)
        if not arrays or not all(hasattr(array, "shape") for array in arrays):
            return None, x
        return keras.tree.map_structure(lambda array: array[:batch_size], x), x
    elif not hasattr(x, "__iter__"):
        return None, x
    else:
        batches = iter(x)
        batch = next(batches, None)
        if batch is None:
            raise ValueError(f"Expected `x` to have at least one batch. Received: x={x}")
        if isinstance(x, types.GeneratorType):
            x = (batch for batch in itertools.chain([batch], batches))
    return keras.utils.unpack_x_y_sample_weight(batch)[0], x


@contextlib.contextmanager
def rehearsal(model: keras.Model, learning_rate: float) -> Iterator[None]:
    """Train `model` as if it did not happen: within, by `learning_rate`; afterwards it is as it was.

    The optimizer is another one of the same class, settings and state, with a float learning rate where
    the model's own may follow a schedule. Compiled metrics are left out. What is restored, bit for bit:
    all variables of the model and its metrics, the random generators of Python, NumPy, Keras, TensorFlow
    and PyTorch, and what `fit` leaves in the model. Also after an exception.
    """
    variables = _variables(model)
    values = [_value(variable) for variable in variables]
    attributes = {name: vars(model)[name] for name in _ATTRIBUTES if name in vars(model)}
    with _random_states_kept(), _buffers_kept(model):
        try:
            with _unbuilt_again(model), strategy_scope(model):
                optimizer = _same_optimizer(model.optimizer, learning_rate)
                _copy_state(model.optimizer, optimizer, model)
                vars(model).update(optimizer=optimizer, _compile_metrics=None, train_function=None)
                yield
        finally:
            for name in _ATTRIBUTES:
                vars(model).pop(name, None)
            vars(model).update(attributes)
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


def _variables(model: keras.Model) -> list[keras.Variable]:
    found = [*model.variables, *model.metrics_variables]
    for layer in model._flatten_layers():  # the states of stateful recurrent layers are not among them
        states = keras.tree.flatten(vars(layer).get("states"))
        found += [state for state in states if isinstance(state, keras.Variable)]
    # Another optimizer, of a `train_step` of the user's. The model's own is not trained with.
    others = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    found += [variable for other in others if other is not model.optimizer for variable in other.variables]
    return list({id(variable): variable for variable in found}.values())


@contextlib.contextmanager
def _buffers_kept(model: keras.Model) -> Iterator[None]:
    """Restore what modules of torch within the model keep besides variables."""
    if keras.backend.backend() != "torch":
        yield
        return
    layers = model._flatten_layers()  # all are modules; that of a wrapper is within the wrapper
    buffers = list({id(buffer): buffer for layer in layers for buffer in layer.buffers()}.values())
    values = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)


def _value(variable: keras.Variable) -> np.ndarray:
    # A copy: on JAX the array shares the variable's memory, which a step gives away.
    return np.array(ops.convert_to_numpy(variable))


def _same_optimizer(
    optimizer: keras.optimizers.Optimizer, learning_rate: float
) -> keras.optimizers.Optimizer:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = _same_optimizer(optimizer.inner_optimizer, learning_rate)
        settings = {name: getattr(optimizer, name) for name in ("initial_scale", "dynamic_growth_steps")}
        return type(optimizer)(inner, name=optimizer.name, **settings)
    # The rate is put in beforehand: a schedule need not be one that can be serialized.
    rate = keras.Variable(learning_rate, dtype="float32", trainable=False)
    try:
        with replaced(optimizer, _learning_rate=rate):
            config = optimizer.get_config()
        same = type(optimizer).from_config({**config, "learning_rate": learning_rate})
    except TypeError as error:
        raise ValueError(
            f"`{type(optimizer).__name__}` cannot be made anew from its config, which the test needs: "
            f"`get_config` has to tell every argument of its `__init__`. Received: optimizer={optimizer}"
        ) from error
    # Set by `exclude_from_weight_decay`, and not in the config.
    excluded = {name: value for name, value in vars(optimizer).items() if name.startswith("_exclude_")}
    vars(same).update(copy.deepcopy(excluded))
    return same


def _copy_state(
    source: keras.optimizers.Optimizer, target: keras.optimizers.Optimizer, model: keras.Model
) -> None:
    """Give `target` the state of `source`, but for the learning rate."""
    inner = unscaled(source)
    weights = model.trainable_variables
    if inner.built and list(map(id, inner._trainable_variables)) != list(map(id, weights)):
        raise ValueError(
            "The trainable weights of the model are not those that its optimizer was built for. Compile "
            f"the model anew. Received: model={model}"
        )
    target.build(weights)
    found = [_value(variable) for variable in _state(source)]
    for variable, value in zip(_state(target), found, strict=source.built):
        variable.assign(value)


def _state(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    return [v for v in optimizer.variables if v is not unscaled(optimizer)._learning_rate]


@contextlib.contextmanager
def _unbuilt_again(model: keras.Model) -> Iterator[None]:
    """Forget afterwards which losses were chosen for the data, if none had been before."""
    loss = model._compile_loss
    if loss is None or loss.built:
        yield
        return
    attributes = dict(vars(loss))
    try:
        yield
    finally:
        vars(loss).update(attributes)
        loss._metrics.clear()


@contextlib.contextmanager
def _random_states_kept() -> Iterator[None]:
    restore = [_kept(random.getstate, random.setstate), _kept(np.random.get_state, np.random.set_state)]
    restore.append(_keras_generator_kept())
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        restore.append(_kept(torch.get_rng_state, torch.set_rng_state))
        if torch.cuda.is_available():
            restore.append(_kept(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    if keras.backend.backend() == "tensorflow":
        restore.append(_tensorflow_seeds_kept())
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


def _kept(get: Callable[[], Any], put: Callable[[Any], Any]) -> Callable[[], Any]:
    state = get()
    return lambda: put(state)


def _tensorflow_seeds_kept() -> Callable[[], Any]:
    """Keep what `tf.random.set_seed` made: seeds of eager operations are drawn from it."""
    from tensorflow.python.eager import context

    generator = getattr(context.context(), "_rng", None)
    state = generator.getstate() if generator is not None else None

    def put_back() -> None:
        if generator is not None and generator.getstate() != state:
            generator.setstate(state)
            # An operation that gets its seed again would go on where the one before it stopped.
            context.context().clear_kernel_cache()

    return put_back


def _keras_generator_kept() -> Callable[[], Any]:
    name = "global_seed_generator"
    generator = global_state.get_global_attribute(name)
    state = None if generator is None else _value(generator.state)

    def put_back() -> None:
        global_state.set_global_attribute(name, generator)
        if generator is not None:
            generator.state.assign(state)

    return put_back
