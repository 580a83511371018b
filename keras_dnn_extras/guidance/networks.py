"""Networks by a recipe: their layers, and what they are compiled with."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, Literal

import keras
import numpy as np

from keras_dnn_extras._arguments import check_choice, check_number, check_positive
from keras_dnn_extras._models import Data, Losses, Metrics, OptimizerChoice
from keras_dnn_extras.guidance.input_moments import InputMoments, moments_of
from keras_dnn_extras.guidance.network_arguments import (
    checked_compile_arguments,
    checked_shape,
    checked_units,
    warn_of_depth,
)
from keras_dnn_extras.guidance.recipes import Recipe, RecipeName, recipe_named
from keras_dnn_extras.learning_rates import OneCycle
from keras_dnn_extras.uncertainty import MCDropout

_DROPOUTS = {"AlphaDropout": keras.layers.AlphaDropout, "MCDropout": MCDropout}
Task = Literal["classification", "regression"]
_CONSTANT = 2.0**-24  # a standard deviation over the mean below which float32 has one number for all


def dnn(
    input_shape: int | Sequence[int],
    hidden_units: Sequence[int],
    outputs: int,
    *,
    recipe: RecipeName = "default",
    task: Task = "classification",
    inputs: Data | None = None,
    total_steps: int | None = None,
    seed: int | None = None,
    loss: Losses | None = None,
    metrics: Metrics | None = None,
    optimizer: OptimizerChoice | None = None,
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
        inputs: array of shape `(n, *input_shape)`, or a `tf.data.Dataset`, `PyDataset` or torch
            `DataLoader` of such batches, alone or with targets: a sample of the training data. A
            `Normalization` layer standardizes each feature with its mean and standard deviation there.
            Features that are constant in it are centered alone. None: standardize the inputs yourself.
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
        ValueError: a value is out of its range, or `inputs` do not have the shape, are not finite or none,
            have no end or could not be read again; there is no loss or optimizer of this name;
            `total_steps` and an `optimizer` are given.
        TypeError: a value is of the wrong type.

    Example:

    >>> model = dnn(64, [100, 100, 100], outputs=10, recipe="low_latency")
    >>> [layer.name for layer in model.layers][:4]
    ['hidden_1', 'batch_norm_1', 'activation_1', 'hidden_2']
    >>> model.optimizer.momentum
    0.9

    In scikit-learn, by Keras's wrapper, which makes the labels one-hot:

    >>> from sklearn.datasets import load_digits
    >>> def network(X, y, units):
    ...     loss = "categorical_crossentropy"
    ...     return dnn(X.shape[1], [units], y.shape[1], inputs=X, loss=loss, seed=0)
    >>> classifier = keras.wrappers.SKLearnClassifier(network, model_kwargs={"units": 50})
    >>> classifier = classifier.fit(*load_digits(return_X_y=True), epochs=3, verbose=0)
    >>> classifier.history_.history["accuracy"][-1] > 0.8
    True

    `GridSearchCV(classifier, {"model_kwargs": [{"units": 20}, {"units": 50}]})` tries both. Pass `epochs`
    and the like to its `fit`: it copies the wrapper, and Keras leaves out the `fit_kwargs`.

    Reference:
        Géron, Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow, chapter 11, "Summary and
        Practical Guidelines".
    """
    chosen = recipe_named(recipe, "recipe")
    shape = checked_shape(input_shape)
    units = checked_units(hidden_units)
    check_positive("outputs", outputs, Integral)
    check_choice("task", task, Task)
    if total_steps is not None:
        check_positive("total_steps", total_steps, Integral)
    if seed is not None:
        check_number("seed", seed, "an int of at least 0", lambda s: s >= 0, Integral)
    compiled_with = checked_compile_arguments(loss, metrics, optimizer, total_steps)
    moments = None if inputs is None else moments_of(inputs, shape)
    warn_of_depth(chosen, units)

    next_seed = _seeds(seed)
    layers = [keras.Input(shape)]
    if moments is not None:
        layers.append(_normalization(moments))
    if len(shape) > 1:
        layers.append(keras.layers.Flatten(name="flatten"))
    for i, n in enumerate(units, start=1):
        layers += _hidden(chosen, i, n, len(units), next_seed)
    layers.append(_output(chosen, outputs, task, next_seed()))
    model = keras.Sequential(layers)
    model.compile(**{**_guidelines(chosen, outputs, task, total_steps), **compiled_with})
    return model


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


def _normalization(moments: InputMoments) -> keras.layers.Layer:
    """Return a layer that standardizes each feature, adapted to what has these `moments`.

    Where the variance is 0, Keras's own `adapt` divides by 1e-7 what another input has there.
    """
    mean, variance = moments.mean, moments.variance
    axes = tuple(range(1, mean.ndim + 1))
    layer = keras.layers.Normalization(axis=axes, name="normalization", dtype=_full_precision())
    layer.build((None, *mean.shape))
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
