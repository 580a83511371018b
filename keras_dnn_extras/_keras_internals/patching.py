"""Attributes of objects, replaced for a while."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replaced(instance: Any, **replacements: Any) -> Iterator[None]:
    """Put `replacements` into `vars(instance)` for a while, past its own `__setattr__`."""
    attributes = vars(instance)
    before = {name: attributes[name] for name in replacements if name in attributes}
    try:
        attributes.update(replacements)  # in here: an interrupt may come as soon as it is done
        yield
    finally:
        try:
            _put_back(attributes, replacements, before)
        finally:  # an interrupt may have come in the middle of it
            _put_back(attributes, replacements, before)


def _put_back(attributes: dict[str, Any], replacements: dict[str, Any], before: dict[str, Any]) -> None:
    attributes.update(before)
    for name in replacements.keys() - before.keys():
        attributes.pop(name, None)
