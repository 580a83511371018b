"""Where a report goes."""

import os
import pathlib
from typing import Any

SUFFIXES = (".html", ".htm", ".png")


def checked_path(path: Any) -> pathlib.Path:
    """Return `path`, or raise where it is no path of a page or picture that can be written.

    Raises:
        TypeError: it is no path.
        ValueError: its suffix is another one.
        OSError: its folder is missing, or it is a folder itself.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"Expected `path` to be a string or a path. Received: path={path!r}")
    target = pathlib.Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"Expected `path` to end in {', '.join(SUFFIXES)}. Received: path={str(path)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(target.parent)!r}. Make it first. Received: path={str(path)!r}"
        )
    if target.is_dir():
        raise IsADirectoryError(
            f"Expected `path` to be a file, and it is a folder. Received: path={str(path)!r}"
        )
    return target
