"""Measures of uncertainty against their definitions, scikit-learn and hand-made cases."""

import itertools
import math

import numpy as np
import pytest

import keras_dnn_extras as kdx
from keras_dnn_extras.uncertainty.metrics import Moments

ROUNDING = 1e-12  # a few hundred float64 operations on numbers of about 1


def random_probabilities(*shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


def entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def test_entropies_are_those_of_the_definition():
    samples = random_probabilities(5, 4, 3)
    samples[0, 0] = [1, 0, 0]  # 0 log 0 is 0
    found = kdx.entropy_decomposition(samples)
    for row in range(4):
        aleatoric = sum(entropy(samples[k, row]) for k in range(5)) / 5
        assert found.total[row] == pytest.approx(entropy(samples[:, row].mean(axis=0)), abs=ROUNDING)
        assert found.aleatoric[row] == pytest.approx(aleatoric, abs=ROUNDING)
    np.testing.assert_allclose(found.total, found.aleatoric + found.epistemic, atol=ROUNDING, rtol=0)


def test_samples_that_agree_have_no_epistemic_entropy_and_none_is_below_zero():
    one = random_probabilities(1, 500, 7)
    found = kdx.entropy_decomposition(np.repeat(one, 3, axis=0))
    assert found.epistemic.min() == 0
    assert found.epistemic.max() < ROUNDING


def test_few_samples_have_a_mutual_information_that_is_too_small_by_their_number():
    # For small differences it is half the sum of variance / mean, of which few samples have (1 - 1 / S).
    samples, rows, width = 4, 200_000, 0.01
    noise = np.random.default_rng(0).choice([-width, width], (samples, rows))
    found = kdx.entropy_decomposition(np.stack([0.5 + noise, 0.5 - noise], axis=-1)).epistemic
    expected = 0.5 * 2 * width**2 / 0.5 * (1 - 1 / samples)
    # Its standard deviation is about its size; the next term of the series is of the order of width ** 4.
    assert found.mean() == pytest.approx(expected, abs=5 * expected / math.sqrt(rows) + width**4)


def test_calibration_error_by_hand():
    # bins of 0.5: all confidences are in the upper one, or 1 itself, which belongs to it
    probabilities = [[0.6, 0.4], [0.9, 0.1], [0.0, 1.0], [0.3, 0.7]]
    y_true = [0, 1, 1, 0]
    assert kdx.expected_calibration_error(y_true, probabilities, bins=2) == pytest.approx(
        abs(0.5 - (0.6 + 0.9 + 1 + 0.7) / 4), abs=ROUNDING
    )
    # bins of 0.1: each has one, of 0.6, 0.9, 1 and 0.7; the last two bins share 0.9 and 1
    gaps = [abs(1 - 0.6), abs((0 + 1) - (0.9 + 1)), abs(0 - 0.7)]
    own = kdx.expected_calibration_error(y_true, probabilities, bins=10)
    assert own == pytest.approx(sum(gaps) / 4, abs=ROUNDING)


def test_the_lower_edge_belongs_to_a_bin_and_1_to_the_last():
    # bins of 0.25: 0.5 and 0.7 share one, 0.75 and 1 the last
    probabilities = [[0.5, 0.5], [0.7, 0.3], [0.75, 0.25], [1.0, 0.0]]
    y_true = [0, 1, 0, 1]
    expected = (abs(1 - (0.5 + 0.7)) + abs(1 - (0.75 + 1))) / 4
    own = kdx.expected_calibration_error(y_true, probabilities, bins=4)
    assert own == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("bins", [10, 15, 49, 100])
def test_each_multiple_of_the_width_begins_a_bin(bins):
    edges = [
        k / bins for k in range(-(-bins // 2), bins)
    ]  # each in a bin of its own, right and wrong in turns
    labels = [i % 2 for i in range(len(edges))]
    expected = np.mean([edge if wrong else 1 - edge for edge, wrong in zip(edges, labels, strict=True)])
    own = kdx.expected_calibration_error(labels, [[edge, 1 - edge] for edge in edges], bins=bins)
    assert own == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("bins", [2**31, 2**70])
def test_bins_that_are_empty_cost_nothing(bins):
    # in a bin of its own each prediction is off by all that its probability lacks to 1, or by all of it
    probabilities = random_probabilities(40, 3)
    y_true = np.random.default_rng(1).integers(0, 3, 40)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y_true
    own = kdx.expected_calibration_error(y_true, probabilities, bins=bins)
    assert own == pytest.approx(np.abs(right - confidence).mean(), abs=ROUNDING)


def test_two_classes_can_be_told_by_the_second_of_them():
    second = random_probabilities(6, 5, 2)[..., 1]
    found = kdx.entropy_decomposition(second[..., None])
    expected = kdx.entropy_decomposition(np.stack([1 - second, second], axis=-1))
    for name in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("dtype", ["int64", "float32", "bool"])
def test_one_hot_labels_are_refused_with_argmax(dtype):
    labels, probabilities = np.eye(3)[[0, 2, 1, 1]], random_probabilities(4, 3)
    measures = (
        *(kdx.expected_calibration_error, kdx.brier_score, kdx.negative_log_likelihood),
        kdx.plot_reliability,
    )
    for measure in measures:
        with pytest.raises(ValueError, match=r"argmax\(axis=-1\).*shape \(4, 3\)"):
            measure(labels.astype(dtype), probabilities)


def test_scores_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities = random_probabilities(50, 4)
    y_true = np.random.default_rng(1).integers(0, 4, 50)
    loss = metrics.log_loss(y_true, probabilities, labels=range(4))
    assert kdx.negative_log_likelihood(y_true, probabilities) == pytest.approx(loss, abs=ROUNDING)
    binary, labels = probabilities[:, 0], y_true > 1
    brier = 2 * metrics.brier_score_loss(labels, binary)  # over both classes
    for given in (binary, binary[:, None], np.stack([1 - binary, binary], axis=1)):
        assert kdx.brier_score(labels, given) == pytest.approx(brier, abs=ROUNDING)


def test_a_true_class_without_probability_costs_infinity_and_no_warning(recwarn):
    assert kdx.negative_log_likelihood([1], [[1.0, 0.0]]) == math.inf
    assert kdx.negative_log_likelihood([0], [[1.0, 0.0]]) == 0
    assert kdx.brier_score([1], [[1.0, 0.0]]) == 2
    assert not recwarn.list


def test_risk_is_the_mean_over_all_orders_of_ties():
    errors, uncertainty = [1, 0, 0, 1, 1], [0.2, 0.2, 0.1, 0.2, 0.9]
    curves = []
    for order in itertools.permutations(range(5)):
        ranked = [errors[i] for i in order]
        if [uncertainty[i] for i in order] == sorted(uncertainty):
            curves.append(np.cumsum(ranked) / np.arange(1, 6))
    assert len(curves) == 6
    found = kdx.risk_coverage(errors, uncertainty)
    np.testing.assert_allclose(found.risk, np.mean(curves, axis=0), atol=ROUNDING, rtol=0)
    assert found.aurc == pytest.approx(np.mean(curves), abs=ROUNDING)
    np.testing.assert_allclose(found.coverage, [0.2, 0.4, 0.6, 0.8, 1], atol=ROUNDING, rtol=0)
    for order in itertools.permutations(range(5)):
        again = kdx.risk_coverage(np.array(errors)[list(order)], np.array(uncertainty)[list(order)])
        assert again.aurc == pytest.approx(found.aurc, abs=ROUNDING)


def test_moments_of_chunks_are_those_of_all_and_stable():
    values = 1e6 + np.random.default_rng(0).normal(size=(60, 3))
    moments = Moments()
    for chunk in np.split(values, [7, 8, 40]):
        mean = chunk.mean(axis=0)
        moments.add(len(chunk), mean, np.square(chunk - mean).sum(axis=0))
    # float64 holds deviations of numbers of 1e6 by 1e6 * 2**-52
    np.testing.assert_allclose(moments.variance, np.var(values - 1e6, axis=0), rtol=1e-8)
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(moments.standard_error, np.sqrt(moments.variance / 60), rtol=1e-15)


GOOD = [[0.5, 0.5], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kdx.entropy_decomposition(GOOD), ValueError, "samples, n, classes"),
        (lambda: kdx.entropy_decomposition(np.ones((0, 2, 2))), ValueError, "none of them 0"),
        (lambda: kdx.entropy_decomposition([[[2.0, -1.0]]]), ValueError, "at least 0"),
        (lambda: kdx.brier_score([0, 1], [[0.5, 0.6], [0.2, 0.8]]), ValueError, "sum of 1"),
        (lambda: kdx.brier_score([0, 1], [[math.nan, 0.6], [0.2, 0.8]]), ValueError, "sum of 1"),
        (lambda: kdx.brier_score([0.0, 1.0], GOOD), TypeError, "integer labels"),
        (lambda: kdx.brier_score([0, 2], GOOD), ValueError, "from 0 to 1"),
        (lambda: kdx.brier_score([0, -1], GOOD), ValueError, "from 0 to 1"),
        (lambda: kdx.brier_score([0], GOOD), ValueError, "n above 0"),
        (lambda: kdx.negative_log_likelihood(np.zeros(0, int), np.zeros((0, 2))), ValueError, "n above 0"),
        (lambda: kdx.expected_calibration_error([0, 1], GOOD, bins=0), ValueError, "positive int"),
        (lambda: kdx.expected_calibration_error([0, 1], GOOD, bins=2.5), TypeError, "an int"),
        (lambda: kdx.risk_coverage([0, 1], [0.1]), ValueError, "of one shape"),
        (lambda: kdx.risk_coverage([], []), ValueError, "n above 0"),
        (lambda: kdx.risk_coverage([0, 1], [0.1, math.nan]), ValueError, "`uncertainty` to have no NaN"),
        (lambda: kdx.plot_uncertainty([True], [math.nan]), ValueError, "finite"),
        (lambda: kdx.plot_uncertainty([True], [0.1], bins=2**31), ValueError, "bins=2147483648"),
        (lambda: kdx.plot_uncertainty([True], [0.1], bins=2.5), TypeError, "bins=2.5"),
        (lambda: kdx.plot_band([0, 1], [0], [1, 1]), ValueError, "one length"),
        (lambda: kdx.plot_band([0], [1j], [1]), TypeError, "`mean`.*real numbers"),
        (lambda: kdx.entropy_decomposition("text"), TypeError, "`probabilities`.*real numbers"),
        (lambda: kdx.entropy_decomposition([[["0.5", "0.5"]]]), TypeError, "`probabilities`.*real numbers"),
        (lambda: kdx.brier_score([0, 1], np.array(GOOD) + 0j), TypeError, "`probabilities`.*real numbers"),
        (lambda: kdx.brier_score([0, 1], np.ones((2, 0))), ValueError, "n above 0"),
        (lambda: kdx.brier_score([[0], [0, 1]], GOOD), TypeError, "`y_true`.*real numbers"),
        (lambda: kdx.brier_score([], []), ValueError, "n above 0"),
        (lambda: kdx.risk_coverage([None], [0.1]), TypeError, "`errors`.*real numbers"),
        (lambda: kdx.risk_coverage([[1], [1, 2]], [0.1]), TypeError, "`errors`.*real numbers"),
    ],
)
def test_what_makes_no_sense_is_an_error_that_says_so(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_curve_of_risk_is_drawn(pyplot):
    found = kdx.risk_coverage([0, 1, 1], [0.1, 0.2, 0.3])
    ax = found.plot()
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.stack([found.coverage, found.risk], 1))


def test_histograms_are_of_the_right_and_the_wrong_predictions(pyplot):
    _, ax = pyplot.subplots()
    assert kdx.plot_uncertainty([True, True, False], [0.0, 0.0, 1.0], bins=2, ax=ax) is ax
    heights = [[patch.get_height() for patch in container] for container in ax.containers]
    assert heights == [[2, 0], [0, 2]]  # densities in two bins of 0.5


def test_the_reliability_diagram_has_accuracy_by_confidence(pyplot):
    ax = kdx.plot_reliability([0, 1], [[0.9, 0.1], [0.9, 0.1]])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0.9, 0.5]])


def test_the_band_is_drawn_in_the_order_of_x(pyplot):
    ax = kdx.plot_band([[1.0], [0.0]], mean=[[5.0], [3.0]], std=[[1.0], [2.0]])
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 3], [1, 5]])
    wide = ax.collections[0].get_paths()[0].vertices
    assert (wide[:, 1].min(), wide[:, 1].max()) == (-1, 7)
