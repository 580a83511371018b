"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield where to write what `path` is to hold. After an error what is there stays. So does a link."""
    target = pathlib.Path(os.path.realpath(path))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # a file of its own would be private
        temporary = pathlib.Path(folder) / target.name
        yield temporary
        os.replace(temporary, target)
