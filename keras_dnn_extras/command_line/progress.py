"""What the command is at, on a line of the terminal that is gone when it is done."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

_INTERVAL = 0.5  # seconds between two looks at the clock
_CLEAR = "\r\x1b[K"


def announce(work: str, *, quiet: bool) -> None:
    """Show what is being done, where stderr is a terminal, until something else is shown."""
    if not quiet and sys.stderr.isatty():
        _show(f"{work} ...")


@contextlib.contextmanager
def progress(work: str, *, quiet: bool) -> Iterator[None]:
    """Show what is being done within the context, and for how long, where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    clock = threading.Thread(target=_show_seconds, args=(work, done), daemon=True)
    clock.start()
    try:
        yield
    finally:
        done.set()
        clock.join()
        _show("")


def _show_seconds(work: str, done: threading.Event) -> None:
    begin = time.monotonic()
    while True:
        seconds = time.monotonic() - begin
        _show(f"{work} ... {seconds:.0f} s" if seconds >= 1 else f"{work} ...")
        if done.wait(_INTERVAL):
            return


def _show(text: str) -> None:
    print(f"{_CLEAR}{text}", end="", file=sys.stderr, flush=True)
