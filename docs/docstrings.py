"""Let the site read docstrings as this package writes them: doctests below `Example:` are not indented."""

import re
import textwrap
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:\n\n(.*?)(?=\n\n[A-Z]\w*:\n|\Z)", re.MULTILINE | re.DOTALL)


class Docstrings(griffe.Extension):
    """Writes examples as griffe expects them."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(as_section, obj.docstring.value)


def as_section(example: re.Match[str]) -> str:
    return "Examples:\n" + textwrap.indent(example[1], "    ")
