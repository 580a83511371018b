"""Suggestions: against their definitions computed otherwise, and against what must not change them."""

import itertools
import math
import re
import time

import numpy as np
import pytest

from keras_dnn_extras.learning_rates import suggestions

RATES = np.geomspace(1e-7, 10, 100)


def descent(curvature, noise=0.0, offset=0.0, seed=0):
    """The losses of plain gradient descent on `curvature * w**2 / 2` at `RATES`, until far too large."""
    rng = np.random.default_rng(seed)
    weight, losses = 1.0, []
    for rate in RATES:
        losses.append(offset + curvature * weight**2 / 2 * (1 + noise * rng.normal()))
        if losses[-1] > 1e3 * (offset + curvature):
            break
        weight -= rate * curvature * weight
    return np.array(losses)


CURVES = {
    "a small curvature": descent(3.0),
    "a large curvature": descent(300.0),
    "a level below the loss": descent(30.0, offset=15.0),
    "noise": descent(30.0, noise=0.1),
    "a noisy level": descent(30.0, noise=0.05, offset=5.0, seed=1),
    "NaN at the end": np.append(descent(30.0), [np.nan, np.nan, np.inf]),
    "a loss below zero": descent(30.0) - 100.0,
}


def suggest(losses, rates=RATES):
    return suggestions.suggest(rates[: len(losses)], losses, 4.0)


# -- second derivations -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CURVES)
def test_smoothing_weights_each_loss_by_its_age(name):
    losses = CURVES[name][np.isfinite(CURVES[name])]
    for i, mean in enumerate(suggestions.smoothed(losses)):
        weights = suggestions.BETA ** np.arange(i, -1, -1.0)
        np.testing.assert_allclose(mean, np.average(losses[: i + 1], weights=weights), rtol=1e-12)


