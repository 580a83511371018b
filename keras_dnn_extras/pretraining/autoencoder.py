"""An encoder and its mirror image as one model."""

from typing import Any

import keras
from keras import tree

from keras_dnn_extras._arguments import check_bool, check_number
from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._keras_internals import functional_of
from keras_dnn_extras._models import ByName, check_model, graph_nodes
from keras_dnn_extras._rollback import rolled_back
from keras_dnn_extras.pretraining.decoder import Mirror
from keras_dnn_extras.pretraining.dense_transpose import DenseTranspose
from keras_dnn_extras.pretraining.encoder_chain import Chain


def build_autoencoder(
    encoder: keras.Model, *, tied: bool = False, noise: float = 0.0, output_activation: ByName | None = None
) -> keras.Model:
    """Return a model of `encoder` and its mirror image, which leads back to the inputs.

    Its first part is `encoder` itself: to train the model is to train the encoder. The mirror image has a
    dense layer for each dense one, a transposed convolution for each convolution (also grouped, separable
    and depthwise ones), upsampling for pooling, reshaping, cropping and padding for the like; and, in the
    places that they have there, the encoder's normalizations and activations, anew. Dropout has no image.
    The outputs have the shape of the inputs, and, where `Normalization` or `Rescaling` come first in the
    encoder, their scale.

    Args:
        encoder: a functional or sequential model that is built, of one input and one output, each layer of
            which takes what the one before it makes. Models in it may be such, too.
        tied: whether each dense layer of the mirror image is a `DenseTranspose`, with the kernel of the
            encoder's layer. Not with convolutions.
        noise: float from 0 to 1, the standard deviation of Gaussian noise that training adds to the inputs,
            after a `Normalization` or `Rescaling` that comes first: the autoencoder is to remove it.
        output_activation: of the last layer, before a first `Normalization` or `Rescaling` is undone: such
            as "sigmoid" for what lies between 0 and 1. None: linear.

    Returns:
        A functional model, not compiled, that takes what `encoder` takes and returns one tensor.

    Raises:
        ValueError: `encoder` is not built, branches, has code of its own, or a layer that has no mirror
            image, such as global pooling or a recurrent one; `tied` and no dense layer, or a convolution;
            `noise` is out of its range, or the inputs are integers.
        TypeError: an argument is of the wrong type.

    Example:

    >>> encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, activation="relu")])
    >>> autoencoder = build_autoencoder(encoder, tied=True)
    >>> autoencoder.compile("adam", "mse")
    >>> autoencoder.output_shape, autoencoder.layers[1] is encoder
    ((None, 8), True)

    Reference:
        Hinton & Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006
        (https://doi.org/10.1126/science.1127647).
    """
    check_reconstruction(encoder, tied, noise)
    check_encoder_built(encoder)
    with rolled_back(graph_nodes([encoder]), only_on_error=True):
        chain = checked_chain(encoder, tied, noise)
        return _autoencoder(encoder, chain, tied, float(noise), output_activation)


def _autoencoder(
    encoder: keras.Model, chain: Chain, tied: bool, noise: float, output_activation: Any
) -> keras.Model:
    functional: Any = functional_of(encoder)
    tensor = functional.inputs[0]
    inputs = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
    mirror = Mirror(DenseTranspose if tied else None, {encoder.name, tensor.name, "noise"})
    outputs = inputs
    if noise:
        noisy = keras.layers.GaussianNoise(noise, name="noise", dtype=keras.config.floatx())
        for layer in [*mirror.scale(chain.front), noisy, *mirror.unscale(chain.front)]:
            outputs = layer(outputs)
    outputs = tree.flatten(encoder(tree.pack_sequence_as(functional.input, [outputs])))[0]
    for layer in [*mirror.core(chain.core, output_activation), *mirror.unscale(chain.front)]:
        outputs = layer(outputs)
    inputs = tree.pack_sequence_as(functional.input, [inputs])
    return keras.Model(inputs, outputs, name=f"{encoder.name}_autoencoder")


def checked_chain(encoder: keras.Model, tied: bool, noise: float) -> Chain:
    """Return the chain that `encoder` is, once it has been mirrored on trial.

    Raises:
        ValueError: it is none, or has no mirror image of this kind.
    """
    chain = Chain.of(encoder)
    tensor = chain.graph.inputs[0]
    if noise and not keras.backend.is_float_dtype(tensor.dtype):
        raise ValueError(
            f"Noise cannot be added to integers. Let the inputs be floats: `keras.Input(..., "
            f'dtype="float32")`. Received: noise={noise}, inputs of dtype {tensor.dtype}'
        )
    if tied:
        convolutions = [layer for layer in chain.linear if not isinstance(layer, keras.layers.Dense)]
        if convolutions:
            raise ValueError(
                "Only dense layers are tied, by `DenseTranspose`. Leave `tied` False for an encoder with "
                f"convolutions. Received: tied=True, and the layer {convolutions[0].name!r}"
            )
    # Once here, for errors: shapes that are not known, layers that cannot be made anew.
    with strategy_scope(encoder):
        mirror = Mirror(DenseTranspose if tied else None)
        mirror.core(chain.core)
        mirror.unscale(chain.front)
    return chain


def check_reconstruction(encoder: Any, tied: Any, noise: Any) -> None:
    """Raise unless the arguments are of the right types and in their ranges."""
    check_model("encoder", encoder)
    check_bool("tied", tied)
    check_number("noise", noise, "from 0 to 1", lambda v: 0 <= v <= 1)


def check_encoder_built(encoder: keras.Model) -> None:
    """Raise unless `encoder` has its weights."""
    if not encoder.built:
        raise ValueError(
            "The encoder has no weights yet. Give it a `keras.Input`, or call it on data. "
            f"Received: encoder={encoder}"
        )
