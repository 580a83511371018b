"""Batch normalizations folded into the layers around them: the same model, with fewer layers."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_dnn_extras import equivalence
from keras_dnn_extras.fold_planning import Fold, Plan
from keras_dnn_extras.layers import layers_by_path
from keras_dnn_extras.rebuilding import Copy, rebuilt
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
        max_relative_error: the largest difference between the outputs of the two models for random inputs,
            over the largest number in an output.
    """

    fused: list[Fusion]
    kept: list[Kept]
    removed: list[str]
    max_relative_error: float

    def __str__(self) -> str:
        rows = [(fusion.batch_norm, f"{fusion.direction} into {fusion.into}") for fusion in self.fused]
        rows += [(kept.layer, f"kept. {kept.reason}") for kept in self.kept]
        rows += [(name, "removed") for name in self.removed]
        width = max((len(name) for name, _ in rows), default=0)
        lines = [f"{name:<{width}}  {what}" for name, what in rows]
        total = len(self.fused) + len(self.kept)
        lines.append(
            f"{len(self.fused)} of {total} batch normalizations folded, "
            f"{counted(len(self.removed), 'other layer')} removed, largest relative error "
            f"{self.max_relative_error:.1e}"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class FusionResult:
    """What `fuse_batch_norm` returns.

    Attributes:
        model: the model for inference.
        report: a `FusionReport`.
    """

    model: keras.Model
    report: FusionReport


def fuse_batch_norm(model: keras.Model) -> FusionResult:
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
    a sequential model stays one. It was compared with `model` on random inputs, and a fold that makes a
    difference beyond rounding is undone and reported. It is not compiled, and is not for training.

    Args:
        model: a functional or sequential model that is built. It is not changed. Models in it are folded
            inside, each by itself.

    Returns:
        `FusionResult(model, report)`.

    Raises:
        ValueError: the model has a `call` of its own, is not built, has layers that cannot be made anew
            from their config, or takes no random inputs.
        TypeError: `model` is no Keras model.

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
    census = Census.of(model)
    refused: dict[int, str] = {}
    while True:
        plan = Plan(census, refused)
        copy = rebuilt(model, census.levels, plan.changes)
        error, failed = _compared(model, census, plan, copy)
        if not failed:
            return FusionResult(copy.model, _report(model, census, plan, error))
        refused.update(failed)


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected `model` to be a Keras model. Received: model={model!r}")
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


# -- comparing ------------------------------------------------------------------------------------------


def _compared(model: keras.Model, census: Census, plan: Plan, copy: Copy) -> tuple[float, dict[int, str]]:
    """Compare each model in `model` with its copy, at its outputs and after each fold.

    Returns:
        The largest relative error of an output of `model`, and why layers are not to be folded, by `id`.
    """
    error = 0.0
    for key, level in reversed(census.levels.items()):
        folds = plan.folds.get(key, [])
        if census.models[key] is not model and not folds:
            continue
        probed = [fold for fold in folds if fold.made not in plan.changed]
        values = [*_flat(level.outputs), *(fold.made for fold in probed)]
        inputs = [level.tensors[value] for value in level.inputs]
        errors, bound = _errors(
            inputs,
            [level.tensors[value] for value in values],
            [copy.tensors[value] for value in level.inputs],
            [copy.tensors[value] for value in values],
            model,
        )
        outputs = len(values) - len(probed)
        unseen = [fold for fold, found in zip(probed, errors[outputs:], strict=True) if np.isnan(found)]
        if unseen:
            return error, _refused(unseen, np.nan)
        for fold, found, limit in zip(probed, errors[outputs:], bound[outputs:], strict=True):
            if not found <= limit:
                return error, _refused([fold], found)
        compared = [each for each in errors[:outputs] if not np.isnan(each)]
        if any(found > limit for found, limit in zip(errors[:outputs], bound, strict=False)):
            if not folds:
                raise ValueError(_unlike(census, key, copy, model))
            return error, _refused(folds, max(compared))
        if census.models[key] is model:
            error = max(compared, default=0.0)
    return error, {}


def _unlike(census: Census, key: int, copy: Copy, model: Any) -> str:
    """Return what is to be said of a copy in which nothing is folded, and that computes something else."""
    level = census.levels[key]
    tensors = [level.tensors[value] for value in level.inputs]
    copied = [copy.tensors[value] for value in level.inputs]
    for call in level.calls:
        values = [[of[value] for value in call.outputs] for of in (level.tensors, copy.tensors)]
        errors, bound = _errors(tensors, values[0], copied, values[1], model)
        if any(found > limit for found, limit in zip(errors, bound, strict=True)):
            return (
                f"A copy of {call.operation.name!r} does not compute the same. Give its class a "
                "`get_config` that tells every argument of `__init__`. "
                f"Received: layer={call.operation}"
            )
    return f"A copy of the model does not compute the same. Received: model={model}"


def _refused(folds: list[Fold], error: float) -> dict[int, str]:
    if np.isnan(error):
        return {
            id(fold.source): f"What {fold.source.name!r} makes of random inputs is not finite, so that its "
            f"fold into {_named(fold.into)} cannot be checked."
            for fold in folds
        }
    return {
        id(
            fold.source
        ): f"Folded into {_named(fold.into)} it made a relative error of {error:.1e} on random "
        "inputs, which is more than rounding does."
        for fold in folds
    }


def _errors(inputs: list, tensors: list, new_inputs: list, new_tensors: list, model: Any) -> Any:
    """Return the relative error of each tensor, and what it may be."""
    prober = equivalence.Prober(inputs, tensors)
    try:
        arrays, expected = equivalence.taken_inputs(inputs, prober)
    except equivalence.NoRandomInputsError as error:
        raise ValueError(
            "The result could not be compared with the model, which takes no random inputs of the shapes "
            f"and dtypes of its `Input` ({error}). Received: model={model}"
        ) from error
    found = equivalence.Prober(new_inputs, new_tensors)(arrays)
    errors = equivalence.relative_errors(found, expected)
    dtypes = [keras.backend.standardize_dtype(tensor.dtype) for tensor in tensors]
    rounding = equivalence.tolerance(dtypes)
    if all(error <= rounding or np.isnan(error) for error in errors):
        return errors, [rounding] * len(errors)
    # Or the model itself is so ill-conditioned that it makes as much of one rounding of its weights.
    noise = prober.noise(arrays, _coarsest(dtypes))
    return errors, [max(rounding, 4 * each) for each in np.nan_to_num(noise)]


def _coarsest(dtypes: list[str]) -> str:
    known = [dtype for dtype in dtypes if dtype in equivalence.ROUNDING]
    return max(known, key=equivalence.ROUNDING.__getitem__, default="float32")


# -- reporting ------------------------------------------------------------------------------------------


def _flat(outputs: Any) -> list:
    return keras.tree.flatten(outputs)


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)


def _report(model: keras.Model, census: Census, plan: Plan, error: float) -> FusionReport:
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
    return FusionReport(fused, kept, [*plan.idle, *others], error)


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
