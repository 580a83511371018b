"""Freeze and unfreeze layers."""

import keras

from keras_dnn_extras._arguments import check_bool, positive_float
from keras_dnn_extras._models import (
    LayerChoices,
    check_model,
    check_recompilable,
    chosen_layers,
    compiled_optimizer,
    layers_to_unfreeze,
    recompile,
    set_trainable,
    trainable_flags,
    with_inner_layers,
)
from keras_dnn_extras._rollback import rolled_back
from keras_dnn_extras.transfer.interruptions import forget_frozen


def freeze(model: keras.Model, layers: LayerChoices = None) -> keras.Model:
    """Freeze layers: no training moves them any more, and BatchNormalization is in inference mode.

    A model that is compiled is recompiled with all that it was compiled with: Keras alone trains on as
    before, raises, or half obeys, differently on each backend. Its optimizer is a fresh one of the same
    class and settings, with the state that the old one had of the weights that are still trained, and the
    number of its updates.

    Args:
        model: a Keras model. A nested model is frozen as a part of the model that is trained: pass that.
        layers: None for all; the name of a layer, within a nested model or a wrapper its path, as in
            `backbone/conv1` or `frames/cnn/conv`, as all reports of this package print it; an index or a
            slice of `model.layers`; a layer or a nested model; a compiled regular expression, which is
            searched for in the paths; or a list of these.

    Returns:
        `model`.

    Raises:
        ValueError: no layer is meant by `layers`, or the optimizer cannot be made anew.
        TypeError: `model` is no model, or `layers` none of the above.
        RuntimeError: a callback calls it while `fit` runs.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("adam", "mse")
    >>> freeze(model, slice(0, -1)) is model
    True
    >>> [layer.trainable for layer in model.layers]
    [False, True]

    Reference:
        Yosinski et al., How transferable are features in deep neural networks?, 2014
        (https://arxiv.org/abs/1411.1792).
    """
    check_model("model", model)
    chosen = with_inner_layers(chosen_layers(model, layers))
    check_recompilable(model)
    with rolled_back(compiled_optimizer(model), trainable_flags(model), only_on_error=True):
        set_trainable(model, chosen, False)
        recompile(model)
    return model


def unfreeze(
    model: keras.Model,
    layers: LayerChoices = None,
    *,
    learning_rate: float | None = None,
    batch_norm: bool = False,
) -> keras.Model:
    """Let layers train again, but leave BatchNormalization frozen, as `freeze` left it.

    A pretrained BatchNormalization that trains on few data forgets the statistics that the weights before
    and after it were made for. A compiled model is recompiled as by `freeze`. The optimizer's averages of
    the weights that are new to it begin with zero. Adam and its like do not correct them for it so late,
    and take the first steps with them up to three times too large: `GradualUnfreezing` and `fine_tune` do.

    Args:
        model: a Keras model.
        layers: as in `freeze`.
        learning_rate: of the fresh optimizer, or None for what it is. The lower rate that is usual here.
        batch_norm: whether to unfreeze BatchNormalization too.

    Returns:
        `model`.

    Raises:
        ValueError: no layer is meant by `layers`, or BatchNormalization alone without `batch_norm`; the
            model is not compiled and a `learning_rate` is given; the optimizer cannot be made anew.
        TypeError: `model` is no model, `layers` none of what `freeze` takes, or `learning_rate` no number.
        RuntimeError: a callback calls it while `fit` runs.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("adam", "mse")
    >>> model = unfreeze(freeze(model, "dense"), "dense", learning_rate=1e-5) # doctest: +SKIP

    Reference:
        Ioffe & Szegedy, Batch Normalization, 2015 (https://arxiv.org/abs/1502.03167).
    """
    check_model("model", model)
    check_bool("batch_norm", batch_norm)
    if learning_rate is not None:
        learning_rate = positive_float("learning_rate", learning_rate)
        if not getattr(model, "compiled", False):
            raise ValueError(
                "A model that is not compiled has no learning rate. Compile it with this one. "
                f"Received: learning_rate={learning_rate}, model={model}"
            )
    chosen = layers_to_unfreeze(model, layers, batch_norm)
    check_recompilable(model)
    with rolled_back(compiled_optimizer(model), trainable_flags(model), only_on_error=True):
        set_trainable(model, chosen, True)
        recompile(model, learning_rate)
    forget_frozen(model, chosen)
    return model
