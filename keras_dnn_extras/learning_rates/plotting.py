"""The picture of a schedule: the learning rate, and the momentum where it moves, over the updates."""

from typing import Any

import numpy as np

from keras_dnn_extras._plotting import axes

POINTS = 10_000  # of a line that is drawn, a few for each pixel


def draw_schedule(ax: Any, updates: np.ndarray, values: dict[str, np.ndarray], scale: str) -> Any:
    """Draw `values["learning_rate"]`, and `values["momentum"]` if it is there and moves, over `updates`.

    Args:
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.
        updates, values: of shape `(updates,)`.
        scale: `"linear"`, or `"log"` for an axis that is logarithmic where the rates allow it.

    Returns:
        The `Axes` with the learning rate.
    """
    ax = axes(ax)
    rates, momentum = values["learning_rate"], values.get("momentum")
    lines = ax.plot(updates, rates, color="C0", label="learning rate")
    ax.set_xlabel("update")
    ax.set_ylabel("learning rate")
    if scale == "log" and rates.min() > 0 and rates.max() > 3 * rates.min():
        ax.set_yscale("log")
    if momentum is not None and np.ptp(momentum) > 0:
        right = ax.twinx()
        lines += right.plot(updates, momentum, color="C1", linestyle="--", label="momentum")
        right.set_ylabel("momentum")
        ax.legend(handles=lines, loc="center right")  # where neither line goes
    return ax
