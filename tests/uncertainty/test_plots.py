"""Pictures of uncertainty: what is drawn and written."""

import numpy as np
import pytest

import keras_dnn_extras as kdx

LABELS = [0, 1, 0, 0]
PROBABILITIES = [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_reliability_diagram_counts_the_predictions_of_each_bin(pyplot):
    ax = kdx.plot_reliability(LABELS, PROBABILITIES, bins=5)
    (bars,) = ax.figure.axes[1].containers
    corners = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in bars]
    np.testing.assert_allclose(corners, [(0.6, 0.2, 1), (0.8, 0.2, 3)])  # 0.6 is the lower edge of its bin
    assert ax.figure.axes[1].get_ylim() == (0, 12)  # below the lines, in a quarter of the height
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0.6, 1], [0.9, 2 / 3]])
    assert legend_of(ax) == ["expected calibration error 0.275", "calibrated", "predictions"]
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 1))


@pytest.mark.parametrize("bins", [1, 10**9, 10**300])
def test_the_bars_of_any_number_of_bins_hold_all_predictions(bins, pyplot):
    (bars,) = kdx.plot_reliability(LABELS, PROBABILITIES, bins=bins).figure.axes[1].containers
    assert sum(bar.get_height() for bar in bars) == 4
    assert all(0 <= bar.get_x() <= 1 for bar in bars)


def test_the_risk_lies_between_that_of_a_random_and_of_an_ideal_order(pyplot):
    curve = kdx.risk_coverage([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])
    risk, random, ideal = curve.plot().lines
    assert random.get_xydata().tolist() == [[0, 0.5], [1, 0.5]]  # half of all are wrong, in any sample
    np.testing.assert_allclose(ideal.get_ydata(), [0, 0, 1 / 3, 1 / 2])  # the two right ones first
    np.testing.assert_allclose(risk.get_ydata(), [0, 1 / 2, 1 / 3, 1 / 2])
    assert legend_of(risk.axes) == ["AURC 0.333", "random 0.5", "ideal 0.208"]


@pytest.mark.parametrize("seed", range(3))
def test_no_order_has_less_risk_than_the_ideal_one(seed):
    draws = np.random.default_rng(seed)
    errors = draws.normal(size=40) ** 2
    curve = kdx.risk_coverage(errors, draws.normal(size=40))
    assert (curve.ideal_risk <= curve.risk + 1e-12).all()
    np.testing.assert_allclose(kdx.risk_coverage(errors, errors).risk, curve.ideal_risk)


def test_a_curve_that_does_not_know_the_errors_is_drawn_without_the_ideal(pyplot):
    curve = kdx.RiskCoverage(np.array([0.5, 1.0]), np.array([-1.0, 1.0]), 0.0)
    ax = curve.plot()
    assert legend_of(ax) == ["AURC 0", "random 1"]
    assert ax.get_ylim()[0] < -1  # a loss may be below 0


def test_the_band_says_what_it_is(pyplot):
    arrays = dict(x=[0.0, 1.0], mean=[1.0, 2.0], std=[0.1, 0.3])
    ax = kdx.plot_band(**arrays)
    assert "how uncertain the curve is" in ax.get_legend().get_title().get_text()
    assert legend_of(ax) == ["2 standard deviations", "1 standard deviation", "mean"]
    assert kdx.plot_band(**arrays, caption="mine").get_legend().get_title().get_text() == "mine"
    assert kdx.plot_band(**arrays, caption=None).get_legend().get_title().get_text() == ""


def test_every_picture_has_a_title(pyplot):
    titles = [
        kdx.plot_uncertainty([True, False], [0.1, 0.9]).get_title(),
        kdx.plot_reliability(LABELS, PROBABILITIES).get_title(),
        kdx.plot_band([0, 1], [0, 1], [1, 1]).get_title(),
        kdx.risk_coverage([0, 1], [0.1, 0.2]).plot().get_title(),
    ]
    assert all(titles)
    assert len(set(titles)) == 4


def test_scores_that_only_rounding_tells_apart_are_drawn(pyplot):
    ax = kdx.plot_uncertainty([True, False], [1.0, np.nextafter(1, 2)])
    assert legend_of(ax) == ["right (1)", "wrong (1)"]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"data": ([1, 2], [1])}, ValueError, "arrays of `data` to be of one length"),
        ({"data": ([1],)}, TypeError, "`data` to be a tuple of two arrays"),
        ({"data": 5}, TypeError, "`data` to be a tuple of two arrays"),
        ({"caption": 5}, TypeError, "`caption` to be a string"),
    ],
)
def test_wrong_arguments_are_refused_before_a_figure_is_made(arguments, error, match, pyplot):
    with pytest.raises(error, match=match):
        kdx.plot_band([0, 1], [1, 2], [0, 0], **arguments)
    assert not pyplot.get_fignums()