def section(means):
    """The part where the loss falls: from 90% above the least for the last time, to the least."""
    n = len(means)
    least = min(range(n // 10, n), key=lambda i: means[i])
    level = sorted(means[: n // 5])[(n // 5 - 1) // 2 : n // 5 // 2 + 1]
    level = sum(level) / len(level)
    high = [i for i in range(least) if means[i] >= means[least] + 0.9 * (level - means[least])]
    return high[-1], least


def by_definition(rates, losses):
    means = suggestions.smoothed(losses)
    start, least = section(means)
    slopes = {
        (means[i + 1] - means[i]) / math.log(rates[i + 1] / rates[i]): rates[i] for i in range(start, least)
    }
    means = means[: least + 1]
    inner = [(b - a) / 2 for a, b in zip(means, means[2:], strict=False)]
    slope = [means[1] - means[0], *inner, means[-1] - means[-2]]
    left = len(means) - 1 - 15  # 15 steps of 1e-7 to 10 in 99 are a factor of 16.4
    sign = slope[left + 15] - slope[left]
    while left >= 0 and (slope[left + 15] - slope[left]) * sign > 0:
        left -= 1
    return {"minimum": rates[least] / 10, "steep": slopes[min(slopes)], "slide": rates[left]}


@pytest.mark.parametrize("name", CURVES)
def test_steep_slide_and_minimum_are_what_their_definitions_say(name):
    losses = CURVES[name][np.isfinite(CURVES[name])]
    found, _ = suggest(CURVES[name])
    for which, rate in by_definition(RATES, losses).items():
        np.testing.assert_allclose(found[which], rate, rtol=1e-12, err_msg=which)


def test_the_longest_descent_is_the_longest_of_all_subsequences():
    rng = np.random.default_rng(0)
    for _ in range(30):
        losses = rng.integers(0, 8, 9).astype(float)
        descents = [
            places
            for length in range(1, 10)
            for places in itertools.combinations(range(9), length)
            if all(losses[a] > losses[b] for a, b in itertools.pairwise(places))
        ]
        longest = max(map(len, descents))
        ends = {(places[0], places[-1]) for places in descents if len(places) == longest}
        assert suggestions._longest_descent(losses) in ends
        assert suggestions._longest_descent(losses)[1] == min(last for _, last in ends)


def test_a_count_of_one_is_told_in_the_singular():
    assert "after 1 batch." in suggest(np.array([1.0, np.nan]))[1]
    assert "there is 1 loss, and" in suggest(np.array([1.0]))[1]
    assert "there are 2 losses, and" in suggest(np.array([1.0, 2.0]))[1]


def test_many_losses_take_seconds_and_not_hours():
    losses = np.linspace(1.0, 0.0, 50_000)
    begun = time.perf_counter()
    assert suggestions._longest_descent(losses) == (0, 49_999)
    # By comparing each with each, 2.5e9 comparisons: half a minute or more. By bisection 0.1 s.
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("curvature", [3.0, 30.0, 300.0])
def test_without_noise_the_valley_is_the_middle_of_the_fall(curvature):
    losses = descent(curvature)
    start, least = section(suggestions.smoothed(losses))
    assert suggest(losses)[0]["valley"] == RATES[start + (least - start) // 2]


# -- what must not matter -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CURVES)
def test_the_unit_of_the_loss_and_of_the_rate_do_not_matter(name):
    found, _ = suggest(CURVES[name])
    assert None not in found.values()
    assert suggest(CURVES[name] * 1024.0)[0] == found  # powers of two are exact
    scaled, _ = suggest(CURVES[name], RATES * 0.25)
    np.testing.assert_allclose(list(scaled.values()), np.array(list(found.values())) / 4, rtol=1e-15)


@pytest.mark.parametrize("curvature", np.geomspace(0.5, 3e5, 12))
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_on_a_quadratic_they_lie_below_divergence_and_not_far_below(curvature, offset):
    losses = descent(curvature, offset=offset * curvature)
    limit = 2 / curvature
    found, reason = suggest(losses)
    for name, rate in found.items():
        assert limit / 100 <= rate < limit, (name, rate / limit, reason)


def test_a_tail_that_is_not_finite_is_cut_off():
    losses = descent(30.0)
    for tail in ([np.nan], [np.inf], [np.nan, 1.0, 0.0]):
        assert suggest(np.append(losses, tail))[0] == suggest(losses)[0]


# -- no suggestion rather than nonsense ------------------------------------------------------------------

NOTHING = {
    "no loss": ([], "at least 10"),
    "few losses": (np.linspace(2, 1, 9), "at least 10"),
    "NaN from the first batch": ([np.nan] * 20, "not finite at the smallest"),
    "NaN after some batches": ([2.0, 1.9, 1.8, np.nan], "after 3 batches"),
    "flat": (np.ones(100), "flat"),
    "zero": (np.zeros(100), "flat"),
    "rising": (np.geomspace(1, 3, 100), "flat"),
    "a fall of a millionth": (1 - np.geomspace(1e-9, 1e-6, 100), "flat"),
    "diverging at once": (np.geomspace(1, 1e9, 30), "diverges.*min_learning_rate"),
    "flat, then diverging": (np.append(np.ones(60), np.geomspace(1, 100, 20)), "diverges"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_there_is_no_suggestion_rather_than_nonsense(name):
    losses, reason = NOTHING[name]
    found, told = suggest(np.asarray(losses, float))
    assert found == dict.fromkeys(["valley", "slide", "steep", "minimum"])
    assert told.startswith("No suggestion: ")
    assert re.search(reason, told)


def test_pure_noise_hardly_ever_looks_like_a_fall():
    rng = np.random.default_rng(0)
    fooled = sum(suggest(1 + 0.3 * rng.normal(size=100))[1][:2] != "No" for _ in range(1000))
    # The least of some 10 independent means is 4 standard errors away in 10 * 3e-5 of the tests; the noise
    # is known to 15% only, which makes 3.4 of 4, and 10 * 3.4e-4. Twice the expected 3.4, and a standard
    # error.
    assert fooled <= 9


@pytest.mark.parametrize(("count", "in_level"), [(12, 3), (19, 3), (24, 4), (29, 5)])
def test_the_level_is_the_median_of_as_many_losses_as_its_error_is_told_for(count, in_level, monkeypatch):
    monkeypatch.setattr(suggestions, "_deviation", lambda _: 1.0)
    smoothing = (1 - suggestions.BETA) / (1 + suggestions.BETA)  # the variance of a running mean
    expected = np.sqrt(np.pi / 2 / in_level + smoothing)
    assert suggestions._standard_error(np.ones(count)) == pytest.approx(expected, rel=1e-3)
    assert suggestions._level(np.arange(count)) == (in_level - 1) / 2


def test_noise_that_comes_with_the_rate_is_not_a_fall():
    rng = np.random.default_rng(0)
    growing = np.geomspace(1e-7, 0.1, 100)
    fooled = sum(suggest(2.3 + growing * rng.normal(size=100))[1][:2] != "No" for _ in range(200))
    assert fooled <= 10


def test_a_slide_does_not_rest_beyond_the_least_loss():
    saturated = np.append(descent(30.0)[:-4], np.full(12, 8.0))
    found, _ = suggest(saturated)
    assert found["slide"] < 10 * found["minimum"]


def test_a_loss_that_still_falls_at_the_end_says_so():
    assert "larger `max_learning_rate`" in suggest(2 - np.geomspace(1e-9, 1, 100))[1]
    assert "larger `max_learning_rate`" not in suggest(descent(30.0))[1]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.5, 1.9], False),
        ([1.0, 0.5, 2.1], True),
        ([1.0, np.nan], True),
        ([1.0, np.inf], True),
        ([-1.0, 1.9], False),  # -1 + 3 * 1
        ([-1.0, 2.1], True),
        ([5.0], False),
    ],
)
def test_divergence_is_a_multiple_of_the_least_loss(losses, expected):
    assert suggestions.diverges(np.array(losses), 4.0) == expected


def test_with_an_infinite_factor_only_a_loss_that_is_not_finite_diverges():
    assert not suggestions.diverges(np.array([0.0, 1e30]), math.inf)
    assert suggestions.diverges(np.array([0.0, np.inf]), math.inf)
