"""The colours of all pictures, told apart with any colour vision."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from keras_dnn_extras import _plotting

COLOURS = {
    n: np.array(to_rgb(v)) for n, v in vars(_plotting).items() if n.isupper() and str(v).startswith("#")
}

# Of linear RGB. Reference: Machado, Oliveira & Fernandes, A Physiologically-based Model for Simulation of
# Color Vision Deficiency, 2009, table 1, severity 1.
SEEN = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Return CIE L*a*b* of linear RGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.clip(to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089], 0.008856, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", SEEN)
def test_the_colours_are_told_apart(vision):
    """Colours that differ by 10 in L*a*b* are seen as two at a glance; just noticeable is 2.3."""
    seen = {name: lab(np.array(SEEN[vision]) @ linear(colour)) for name, colour in COLOURS.items()}
    for (one, first), (other, second) in itertools.combinations(seen.items(), 2):
        assert np.linalg.norm(first - second) > 10, (one, other)


@pytest.mark.parametrize("side", ["left", "center", "right"])
def test_a_title_of_the_user_stays_as_it_is_and_no_other_is_written(side, pyplot):
    ax = pyplot.subplots()[1]
    ax.set_title("Mine", loc=side, fontsize=20, color="red")
    line = ax.plot([0, 1], label="line")
    _plotting.add_title(ax, "Ours", line)
    titles = {loc: ax.get_title(loc=loc) for loc in ("left", "center", "right")}
    assert titles == {"left": "", "center": "", "right": ""} | {side: "Mine"}
    if side == "center":
        assert (ax.title.get_fontsize(), ax.title.get_color()) == (20, "red")


def test_values_that_only_rounding_tells_apart_are_in_one_bin():
    values = np.array([1.0, np.nextafter(1, 2)])
    counts = np.histogram(values, _plotting.histogram_edges(values, 30))[0]
    assert sorted(counts)[-2:] == [0, 2]
    np.testing.assert_allclose(_plotting.histogram_edges(np.array([0.0, 1.0]), 2), [0, 0.5, 1])
    assert len(_plotting.histogram_edges(np.array([]), 5)) == 6
