"""Numbers in words."""

import math

from keras_dnn_extras.reports.blocks import Cell


def number(value: float) -> str:
    """Return `value` with four digits that count: `0.1235`, `1.2e-05`, `NaN`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def percent(share: float) -> str:
    """Return a share as `12 %`, with a digit after the point where it is small."""
    if not math.isfinite(share):
        return number(share)
    return f"{100 * share:.1f} %" if 0 < abs(share) < 0.095 else f"{100 * share:.0f} %"


def change(value: float, before: float, higher_is_better: bool | None) -> Cell:
    """Return how `value` differs from that of the baseline, and whether that is good."""
    if not (math.isfinite(value) and math.isfinite(before)):
        return Cell("-")
    difference = value - before
    sign = "+" if difference > 0 else "-" if difference < 0 else "±"
    text = f"{sign}{abs(difference):.3g}"
    if before and difference:
        text += f" ({sign}{percent(abs(difference / before))})"
    if higher_is_better is None or not difference:
        return Cell(text)
    return Cell(text, "good" if (difference > 0) == higher_is_better else "error")


def writable(text: str) -> str:
    r"""Return `text` with what UTF-8 does not have, as in names of files, as an escape: `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def listed(names: list[str], most: int = 6) -> str:
    """Return `names` in backticks, the first ones of many."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
