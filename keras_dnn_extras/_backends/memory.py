"""The memory of this machine."""

import os

_UNKNOWN = 2**37  # bytes, taken for what a machine has that does not tell


def memory_of_machine() -> int:
    """Return how many bytes the machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows, and where the system does not tell
        return _UNKNOWN
