"""Messages of compilers and exporters, held back in the thread that runs them and in no other.

`logging.disable`, `warnings.catch_warnings` and `contextlib.redirect_stdout` change the whole process.
Other threads lose their messages as well, and threads that overlap put back what the other one has set, for
good. Here the process gets filters that let everything pass except in threads that asked for silence. One
that is left behind, as in a copy that `catch_warnings` takes in another thread, does nothing.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

_THREAD = threading.local()  # `depth`: how many times this thread asked for silence
_LOCK = threading.Lock()
_USERS: list[object] = []  # one item for each time that a thread asked, until it has enough
_HANDLERS: list[logging.Handler] = []  # which have the filter


def _is_quiet() -> bool:
    return getattr(_THREAD, "depth", 0) > 0


class _InQuietThreads(logging.Filter):
    """A filter of log records, and what filters of warnings have as the pattern of the message."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING or not _is_quiet()

    def match(self, message: str) -> bool:
        return _is_quiet()


_FILTER = _InQuietThreads()
_ENTRY: Any = ("ignore", _FILTER, Warning, None, 0)  # as `warnings.filterwarnings` makes them


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, and log records up to that level, of this thread."""
    depth, user = getattr(_THREAD, "depth", 0), object()
    try:
        _enter(user)
        _THREAD.depth = depth + 1
        yield
    finally:
        _THREAD.depth = depth
        _leave(user)


def _enter(user: object) -> None:
    with _LOCK:
        _USERS.append(user)
        if _ENTRY not in warnings.filters:
            warnings.filters.insert(0, _ENTRY)  # type: ignore[attr-defined]
        for handler in _handlers():
            handler.addFilter(_FILTER)
            _HANDLERS.append(handler)


def _leave(user: object) -> None:
    with _LOCK:
        if user in _USERS:  # not if it was interrupted before
            _USERS.remove(user)
        if _USERS:
            return
        if _ENTRY in warnings.filters:
            warnings.filters.remove(_ENTRY)  # type: ignore[attr-defined]
        while _HANDLERS:
            _HANDLERS.pop().removeFilter(_FILTER)


def _handlers() -> list[logging.Handler]:
    """Return the handlers of the process: a logger's own filters do not see what its children tell."""
    loggers = [logging.root, *logging.root.manager.loggerDict.copy().values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    last = [logging.lastResort] if logging.lastResort is not None else []
    return [handler for handler in [*handlers, *last] if _FILTER not in handler.filters]
