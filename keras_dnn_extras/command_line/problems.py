"""What keeps a command from its work, told in one line."""

import contextlib
import re
from collections.abc import Iterator

_LONGEST = 300  # characters of what Keras says


class UnusableError(Exception):
    """What the command was given cannot be used: tells what, and why."""


@contextlib.contextmanager
def reported_as(
    problem: str, kinds: tuple[type[BaseException], ...] = (Exception, SystemExit)
) -> Iterator[None]:
    """Raise any exception of these `kinds` as an `UnusableError` that says `problem` and the reason."""
    try:
        yield
    # Keras checks no file that it loads. A damaged one raises whatever its reader, its code or an allocator
    # meets: RecursionError, AttributeError, IndexError, MemoryError, RuntimeError. A module may exit.
    except kinds as error:
        raise UnusableError(f"{problem}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return the line that says what happened. Keras puts pages of config before and after it."""
    if isinstance(error, UnusableError):
        return str(error)
    text = re.split(r"Exception encountered(?::| when calling .*)", str(error))[-1]
    text = re.sub(r"\x1b\[\d*m", "", text).strip()
    unknown = re.match(r"(Could not locate|Unknown) \w+:? '.*?'", text)
    if unknown:
        return f"{unknown[0]}; if it is your own, import the module that registers it by `--import MODULE`"
    line = re.split(r"\n|Full object config", text)[0].strip(" .")[:_LONGEST]
    kind = type(error).__name__
    return f"{line} ({kind})" if line else kind
