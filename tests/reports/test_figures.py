"""What is drawn: lines, marks and maps, compared with the values."""

import numpy as np
import pytest

from keras_dnn_extras._plotting import shortened
from keras_dnn_extras.reports.figures import Line, draw_lines, thinned
from keras_dnn_extras.reports.layer_map import LayerMap, colour_range, common_folder

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def ax(pyplot):
    return pyplot.figure().add_subplot()


def test_lines_have_their_values_and_a_gap_where_one_is_not_finite(ax):
    draw_lines(ax, [Line(np.arange(1, 4), np.array([1.0, INF, 2.0]), "training", mark=3)])
    line, mark, cross = ax.lines
    np.testing.assert_array_equal(line.get_ydata(), [1.0, NAN, 2.0])
    assert (mark.get_xdata().tolist(), mark.get_ydata().tolist()) == ([3], [2.0])
    assert cross.get_xdata().tolist() == [2]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 0.01], "log"),
        ([1.0, 0.5], "linear"),
        ([1.0, -0.01], "linear"),
        ([1.0, 0.0], "linear"),
        ([], "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_values_span_decades(values, scale, ax):
    draw_lines(ax, [Line(np.arange(len(values)), np.array(values))])
    assert ax.get_yscale() == scale


def test_labels_of_a_logarithmic_axis_are_plain_numbers(ax):
    draw_lines(ax, [Line(np.arange(3), np.array([1e-6, 1.0, 1e3]))])
    labels = {label.get_text() for label in ax.get_yticklabels()}
    assert {"1e-05", "0.1", "1"} & labels
    assert not any("$" in label for label in labels)


def test_a_thinned_line_keeps_its_ends_of_values():
    x, values = np.arange(100_000), np.zeros(100_000)
    values[[12_345, 77_777]] = 5.0, -3.0
    values[50_000:50_010] = NAN
    some_x, some = thinned(x, values, 600)
    assert len(some) <= 600
    assert (np.diff(some_x) > 0).all()
    assert dict(zip(some_x.tolist(), some.tolist(), strict=True)) == pytest.approx(
        {place: values[place] for place in some_x.tolist()}
    )
    assert {12_345, 77_777} <= set(some_x.tolist())


def test_a_map_has_a_row_for_each_layer_and_both_limits_on_its_scale(ax):
    values = np.array([[1e-6, 1e-5], [1.0, 2e3], [0.0, NAN]])
    limits = {"vanishing": 1e-5, "exploding": 1e3}
    LayerMap(["a", "b", "c"], np.array([1, 2]), values, limits).draw(ax, "epoch", "norm")
    (image,) = ax.images
    shown = image.get_array()
    np.testing.assert_array_equal(shown[:2], values[:2])
    assert shown[2, 0] < image.norm.vmin  # black
    assert shown.mask[2].tolist() == [False, True]  # grey
    assert (image.norm.vmin, image.norm.vmax) == (pytest.approx(1e-6), pytest.approx(1e4))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    scale = next(axes for axes in ax.figure.axes if axes is not ax)
    marks = {line.get_xdata()[0] for line in scale.lines}
    assert marks == {1e-5, 1e3}


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.5], -3, 1),
        ([1e-9, 1e-1], -9, -1),
        ([2e-2, 5e-1], -3, 1),
        ([0.0, NAN], -4, 0),
        ([INF, 0.1], -3, 1),
    ],
)
def test_colours_span_at_least_four_decades_around_the_values(values, low, high):
    ends = colour_range(np.array(values))
    assert np.log10(ends) == pytest.approx((low, high))


def test_names_on_the_axis_are_short_and_keep_their_ends():
    assert shortened("dense_1", 20) == "dense_1"
    name = shortened("stage_1/very_long_block_name/conv_17", 20)
    assert len(name) == 20
    assert name.startswith("stage_")
    assert name.endswith("conv_17")
    assert common_folder(["a/b/c", "a/b/d"]) == "a/b/"
    assert common_folder(["a/b/c", "ab/d"]) == common_folder(["a", "a"]) == ""


def test_values_beyond_what_matplotlib_can_scale_are_drawn(ax):
    draw_lines(ax, [Line(np.arange(1.0, 4), np.array([1e308, -1e308, 1e308]), mark=1)])
    ax.figure.canvas.draw()
    assert ax.lines[0].get_ydata().max() < 1e308
