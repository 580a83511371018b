"""Arguments of `compile` and `fit` in pretraining: checked and handed on."""

import inspect
from typing import Any

import keras
from keras import tree

from keras_dnn_extras._models import is_array, same_optimizer, spec_of

# Arguments of `compile`, which are taken among those of `fit`.
_OF_COMPILE = ("metrics", "weighted_metrics", "run_eagerly", "jit_compile", "steps_per_execution")


class Optimizers:
    """Optimizers of the same class and settings, none of them the one that was given."""

    def __init__(self, optimizer: Any):
        self._original = keras.optimizers.get(
            keras.optimizers.Adam(1e-3) if optimizer is None else optimizer
        )
        self.fresh()  # may be an error, which comes early then

    def fresh(self) -> keras.optimizers.Optimizer:
        return same_optimizer(self._original)


def compile_trainer(trainer: keras.Model, optimizer: Any, loss: Any, fit_arguments: dict[str, Any]) -> None:
    of_compile = {name: fit_arguments[name] for name in _OF_COMPILE if name in fit_arguments}
    trainer.compile(optimizer, loss, **of_compile)


def fit_trainer(trainer: keras.Model, x: Any, y: Any = None, **fit_arguments: Any) -> Any:
    of_fit = {name: value for name, value in fit_arguments.items() if name not in _OF_COMPILE}
    return trainer.fit(x, y, **of_fit)


def history_of(encoder: keras.Model, history: keras.callbacks.History) -> keras.callbacks.History:
    history.set_model(encoder)  # and let go of the one that trained it
    return history


def check_data(x: Any) -> None:
    if x is None:
        raise TypeError("Expected `x` to be data: arrays, a dataset or a generator. Received: x=None")
    shapes = [spec_of(array).shape for array in tree.flatten(x) if is_array(array)]
    if any(shape[:1] == (0,) for shape in shapes):
        raise ValueError(f"Expected `x` to have at least one row. Received: x of shape {shapes[0]}")


def check_loss(loss: Any) -> None:
    if loss is None:
        raise ValueError("Expected `loss` to be one, as in `compile`. Received: loss=None")
    if isinstance(loss, str):
        keras.losses.get(loss)


def check_fit_arguments(fit_arguments: dict[str, Any]) -> None:
    names = {*inspect.signature(keras.Model.fit).parameters, *_OF_COMPILE}
    unknown = [name for name in fit_arguments if name not in names]
    if unknown:
        raise TypeError(f"`fit` has no argument {unknown[0]!r}. Received: {unknown[0]}=...")


def all_frozen(encoder: keras.Model) -> ValueError:
    return ValueError(
        "All layers of the encoder are frozen, so there is nothing to train. Unfreeze some: "
        f"`unfreeze(encoder)`. Received: encoder={encoder}"
    )
