"""Unsupervised pretraining: an encoder learns to reconstruct unlabelled data."""

import types
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_dnn_extras._arguments import check_bool, check_positive
from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._display import brief
from keras_dnn_extras._graphs import Call
from keras_dnn_extras._keras_internals import flat_layers
from keras_dnn_extras._models import (
    ByName,
    Data,
    Losses,
    OptimizerChoice,
    built,
    graph_nodes,
    is_array,
    number_of_rows,
    set_trainable,
    trainable_flags,
    weights_of,
    with_checked_validation,
)
from keras_dnn_extras._rollback import rolled_back
from keras_dnn_extras.pretraining.autoencoder import (
    check_encoder_built,
    check_reconstruction,
    checked_chain,
)
from keras_dnn_extras.pretraining.dense_transpose import DenseTranspose
from keras_dnn_extras.pretraining.fit_arguments import (
    Optimizers,
    all_frozen,
    check_data,
    check_fit_arguments,
    check_loss,
    compile_trainer,
    fit_trainer,
    history_of,
)
from keras_dnn_extras.pretraining.training_models import Reconstruction


def pretrain_autoencoder(
    encoder: keras.Model,
    x: Data,
    *,
    epochs: int,
    greedy: bool = False,
    tied: bool = False,
    noise: float = 0.0,
    output_activation: ByName | None = None,
    loss: Losses = "mse",
    optimizer: OptimizerChoice | None = None,
    **fit_arguments: Any,
) -> keras.callbacks.History:
    """Train `encoder` to keep what its mirror image needs to reconstruct unlabelled data.

    The mirror image is that of `build_autoencoder`, and is thrown away afterwards. What is reconstructed is
    the data after a `Normalization` or `Rescaling` that comes first in the encoder, so that the loss is
    well scaled. With `greedy=True` each dense or convolutional layer, with what follows up to the next,
    learns in a fit of its own to reconstruct the codes of the layers before it, which stand still and are
    in inference mode. Layers of the encoder that are frozen stay frozen.

    Then `replace_head(encoder, head, after=encoder.layers[-1].name)` puts a head on it, and `fine_tune`
    goes on with labels. Without `after` the last layer of the encoder would give way to the head.

    Args:
        encoder: as in `build_autoencoder`, compiled or not, also one that is not built yet.
        x: inputs as in `fit`: arrays, a dict or list of one, `tf.data.Dataset`, `PyDataset`, generator,
            torch `DataLoader`. Labels that a dataset has, too, are left aside; sample weights are used.
        epochs: int > 0, with `greedy=True` for each layer.
        greedy: whether to train layer by layer.
        tied: as in `build_autoencoder`.
        noise: as in `build_autoencoder`, with `greedy=True` added to the codes, too.
        output_activation: as in `build_autoencoder`.
        loss: of the reconstructed inputs, as in `compile`. Codes have mean squared error.
        optimizer: as in `compile`; None is Adam with a learning rate of 1e-3. A fresh one of the same
            settings is used for each fit.
        **fit_arguments: other arguments of `fit`: `batch_size`, `validation_data` (inputs alone),
            `callbacks`, `verbose` and so on, and of `compile`: `metrics`, `weighted_metrics`,
            `run_eagerly`, `jit_compile`, `steps_per_execution`. `ModelCheckpoint` saves the encoder, but
            with `save_weights_only` the weights of the mirror image, too.

    Returns:
        The `History` of all epochs. With `greedy=True` one layer comes after the other, and `"stage"` has
        its number, from 0, for each epoch.

    Raises:
        ValueError: as in `build_autoencoder` and `pretrain_auxiliary`; `greedy=True` with
            `BackupAndRestore`, which would mistake one layer for the other, or with a generator that ends.
        TypeError: an argument is of the wrong type.

    Example:

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> layers = [keras.layers.Dense(4, activation="elu", name=name) for name in ("first", "second")]
    >>> encoder = keras.Sequential([keras.Input((8,)), *layers])
    >>> history = pretrain_autoencoder(encoder, x, epochs=2, greedy=True, verbose=0)
    >>> history.history["stage"]
    [0, 0, 1, 1]

    Reference:
        Bengio et al., Greedy Layer-Wise Training of Deep Networks, 2006
        (https://proceedings.neurips.cc/paper/2006/hash/5da713a690c067105aeb2fae32403405-Abstract.html).
    """
    check_reconstruction(encoder, tied, noise)
    check_positive("epochs", epochs, Integral)
    check_bool("greedy", greedy)
    check_data(x)
    check_loss(loss)
    keras.activations.get(output_activation)
    check_fit_arguments(fit_arguments)
    _check_reconstruction_arguments(x, greedy, fit_arguments)
    optimizers = Optimizers(optimizer)
    x = built(encoder, x, fit_arguments.get("batch_size") or 32)
    check_encoder_built(encoder)
    with rolled_back(graph_nodes([encoder]), only_on_error=True):
        chain = checked_chain(encoder, tied, noise)
    x, fit_arguments = with_checked_validation(encoder, x, None, fit_arguments, targets=False)
    blocks = [block for block in chain.blocks if _trained(block)] if greedy else [chain.core]
    if not blocks or not _trained(blocks[0]):
        raise all_frozen(encoder)
    transposed = DenseTranspose if tied else None
    noise = float(noise)
    weighted = _with_targets(x, fit_arguments)
    histories = []
    for i, block in enumerate(blocks):
        first = block[0] is chain.core[0]
        flags = trainable_flags(encoder)
        with rolled_back(flags):
            if greedy:
                _freeze_others(encoder, block)
                _say(i, len(blocks), block, fit_arguments)
            with strategy_scope(encoder):
                activation = output_activation if first else None
                trainer = Reconstruction(encoder, flags, chain, block, transposed, noise, activation)
                compile_trainer(trainer, optimizers.fresh(), loss if first else "mse", fit_arguments)
            histories.append(fit_trainer(trainer, x, epochs=epochs, **weighted))
    return _merged(encoder, histories) if greedy else history_of(encoder, histories[0])


