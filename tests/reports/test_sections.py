"""What the sections of a report tell, and when they are left out."""

from types import SimpleNamespace

import numpy as np
import pytest

from keras_dnn_extras import (
    GradientNormMonitor,
    MCPrediction,
    OneCycleScheduler,
    brier_score,
    expected_calibration_error,
    risk_coverage,
)
from keras_dnn_extras.gradients import GradientFinding
from keras_dnn_extras.reports.blocks import Cell, Figure, LeftOut, Picture, Remark, Table
from keras_dnn_extras.reports.comparison_section import comparison_section
from keras_dnn_extras.reports.curve_sections import metrics_section, rate_section
from keras_dnn_extras.reports.findings_section import diagnosis_section, findings_section
from keras_dnn_extras.reports.gradient_sections import clipping_section, gradient_section
from keras_dnn_extras.reports.sources import checked_sources
from keras_dnn_extras.reports.summary_section import summary_section
from keras_dnn_extras.reports.uncertainty_section import uncertainty_section

NAN, INF = float("nan"), float("inf")


def sources(history, baseline=None, **others):
    names = ("model", "monitor", "scheduler", "prediction", "y_true", "diagnosis")
    return checked_sources(history, baseline, **dict.fromkeys(names) | others)


def of_kind(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def cells(section):
    """Return the texts of all tables, by the name of the row."""
    rows = [row for table in of_kind(section, Table) for row in table.rows]
    return {str(row[0]): [c.text if isinstance(c, Cell) else c for c in row[1:]] for row in rows}


def drawn(picture, pyplot):
    ax = pyplot.figure(layout="constrained").add_subplot()
    picture.draw(ax)
    ax.figure.canvas.draw()
    return ax


# -- summary ---------------------------------------------------------------------------------------


def test_the_summary_has_the_best_epoch_the_last_values_and_differences_from_the_baseline():
    history = {"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 1.5, 2.0], "val_accuracy": [0.1, 0.4, 0.5]}
    section = summary_section(sources(history, {"val_loss": [4.0], "val_accuracy": [0.75]}))
    best, loss, accuracy = of_kind(section, Figure)
    assert (best.value, best.note) == ("2 of 3", "val_loss 1.5")
    assert (loss.label, loss.value, loss.note) == ("Last val_loss", "2", "training 1")
    assert loss.change == Cell("-2 (-50 %)", "good")
    assert accuracy.change == Cell("-0.25 (-33 %)", "error")
    assert cells(section) == {
        "loss": ["1", "1", "3"],
        "val_loss": ["2", "1.5", "2"],
        "val_accuracy": ["0.5", "0.5", "3"],
    }


@pytest.mark.parametrize(
    ("history", "severity", "text"),
    [
        ({"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 1.5, 2.0]}, "warning", "33 % higher"),
        ({"loss": [3.0, 2.0, 2.5], "val_loss": [3.0, 1.5, 2.0]}, "warning", "33 % higher"),
        ({"val_loss": [3.0, 2.0, 1.0]}, "info", "lowest in the last epoch"),
        ({"loss": [1.0, NAN, INF]}, "error", "`loss` is NaN or infinite in 2 epochs, first in epoch 2."),
        ({"loss": [1.0], "clipped_fraction": [0.9]}, "info", "Clipping changed 90 % of the updates."),
    ],
)
def test_the_summary_says_what_stands_out(history, severity, text):
    (remark,) = of_kind(summary_section(sources(history)), Remark)
    assert remark.severity == severity
    assert text in remark.text
    assert ("overfits" in remark.text) == (history.get("loss") == [3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    "history",
    [
        {"loss": [2.0, 1.0], "val_loss": [1.0, 2.0]},  # too few to judge
        {"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 1.5, 1.51]},
        {"loss": [3.0, 2.0, 1.0], "clipped_fraction": [0.1, 0.2, NAN]},
        {"val_loss": [-3.0, -5.0, -4.0]},  # shares of negative losses mean nothing
    ],
)
def test_the_summary_of_a_common_run_says_nothing(history):
    assert of_kind(summary_section(sources(history)), Remark) == []


def test_300_metrics_have_a_folded_table():
    history = {"loss": [1.0], **{f"metric_{i}": [float(i)] for i in range(299)}}
    section = summary_section(sources(history))
    seen, folded = of_kind(section, Table)
    assert (len(seen.rows), len(folded.rows), folded.collapsed) == (12, 288, "288 more metrics")
    assert len(of_kind(section, Figure)) == 5
    assert len(metrics_section(sources(history)).blocks) == 8


# -- curves ----------------------------------------------------------------------------------------


def test_loss_and_metrics_are_drawn_with_their_validation(pyplot):
    history = {"loss": [3.0, 2.0], "val_loss": [2.5, 2.6], "accuracy": [0.1, 0.4], "other": [1.0, 2.0]}
    loss, accuracy, other = of_kind(metrics_section(sources(history)), Picture)
    assert (loss.title, accuracy.title, other.title) == ("loss", "accuracy", "other")
    training, validation, mark = drawn(loss, pyplot).lines
    assert training.get_ydata().tolist() == [3.0, 2.0]
    assert validation.get_ydata().tolist() == [2.5, 2.6]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (1, 2.5)
    assert drawn(accuracy, pyplot).lines[1].get_ydata().tolist() == [0.4]  # the highest is the best
    assert len(drawn(other, pyplot).lines) == 1  # of which the best is not known
    assert "training from 3 to 2; validation from 2.5 to 2.6" in loss.text


@pytest.mark.parametrize(("name", "scale"), [("mse", "log"), ("accuracy", "linear"), ("other", "linear")])
def test_a_loss_is_drawn_by_decades_and_an_accuracy_is_not(name, scale, pyplot):
    history = {name: [0.01, 0.9]}
    (picture,) = of_kind(metrics_section(sources(history)), Picture)
    assert drawn(picture, pyplot).get_yscale() == scale
    assert (
        drawn(of_kind(comparison_section(sources(history, history)), Picture)[0], pyplot).get_yscale()
        == scale
    )


def test_the_rate_is_that_of_each_epoch_or_of_each_update_with_the_scheduler(pyplot):
    history = {"loss": [1.0, 1.0], "learning_rate": [0.1, 0.01], "momentum": [0.9, 0.8]}
    rate, momentum = of_kind(rate_section(sources(history)), Picture)
    assert drawn(rate, pyplot).lines[0].get_ydata().tolist() == [0.1, 0.01]
    assert drawn(momentum, pyplot).lines[0].get_ydata().tolist() == [0.9, 0.8]
    scheduler = OneCycleScheduler(0.1)
    scheduler.history = {"learning_rate": [0.1, 0.2, 0.3, 0.1]}
    rate, momentum = of_kind(rate_section(sources(history, scheduler=scheduler)), Picture)
    ax = drawn(rate, pyplot)
    assert ax.get_xlabel() == "update"
    assert ax.lines[0].get_ydata().tolist() == [0.1, 0.2, 0.3, 0.1]
    assert drawn(momentum, pyplot).get_xlabel() == "epoch"


def test_a_cycle_is_drawn_on_a_linear_axis_and_a_decay_by_decades(pyplot):
    for rates, scale in (([0.01, 1.0, 1e-6], "linear"), ([1.0, 0.1, 1e-3], "log")):
        (picture,) = of_kind(rate_section(sources({"learning_rate": rates})), Picture)
        assert drawn(picture, pyplot).get_yscale() == scale


# -- gradients -------------------------------------------------------------------------------------


LOGS = {
    "gradient_norm": [2.0, 1.0],
    "gradient_norm_max": [4.0, 3.0],
    "clipped_fraction": [0.75, 0.25],
    "gradient_norm/dense": [1e-3, 1e-4],
    "gradient_norm/out": [1.0, 0.5],
    "update_ratio/out": [1e-3, 2e-3],
}


def test_gradients_are_drawn_from_the_logs_alone(pyplot):
    norms, layers, ratios = of_kind(gradient_section(sources(LOGS)), Picture)
    assert [line.get_ydata().tolist() for line in drawn(norms, pyplot).lines] == [[2.0, 1.0], [4.0, 3.0]]
    ax = drawn(layers, pyplot)
    np.testing.assert_array_equal(ax.images[0].get_array(), [[1e-3, 1e-4], [1.0, 0.5]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dense", "out"]
    np.testing.assert_array_equal(drawn(ratios, pyplot).images[0].get_array(), [[1e-3, 2e-3]])
    assert "Vanishing below 1e-07, exploding above 1000" in layers.caption


def test_gradients_are_those_of_each_update_with_the_monitor(pyplot):
    monitor = GradientNormMonitor(vanishing_threshold=1e-2, exploding_threshold=50.0)
    monitor.history = {
        "gradient_norm": [3.0, 2.0, 1.0],
        "clipped_gradient_norm": [1.0, 1.0, 1.0],
        "gradient_norm/a": [3.0, 2.0, NAN],
    }
    norms, layers, _ = of_kind(gradient_section(sources(LOGS, monitor=monitor)), Picture)
    assert [line.get_ydata().tolist() for line in drawn(norms, pyplot).lines] == [[3, 2, 1], [1, 1, 1]]
    assert drawn(layers, pyplot).images[0].get_array().tolist() == [[3.0, 2.0, None]]
    assert "Vanishing below 0.01, exploding above 50" in layers.caption
    assert "Grey: not measured" in layers.caption


def test_the_clipped_share_is_drawn_from_0_to_100_percent(pyplot):
    (picture,) = of_kind(clipping_section(sources(LOGS)), Picture)
    ax = drawn(picture, pyplot)
    assert ax.lines[0].get_ydata().tolist() == [0.75, 0.25]
    assert ax.get_ylim() == pytest.approx((-0.03, 1.03))
    assert "50 % of the updates" in picture.caption


# -- findings --------------------------------------------------------------------------------------


def test_findings_of_the_monitor_are_listed_with_their_place():
    monitor = GradientNormMonitor()
    monitor.history = {"gradient_norm": [1.0] * 7}
    assert findings_section(sources(LOGS, monitor=monitor)).blocks == (
        Remark("good", "No vanishing, exploding or non-finite gradients in 7 updates."),
    )
    monitor.findings = [
        GradientFinding("vanishing", 3, 0, ("a",), "They vanish in `a`."),
        GradientFinding("non-finite", 5, 1, ("b",), "They are NaN."),
    ]
    assert findings_section(sources(LOGS, monitor=monitor)).blocks == (
        Remark("warning", "They vanish in `a`.", "Vanishing, epoch 1, update 3"),
        Remark("error", "They are NaN.", "Non-finite, epoch 2, update 5"),
    )


class Diagnosis(list):
    ran, skipped = ["KD101", "KD102"], {"KD301": "it needs `y`"}


def test_a_diagnosis_is_listed_with_what_was_skipped():
    finding = SimpleNamespace(rule="KD101", severity="error", layer="out", message="Bad.", remedy="Fix it.")
    section = diagnosis_section(sources(LOGS, diagnosis=Diagnosis([finding])))
    remark, table = section.blocks
    assert remark == Remark("error", "Bad.", "KD101, `out`", "Fix it.")
    assert table.rows == [("KD301", "it needs `y`")]
    assert section.lead == "2 rules ran."
    clean, _ = diagnosis_section(sources(LOGS, diagnosis=Diagnosis())).blocks
    assert clean == Remark("good", "Nothing found by 2 rules.")


# -- baseline --------------------------------------------------------------------------------------


def test_the_comparison_has_the_best_values_of_both_runs(pyplot):
    run = {"loss": [2.0, 1.0], "val_accuracy": [0.5, 0.4], "size": [3.0, 4.0], "new": [1.0, 1.0]}
    baseline = {"loss": [2.0, 0.5], "val_accuracy": [0.2, 0.25], "size": [3.0, 3.0]}
    section = comparison_section(sources(run, baseline))
    assert cells(section) == {
        "best loss": ["1", "0.5", "+0.5 (+100 %)"],
        "best val_accuracy": ["0.5", "0.25", "+0.25 (+100 %)"],
        "last size": ["4", "3", "+1 (+33 %)"],
    }
    severities = [row[3].severity for table in of_kind(section, Table) for row in table.rows]
    assert severities == ["error", "good", None]
    assert "Only one of them has `new`." in section.lead
    first = of_kind(section, Picture)[0]
    assert first.title == "val_accuracy"
    before, now = drawn(first, pyplot).lines
    assert (before.get_ydata().tolist(), now.get_ydata().tolist()) == ([0.2, 0.25], [0.5, 0.4])


# -- uncertainty -----------------------------------------------------------------------------------


def of_classes(probabilities):
    """Return a prediction whose samples agree: all of its entropy is aleatoric."""
    mean = np.asarray(probabilities)
    both = np.stack([1 - mean[:, 0], mean[:, 0]], 1) if mean.shape[1] == 1 else mean
    entropy = -np.sum(both * np.log(both), axis=1)
    return MCPrediction(mean, np.zeros_like(mean), 10, entropy, np.zeros(len(mean)))


@pytest.fixture
def classes():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1.0, 1.0, 1.0], 200)
    return of_classes(probabilities), generator.integers(0, 3, 200)


def test_class_probabilities_are_scored_and_drawn_with_labels(classes, pyplot):
    prediction, labels = classes
    section = uncertainty_section(sources(LOGS, prediction=prediction, y_true=labels))
    scores = {name: value for name, (value,) in cells(section).items()}
    right = prediction.mean.argmax(1) == labels
    assert scores["accuracy"] == f"{100 * right.mean():.0f} %"
    assert float(scores["expected calibration error"]) == pytest.approx(
        expected_calibration_error(labels, prediction.mean), rel=1e-3
    )
    assert float(scores["Brier score, from 0 to 2"]) == pytest.approx(
        brier_score(labels, prediction.mean), rel=1e-3
    )
    assert [remark.label for remark in of_kind(section, Remark)] == ["Overconfident"]
    reliability, histogram, risk = of_kind(section, Picture)
    assert "calibration error" in reliability.text
    curve = risk_coverage(~right, prediction.predictive_entropy)
    np.testing.assert_allclose(drawn(risk, pyplot).lines[0].get_ydata(), curve.risk)
    assert f"{right.sum()} right and {(~right).sum()} wrong" in histogram.text


def test_without_labels_uncertainty_is_a_histogram(classes, pyplot):
    section = uncertainty_section(sources(LOGS, prediction=classes[0]))
    assert [picture.title for picture in of_kind(section, Picture)] == [
        "Predictive entropy",
        "Mutual information",
    ]
    bars = drawn(of_kind(section, Picture)[0], pyplot).patches
    assert sum(bar.get_height() for bar in bars) == 200
    assert "Pass `y_true`" in section.lead


def test_a_single_unit_has_the_probability_of_the_second_class():
    prediction = of_classes([[0.9], [0.8], [0.3], [0.6]])
    section = uncertainty_section(sources(LOGS, prediction=prediction, y_true=[[1], [1], [0], [0]]))
    assert cells(section)["accuracy"] == ["75 %"]
    assert cells(section)["mean confidence"] == ["75 %"]


def test_numbers_are_judged_by_intervals(pyplot):
    errors = np.random.default_rng(0).normal(size=1000)
    prediction = MCPrediction(errors[:, None], np.ones((1000, 1)), 10, None, None)
    section = uncertainty_section(sources(LOGS, prediction=prediction, y_true=np.zeros(1000)))
    scores = {name: value for name, (value,) in cells(section).items()}
    assert float(scores["root mean squared error"]) == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-3)
    share = np.mean(np.abs(errors) <= 1)
    assert scores["within one standard deviation (a normal one: 68 %)"] == f"{100 * share:.0f} %"
    observed, ideal = drawn(of_kind(section, Picture)[0], pyplot).lines
    # Four standard errors of a share of 1,000, at most 0.016 each.
    np.testing.assert_allclose(observed.get_ydata(), ideal.get_ydata(), atol=0.064)


def test_each_output_has_its_own_part_and_predictions_that_are_not_finite_are_left_out():
    mean = {
        "price": np.array([[1.0], [NAN], [3.0]]),
        "kind": np.array([[0.5, 0.5], [0.9, 0.1], [NAN, NAN]]),
    }
    entropy = {"price": None, "kind": np.array([0.69, 0.33, NAN])}
    variance = {name: np.ones_like(values) for name, values in mean.items()}
    prediction = MCPrediction(mean, variance, 10, entropy, {"price": None, "kind": np.zeros(3)})
    labels = {"price": [1.0, 2.0, 5.0], "kind": [0, 0, 1]}
    section = uncertainty_section(sources(LOGS, prediction=prediction, y_true=labels))
    assert [remark.label for remark in of_kind(section, Remark)][:2] == ["price", "kind"]
    assert cells(section)["root mean squared error"] == ["1.414"]  # of 0 and 2
    assert cells(section)["accuracy"] == ["100 %"]
    assert {picture.title.split(": ")[-1] for picture in of_kind(section, Picture)} == {"price", "kind"}


@pytest.mark.parametrize(
    ("y_true", "error", "match"),
    [
        ([0, 1], ValueError, "a value for each of 200 predictions"),
        ({"a": [0] * 200}, ValueError, "the structure of `prediction.mean`"),
        ([7] * 200, ValueError, "from 0 to 2"),
        ([0.5] * 200, TypeError, "integer labels"),
        ({"a": 0}, ValueError, r"a dict of \['a'\] where that is one ndarray"),
    ],
)
def test_labels_that_do_not_fit_are_refused(y_true, error, match, classes):
    with pytest.raises(error, match=match):
        uncertainty_section(sources(LOGS, prediction=classes[0], y_true=y_true))


def of_numbers(mean, variance):
    columns = (np.array(values)[:, None] for values in (mean, variance))
    return MCPrediction(*columns, 10, None, None)


@pytest.mark.parametrize(
    ("y_true", "error", "match"),
    [
        ([0.0, np.nan], ValueError, "Expected `y_true` to be finite"),
        (["a", "b"], TypeError, "`y_true` to be an array of real numbers"),
    ],
)
def test_true_values_that_are_no_finite_numbers_are_refused(y_true, error, match):
    prediction = of_numbers([1.0, 2.0], [0.1, 0.1])
    with pytest.raises(error, match=match):
        uncertainty_section(sources(LOGS, prediction=prediction, y_true=y_true))


def test_uncertainty_that_is_the_same_but_for_rounding_is_drawn(pyplot):
    prediction = of_numbers([1.0, 2.0], [1.0, 1 + 1e-15])
    (picture,) = of_kind(uncertainty_section(sources(LOGS, prediction=prediction)), Picture)
    heights = [bar.get_height() for bar in drawn(picture, pyplot).patches]
    assert max(heights) == 2


@pytest.mark.parametrize("labels", [None, np.zeros(0, int)])
def test_a_prediction_of_no_rows_has_nothing_to_show(labels):
    prediction = of_classes(np.zeros((0, 3)))
    assert not uncertainty_section(sources(LOGS, prediction=prediction, y_true=labels)).blocks


# -- left out --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (rate_section, "no `learning_rate`"),
        (gradient_section, "`GradientNormMonitor`"),
        (clipping_section, "no `clipped_fraction`"),
        (uncertainty_section, "no `prediction` was passed"),
        (findings_section, "no `monitor` was passed"),
        (comparison_section, "no `baseline` was passed"),
        (diagnosis_section, "no `diagnosis` was passed"),
    ],
)
def test_a_section_without_data_is_left_out_with_its_reason(section, reason):
    left_out = section(sources({"loss": [1.0]}))
    assert isinstance(left_out, LeftOut)
    assert reason in left_out.reason


def test_other_reasons_to_leave_a_section_out():
    assert "no metric in common" in comparison_section(sources({"loss": [1.0]}, {"a": [1.0]})).reason
    unused = findings_section(sources({"loss": [1.0]}, monitor=GradientNormMonitor()))
    assert unused.reason == "the monitor has recorded no update"
    assert metrics_section(sources({"learning_rate": [1.0]})).reason == "the logs have none"
