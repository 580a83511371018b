"""Snapshot and exact restore of what training changes: in a model, its optimizer and the generators."""

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import keras
import numpy as np

# Private, as Keras has no other way to build a model without a call, and to its global generator.
from keras.src import backend
from keras.src.backend.common import global_state

from keras_dnn_extras.data_shapes import are_arrays, first_batch, spec_of
from keras_dnn_extras.in_step import strategy_scope
from keras_dnn_extras.optimizer_state import carry_over, same_optimizer, value_on_host
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
    with random_states_kept():  # a data loader may draw its order
        batch, x = first_batch(x, batch_size)
    if batch is not None:
        build(model, batch if are_arrays(x) else keras.utils.unpack_x_y_sample_weight(batch)[0])
    return x


def build(model: keras.Model, batch: Any) -> None:
    """Build `model` for any number of inputs like `batch`, where that is left to do: computes nothing."""
    if is_built(model):
        return
    batch = keras.tree.map_structure(spec_of, batch)
    with strategy_scope(model):
        if isinstance(model, keras.Sequential) and hasattr(batch, "shape"):
            model.build((None, *batch.shape[1:]))
        if not is_built(model):  # as `fit` does it on JAX and torch
            backend.compute_output_spec(model, batch, training=False)


def is_built(model: keras.Model) -> bool:
    """Return whether `model` and all of its layers have their weights."""
    return all(layer.built for layer in model._flatten_layers())


def recompile(model: keras.Model, learning_rate: Any = None) -> None:
    """Have the weights that are trainable now trained by a fresh optimizer, where `model` is compiled.

    It is of the same class and settings, and has the state of the weights that the old one knows. All else
    that the model was compiled with is not touched.

    Args:
        learning_rate: of the fresh optimizer, or None for what the old one has.

    Raises:
        ValueError: the optimizer cannot be made anew, or there are more than one.
        RuntimeError: `model` is in the middle of `fit`.
    """
    if not getattr(model, "compiled", False) or model.optimizer is None:
        return
    optimizer = model.optimizer
    with strategy_scope(model):
        fresh = same_optimizer(optimizer, learning_rate)
        if optimizer.built:
            fresh.build(model.trainable_variables)
            carry_over(optimizer, fresh)
    set_optimizer(model, fresh)


def set_optimizer(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Let `model` train with `optimizer` what is trainable now, as if it had been compiled with it."""
    model.optimizer = optimizer
    config = getattr(model, "_compile_config", None)
    if config is not None and "optimizer" in config.config:
        config.config["optimizer"] = optimizer
    model.train_function = model.test_function = model.predict_function = None
    accept_trainable(model)


def check_recompilable(model: keras.Model) -> None:
    """Raise what `recompile` would raise of `model`, before anything is changed in it."""
    _refuse_in_fit(model)
    if not getattr(model, "compiled", False) or model.optimizer is None:
        return
    others = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and value is not model.optimizer and value.built
    ]
    if others or isinstance(model.optimizer, getattr(keras.optimizers, "MultiOptimizer", ())):
        raise ValueError(
            "The model is trained by more than one optimizer, of which it cannot be told which weights are "
            "theirs. Set `trainable` before they are built, and compile the model yourself. "
            f"Received: model={model}, optimizer={model.optimizer}"
        )
    same_optimizer(model.optimizer)


def accept_trainable(model: keras.Model) -> None:
    """Let Keras take what is trainable now for what the model was compiled with: it warns otherwise."""
    if hasattr(model, "_compiled_trainable_state"):
        model._compiled_trainable_state = {layer: layer.trainable for layer in model._flatten_layers()}


def _refuse_in_fit(model: keras.Model) -> None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        of_fit = isinstance(owner, keras.callbacks.CallbackList) and owner._model is model
        if of_fit and frame.f_code.co_name != "on_train_end":
            raise RuntimeError(
                "What is trained cannot be changed by a callback while `fit` runs. Pass the callback "
                f"`GradualUnfreezing` to `fit`, or call `fit` again. Received: model={model}"
            )
        frame = frame.f_back


@contextlib.contextmanager
def rehearsal(model: keras.Model, learning_rate: float) -> Iterator[None]:
    """Train `model` as if it did not happen: within, by `learning_rate`; afterwards it is as it was.

    The optimizer is another one of the same class, settings and state, with a float learning rate where
    the model's own may follow a schedule. Compiled metrics are left out. What is restored, bit for bit:
    all variables of the model and its metrics, the random generators of Python, NumPy, Keras, TensorFlow
    and PyTorch, and what `fit` leaves in the model. Also after an exception.
    """
    variables = _variables(model)
    values = [value_on_host(variable) for variable in variables]
    attributes = {name: vars(model)[name] for name in _ATTRIBUTES if name in vars(model)}
    with random_states_kept(), _buffers_kept(model):
        try:
            with loss_unbuilt_again(model), strategy_scope(model):
                _check_weights(model)
                optimizer = same_optimizer(model.optimizer, learning_rate)
                optimizer.build(model.trainable_variables)
                if model.optimizer.built:
                    carry_over(model.optimizer, optimizer)
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


def _check_weights(model: keras.Model) -> None:
    inner = unscaled(model.optimizer)
    weights = model.trainable_variables
    if inner.built and list(map(id, inner._trainable_variables)) != list(map(id, weights)):
        raise ValueError(
            "The trainable weights of the model are not those that its optimizer was built for. Compile "
            f"the model anew. Received: model={model}"
        )


@contextlib.contextmanager
def loss_unbuilt_again(model: keras.Model) -> Iterator[None]:
    """Forget afterwards which losses were chosen for the data, if none had been before."""
    loss = getattr(model, "_compile_loss", None)
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
def random_states_kept() -> Iterator[None]:
    """Restore the random generators of Python, NumPy, Keras, TensorFlow and PyTorch afterwards."""
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
    state = None if generator is None else value_on_host(generator.state)

    def put_back() -> None:
        global_state.set_global_attribute(name, generator)
        if generator is not None:
            generator.state.assign(state)

    return put_back
