"""Where plots get their axes from."""

from importlib.util import find_spec
from typing import Any


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
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "`plot` draws with matplotlib, which is not installed. Install it with "
            '`pip install "keras-dnn-extras[plot]"`.'
        ) from error
    return pyplot.subplots(layout="constrained")[1]


def check_matplotlib(name: str) -> None:
    """Raise an ImportError that says how to install matplotlib if `name`, which needs it, has none."""
    if find_spec("matplotlib") is None:
        raise ImportError(
            f"`{name}` draws with matplotlib, which is not installed. Install it with "
            '`pip install "keras-dnn-extras[plot]"`.'
        )
