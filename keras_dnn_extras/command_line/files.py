"""Files of models: where they go, and that a failure leaves what is there."""

import argparse
import os
import pathlib
import tempfile

import keras

from keras_dnn_extras.command_line.problems import UnusableError


def keras_path(text: str) -> pathlib.Path:
    """Return the path that `text` names, which has to end in .keras."""
    path = pathlib.Path(text)
    if path.suffix != ".keras":
        raise argparse.ArgumentTypeError(f"expected a name that ends in .keras, got {text!r}")
    return path


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


def save(model: keras.Model, path: pathlib.Path) -> None:
    """Save `model` to `path`, or leave what is there as it was."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # a file of its own would be private
        temporary = pathlib.Path(folder) / path.name
        model.save(temporary)
        os.replace(temporary, path)
