"""Batch normalizations folded into the layers around them: the same model, with fewer layers."""

from typing import Any

import keras

from keras_dnn_extras._graphs import Usage, check_followed, checked_inputs, copy_model
from keras_dnn_extras._keras_internals import functional_of
from keras_dnn_extras._models import Data, check_model
from keras_dnn_extras.fusion import verification
from keras_dnn_extras.fusion.planning import Plan
from keras_dnn_extras.fusion.report import FusionResult, report_of


def fuse_batch_norm(model: keras.Model, *, inputs: Data | None = None) -> FusionResult:
    """Return an equivalent model for inference with its batch normalizations folded into other layers.

    At inference BatchNormalization multiplies each channel by `scale = gamma / sqrt(variance + epsilon)`
    and adds `beta - scale * mean`. Both go into the kernel and the bias of the layers before it, or, where
    that is not possible, of the layer after it: dense layers, convolutions of all kinds, forward also
    recurrent and attention layers; through pooling, reshaping, concatenation and addition. `Rescaling` and
    `Normalization` go into the layer after them, and what does nothing at inference, such as dropout, is
    left out. What cannot be folded exactly stays, and the report has the reason: other layers take the same
    tensor, a layer is called twice, is quantized or has LoRA weights, padding with zeros would not be
    shifted, or the numbers would become ill-conditioned.

    The result is made of Keras's own layers, with the names that they had, and the same inputs and outputs;
    a sequential model stays one. It is not compiled, and is not for training.

    It was compared with `model`, also before a last softmax or another activation, on your `inputs` or on
    some that look like data: with the statistics of normalizations near them, with ids and words from the
    vocabularies of the layers that look them up. Each fold was compared by itself too. One that makes a
    difference beyond rounding is undone and reported. The kernels of the result were then disturbed: the
    report names folds in which that made no difference, so that an error would not have been noticed.

    Args:
        model: a functional or sequential model that is built. It is not changed. Models in it are folded
            inside, each by itself.
        inputs: sample data to compare on, a few rows, in the structure of the model's inputs: arrays, a
            dict or a list. None: inputs are drawn. Where the model takes none of them, as it wants special
            lengths or codes, each fold is checked alone, and the report says so.

    Returns:
        `FusionResult(model, report)`.

    Raises:
        ValueError: the model has a `call` of its own, is not built, has layers that cannot be made anew
            from their config, or does not take `inputs`.
        TypeError: `model` is no Keras model; `inputs` are no arrays.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((784,)),
    ...     keras.layers.Dense(300, use_bias=False, name="dense"),
    ...     keras.layers.BatchNormalization(name="bn"),
    ...     keras.layers.Activation("elu", name="elu"),
    ... ])
    >>> fused = fuse_batch_norm(model)
    >>> [layer.name for layer in fused.model.layers]
    ['dense', 'elu']
    >>> fused.report.fused
    [Fusion(batch_norm='bn', into='dense', direction='backward')]

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference, 2018, section 3.2 (https://arxiv.org/abs/1712.05877).
    """
    _check_model(model)
    data = None if inputs is None else checked_inputs(model, inputs)
    usage = Usage.of(model)
    refused: dict[int, str] = {}
    while True:
        plan = Plan(usage, refused)
        copy = copy_model(model, plan.changes, graphs=usage.graphs)
        comparison = verification.compared(model, usage, plan, copy, data)
        if not comparison.refused:
            return FusionResult(copy.model, report_of(model, usage, plan, comparison))
        refused.update(comparison.refused)


def _check_model(model: Any) -> None:
    check_model("model", model)
    check_followed(model)
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        if functional_of(model) is None:
            raise ValueError(
                "The model is not built, or its first layer takes several tensors. Give it a "
                f"`keras.Input`, or call it once. Received: model={model}"
            )
    elif functional_of(model) is None:
        raise ValueError(
            "Expected `model` to be a functional or sequential model. What a `call` of its own does cannot "
            f"be seen: fold the functional models in it. Received: model={model}"
        )
