"""The map of gradient norms: what is drawn for which norms, on which scale, and what is written."""

import math

import keras
import numpy as np
import pytest
from matplotlib.colors import to_rgba

import keras_dnn_extras as kdx
from keras_dnn_extras._plotting import SKY, VERMILLION
from keras_dnn_extras.gradients.findings import Thresholds
from keras_dnn_extras.gradients.heatmap import draw_history

L = keras.layers


def monitor_of(norms, **arguments):
    """Return a monitor with the `norms` of layers `d0`, `d1`, ... of shape `(layers, updates)`."""
    monitor = kdx.GradientNormMonitor(**arguments)
    rows = {f"gradient_norm/d{i}": list(row) for i, row in enumerate(np.asarray(norms, float))}
    monitor.history = {"gradient_norm": [1.0] * len(norms[0])} | rows
    return monitor


def ticks_of(ax):
    """Return the ticks of the colour bar beside `ax`, by what is written at them."""
    bar = ax.figure.axes[1]
    return {
        label.get_text(): tick for label, tick in zip(bar.get_yticklabels(), bar.get_yticks(), strict=True)
    }


def lines_of(ax):
    """Return where the colour bar beside `ax` has lines."""
    return [line.get_ydata()[0] for line in ax.figure.axes[1].lines]


def colours_of(mesh):
    """Return the colour of each cell."""
    return mesh.to_rgba(mesh.get_array())


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []


@pytest.mark.parametrize("size", [1.0, 1e-5, 1e30])
def test_the_scale_is_that_of_the_thresholds_whatever_the_norms_are(size, pyplot):
    ax = monitor_of(np.full((2, 3), size)).plot()
    norm = ax.collections[0].norm
    np.testing.assert_allclose([norm.vmin, norm.vmax], [1e-7, 1e3])


@pytest.mark.parametrize(
    ("thresholds", "ends", "marked"),
    [
        ((1e-7, 1e3), (1e-7, 1e3), {"1e-7 vanishing": 1e-7, "1000 exploding": 1e3}),
        ((1e-3, 1e3), (1e-3, 1e3), {"0.001 vanishing": 1e-3, "1000 exploding": 1e3}),
        ((0.1, 10.0), (1e-2, 1e2), {"0.1 vanishing": 0.1, "10 exploding": 10.0}),  # four decades at least
        ((0.0, math.inf), (1e-7, 1e3), {}),
        ((1e5, math.inf), (1e5, 1e9), {"100000 vanishing": 1e5}),
    ],
)
def test_both_thresholds_are_marked_on_the_colour_bar(thresholds, ends, marked, pyplot):
    vanishing, exploding = thresholds
    monitor = monitor_of(np.ones((2, 3)), vanishing_threshold=vanishing, exploding_threshold=exploding)
    ax = monitor.plot()
    norm = ax.collections[0].norm
    np.testing.assert_allclose([norm.vmin, norm.vmax], ends)
    assert {name: tick for name, tick in ticks_of(ax).items() if "ing" in name} == marked
    assert lines_of(ax) == list(marked.values())


def test_one_exploding_update_colours_its_own_cell_alone_and_has_a_mark(pyplot):
    norms = np.full((4, 30), 0.5)
    norms[1, 20] = 1e9
    ax = monitor_of(norms).plot()
    (mesh,) = ax.collections
    red = (colours_of(mesh) == to_rgba(VERMILLION)).all(axis=-1)
    assert np.argwhere(red).tolist() == [[1, 20]]
    (mark,) = ax.lines
    assert mark.get_xydata().tolist() == [[20.5, 1.5]]
    assert legend_of(ax) == ["first above 1000"]


def test_an_exploding_update_among_many_is_marked_though_its_cell_is_a_median(pyplot):
    norms = np.full((1, 5000), 0.5)  # five updates in each cell
    norms[0, 3333] = 1e9
    ax = monitor_of(norms).plot()
    assert (ax.collections[0].get_array() == 0.5).all()
    assert ax.lines[0].get_xydata().tolist() == [[3333.5, 0.5]]


def test_what_is_not_finite_is_grey_from_its_first_update_on_and_no_red_slab(pyplot):
    norms = np.full((2, 10), 0.5)
    norms[0, 6:], norms[1, 7:] = math.nan, math.inf
    ax = monitor_of(norms).plot()
    mesh, grey = ax.collections
    assert not (colours_of(mesh) == to_rgba(VERMILLION)).all(axis=-1).any()
    not_finite = ~np.ma.getmaskarray(grey.get_array())
    np.testing.assert_array_equal(not_finite, ~np.isfinite(norms))
    assert ax.lines[0].get_xydata().tolist() == [[6.5, 0.5], [7.5, 1.5]]
    assert legend_of(ax) == ["not finite", "first not finite"]


def test_norms_below_the_scale_and_of_zero_have_a_colour_of_their_own(pyplot):
    mesh = monitor_of([[0.0, 1e-8, 1e-6]]).plot().collections[0]
    assert (colours_of(mesh) == to_rgba(SKY)).all(axis=-1).tolist() == [[True, True, False]]


def test_layers_without_a_kernel_are_left_out_unless_all_are_asked_for(pyplot):
    layers = [L.Embedding(3, 2, name="words"), L.Flatten(), L.Dense(2, name="dense")]
    model = keras.Sequential([keras.Input((1,)), *layers, L.BatchNormalization(name="norm")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    monitor = kdx.GradientNormMonitor(on_problem="ignore")
    model.fit(np.ones((4, 1)), np.ones((4, 2)), callbacks=[monitor], verbose=0)

    def rows(**arguments):
        return [label.get_text() for label in monitor.plot(**arguments).get_yticklabels()]

    assert rows() == ["words", "dense"]
    assert rows(layers="all") == ["words", "dense", "norm"]
    with pytest.raises(ValueError, match="layers='some'"):
        monitor.plot(layers="some")
    model.get_layer("words").trainable = model.get_layer("dense").trainable = False
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(np.ones((4, 1)), np.ones((4, 2)), callbacks=[monitor], verbose=0)
    assert rows() == ["norm"]  # where no layer has one, all are drawn


def test_every_picture_has_a_title(pyplot):
    assert monitor_of(np.ones((2, 3))).plot().get_title() == "Gradient norm of each layer"
    lines = kdx.GradientNormMonitor(per_layer=False)
    lines.history = {"gradient_norm": [2.0, 1.0], "clipped_gradient_norm": [1.0, 1.0]}
    ax = lines.plot()
    assert ax.get_title() == "Gradient norm of each update"
    assert legend_of(ax) == ["before clipping", "after clipping"]


def test_names_on_the_axis_are_short_and_no_formulas(pyplot):
    names = ["x" * 300, r"$\frac{$"]
    norms = {f"gradient_norm/{name}": [1.0, 2.0] for name in names}
    ax = draw_history(None, norms, {}, Thresholds(1e-7, 1e3))
    ax.figure.canvas.draw()  # raises where a name is read as a formula that is none
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert len(labels[0]) == 40
    assert labels[1] == names[1]
