"""How sure predictions are, and whether they may be."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._plotting import BLUE, histogram_edges
from keras_dnn_extras.reports.blocks import Block, LeftOut, Picture, Remark, Section, Table
from keras_dnn_extras.reports.figures import Line, draw_lines
from keras_dnn_extras.reports.predictions import ClassOutput, NumberOutput, outputs_of
from keras_dnn_extras.reports.sources import Sources
from keras_dnn_extras.reports.svg import FAINT
from keras_dnn_extras.reports.wording import number, percent

_TITLE = "Uncertainty and calibration"
_BINS = 30
_POINTS = 600  # of a curve
_OFF = 0.05  # between confidence and accuracy, from which it is worth a sentence


def uncertainty_section(sources: Sources) -> Section | LeftOut:
    """Return tables and pictures of the Monte-Carlo prediction."""
    if sources.prediction is None:
        return LeftOut(_TITLE, "no `prediction` was passed")
    outputs = outputs_of(sources.prediction, sources.y_true)
    blocks = [block for output in outputs for block in _blocks(output)]
    lead = f"Monte-Carlo dropout with {counted(sources.prediction.num_samples, 'sample')}."
    if sources.y_true is None:
        lead += " Pass `y_true` to see whether the confidence is justified."
    return Section("uncertainty", _TITLE, tuple(blocks), lead)


def _blocks(output: ClassOutput | NumberOutput) -> list[Block]:
    blocks: list[Block] = []
    if output.not_finite:
        text = f"{counted(output.not_finite, 'prediction')} not finite, left out here."
        blocks.append(Remark("error", text, output.name))
    if not len(output):
        return blocks
    return [*blocks, *(_of_classes(output) if isinstance(output, ClassOutput) else _of_numbers(output))]


def _titled(output: ClassOutput | NumberOutput, title: str) -> str:
    return f"{title}: {output.name}" if output.name else title


# -- classes ---------------------------------------------------------------------------------------


def _of_classes(output: ClassOutput) -> list[Block]:
    entropy, information = output.entropy, output.mutual_information
    rows = [
        ("mean predictive entropy, in nats", number(entropy.mean())),
        ("of it epistemic (mutual information): more data reduces it", number(information.mean())),
        ("of it aleatoric: more data does not", number(entropy.mean() - information.mean())),
    ]
    if output.labels is None:
        return [
            _table(output, rows),
            _histogram(output, entropy, "Predictive entropy", "nats"),
            _histogram(output, information, "Mutual information", "nats"),
        ]
    return _with_labels(output, output.labels, rows)


def _with_labels(output: ClassOutput, labels: np.ndarray, rows: list[tuple[str, str]]) -> list[Block]:
    from keras_dnn_extras.uncertainty import (
        brier_score,
        expected_calibration_error,
        negative_log_likelihood,
        plot_reliability,
        plot_uncertainty,
    )

    probabilities, entropy = output.probabilities, output.entropy
    error = expected_calibration_error(labels, probabilities)
    confidence, correct = output.confidence, output.correct(labels)
    scores = [
        ("accuracy", percent(float(correct.mean()))),
        ("mean confidence", percent(float(confidence.mean()))),
        ("expected calibration error", number(error)),
        ("Brier score, from 0 to 2", number(brier_score(labels, probabilities))),
        ("negative log likelihood, in nats", number(negative_log_likelihood(labels, probabilities))),
    ]
    return [
        *_judgement(output, float(confidence.mean()), float(correct.mean())),
        _table(output, scores + rows),
        Picture(
            _untitled(partial(plot_reliability, labels, probabilities)),
            _titled(output, "Reliability"),
            f"Accuracy by confidence; the expected calibration error is {number(error)}",
            "Below the diagonal the model is surer than it is right.",
        ),
        Picture(
            _untitled(partial(plot_uncertainty, correct, entropy, bins=_BINS)),
            _titled(output, "Uncertainty of right and wrong predictions"),
            f"Histograms of predictive entropy: {correct.sum()} right and {(~correct).sum()} wrong ones",
            "Predictive entropy in nats. Wrong predictions should lie further to the right.",
        ),
        _risk_picture(output, (~correct).astype("float64"), entropy),
    ]


def _judgement(output: ClassOutput, confidence: float, accuracy: float) -> list[Remark]:
    if abs(confidence - accuracy) < _OFF:
        return []
    kind = "Overconfident" if confidence > accuracy else "Underconfident"
    text = f"Mean confidence is {percent(confidence)}, accuracy {percent(accuracy)}."
    return [Remark("warning", text, _titled(output, kind))]


# -- numbers ---------------------------------------------------------------------------------------


def _of_numbers(output: NumberOutput) -> list[Block]:
    std = output.std
    rows = [("mean standard deviation", number(std.mean()))]
    if output.y_true is None:
        return [_table(output, rows), _histogram(output, std, "Standard deviation", "standard deviation")]
    errors = np.abs(output.mean - output.y_true)
    scores = [
        ("root mean squared error", number(float(np.sqrt(np.mean(errors**2))))),
        ("within one standard deviation (a normal one: 68 %)", percent(float(np.mean(errors <= std)))),
        ("within two standard deviations (a normal one: 95 %)", percent(float(np.mean(errors <= 2 * std)))),
    ]
    return [
        _table(output, scores + rows),
        _interval_picture(output, errors, std),
        _risk_picture(output, errors**2, std),
    ]


def _interval_picture(output: ClassOutput | NumberOutput, errors: np.ndarray, std: np.ndarray) -> Picture:
    levels = np.linspace(0.02, 0.98, 49)
    widths = [NormalDist().inv_cdf((1 + level) / 2) for level in levels]
    shares = np.array([np.mean(errors <= width * std) for width in widths])
    lines = [Line(levels, shares, "observed"), Line(levels, levels, "calibrated", FAINT, "--")]

    def draw(ax: Any) -> None:
        draw_lines(ax, lines, unit="share expected in the interval", label="share in it", logarithmic=False)

    text = f"Share of true values in central intervals; {percent(float(shares[24]))} in that of 50 %"
    caption = "Dropout tells the model's doubt, not the noise of the data: below the diagonal is usual."
    return Picture(draw, _titled(output, "Calibration of intervals"), text, caption)


# -- both ------------------------------------------------------------------------------------------


def _table(output: ClassOutput | NumberOutput, rows: list[tuple[str, str]]) -> Table:
    return Table((output.name, "value"), list(rows))


def _risk_picture(
    output: ClassOutput | NumberOutput, errors: np.ndarray, uncertainty: np.ndarray
) -> Picture:
    from keras_dnn_extras.uncertainty import risk_coverage

    curve = risk_coverage(errors, uncertainty)
    text = f"Mean error by the share of predictions kept, the most certain first; area {number(curve.aurc)}"
    caption = "What the error would be, were the least certain predictions left to somebody else."
    return Picture(_untitled(_thinned(curve).plot), _titled(output, "Risk and coverage"), text, caption)


def _thinned(curve: Any) -> Any:
    """Return a `RiskCoverage` with fewer points, the last one among them."""
    points = len(curve.risk)
    places = np.unique(np.linspace(0, points - 1, min(points, _POINTS)).round().astype(int))
    arrays = {name: values for name, values in vars(curve).items() if isinstance(values, np.ndarray)}
    return replace(curve, **{name: values[places] for name, values in arrays.items()})


def _untitled(plot: Callable[..., Any]) -> Callable[[Any], None]:
    """Return what draws `plot` without the title that it may write: the page has one."""

    def draw(ax: Any) -> None:
        plot(ax=ax)
        ax.set_title("")

    return draw


def _histogram(output: ClassOutput | NumberOutput, values: np.ndarray, title: str, unit: str) -> Picture:
    text = f"Histogram of {len(values)} values from {number(values.min())} to {number(values.max())}"
    return Picture(_drawing(values, unit), _titled(output, title), text)


def _drawing(values: np.ndarray, unit: str) -> Callable[[Any], None]:
    def draw(ax: Any) -> None:
        ax.hist(values, histogram_edges(values, _BINS), color=BLUE, alpha=0.8)
        ax.set_xlabel(unit)
        ax.set_ylabel("predictions")
        ax.grid(visible=False, axis="x")

    return draw
