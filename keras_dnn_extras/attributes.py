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
        for name in others:
            attributes.pop(name, None)
        attributes.update(found)
