"""What a report is made of, before it becomes a page or a picture."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["good", "info", "warning", "error"]


@dataclass(frozen=True)
class Picture:
    """A picture that matplotlib draws.

    Attributes:
        draw: takes the `Axes`.
        title: above it.
        text: what it shows, for readers who do not see it.
        caption: below it.
        height: in parts of its width.
    """

    draw: Callable[[Any], object]
    title: str
    text: str
    caption: str = ""
    height: float = 0.6


@dataclass(frozen=True)
class Cell:
    """Text in a table, and whether it is good or bad news."""

    text: str
    severity: Severity | None = None


@dataclass(frozen=True)
class Table:
    """A table. The first column has names, the others numbers.

    Attributes:
        collapsed: what to click on to see it, or empty for a table that is always seen.
    """

    columns: tuple[str, ...]
    rows: list[tuple[str | Cell, ...]]
    collapsed: str = ""


@dataclass(frozen=True)
class Remark:
    """A sentence or more that the reader should know.

    Attributes:
        label: a word or two before it, such as its kind or where it applies.
        remedy: what to do about it.
    """

    severity: Severity
    text: str
    label: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Figure:
    """A number that is read first.

    Attributes:
        change: how it differs from the baseline.
    """

    label: str
    value: str
    note: str = ""
    change: Cell | None = None


Block = Picture | Table | Remark | Figure


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        name: by which it is linked.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A section that is not there, and why."""

    title: str
    reason: str


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        facts: short texts under the title.
        left_out: sections that are not there.
        notes: sentences about the logs.
        written: by what, and when.
    """

    title: str
    facts: tuple[str, ...]
    sections: tuple[Section, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    written: str
