"""Ready combinations: a compiled network by the guidelines, and the guidelines as data."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import check_number, check_positive, counted
from keras_dnn_extras._models import dense_array
from keras_dnn_extras.learning_rates import OneCycle
from keras_dnn_extras.uncertainty import MCDropout

_DROPOUTS = {"AlphaDropout": keras.layers.AlphaDropout, "MCDropout": MCDropout}
_TASKS = ("classification", "regression")
_CONSTANT = 2.0**-24  # a standard deviation over the mean below which float32 has one number for all


@dataclass(frozen=True)
class Recipe:
    """What `dnn` builds by one of its recipes: `str(recipe)` is a table.

    Attributes:
        name: what `dnn` calls it.
        kernel_initializer: of the hidden layers; the output layer has `"glorot_uniform"`.
        activation: of the hidden layers.
        batch_norm_from: the number of hidden layers from which on a network counts as deep, and has
            BatchNormalization between each hidden layer and its activation. None: never.
        kernel_regularizer: `"l1"` or None.
        l1: the factor of the former, or 0.
        dropout: the class of layers that drop hidden units, or None.
        dropout_rate: the share that they drop, or 0.
        dropout_layers: the number of hidden layers that they follow, the last ones.
        most_layers: the number of hidden layers beyond which `dnn` warns, or None.
        optimizer: its class.
        momentum: of the optimizer.
        clipnorm: its `global_clipnorm` in regression, where a gradient is as large as an error can be.
        learning_rate: of the optimizer, where it has no schedule.
        max_learning_rate: the peak of 1cycle, a first guess. `find_learning_rate` finds a better one.
        note: what goes with it, and is up to the user.
    """

    name: str
    kernel_initializer: str = "he_normal"
    activation: str = "elu"
    batch_norm_from: int | None = 3
    kernel_regularizer: str | None = None
    l1: float = 0.0
    dropout: str | None = None
    dropout_rate: float = 0.0
    dropout_layers: int = 0
    most_layers: int | None = None
    optimizer: str = "SGD"
    momentum: float = 0.9
    clipnorm: float = 1.0
    learning_rate: float = 0.01
    max_learning_rate: float = 0.05
    note: str = "Stop early where the validation loss rises."

    def __str__(self) -> str:
        rows = {
            "kernel initializer": self.kernel_initializer,
            "activation": self.activation,
            "normalization": self._normalization(),
            "regularization": self._regularization(),
            "optimizer": f"{self.optimizer} with momentum {self.momentum}",
            "clipping": f"in regression, global norm {self.clipnorm}",
            "learning rate": f"{self.learning_rate}, or 1cycle up to {self.max_learning_rate}",
            "note": self.note,
        }
        width = max(map(len, rows))
        return "\n".join([self.name, *(f"  {name:<{width}}  {told}" for name, told in rows.items())])

    def _normalization(self) -> str:
        if self.batch_norm_from is None:
            return "none"
        deep = f", from {self.batch_norm_from} hidden layers on" if self.batch_norm_from > 1 else ""
        return f"BatchNormalization before the activation{deep}"

    def _regularization(self) -> str:
        if self.kernel_regularizer:
            return f"{self.kernel_regularizer} of {self.l1}"
        if self.dropout:
            return (
                f"{self.dropout} of {self.dropout_rate} after the last {self.dropout_layers} hidden layers"
            )
        return "none"


_RECIPES = {
    each.name: each
    for each in (
        Recipe("default"),
        Recipe(
            "self_normalizing",
            kernel_initializer="lecun_normal",
            activation="selu",
            batch_norm_from=None,
            dropout="AlphaDropout",
            dropout_rate=0.1,
            dropout_layers=3,
            max_learning_rate=0.02,
            note="Standardize the inputs. For plain stacks of dense layers.",
        ),
        Recipe(
            "sparse",
            kernel_regularizer="l1",
            l1=1e-3,
            note="Weights become small, not 0: `zero_small_weights` makes zeros of them.",
        ),
        Recipe(
            "low_latency",
            activation="relu",
            batch_norm_from=1,
            most_layers=3,
            note="Few layers. After training, `fuse_batch_norm` folds the normalization into them.",
        ),
        Recipe(
            "risk_sensitive",
            dropout="MCDropout",
            dropout_rate=0.1,
            dropout_layers=3,
            note="Predict with `mc_predict`. `predict` alone gives one random sample.",
        ),
    )
}


def recipe(name: str) -> Recipe:
    """Return what `dnn` builds by the recipe `name`, as data.

    Args:
        name: `"default"`, `"self_normalizing"`, `"sparse"`, `"low_latency"` or `"risk_sensitive"`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: there is no recipe of this name.
        TypeError: `name` is no string.

    Example:

    >>> recipe("self_normalizing").activation
    'selu'
    >>> print(recipe("self_normalizing"))
    self_normalizing
      kernel initializer  lecun_normal
      activation          selu
      normalization       none
      regularization      AlphaDropout of 0.1 after the last 3 hidden layers
      optimizer           SGD with momentum 0.9
      clipping            in regression, global norm 1.0
      learning rate       0.01, or 1cycle up to 0.02
      note                Standardize the inputs. For plain stacks of dense layers.

    Reference:
        Géron, Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow, chapter 11, "Summary and
        Practical Guidelines".
    """
    return _recipe_named(name, "name")


def dnn(
    input_shape: int | Sequence[int],
    hidden_units: Sequence[int],
    outputs: int,
    *,
    recipe: str = "default",
    task: str = "classification",
    inputs: Any = None,
    total_steps: int | None = None,
    seed: int | None = None,
    loss: Any = None,
    metrics: Any = None,
    optimizer: Any = None,
) -> keras.Sequential:
    """Return a deep network of dense layers by the guidelines, compiled.

    The layers are, where the recipe and the arguments ask for them: `normalization`, `flatten`, for each
    hidden layer `hidden_1`, `batch_norm_1`, `activation_1` and `dropout_1`, and `output`.
    BatchNormalization is between a dense layer without bias and the activation, so that
    `fuse_batch_norm` folds it. `print(recipe(name))` tells the choices.

    The output and the loss follow from the task. Classification into two classes, `outputs=1`: sigmoid,
    binary cross-entropy, labels 0 and 1. Into more: softmax, cross-entropy, integer labels from 0. Both
    with `accuracy`. Regression: linear, mean squared error, `mae`, and clipped gradients; scale the targets
    to a standard deviation of about 1, or training takes many epochs to get there.

    Args:
        input_shape: int or tuple of ints > 0, of a single input. One of several axes is flattened.
        hidden_units: list of ints > 0, the units of each hidden layer.
        outputs: int > 0, the number of classes, of regression targets, or 1 for two classes.
        recipe: the name of a recipe, as `recipe` takes it.
        task: `"classification"` or `"regression"`.
        inputs: array of shape `(n, *input_shape)`, or None: a sample of the training data, with whose means
            and standard deviations a `Normalization` layer standardizes each feature. Features that are
            constant in it are centered alone. Without it, standardize the inputs yourself.
        total_steps: int > 0, the number of updates of a `OneCycle` schedule in the optimizer, without a
            cycle of the momentum. None: a constant rate, ready for `OneCycleScheduler`, which cycles both.
        seed: int >= 0 or None, makes initial weights and dropout repeatable. The order of the batches of
            `fit` depends on `keras.utils.set_random_seed`.
        loss: as in `compile`, or None for that of the task.
        metrics: list as in `compile`, or None for that of the task.
        optimizer: as in `compile`, or None for that of the recipe.

    Returns:
        A compiled `keras.Sequential`. In mixed precision its first and its last layer compute in float32.
        Files of it load in plain Keras, but those of `"risk_sensitive"`, which has `MCDropout`, and with
        `total_steps`, before `load_model` need `import keras_dnn_extras`.

    Raises:
        ValueError: a value is out of its range, or `inputs` do not have the shape, are not finite or none;
            there is no loss or optimizer of this name; `total_steps` and an `optimizer` are given.
        TypeError: a value is of the wrong type.

    Example:

    >>> model = dnn(64, [100, 100, 100], outputs=10, recipe="low_latency")
    >>> [layer.name for layer in model.layers][:4]
    ['hidden_1', 'batch_norm_1', 'activation_1', 'hidden_2']
    >>> model.optimizer.momentum
    0.9

    Reference:
        Géron, Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow, chapter 11, "Summary and
        Practical Guidelines".
    """
    chosen = _recipe_named(recipe, "recipe")
    shape = _checked_shape(input_shape)
    units = _checked_units(hidden_units)
    check_positive("outputs", outputs, Integral)
    _check_choice("task", task, _TASKS)
    if total_steps is not None:
        check_positive("total_steps", total_steps, Integral)
    if seed is not None:
        check_number("seed", seed, "an int of at least 0", lambda s: s >= 0, Integral)
    compiled_with = _checked_compile_arguments(loss, metrics, optimizer, total_steps)
    sample = None if inputs is None else _checked_inputs(inputs, shape)
    _warn_of_depth(chosen, units)

    next_seed = _seeds(seed)
    layers = [keras.Input(shape)]
    if sample is not None:
        layers.append(_normalization(sample))
    if len(shape) > 1:
        layers.append(keras.layers.Flatten(name="flatten"))
    for i, n in enumerate(units, start=1):
        layers += _hidden(chosen, i, n, len(units), next_seed)
    layers.append(_output(chosen, outputs, task, next_seed()))
    model = keras.Sequential(layers)
    model.compile(**{**_guidelines(chosen, outputs, task, total_steps), **compiled_with})
    return model


# -- layers ---------------------------------------------------------------------------------------------


def _hidden(
    chosen: Recipe, i: int, units: int, depth: int, next_seed: Callable[[], int | None]
) -> list[keras.layers.Layer]:
    """Return the `i`-th hidden layer of `depth`, and what follows it."""
    name, initializer = f"hidden_{i}", chosen.kernel_initializer
    if chosen.batch_norm_from is None or depth < chosen.batch_norm_from:
        layers = [_dense(chosen, units, initializer, next_seed(), name=name, activation=chosen.activation)]
    else:
        layers = [
            _dense(chosen, units, initializer, next_seed(), name=name, use_bias=False),
            keras.layers.BatchNormalization(name=f"batch_norm_{i}"),
            keras.layers.Activation(chosen.activation, name=f"activation_{i}"),
        ]
    if chosen.dropout and i > depth - chosen.dropout_layers:
        kind = _DROPOUTS[chosen.dropout]
        layers.append(kind(chosen.dropout_rate, seed=next_seed(), name=f"dropout_{i}"))
    return layers


def _output(chosen: Recipe, outputs: int, task: str, seed: int | None) -> keras.layers.Layer:
    activation = "linear" if task == "regression" else "sigmoid" if outputs == 1 else "softmax"
    arguments = {"name": "output", "activation": activation, "dtype": _full_precision()}
    return _dense(chosen, outputs, "glorot_uniform", seed, **arguments)


def _dense(
    chosen: Recipe, units: int, initializer: str, seed: int | None, **arguments: Any
) -> keras.layers.Layer:
    kernel = keras.initializers.get({"class_name": initializer, "config": {"seed": seed}})
    penalty = keras.regularizers.L1(chosen.l1) if chosen.kernel_regularizer else None
    return keras.layers.Dense(
        int(units), kernel_initializer=kernel, kernel_regularizer=penalty, **arguments
    )


def _normalization(sample: np.ndarray) -> keras.layers.Layer:
    """Return a layer that standardizes each feature, adapted to `sample`.

    Where the variance is 0, Keras's own `adapt` divides by 1e-7 what another input has there.
    """
    axes = tuple(range(1, sample.ndim))
    layer = keras.layers.Normalization(axis=axes, name="normalization", dtype=_full_precision())
    layer.build((None, *sample.shape[1:]))
    mean, variance = sample.mean(axis=0), sample.var(axis=0)
    constant = np.sqrt(variance) <= _CONSTANT * np.abs(mean)
    layer.adapt_mean.assign(mean)
    layer.adapt_variance.assign(np.where(constant, 1.0, variance))
    layer.finalize_state()
    return layer


def _full_precision() -> str | None:
    """Return the dtype of the layers at both ends: inputs and probabilities do not fit in 16 bits."""
    half = keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16")
    return "float32" if half else None


def _seeds(seed: int | None) -> Callable[[], int | None]:
    """Return a function that returns another seed each time: layers of one seed have the same masks."""
    if seed is None:
        return lambda: None
    rng = np.random.default_rng(seed)
    return lambda: int(rng.integers(2**31))


def _guidelines(chosen: Recipe, outputs: int, task: str, total_steps: int | None) -> dict[str, Any]:
    """Return what the recipe and the task give to `compile`."""
    if task == "regression":
        loss, metrics = "mse", ["mae"]
    else:
        loss = "binary_crossentropy" if outputs == 1 else "sparse_categorical_crossentropy"
        metrics = ["accuracy"]
    rate = chosen.learning_rate if total_steps is None else OneCycle(chosen.max_learning_rate, total_steps)
    optimizer = getattr(keras.optimizers, chosen.optimizer)(
        rate, momentum=chosen.momentum, global_clipnorm=chosen.clipnorm if task == "regression" else None
    )
    return {"optimizer": optimizer, "loss": loss, "metrics": metrics}


# -- arguments ------------------------------------------------------------------------------------------


def _recipe_named(name: Any, argument: str) -> Recipe:
    _check_choice(argument, name, _RECIPES)
    return _RECIPES[name]


def _check_choice(name: str, value: Any, choices: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"Expected `{name}` to be a string. Received: {name}={value!r}")
    if value not in choices:
        told = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"Expected `{name}` to be one of {told}. Received: {name}={value!r}")


def _checked_shape(input_shape: Any) -> tuple[int, ...]:
    axes = (input_shape,) if isinstance(input_shape, Integral) else input_shape
    return _checked_sizes("input_shape", axes, "an int, or a tuple of ints, without the batch")


def _checked_units(hidden_units: Any) -> tuple[int, ...]:
    return _checked_sizes("hidden_units", hidden_units, "a list of ints, one for each hidden layer")


def _checked_sizes(name: str, sizes: Any, expected: str) -> tuple[int, ...]:
    if not isinstance(sizes, (list, tuple, np.ndarray)) or getattr(sizes, "ndim", 1) == 0:
        raise TypeError(f"Expected `{name}` to be {expected}. Received: {name}={sizes!r}")
    if len(sizes) == 0:
        raise ValueError(f"Expected `{name}` to have at least one entry. Received: {name}={sizes!r}")
    for size in sizes:
        check_positive(name, size, Integral)
    return tuple(int(size) for size in sizes)


def _checked_compile_arguments(
    loss: Any, metrics: Any, optimizer: Any, total_steps: int | None
) -> dict[str, Any]:
    """Return those that are given, once Keras knows their names."""
    if optimizer is not None and total_steps is not None:
        raise ValueError(
            "`total_steps` puts a schedule into the optimizer of the recipe. Leave it out, and give your "
            "optimizer a schedule: `OneCycle`. "
            f"Received: optimizer={optimizer!r}, total_steps={total_steps}"
        )
    given = {"loss": loss, "metrics": metrics, "optimizer": optimizer}
    if isinstance(loss, str):
        keras.losses.get(loss)
    if optimizer is not None:
        given["optimizer"] = keras.optimizers.get(optimizer)
    return {name: value for name, value in given.items() if value is not None}


def _checked_inputs(inputs: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return `inputs` in float64."""
    try:
        given = dense_array(inputs)
    except ValueError as error:  # rows of several lengths
        raise ValueError(
            f"Expected `inputs` to be an array of shape (n, {', '.join(map(str, shape))}). "
            f"Received: inputs={inputs!r}"
        ) from error
    if given.dtype.kind not in "biuf" and "float" not in given.dtype.name:  # bfloat16 is of no such kind
        raise ValueError(
            f"Expected `inputs` to be an array of numbers. Received: inputs of dtype {given.dtype}"
        )
    if given.shape[1:] != shape or not len(given):
        raise ValueError(
            f"Expected `inputs` to be a sample of shape (n, {', '.join(map(str, shape))}), n > 0. "
            f"Received: inputs of shape {given.shape}"
        )
    sample = given.astype("float64")
    if not np.isfinite(sample).all():
        raise ValueError(
            "Expected `inputs` to be finite. Replace what is missing first. Received: inputs with "
            f"NaN or infinity in {counted(int(np.sum(~np.isfinite(sample))), 'place')}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        fits = np.isfinite(sample.var(axis=0).astype("float32")).all()
    if not fits:
        raise ValueError(
            "Expected the variances of `inputs` to be numbers of float32. Scale the features down first. "
            f"Received: inputs as large as {np.abs(sample).max():.1e}"
        )
    return sample


def _warn_of_depth(chosen: Recipe, units: tuple[int, ...]) -> None:
    if chosen.most_layers is not None and len(units) > chosen.most_layers:
        warnings.warn(
            f"The recipe {chosen.name!r} is meant for at most {chosen.most_layers} hidden layers: each one "
            f"adds to the time of a prediction. Received: hidden_units={list(units)}",
            stacklevel=3,
        )
