"""The pictures of a schedule, the rate and the momentum over the updates, and of a range test."""

from textwrap import fill
from typing import Any

import numpy as np

from keras_dnn_extras._plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, add_title, axes

POINTS = 10_000  # of a line that is drawn, a few for each pixel
_MARKS = {"slide": ("s", GREEN), "steep": ("^", ORANGE), "minimum": ("v", PURPLE)}
_LINE = 52  # characters of the reason
_ROOM = 0.6  # above the losses for the reason, as a share of their height


def draw_schedule(
    ax: Any,
    updates: np.ndarray,
    values: dict[str, np.ndarray],
    scale: str,
    *,
    title: str = "Learning rate",
    steps: bool = False,
) -> Any:
    """Draw `values["learning_rate"]`, and `values["momentum"]` if it is there and moves, over `updates`.

    Args:
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.
        updates, values: of shape `(updates,)`.
        scale: `"linear"`, or `"log"` for an axis that is logarithmic where the rates allow it.
        steps: whether the rate is constant from one update that changes it to the next.

    Returns:
        The `Axes` with the learning rate.
    """
    ax = axes(ax)
    rates, momentum = values["learning_rate"], values.get("momentum")
    style = {"drawstyle": "steps-post"} if steps else {}
    lines = ax.plot(updates, rates, color=BLUE, label="learning rate", **style)
    ax.set_xlabel("update")
    ax.set_ylabel("learning rate")
    if scale == "log" and rates.min() > 0 and rates.max() > 3 * rates.min():
        ax.set_yscale("log")
    if momentum is not None and np.ptp(momentum) > 0:
        lines += _draw_momentum(ax, updates, momentum)
    add_title(ax, title, lines if len(lines) > 1 else [])
    return ax


def _draw_momentum(ax: Any, updates: np.ndarray, momentum: np.ndarray) -> list:
    right = ax.twinx()
    lines = right.plot(updates, momentum, color=VERMILLION, linestyle="--", label="momentum")
    right.set_ylabel("momentum")
    return lines


def draw_search(ax: Any, search: Any) -> Any:
    """Draw the losses of a `LearningRateSearch` over its rates, and what it suggests, or why nothing.

    Args:
        ax: matplotlib `Axes` to draw on, or None for those of a new figure.

    Returns:
        The `Axes`.
    """
    ax = axes(ax)
    rates, means = search.learning_rates, search.smoothed_losses
    ax.plot(rates, search.losses, color=GREY, linewidth=0.8, label="loss")
    ax.plot(rates, means, color=BLUE, label="smoothed")
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
    if np.isfinite(means).any():
        _set_limits(ax, search.losses, means)
    elif len(rates) > 1:  # there is no line, so that the axis would be anything
        ax.set_xlim(rates[0], rates[-1])
    for name, rate in search.suggestions.items():
        if rate is not None:
            height = np.interp(np.log(rate), np.log(rates), means)
            _mark(ax, name, rate, height)
    if search.suggestion is None:
        _write_reason(ax, search.reason)
    add_title(ax, "Learning-rate range test")
    return ax


def _mark(ax: Any, name: str, rate: float, height: float) -> None:
    label = f"{name}: {rate:.2g}"
    if name in _MARKS:
        marker, colour = _MARKS[name]
        ax.plot(rate, height, marker, color=colour, zorder=3, label=label)
        return
    ax.plot(rate, height, "o", color=VERMILLION, markersize=10, zorder=4, label=label)
    ax.axvline(rate, color=VERMILLION, linestyle=":", linewidth=1)
    ax.annotate(
        f"suggestion {rate:.2g}",
        (rate, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -4),  # to the left, as a loss that diverges is to the right
        textcoords="offset points",
        color=VERMILLION,
        ha="right",
        va="top",
    )


def _set_limits(ax: Any, losses: np.ndarray, means: np.ndarray) -> None:
    """Leave divergence out of the picture, which would make a line of all the rest."""
    means = means[np.isfinite(means)]
    low, high = losses[: np.argmin(means) + 1].min(), max(means[0], np.median(means))
    margin = max(0.3 * (high - low), 0.01 * abs(high)) or 1.0
    bottom = low - margin if low < 0 else max(low - margin, 0.0)  # a loss above 0 has an axis above 0
    ax.set_ylim(bottom, high + margin)


def _write_reason(ax: Any, reason: str) -> None:
    """Write in the picture why there is no suggestion, with room for it above the losses."""
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + _ROOM * (top - bottom))
    frame = {"boxstyle": "round", "facecolor": "white", "edgecolor": VERMILLION}
    ax.text(
        0.5,
        0.97,
        fill(reason, _LINE),
        transform=ax.transAxes,
        ha="center",
        va="top",
        fontsize="small",
        color=BLACK,
        bbox=frame,
        zorder=5,
    )
