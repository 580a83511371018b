"""Batch normalizations folded into the layers around them: the same model, with fewer layers."""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_dnn_extras import fusion_check
from keras_dnn_extras.fold_planning import Plan
from keras_dnn_extras.fusion_check import Comparison
from keras_dnn_extras.layers import layers_by_path
from keras_dnn_extras.rebuilding import check_followed, rebuilt
from keras_dnn_extras.sample_data import checked_inputs
from keras_dnn_extras.surgery import functional_of
from keras_dnn_extras.wiring import Census
from keras_dnn_extras.wording import counted


@dataclass(frozen=True)
class Fusion:
    """A batch normalization that was folded into another layer.

    Attributes:
        batch_norm: its name, in a nested model its path.
        into: that of the layer; of several, which a layer between them adds or joins, with `, ` between.
        direction: `"backward"` into layers before it, `"forward"` into a layer after it.
    """

    batch_norm: str
    into: str
    direction: str


@dataclass(frozen=True)
class Kept:
    """A batch normalization that stayed.

    Attributes:
        layer: its name, in a nested model its path.
        reason: why, a sentence or two that name the layers in the way.
    """

    layer: str
    reason: str


@dataclass(frozen=True)
class FusionReport:
    """What `fuse_batch_norm` did: `str(report)` is a table.

    Attributes:
        fused: list of `Fusion`, one for each batch normalization that is gone.
        kept: list of `Kept`, one for each that stayed.
        removed: names of other layers that are gone: what does nothing at inference, as dropout, and
            `Rescaling` and `Normalization` that were folded into the layer after them.
        max_relative_error: the largest difference between the outputs of the two models, or between what
            their last activations are given, over the largest number there. NaN if they were not compared.
        unverified: names of layers that were folded, and of whose fold an error would not have been
            noticed: a change of the weights by 1 % makes no difference beyond rounding.
        remarks: sentences on what could not be compared.
    """

    fused: list[Fusion]
    kept: list[Kept]
    removed: list[str]
    max_relative_error: float
    unverified: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = [(fusion.batch_norm, f"{fusion.direction} into {fusion.into}") for fusion in self.fused]
        rows += [(kept.layer, f"kept. {kept.reason}") for kept in self.kept]
        rows += [(name, "removed") for name in self.removed]
        blind = "unverified: an error of its fold would not have been noticed"
        rows += [(name, blind) for name in self.unverified]
        width = max((len(name) for name, _ in rows), default=0)
        lines = [f"{name:<{width}}  {what}" for name, what in rows]
        total = len(self.fused) + len(self.kept)
        error = self.max_relative_error
        largest = "not known" if np.isnan(error) else f"{error:.1e}"
        lines.append(
            f"{len(self.fused)} of {total} batch normalizations folded, "
            f"{counted(len(self.removed), 'other layer')} removed, largest relative error {largest}"
        )
        return "\n".join([*lines, *self.remarks])


@dataclass(frozen=True)
class FusionResult:
    """What `fuse_batch_norm` returns.

    Attributes:
        model: the model for inference.
        report: a `FusionReport`.
    """

    model: keras.Model
    report: FusionReport


def fuse_batch_norm(model: keras.Model, *, inputs: Any = None) -> FusionResult:
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
    census = Census.of(model)
    refused: dict[int, str] = {}
    while True:
        plan = Plan(census, refused)
        copy = rebuilt(model, census.levels, plan.changes)
        comparison = fusion_check.compared(model, census, plan, copy, data)
        if not comparison.refused:
            return FusionResult(copy.model, _report(model, census, plan, comparison))
        refused.update(comparison.refused)


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected `model` to be a Keras model. Received: model={model!r}")
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


# -- reporting ------------------------------------------------------------------------------------------


def _report(model: keras.Model, census: Census, plan: Plan, comparison: Comparison) -> FusionReport:
    folds = {
        id(fold.source): Fusion(
            census.paths[key] + fold.source.name,
            ", ".join(census.paths[key] + name for name in fold.into),
            fold.direction,
        )
        for key, of_level in plan.folds.items()
        for fold in of_level
    }
    normalizations = _normalizations(model)
    fused = [folds[key] for key in normalizations if key in folds]
    kept = [
        Kept(path, plan.reasons.get(key) or _unseen(path, layer))
        for key, (path, layer) in normalizations.items()
        if key not in folds
    ]
    others = [fusion.batch_norm for key, fusion in folds.items() if key not in normalizations]
    blind = [folds[id(fold.source)].batch_norm for fold in comparison.unverified]
    removed = [*plan.idle, *others]
    return FusionReport(fused, kept, removed, comparison.error, blind, comparison.remarks)


def _normalizations(model: Any) -> dict[int, tuple[str, Any]]:
    """Return each batch normalization in `model`, with its path, by its `id`."""
    paths = layers_by_path(model, nested_models=True, inner_layers=True)
    return {
        id(layer): (path, layer)
        for path, layer in paths.items()
        if isinstance(layer, keras.layers.BatchNormalization)
    }


def _unseen(path: str, layer: Any) -> str:
    if type(layer) is not keras.layers.BatchNormalization:
        return (
            f"Its class {type(layer).__name__!r} is not BatchNormalization, and may do something else at "
            "inference."
        )
    return f"It is inside {path.rsplit('/', 1)[0]!r}, which calls it by itself."
