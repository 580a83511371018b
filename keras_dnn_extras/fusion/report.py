"""What `fuse_batch_norm` folded, and what it kept and why."""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._display import Displayed, Summary, table_text
from keras_dnn_extras._graphs import Usage
from keras_dnn_extras._models import layers_by_path
from keras_dnn_extras.fusion.folding import Direction
from keras_dnn_extras.fusion.planning import Plan
from keras_dnn_extras.fusion.verification import Comparison


@dataclass(frozen=True, repr=False)
class Fusion(Displayed):
    """A batch normalization that was folded into another layer.

    Attributes:
        batch_norm: its name, in a nested model its path.
        into: that of the layer; of several, which a layer between them adds or joins, with `, ` between.
        direction: `"backward"` into layers before it, `"forward"` into a layer after it.
    """

    batch_norm: str
    into: str
    direction: Direction

    def _summary(self) -> Summary:
        where = f"into={self.into!r}, direction={self.direction!r}"
        return Summary(f"Fusion(batch_norm={self.batch_norm!r}, {where})")


@dataclass(frozen=True, repr=False)
class Kept(Displayed):
    """A batch normalization that stayed.

    Attributes:
        layer: its name, in a nested model its path.
        reason: why, a sentence or two that name the layers in the way.
    """

    layer: str
    reason: str

    def _summary(self) -> Summary:
        return Summary(f"Kept(layer={self.layer!r}, reason={self.reason!r})")


@dataclass(frozen=True, repr=False)
class FusionReport(Displayed):
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
        table = table_text([*_fused_rows(self), *_other_rows(self)])
        return "\n".join(filter(None, [table, _totals(self), *self.remarks]))

    def _summary(self) -> Summary:
        return _summary_of(self, "FusionReport", {})


@dataclass(frozen=True, repr=False)
class FusionResult(Displayed):
    """What `fuse_batch_norm` returns.

    Attributes:
        model: the model for inference.
        report: a `FusionReport`.
    """

    model: keras.Model
    report: FusionReport

    def _summary(self) -> Summary:
        kind = f"{type(self.model).__name__} {self.model.name!r}"
        model = f"{kind} of {counted(len(self.model.layers), 'layer')}"
        return _summary_of(self.report, "FusionResult", {"model": model})


# -- showing --------------------------------------------------------------------------------------------


def _summary_of(report: FusionReport, title: str, facts: dict[str, str]) -> Summary:
    facts = {**facts, "result": _totals(report)}
    if report.remarks:
        facts["remarks"] = "\n".join(report.remarks)
    # What was not folded comes first: of a long table the end is left out.
    rows = [*_other_rows(report), *_fused_rows(report)]
    return Summary(title, facts, rows, hint="print(report) shows all")


def _fused_rows(report: FusionReport) -> list[tuple[str, str]]:
    return [(fusion.batch_norm, f"{fusion.direction} into {fusion.into}") for fusion in report.fused]


def _other_rows(report: FusionReport) -> list[tuple[str, str]]:
    rows = [(kept.layer, f"kept. {kept.reason}") for kept in report.kept]
    rows += [(name, "removed") for name in report.removed]
    blind = "unverified: an error of its fold would not have been noticed"
    return rows + [(name, blind) for name in report.unverified]


def _totals(report: FusionReport) -> str:
    total = len(report.fused) + len(report.kept)
    error = report.max_relative_error
    largest = "not known" if np.isnan(error) else f"{error:.1e}"
    return (
        f"{len(report.fused)} of {total} batch normalizations folded, "
        f"{counted(len(report.removed), 'other layer')} removed, largest relative error {largest}"
    )


# -- reporting ------------------------------------------------------------------------------------------


def report_of(model: keras.Model, usage: Usage, plan: Plan, comparison: Comparison) -> FusionReport:
    folds = {
        id(fold.source): Fusion(
            usage.paths[key] + fold.source.name,
            ", ".join(usage.paths[key] + name for name in fold.into),
            fold.direction,
        )
        for key, of_graph in plan.folds.items()
        for fold in of_graph
    }
    normalizations = _normalizations(model)
    fused = [folds[key] for key in normalizations if key in folds]
    kept = [
        Kept(path, plan.reasons.get(key) or _unseen(path, layer))
        for key, (path, layer) in normalizations.items()
        if key not in folds
    ]
    preprocessing = [fusion.batch_norm for key, fusion in folds.items() if key not in normalizations]
    blind = [folds[id(fold.source)].batch_norm for fold in comparison.unverified]
    removed = [*plan.no_ops, *preprocessing]
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
