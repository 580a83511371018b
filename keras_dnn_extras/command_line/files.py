"""Files: what is read, where models and reports go, and that a failure leaves what is there."""

import argparse
import difflib
import os
import pathlib
import zipfile

from keras_dnn_extras.command_line.problems import UnusableError

_HDF5 = b"\x89HDF\r\n\x1a\n"  # how its files begin
_NO_MODEL = "it holds the weights of a model alone: save the whole model by `model.save`"


def keras_path(text: str) -> pathlib.Path:
    """Return the path that `text` names, which has to end in .keras."""
    return _with_suffix(text, (".keras",))


def page_path(text: str) -> pathlib.Path:
    """Return the path that `text` names, which has to be that of a page or a picture."""
    return _with_suffix(text, (".html", ".htm", ".png"))


def _with_suffix(text: str, suffixes: tuple[str, ...]) -> pathlib.Path:
    path = pathlib.Path(text)
    if path.suffix.lower() not in suffixes:
        expected = " or ".join(suffixes)
        raise argparse.ArgumentTypeError(f"expected a name that ends in {expected}, got {text!r}")
    return path


def check_readable(source: str) -> None:
    """Raise unless `source` is a file with something in it that may be read."""
    path = pathlib.Path(source)
    if path.is_dir():
        raise UnusableError("it is a folder")
    if not path.exists():
        raise UnusableError(f"there is no such file{_similar(path)}")
    if not path.is_file():
        raise UnusableError("it is a pipe or a device: write it to a file before")
    if not os.access(path, os.R_OK):
        raise UnusableError("there is no permission to read it")
    if not path.stat().st_size:
        raise UnusableError("it is empty")


def _similar(path: pathlib.Path) -> str:
    """Return a question that names the file in the folder with the most similar name, or nothing."""
    if not path.parent.is_dir():
        return f", and no folder {path.parent}"
    names = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
    return f"; is it {path.with_name(names[0])}?" if names else ""


def check_keras_file(source: str) -> None:
    """Raise unless `source` looks like a file that Keras has saved a model to."""
    check_readable(source)
    with open(source, "rb") as file:
        is_hdf5 = file.read(len(_HDF5)) == _HDF5
    if is_hdf5:
        if source.endswith(".weights.h5"):
            raise UnusableError(_NO_MODEL)
        return
    if not zipfile.is_zipfile(source):
        raise UnusableError("it is no model of Keras (.keras or .h5), or not all of one")
    with zipfile.ZipFile(source) as archive:
        if "config.json" not in archive.namelist():
            raise UnusableError("it is an archive, and no model of Keras (.keras) in it")


def destination(target: pathlib.Path) -> pathlib.Path:
    """Return where `target` is, behind links. Raise where no file can be written there."""
    path = pathlib.Path(os.path.realpath(target))
    if not path.parent.is_dir():
        raise UnusableError(f"there is no folder {path.parent}")
    if path.is_dir():
        raise UnusableError("it is a folder")
    for existing in (path.parent, path):
        if existing.exists() and not os.access(existing, os.W_OK):
            raise UnusableError(f"there is no permission to write to {existing}")
    return path
