"""What is wrong with some gradients, in words, and what to try."""

from dataclasses import dataclass

from keras_dnn_extras._arguments import counted
from keras_dnn_extras.gradients.anomalies import Found

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


@dataclass(frozen=True)
class GradientFinding:
    """What is wrong with some gradients. As a string, its `message`.

    Attributes:
        kind: `"vanishing"`, `"exploding"` or `"non-finite"`.
        update: the first one that shows it, by its index in the monitor's `history`: from 0 where this
            `fit` began, also where it went on after an interruption.
        epoch: the one of that update, from 0, as `fit` counts: a resumed one goes on counting.
        layers: names of the layers, from the first to the last.
        message: all this in words, and what to try.
    """

    kind: str
    update: int
    epoch: int
    layers: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return self.message


def describe(
    kind: str, found: Found, layers: tuple[str, ...], when: str, vanishing: float, exploding: float
) -> str:
    """Return the message of a finding.

    Args:
        layers: the names of those of `found`.
        when: its update, in words.
        vanishing, exploding: the thresholds.
    """
    where = _where(layers, found.measured)
    if kind == "vanishing":
        zero = _ZERO if found.norm == 0 else ""
        told = (
            f"from {when} on, {where} The smallest norm is {found.norm:.2g}, below `vanishing_threshold` "
            f"{vanishing:g}. {zero}"
        ).strip()
    elif kind == "exploding":
        told = (
            f"in {when}, {where} The largest norm is {found.norm:.2g}, above `exploding_threshold` "
            f"{exploding:g}."
        )
    elif len(layers) == found.measured:
        told = f"in {when}, {where} The loss itself may be NaN or infinite."
    else:
        told = f"in {when}, {where} On the way back from the loss they begin at `{layers[-1]}`."
    return f"{kind.capitalize()} gradients {told} {_REMEDIES[kind]}"


def _where(layers: tuple[str, ...], measured: int) -> str:
    if len(layers) == 1:
        return f"in 1 of {counted(measured, 'trained layer')}: `{layers[0]}`."
    named = ", ".join(f"`{name}`" for name in layers[:_NAMED])
    if len(layers) > _NAMED:
        named += f" and {len(layers) - _NAMED} more, the last of them `{layers[-1]}`"
    return f"in {len(layers)} of {counted(measured, 'trained layer')}, from the first: {named}."
