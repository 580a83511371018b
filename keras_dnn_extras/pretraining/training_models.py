"""Models that train an encoder as a part of them."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_dnn_extras._backends import called_in_mode
from keras_dnn_extras._graphs import Call
from keras_dnn_extras._keras_internals import standardized_inputs
from keras_dnn_extras._models import trainable_flags
from keras_dnn_extras._rollback import Snapshot, rolled_back
from keras_dnn_extras.pretraining.decoder import Mirror
from keras_dnn_extras.pretraining.encoder_chain import Chain


class Trainer(keras.Model):
    """A model that trains `encoder` as a part of it, and is not to be kept.

    Args:
        flags: a snapshot of which layers of `encoder` are trainable for its user.
    """

    def __init__(self, encoder: keras.Model, flags: Snapshot):
        super().__init__(name=f"pretraining_of_{encoder.name}")
        self.encoder, self._flags_of_user = encoder, flags

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the encoder, as its user has it: what a checkpoint is for."""
        with rolled_back(trainable_flags(self.encoder)):
            self._flags_of_user()
            self.encoder.save(*args, **kwargs)


class UnderHead(Trainer):
    """`encoder`, and layers after it."""

    def __init__(self, encoder: keras.Model, heads: list[keras.layers.Layer]):
        super().__init__(encoder, flags=lambda: None)
        self.heads = heads

    def call(self, x: Any, training: bool | None = None) -> Any:
        outputs = self.encoder(x, training=training)
        for layer in self.heads:
            outputs = called_in_mode(layer, training, outputs)
        return outputs


class Reconstruction(Trainer):
    """Some calls of an encoder and their mirror image, by the codes that come to the first of them.

    It returns the reconstructed codes and those that they should be. Keras's own `fit` does all else, with
    data that has no targets.

    Args:
        encoder, flags: as of every trainer.
        chain: the encoder as one.
        block: calls of it, one after the other. Those before it are in inference mode.
        transposed_dense: as of `Mirror`.
        noise, output_activation: as in `build_autoencoder`.
    """

    def __init__(
        self,
        encoder: keras.Model,
        flags: Snapshot,
        chain: Chain,
        block: list[Call],
        transposed_dense: Callable[..., keras.layers.Layer] | None,
        noise: float,
        output_activation: Any,
    ):
        super().__init__(encoder, flags)
        calls = chain.graph.calls
        standardized = functools.partial(standardized_inputs, encoder)
        self._plan = _Plan(standardized, chain.graph.inputs, calls[: calls.index(block[0])], block)
        code, dtype = block[-1].outputs[0], keras.config.floatx()
        mirror = Mirror(transposed_dense)
        self.noise = keras.layers.GaussianNoise(noise, dtype=dtype)
        self.decoder = keras.Sequential(
            [keras.Input(code.shape[1:], dtype=code.dtype), *mirror.core(block, output_activation)]
        )
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> tuple:
        plan = self._plan
        values = dict(zip(plan.inputs, plan.standardized(x), strict=True))
        for call in plan.before:
            call.run(values)
        target = ops.stop_gradient(values[plan.block[0].inputs[0]])
        if self.noise.stddev:
            values[plan.block[0].inputs[0]] = self.noise(target, training=training)
        for call in plan.block:
            call.run(values, training)
        reconstruction = self.decoder(values[plan.block[-1].outputs[0]], training=training)
        return reconstruction, ops.cast(target, reconstruction.dtype)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: Any = True,
    ) -> Any:
        return super().compute_loss(x, y_pred[1], y_pred[0], sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().compute_metrics(x, y_pred[1], y_pred[0], sample_weight)


class _Plan:
    """Parts of a graph, which Keras shall not take for layers of the model that holds them."""

    def __init__(self, standardized: Callable, inputs: list, before: list[Call], block: list[Call]):
        self.standardized, self.inputs = standardized, inputs
        self.before, self.block = before, block
