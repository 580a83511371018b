"""The formulas, against second derivations."""

import keras
import numpy as np
import pytest

from keras_dnn_extras.learning_rates import curves

SHAPES = [
    (0.04, 1.0, 4e-6, 100, 0.45, True),
    (0.04, 1.0, 4e-6, 100, 0.3, False),
    (0.95, 0.85, 0.95, 37, 0.25, True),
    (0.95, 0.85, 0.95, 37, 0.9, False),
]


def corners(begin, peak, end, total, warmup_fraction, three_phase):
    """The corner points of the cycle: where they lie on the axis of updates, and their values."""
    rise = warmup_fraction * total - 1
    if three_phase:
        return [0, rise, 2 * rise, total - 1], [begin, peak, begin, end]
    return [0, rise, total - 1], [begin, peak, end]


def curve_of(begin, peak, end, total, warmup_fraction, three_phase, anneal="linear"):
    return curves.one_cycle(
        begin, peak, end, total, warmup_fraction=warmup_fraction, three_phase=three_phase, anneal=anneal
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_cycle_interpolates_between_its_corners(shape):
    i = np.arange(shape[3])
    expected = np.interp(i, *corners(*shape))
    np.testing.assert_allclose(curve_of(*shape)(i), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_cosine_cycle_is_half_a_cosine_between_its_corners(shape):
    i = np.arange(shape[3], dtype="float64")
    places, values = corners(*shape)
    segment = np.clip(np.searchsorted(places, i) - 1, 0, len(places) - 2)
    start, stop = np.take(places, segment), np.take(places, segment + 1)
    first, final = np.take(values, segment), np.take(values, segment + 1)
    expected = final + (first - final) * (1 + np.cos(np.pi * (i - start) / (stop - start))) / 2
    # The expression above rounds relative to the larger of the two ends.
    np.testing.assert_allclose(
        curve_of(*shape, "cosine")(i), expected, atol=4 * np.finfo(float).eps * max(values)
    )


@pytest.mark.parametrize("anneal", ["linear", "cosine"])
@pytest.mark.parametrize("shape", SHAPES)
def test_cycle_stays_at_its_end_past_the_last_update(shape, anneal):
    curve = curve_of(*shape, anneal)
    total, end = shape[3], shape[2]
    np.testing.assert_allclose(curve(np.array([total - 1, total, 10 * total])), end, rtol=1e-15)


@pytest.mark.parametrize("three_phase", [True, False])
def test_a_peak_at_the_very_first_update_is_reached_there(three_phase):
    curve = curve_of(0.1, 1.0, 0.01, 4, 0.25, three_phase)  # 0.25 * 4 - 1 = 0
    assert curve(np.array([0.0]))[0] == 1.0


@pytest.mark.parametrize("anneal", ["linear", "cosine"])
@pytest.mark.parametrize("shape", SHAPES)
def test_tensors_give_what_numpy_gives(shape, anneal):
    i = np.arange(shape[3] + 3, dtype="float32")
    tensor = curve_of(*shape, anneal)(keras.ops.convert_to_tensor(i), keras.ops)
    exact = curve_of(*shape, anneal)(i.astype("float64"))
    # Shares of a segment carry the rounding of its ends, eps * total / length, and 8 roundings more;
    # each then weights the larger of the two ends.
    bound = np.finfo("float32").eps * 2 * (8 + shape[3]) * max(shape[:3])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(tensor), exact, atol=bound, rtol=0)


# -- exponential, power, piecewise constant, line --------------------------------------------------------

UPDATES = np.arange(40)
EPS = np.finfo("float32").eps


@pytest.mark.parametrize(("rate", "steps"), [(0.9, 1), (0.5, 2.5), (1.2, 1), (2, 7)])
def test_exponential_multiplies_by_its_rate_in_its_steps(rate, steps):
    expected = 0.3 * np.exp(np.log(rate) * UPDATES / steps)
    # The exponent is off by a unit in its last place, which counts absolutely: at most 40 * log 1.2.
    np.testing.assert_allclose(curves.exponential(0.3, rate, steps)(UPDATES), expected, rtol=20 * 2.2e-16)


@pytest.mark.parametrize("steps", [1, 3, 2.5])
def test_a_staircase_is_constant_between_whole_steps(steps):
    whole = [int(i * 2) // int(steps * 2) for i in UPDATES]  # of halves, which are integers
    expected = [0.3 * 0.5**n for n in whole]  # 0.5: exact
    np.testing.assert_array_equal(curves.exponential(0.3, 0.5, steps, staircase=True)(UPDATES), expected)


@pytest.mark.parametrize("batches", [3, 7, 10, 49, 1000])
def test_a_staircase_of_epochs_changes_at_the_very_batch(batches):
    epochs = np.arange(5 * batches) / batches
    for every in (1, 2, 3):  # batches
        stairs = curves.exponential(1.0, 0.5, every / batches, staircase=True)(epochs)
        expected = 0.5 ** (np.arange(5 * batches) // every).astype(float)
        np.testing.assert_array_equal(stairs, expected)


@pytest.mark.parametrize("exponent", [0, 0.5, 1.0, 3])
def test_power_falls_by_a_power_of_the_steps_gone_by(exponent):
    values = curves.power(0.3, 4, exponent)(UPDATES)
    expected = 0.3 * np.exp(-exponent * np.log1p(UPDATES / 4))
    np.testing.assert_allclose(values, expected, rtol=20 * 2.2e-16)  # exponents up to 7, and roundings
    np.testing.assert_allclose(values[4], 0.3 / 2**exponent, rtol=2.2e-16)


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_piecewise_constant_has_the_value_of_the_segment_an_update_is_in(dtype):
    boundaries, values = [0, 3, 7.5, 12], [1, 0.5, 2, 0.25, 0]
    expected = np.array(values)[np.searchsorted(boundaries, UPDATES, side="right")]
    found = curves.piecewise_constant(boundaries, values)(UPDATES.astype(dtype))
    np.testing.assert_array_equal(found, expected)


def test_piecewise_constant_without_boundaries_is_constant():
    np.testing.assert_array_equal(curves.piecewise_constant([], [0.5])(UPDATES), np.full(40, 0.5))


def test_a_line_goes_through_its_two_points():
    values = curves.line(0.5, 0.1, 8)(UPDATES)
    np.testing.assert_allclose(values, np.polyval([-0.05, 0.5], UPDATES), atol=4 * 2.2e-16 * 2, rtol=0)
    assert values[0] == 0.5


# Curves, and the roundings of each in float32, relative to the value: an exponent counts absolutely.
IN_FLOAT32 = {
    "exponential": (curves.exponential(0.3, 0.9, 2.5), 40 * 0.11 / 2.5 + 4),
    "staircase": (curves.exponential(0.3, 0.5, 3, staircase=True), 14 * 0.7 + 4),
    "power": (curves.power(0.3, 4, 2.0), 2 * (1 + 2.4) + 4),
    "piecewise constant": (curves.piecewise_constant([3, 7.5], [0.1, 0.3, 0.7]), 1),
    "line": (curves.line(0.25, 0.5, 8), 4),
}


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_tensors_give_what_numpy_gives_for_every_curve(name):
    curve, roundings = IN_FLOAT32[name]
    tensor = curve(keras.ops.convert_to_tensor(UPDATES, "float32"), keras.ops)
    assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
    values = keras.ops.convert_to_numpy(tensor)
    np.testing.assert_allclose(values, curve(UPDATES.astype(float)), rtol=roundings * EPS)
