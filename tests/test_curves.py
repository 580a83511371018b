"""The formulas, against second derivations."""

import keras
import numpy as np
import pytest

from keras_dnn_extras import curves

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
