"""How results and callbacks show themselves: a few lines of text, and a table in a notebook.

A class says what matters in a `Summary`, and `Displayed` makes both forms of it. Neither holds colours or
control codes, or depends on the terminal. No array is printed whole.
"""

import inspect
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH = 100  # characters of a line
_NO_LIMIT = 100_000
_ROWS = 10  # of a table, as text
_HTML_ROWS = 50
_CELL = 'style="text-align: left; vertical-align: top; white-space: pre-wrap; padding: 2px 1em 2px 0"'

Row = Sequence[str]


@dataclass(frozen=True)
class Summary:
    """What there is to say about an object.

    Attributes:
        title: one line: its class, or the call that makes it.
        facts: names and what is said about them, one a line.
        rows: of a table below the facts.
        header: names of the columns of this table, or none.
        hint: how to see the rows that were left out of a long table.
    """

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    header: Row = ()
    hint: str = ""


class Displayed:
    """Shows itself by its `_summary`."""

    def _summary(self) -> Summary:
        """Return what there is to say about this object."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return _as_text(self._summary())

    def _repr_html_(self) -> str:
        return _as_html(self._summary())


def table_text(rows: Sequence[Row], header: Row = (), *, width: int = _NO_LIMIT) -> str:
    """Return a table as text: columns of numbers to the right, and the widest ones wrapped.

    Args:
        rows: of one length each.
        header: as long, or none.
        width: of a line at most. By default no cell is wrapped.
    """
    if not rows:
        return ""
    table = Table(box=None, show_header=bool(header), pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(zip(*rows, strict=True)):
        name = _plain(header[i]) if header else ""
        alignment = "right" if header and all(map(_is_number, column)) else "left"
        table.add_column(name, justify=alignment, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*map(_plain, row))
    return _rendered(table, width)


def call_text(instance: Any) -> str:
    """Return the call that makes `instance`, with the arguments that are not at their defaults.

    Args:
        instance: it keeps each argument under its name, as Keras's objects do.
    """
    stored = vars(instance)
    arguments = [
        f"{name}={brief(stored[name])}"
        for name, parameter in _parameters(type(instance)).items()
        if name in stored and not _is_default(stored[name], parameter.default)
    ]
    return f"{type(instance).__name__}({', '.join(arguments)})"


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of `kind`, and those of its bases that it takes as `*args` and `**kwargs`."""
    parameters: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        of_base = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        parameters = {**of_base, **parameters}
        if not any(one.kind is one.VAR_KEYWORD for one in of_base.values()):
            break
    return parameters


def brief(value: Any) -> str:
    """Return `repr(value)` on one line, with arrays and long lists shortened."""
    return _Brief().repr(value)


def values_range(values: Sequence[float]) -> str:
    """Return the least and the most of `values`, as `0.001 to 0.1`; of equal ones, the one."""
    least, most = min(values), max(values)
    return f"{least:.3g}" if least == most else f"{least:.3g} to {most:.3g}"


def mean_and_range(values: Any) -> tuple[str, str, str]:
    """Return the mean, the least and the most of an array."""
    if not values.size:
        return "-", "-", "-"
    numbers = map(float, (values.mean(), values.min(), values.max()))
    mean, least, most = (f"{number:.3g}" for number in numbers)
    return mean, least, most


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120

    def repr_instance(self, x: Any, level: int) -> str:
        if getattr(x, "ndim", 0):
            return f"<{type(x).__name__} of shape {tuple(x.shape)}>"
        line = repr(x).split("\n", 1)[0]
        return line if len(line) <= self.maxother else f"{line[: self.maxother]}..."


def _plain(cell: str) -> Text:
    """Return `cell` for a table, with control codes as their escapes: a name may hold any character."""
    return Text("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in cell))


def _is_default(value: Any, default: Any) -> bool:
    return type(value) is type(default) and brief(value) == brief(default)


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in "-+" or cell == "nan"


def _as_text(summary: Summary) -> str:
    parts = [_plain(summary.title).plain]
    if summary.facts:
        parts.append(_indented(table_text(list(summary.facts.items()), width=_WIDTH - 2)))
    if summary.rows:
        parts += [""] if summary.facts else []
        parts.append(_indented(table_text(summary.rows[:_ROWS], summary.header, width=_WIDTH - 2)))
        parts += [f"  {line}" for line in _left_out(summary, _ROWS)]
    return "\n".join(parts)


def _as_html(summary: Summary) -> str:
    parts = [f'<div><strong style="white-space: pre-wrap">{escape(summary.title)}</strong>']
    if summary.facts:
        parts.append(_html_table(list(summary.facts.items()), ()))
    if summary.rows:
        parts.append(_html_table(summary.rows[:_HTML_ROWS], summary.header))
        parts += [f"<p>{escape(line)}</p>" for line in _left_out(summary, _HTML_ROWS)]
    return "".join([*parts, "</div>"])


def _left_out(summary: Summary, shown: int) -> list[str]:
    more = len(summary.rows) - shown
    if more <= 0:
        return []
    return [f"... and {more} more{f': {summary.hint}' if summary.hint else ''}"]


def _rendered(table: Table, width: int) -> str:
    stream = StringIO()
    console = Console(
        file=stream,
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _html_table(rows: Sequence[Row], header: Row) -> str:
    body = "".join(_html_row(row, "td") for row in rows)
    head = f"<thead>{_html_row(header, 'th')}</thead>" if header else ""
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _html_row(row: Row, tag: str) -> str:
    return f"<tr>{''.join(f'<{tag} {_CELL}>{escape(cell)}</{tag}>' for cell in row)}</tr>"
