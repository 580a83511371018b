"""The report as one HTML page."""

from collections.abc import Iterator
from importlib import resources
from itertools import count, groupby

from keras_dnn_extras.reports.blocks import (
    Block,
    Cell,
    Figure,
    Picture,
    Remark,
    Report,
    Section,
    Table,
)
from keras_dnn_extras.reports.markup import Markup, element, with_code
from keras_dnn_extras.reports.svg import report_style, svg

# Nothing is loaded from anywhere, and no script runs, whatever names the logs hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_WORDS = {"good": "Good", "info": "Note", "warning": "Warning", "error": "Problem"}


def html_page(report: Report) -> str:
    """Return the page."""
    with report_style():
        sections = _Body().sections(report)
    head = element("head", *_head(report.title))
    body = element("body", _header(report), element("main", *sections), _footer(report))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _head(title: str) -> Iterator[Markup]:
    yield Markup('<meta charset="utf-8">')
    yield Markup('<meta name="viewport" content="width=device-width, initial-scale=1">')
    yield Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">')
    yield Markup('<meta name="color-scheme" content="light dark">')
    yield Markup('<link rel="icon" href="data:,">')  # else browsers ask the server for one
    yield element("title", title)
    style = resources.files("keras_dnn_extras.reports").joinpath("page.css").read_text(encoding="utf-8")
    yield element("style", Markup(style))


def _header(report: Report) -> Markup:
    links = [element("a", section.title, href=f"#{section.name}") for section in report.sections]
    facts = [element("li", with_code(fact)) for fact in report.facts]
    return element(
        "header",
        element("h1", report.title),
        element("ul", *facts, class_="facts"),
        element("nav", *links, aria_label="Sections"),
    )


def _footer(report: Report) -> Markup:
    lines = [element("p", with_code(note)) for note in report.notes]
    if report.left_out:
        reasons = "; ".join(f"{one.title} ({one.reason})" for one in report.left_out)
        lines.append(element("p", with_code(f"Left out: {reasons}."), class_="left-out"))
    return element("footer", *lines, element("p", report.written))


class _Body:
    """Turns sections into HTML, and numbers the pictures of the page."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def sections(self, report: Report) -> list[Markup]:
        """Return the sections of the page."""
        return [self._section(section) for section in report.sections]

    def _section(self, section: Section) -> Markup:
        lead = [element("p", with_code(section.lead), class_="lead")] if section.lead else []
        groups = groupby(section.blocks, type)
        blocks = [self._group(kind, list(blocks)) for kind, blocks in groups]
        return element("section", element("h2", section.title), *lead, *blocks, id=section.name)

    def _group(self, kind: type, blocks: list[Block]) -> Markup:
        """Return neighbouring blocks of one kind, which are set side by side or below one another."""
        return element("div", *map(self._block, blocks), class_=f"{kind.__name__.lower()}s")

    def _block(self, block: Block) -> Markup:
        if isinstance(block, Picture):
            return self._picture(block)
        if isinstance(block, Table):
            return _table(block)
        return _remark(block) if isinstance(block, Remark) else _figure(block)

    def _picture(self, picture: Picture) -> Markup:
        drawn = Markup(svg(picture, next(self._numbers)))
        image = element("div", drawn, role="img", aria_label=picture.text)
        caption = [element("figcaption", with_code(picture.caption))] if picture.caption else []
        return element("figure", element("h3", picture.title), image, *caption)


def _figure(figure: Figure) -> Markup:
    parts = [element("dt", figure.label), element("dd", figure.value, class_="value")]
    if figure.note:
        parts.append(element("dd", figure.note))
    if figure.change is not None:
        parts.append(element("dd", _cell(figure.change), " against the baseline"))
    return element("dl", *parts)


def _remark(remark: Remark) -> Markup:
    label = element("strong", with_code(f"{remark.label or _WORDS[remark.severity]}."))
    remedy = [element("p", with_code(remark.remedy), class_="remedy")] if remark.remedy else []
    text = element("p", label, " ", with_code(remark.text))
    return element("div", text, *remedy, class_=f"remark {remark.severity}")


def _table(table: Table) -> Markup:
    heading = element("tr", *(element("th", column, scope="col") for column in table.columns))
    rows = [element("tr", *_cells(row)) for row in table.rows]
    whole = element("table", element("thead", heading), element("tbody", *rows))
    scrolling = element("div", whole, class_="scroll")
    if not table.collapsed:
        return scrolling
    return element("details", element("summary", table.collapsed), scrolling)


def _cells(row: tuple[str | Cell, ...]) -> Iterator[Markup]:
    first, *rest = row
    yield element("th", _cell(first), scope="row")
    for cell in rest:
        yield element("td", _cell(cell))


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return cell
    return element("span", cell.text, class_=cell.severity) if cell.severity else cell.text
