"""HTML elements, in which all text is escaped."""

import html


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: str) -> Markup:
    """Return an HTML element. Children that are no `Markup`, and values of attributes, are escaped.

    Args:
        attributes: by their names, a `_` at the end left out, others as `-`: `class_`, `aria_label`.
    """
    inside = "".join(child if isinstance(child, Markup) else html.escape(child) for child in children)
    settings = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{settings}>{inside}</{name}>")


def with_code(text: str) -> Markup:
    """Return `text` with what is in backticks as code, all of it escaped."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them has no partner
        return Markup(html.escape(text))
    return Markup(
        "".join(
            element("code", part) if place % 2 else html.escape(part) for place, part in enumerate(parts)
        )
    )
