"""The report as one picture."""

import io
import textwrap
from typing import Any

from keras_dnn_extras.reports.blocks import Block, Picture, Remark, Report
from keras_dnn_extras.reports.blocks import Figure as Number
from keras_dnn_extras.reports.svg import report_style

_WIDTH = 6.0  # inches of one of two columns
_LINE = 0.26  # inches of a line of text
_TITLE = 2.8  # lines that it takes
_CHARACTERS = 120  # of a line
_DOTS = 110  # per inch
_MOST_LINES = 30


def png_image(report: Report) -> bytes:
    """Return all pictures of the report below its title, what is read first, and its remarks."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    blocks = [block for section in report.sections for block in section.blocks]
    pictures = [block for block in blocks if isinstance(block, Picture)]
    rows = [pictures[place : place + 2] for place in range(0, len(pictures), 2)]
    text = _lines(report, blocks)
    heights = [
        _LINE * (len(text) + _TITLE),
        *(_WIDTH * max(one.height for one in row) + 0.7 for row in rows),
    ]
    with report_style():
        figure = Figure(
            figsize=(2 * _WIDTH, sum(heights)), layout=ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.15)
        )
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        _write(parts[0], report.title, text)
        for part, row in zip(parts[1:], rows, strict=True):
            _draw(part, row)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DOTS, facecolor="white")
    return file.getvalue()


def _draw(part: Any, pictures: list[Picture]) -> None:
    """Draw one or two pictures side by side, each below its title."""
    for place, picture in zip(part.subfigures(1, 2), pictures, strict=False):
        place.suptitle(picture.title, x=0.02, ha="left", fontsize=12, fontweight="bold")
        picture.draw(place.subplots())


def _write(part: Any, title: str, lines: list[str]) -> None:
    height = len(lines) + _TITLE
    part.text(0.02, 1 - 0.5 / height, title, va="top", fontsize=18, fontweight="bold")
    for place, line in enumerate(lines):
        part.text(0.02, 1 - (place + _TITLE - 0.5) / height, line, va="top", fontsize=11)


def _lines(report: Report, blocks: list[Block]) -> list[str]:
    """Return what the picture says in words."""
    numbers = [f"{one.label}: {one.value}" for one in blocks if isinstance(one, Number)]
    remarks = [
        f"{one.label}: {one.text}" if one.label else one.text for one in blocks if isinstance(one, Remark)
    ]
    texts = [" · ".join(report.facts), " · ".join(numbers), *remarks, *report.notes]
    lines = [line for text in texts if text for line in textwrap.wrap(text.replace("`", ""), _CHARACTERS)]
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "..."]
