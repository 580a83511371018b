"""What is wrong with some gradients, in words, and what to try."""

import warnings
from dataclasses import dataclass
from typing import Literal

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._display import Displayed, Summary
from keras_dnn_extras.gradients.anomalies import Anomaly, AnomalyKind

OnProblem = Literal["warn", "raise", "ignore"]

_NAMED = 10  # layers in a message

_REMEDIES = {
    "vanishing": "Try another activation than sigmoid or tanh with the initialization that goes with it "
    '(`"elu"` or `"relu"` with `"he_normal"`, `"selu"` with `"lecun_normal"`), BatchNormalization between '
    "the layers, or connections that skip layers.",
    "exploding": "Try gradient clipping (`clipnorm=1.0` in the optimizer), a lower learning rate, another "
    'initialization (`"he_normal"` with `"elu"` or `"relu"`, `"lecun_normal"` with `"selu"`), '
    "BatchNormalization between the layers, or inputs and targets that are scaled to about 1. In the last "
    "update of an epoch it may be BatchNormalization over the few rows that are left: use whole batches.",
    "non-finite": "Look for NaN or infinity in the data of that update, and for a logarithm, a root or a "
    "quotient of 0 in the loss. Else try a lower learning rate or gradient clipping (`clipnorm=1.0` in the "
    "optimizer), and `LossScaleOptimizer` with float16.",
}
_ZERO = (
    "Exactly 0 means dead or saturated units, among them an output of probabilities (compute the loss "
    "with `from_logits=True`), or no connection to the loss. "
)


@dataclass(frozen=True, repr=False)
class GradientFinding(Displayed):
    """What is wrong with some gradients. As a string, its `message`.

    Attributes:
        kind: `"vanishing"`, `"exploding"` or `"non-finite"`.
        update: the first one that shows it, by its index in the monitor's `history`: from 0 where this
            `fit` began, also where it went on after an interruption.
        epoch: the one of that update, from 0, as `fit` counts: a resumed one goes on counting.
        layers: names of the layers, from the first to the last.
        message: all this in words, and what to try.
    """

    kind: AnomalyKind
    update: int
    epoch: int
    layers: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return self.message

    def _summary(self) -> Summary:
        where = {"update": str(self.update), "epoch": str(self.epoch), "layers": ", ".join(self.layers)}
        return Summary(f"{self.kind.capitalize()} gradients", where | {"message": self.message})


@dataclass(frozen=True)
class Thresholds:
    """The norms beyond which gradients of a layer vanish or explode."""

    vanishing: float
    exploding: float


class FindingReporter:
    """Reports each anomaly as a finding.

    Args:
        on_problem: `"warn"`, `"raise"` or `"ignore"`, as of `GradientNormMonitor`.
    """

    def __init__(self, thresholds: Thresholds, on_problem: OnProblem):
        self.findings: list[GradientFinding] = []
        self._thresholds = thresholds
        self._on_problem = on_problem
        self._epochs: list[tuple[int, int]] = []  # the first update of each epoch, and its index

    def begin_epoch(self, first_update: int, epoch: int) -> None:
        """Note that `epoch` begins."""
        self._epochs.append((first_update, epoch))

    def report(self, kind: AnomalyKind, anomaly: Anomaly, layers: list[str]) -> None:
        """Report an anomaly of this kind.

        Args:
            layers: the paths of all layers that the anomaly tells of.
        """
        named = tuple(layer for layer, is_in in zip(layers, anomaly.layers, strict=True) if is_in)
        finding = self._finding(kind, anomaly, named)
        self.findings.append(finding)
        if self._on_problem == "raise":
            raise RuntimeError(finding.message)
        if self._on_problem == "warn":
            warnings.warn(finding.message, stacklevel=3)

    def _finding(self, kind: AnomalyKind, anomaly: Anomaly, layers: tuple[str, ...]) -> GradientFinding:
        first, epoch = max(begun for begun in self._epochs if begun[0] <= anomaly.update)
        when = f"update {anomaly.update} (epoch {epoch + 1}, its update {anomaly.update - first}; from 0)"
        message = _describe(kind, anomaly, layers, when, self._thresholds)
        return GradientFinding(kind, anomaly.update, epoch, layers, message)


def _describe(
    kind: AnomalyKind, anomaly: Anomaly, layers: tuple[str, ...], when: str, thresholds: Thresholds
) -> str:
    where = _where(layers, anomaly.measured)
    if kind == "vanishing":
        zero = _ZERO if anomaly.norm == 0 else ""
        description = (
            f"from {when} on, {where} The smallest norm is {anomaly.norm:.2g}, below `vanishing_threshold` "
            f"{thresholds.vanishing:g}. {zero}"
        ).strip()
    elif kind == "exploding":
        description = (
            f"in {when}, {where} The largest norm is {anomaly.norm:.2g}, above `exploding_threshold` "
            f"{thresholds.exploding:g}."
        )
    elif len(layers) == anomaly.measured:
        description = f"in {when}, {where} The loss itself may be NaN or infinite."
    else:
        description = f"in {when}, {where} On the way back from the loss they begin at `{layers[-1]}`."
    return f"{kind.capitalize()} gradients {description} {_REMEDIES[kind]}"


def _where(layers: tuple[str, ...], measured: int) -> str:
    if len(layers) == 1:
        return f"in 1 of {counted(measured, 'trained layer')}: `{layers[0]}`."
    named = ", ".join(f"`{name}`" for name in layers[:_NAMED])
    if len(layers) > _NAMED:
        named += f" and {len(layers) - _NAMED} more, the last of them `{layers[-1]}`"
    return f"in {len(layers)} of {counted(measured, 'trained layer')}, from the first: {named}."
