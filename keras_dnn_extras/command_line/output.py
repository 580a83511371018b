"""What a command prints."""

import os
import sys


def show(result: object) -> None:
    """Print `result`, unless nobody reads on, as after `| head`. What stdout cannot encode is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(str(result).encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:  # nor may Python flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
