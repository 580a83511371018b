"""Pictures of schedules and range tests: what is drawn, marked and written."""

import numpy as np
import pytest

import keras_dnn_extras as kdx

RATES = np.geomspace(1e-4, 1, 50)
FALLING = 1 / (1 + 100 * RATES) + 9 * RATES**4
FIT = {"epochs": 3, "steps_per_epoch": 4}


def style_of(callback):
    (line,) = callback.plot(**FIT).lines
    return line.get_drawstyle()


def test_rates_that_change_in_steps_are_drawn_in_steps(pyplot):
    first = {"initial_learning_rate": 0.1}
    assert style_of(kdx.PiecewiseConstantLR([1], [0.1, 0.01])) == "steps-post"
    assert (
        style_of(kdx.ExponentialLR(decay_rate=0.5, decay_epochs=1, staircase=True, **first)) == "steps-post"
    )
    assert style_of(kdx.ExponentialLR(decay_rate=0.5, decay_epochs=1, **first)) == "default"
    assert style_of(kdx.PowerLR(decay_steps=2, **first)) == "default"


def test_the_title_names_the_callback_unless_the_axes_have_one(pyplot):
    assert kdx.PowerLR(decay_steps=2, initial_learning_rate=0.1).plot(**FIT).get_title() == (
        "Learning rate by PowerLR"
    )
    _, ax = pyplot.subplots()
    ax.set_title("Mine")
    assert kdx.OneCycleScheduler(0.1, 10).plot(ax).get_title() == "Mine"


def test_the_legend_lies_above_the_lines(pyplot):
    cycle = kdx.OneCycleScheduler(0.1, 30).plot()
    for ax in (cycle, kdx.LearningRateSearch(RATES, FALLING).plot()):
        ax.figure.canvas.draw()
        legend = ax.get_legend().get_window_extent()
        assert legend.y0 >= ax.get_window_extent().y1
        assert legend.y1 <= ax.title.get_window_extent().y0 + 1
    assert [text.get_text() for text in cycle.get_legend().get_texts()] == ["learning rate", "momentum"]


def test_the_suggestion_is_marked_and_labelled(pyplot):
    search = kdx.LearningRateSearch(RATES, FALLING)
    ax = search.plot()
    assert [text.get_text() for text in ax.texts] == [f"suggestion {search.suggestion:.2g}"]
    upright = [line.get_xdata() for line in ax.lines if list(line.get_ydata()) == [0, 1]]
    assert [list(x) for x in upright] == [[search.suggestion] * 2]
    assert ax.get_title() == "Learning-rate range test"


def test_a_loss_above_0_has_an_axis_above_0(pyplot):
    ax = kdx.LearningRateSearch(RATES, FALLING).plot()
    assert ax.get_xscale() == "log"
    assert ax.get_ylim()[0] == 0  # 0.3 of the height below the least loss would be below 0
    assert kdx.LearningRateSearch(RATES, FALLING - 5).plot().get_ylim()[0] < (FALLING - 5).min()


FAILED = {
    "flat": np.ones(50),
    "noisy": 1 + 0.3 * (-1.0) ** np.arange(50),
    "not finite": np.full(50, np.nan),
    "diverging": 1 + RATES**3,
}


@pytest.mark.parametrize("losses", FAILED.values(), ids=FAILED)
def test_a_failed_search_says_why_in_the_picture(losses, pyplot):
    search = kdx.LearningRateSearch(RATES, losses)
    assert search.suggestion is None
    ax = search.plot()
    (text,) = ax.texts
    assert " ".join(text.get_text().split()) == search.reason
    ax.figure.canvas.draw()
    frame, inside = ax.get_window_extent(), text.get_window_extent()
    assert frame.x0 < inside.x0 < inside.x1 < frame.x1
    assert frame.y0 < inside.y0 < inside.y1 < frame.y1
    if np.isfinite(losses).all():
        highest = ax.transData.transform((RATES[0], losses[:25].max()))
        assert highest[1] < inside.y0  # there is room for it above the losses


def test_a_search_of_no_loss_at_all_is_drawn(pyplot):
    assert kdx.LearningRateSearch([], []).plot().texts[0].get_text().startswith("No suggestion")