def _with_targets(x: Any, fit_arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fit` with targets, all zero and looked at by nobody, beside sample weights.

    Keras drops the weights of arrays that have no targets, without a word.
    """
    arguments = dict(fit_arguments)
    is_arrays = all(map(is_array, tree.flatten(x)))
    if arguments.get("sample_weight") is not None and is_arrays:  # `fit` refuses them beside a dataset
        arguments["y"] = _zeros(x)
    validation = arguments.get("validation_data")
    if isinstance(validation, (list, tuple)) and len(validation) == 3 and validation[1] is None:
        arguments["validation_data"] = (validation[0], _zeros(validation[0]), validation[2])
    return arguments


def _zeros(x: Any) -> np.ndarray:
    return np.zeros(number_of_rows(tree.flatten(x)[0]) or 0)


def _merged(encoder: keras.Model, histories: list[keras.callbacks.History]) -> keras.callbacks.History:
    """Return one history of fits, one after the other, with the number of each."""
    merged = keras.callbacks.History()
    merged.params = histories[0].params
    names = dict.fromkeys(name for history in histories for name in history.history)
    merged.history = {
        name: [v for history in histories for v in history.history.get(name, [])] for name in names
    }
    merged.history["stage"] = [i for i, history in enumerate(histories) for _ in history.epoch]
    merged.epoch = list(range(len(merged.history["stage"])))
    return history_of(encoder, merged)


def _trained(block: list[Call]) -> bool:
    return any(
        layer.trainable and layer.trainable_variables
        for layer in (call.operation for call in block)
        if isinstance(layer, keras.layers.Layer)
    )


def _freeze_others(encoder: keras.Model, block: list[Call]) -> None:
    """Freeze what is not in `block`, and leave the rest as it is."""
    in_block = {id(call.operation) for call in block}
    innermost = [layer for layer in flat_layers(encoder) if not flat_layers(layer, include_self=False)]
    set_trainable(encoder, [layer for layer in innermost if id(layer) not in in_block], False)


def _say(i: int, total: int, block: list[Call], fit_arguments: dict[str, Any]) -> None:
    if fit_arguments.get("verbose", "auto") != 0:
        names = [call.operation.name for call in block if weights_of(call.operation)]
        print(f"Layer {i + 1} of {total}: {names[0]}")


def _check_reconstruction_arguments(x: Any, greedy: bool, fit_arguments: dict[str, Any]) -> None:
    for name in ("y", "class_weight"):
        if fit_arguments.get(name) is not None:
            raise TypeError(
                f"The data is its own target. Leave `{name}` out, or call `pretrain_auxiliary`. "
                f"Received: {name}=..."
            )
    callbacks = tree.flatten(fit_arguments.get("callbacks"))
    if greedy and any(isinstance(one, keras.callbacks.BackupAndRestore) for one in callbacks):
        raise ValueError(
            "`BackupAndRestore` would put the state of one layer's fit into that of another. Leave it out, "
            f"or set `greedy` to False. Received: greedy=True, callbacks={brief(callbacks)}"
        )
    endless = fit_arguments.get("steps_per_epoch") is not None
    if greedy and isinstance(x, types.GeneratorType) and not endless:
        raise ValueError(
            "The layers are trained one after the other, and a generator can be gone through once. Pass a "
            "dataset, or `steps_per_epoch` and a generator without end. Received: greedy=True, "
            f"x={x}, steps_per_epoch=None"
        )
