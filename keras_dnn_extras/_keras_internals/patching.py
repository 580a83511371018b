"""What objects hold, changed for a while."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replaced(instance: Any, **others: Any) -> Iterator[None]:
    """Put `others` into `vars(instance)` for a while, past its own `__setattr__`."""
    attributes = vars(instance)
    found = {name: attributes[name] for name in others if name in attributes}
    try:
        attributes.update(others)  # in here: an interrupt may come as soon as it is done
        yield
    finally:
        try:
            _put_back(attributes, others, found)
        finally:  # an interrupt may have come in the middle of it
            _put_back(attributes, others, found)


def _put_back(attributes: dict[str, Any], others: dict[str, Any], found: dict[str, Any]) -> None:
    attributes.update(found)
    for name in others.keys() - found.keys():
        attributes.pop(name, None)
