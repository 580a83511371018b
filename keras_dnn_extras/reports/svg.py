"""Pictures of matplotlib as SVG within a page: small, with the font and the colours of the page."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

from keras_dnn_extras._plotting import BLACK, BLUE, GREEN, GREY, PURPLE, VERMILLION
from keras_dnn_extras.reports.blocks import Picture

RED = "#B3261E"  # of what is wrong, never the only sign of it
INK, FAINT, GRID = "#20242C", "#6B7280", "#DFE3E8"

_WIDTH = 5.6  # inches, of 72 units each in the SVG
_IN_PAGE = {
    BLUE: "var(--blue)",
    VERMILLION: "var(--vermillion)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    RED: "var(--red)",
    BLACK: "currentColor",
    GREY: "var(--faint)",
    INK: "currentColor",
    FAINT: "var(--faint)",
    GRID: "var(--grid)",
}
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 11,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "keras_dnn_extras",  # the same report is the same file
    "text.color": INK,
    "text.parse_math": False,  # a `$` in a name is a `$`
    "text.usetex": False,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}


@contextlib.contextmanager
def report_style() -> Iterator[None]:
    """Draw as reports do within the context, whatever the user has set in matplotlib."""
    import cycler
    import matplotlib.style

    cycle = {"axes.prop_cycle": cycler.cycler(color=[BLUE, VERMILLION, GREEN, PURPLE])}
    with matplotlib.style.context(["default", _STYLE | cycle]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the reader's browser has it
        yield


def svg(picture: Picture, number: int) -> str:
    """Return `picture` as an SVG element, to be called within `report_style`.

    Args:
        number: by which names within it differ from those of the other pictures of a page.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _WIDTH * picture.height), layout="constrained")
    picture.draw(figure.add_subplot())
    file = io.StringIO()
    figure.savefig(
        file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    return _for_page(file.getvalue(), f"p{number}-")


def _for_page(text: str, prefix: str) -> str:
    """Return the `<svg>` element alone, without what a page has no use for."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<defs>\s*<style type="text/css">.*?</style>\s*</defs>', "", text, count=1)
    text = re.sub(r' (width|height)="[\d.]+pt"| xmlns(:xlink)?="[^"]*"| version="1.1"', "", text, count=5)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    text = re.sub(
        "(fill|stroke): (#[0-9a-f]{6})", lambda m: f"{m[1]}: {_IN_PAGE.get(m[2].upper(), m[2])}", text
    )
    text = _renamed(text, prefix)
    text = re.sub(r"\n\s*", " ", text)
    return text.replace("<svg ", '<svg aria-hidden="true" ', 1).strip()


def _renamed(text: str, prefix: str) -> str:
    """Put `prefix` before each name that is referred to, and remove the other names."""
    references = r'(href="#|url\(#)'
    names = set(re.findall(references + r'([^")]+)', text))
    used = {name for _, name in names}
    text = re.sub(references, lambda match: match[1] + prefix, text)
    return re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", text)
