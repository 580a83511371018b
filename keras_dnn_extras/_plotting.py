"""Where plots get their axes from."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    Axes = Any  # matplotlib is imported where it draws


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
            "`python -m pip install matplotlib`."
        ) from error
    return pyplot.subplots(layout="constrained")[1]
