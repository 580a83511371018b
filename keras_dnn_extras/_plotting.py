"""What all pictures have in common: their axes, colours, titles and legends."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    Axes = Any  # matplotlib is imported where it draws

# Told apart with any colour vision.
# Reference: Okabe & Ito, Color Universal Design, 2008 (https://jfly.uni-koeln.de/color/).
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, ORANGE, BLACK, GREY = "#56B4E9", "#E69F00", "#000000", "#707070"
COLOUR_MAP = "viridis"  # from dark blue over green to yellow, ever lighter, without a grey

_LEGEND_ROW = 16  # points
_COLUMNS = 3  # of a legend
_ROUNDING = 1e-9  # relative: what differs by less differs by rounding


def axes(ax: Any = None) -> Any:
    """Return `ax`, or the axes of a new figure where it is None.

    Raises:
        TypeError: `ax` is something else.
        ImportError: matplotlib is not installed.
    """
    if ax is not None:
        if not hasattr(ax, "plot"):
            raise TypeError(
                "Expected `ax` to be one matplotlib `Axes`, as an element of `figure.axes` or of the array "
                f"that `subplots` returns. Received: ax={ax!r}"
            )
        return ax
    check_matplotlib("plot")
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def add_title(ax: Any, title: str, handles: list | None = None, caption: str | None = None) -> None:
    """Write a title above `ax`, and between them a legend, where it covers nothing that is drawn.

    Args:
        title: left out where `ax` has a title of the user's.
        handles: what the legend names; None for all that has a label, an empty list for no legend.
        caption: a line above the names.
    """
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    rows = 0
    if handles:
        rows = -(-len(handles) // _COLUMNS) + (caption is not None)
        _add_legend(ax, handles, caption)
    _set_title(ax, title, 6 + _LEGEND_ROW * rows)


def _set_title(ax: Any, title: str, pad: float) -> None:
    """Write `title`, or where there is one, at any side, lift that above the legend as it is."""
    side = next((side for side in ("center", "left", "right") if ax.get_title(loc=side)), None)
    if side is None:
        ax.set_title(title, pad=pad)
        return
    font = {}
    if side == "center":  # `Axes` hands out no other title with its font, which `set_title` resets
        text = ax.title
        font = {"size": text.get_size(), "weight": text.get_weight(), "color": text.get_color()}
    ax.set_title(ax.get_title(loc=side), font, loc=side, pad=pad)


def _add_legend(ax: Any, handles: list, caption: str | None) -> None:
    ax.legend(
        handles=handles,
        title=caption,
        title_fontsize="small",
        fontsize="small",
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(len(handles), _COLUMNS),
        borderaxespad=0.2,
        frameon=False,
    )


def histogram_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges of the bins of a histogram. Values that only rounding tells apart share one bin."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if high - low <= _ROUNDING * max(abs(low), abs(high)):
        low, high = low - 0.5, low + 0.5
    return np.linspace(low, high, bins + 1)


def shortened(name: str, longest: int) -> str:
    """Return `name`, its middle left out where it is long: the ends of paths tell layers apart."""
    if len(name) <= longest:
        return name
    begin = longest // 3
    return f"{name[:begin]}…{name[begin + 1 - longest :]}"


def check_matplotlib(name: str) -> None:
    """Raise an ImportError that says how to install matplotlib if `name`, which needs it, has none."""
    if find_spec("matplotlib") is None:
        raise ImportError(
            f"`{name}` draws with matplotlib, which is not installed. Install it with "
            "`python -m pip install matplotlib`."
        )
