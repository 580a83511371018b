"""The command line: `python -m keras_dnn_extras fuse IN.keras OUT.keras`."""

import argparse
import os
import pathlib
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence

import keras

from keras_dnn_extras.fusion import fuse_batch_norm

DONE, UNUSABLE = 0, 2
# What Keras raises for a file that is not there, is none of its own, is cut off, or has unknown classes.
UNREADABLE = (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 2 a file that cannot be read or written.

    Args:
        arguments: those after the name of the program; None: from the command line. Where they are wrong
            the program ends with the exit status 2.
    """
    parser = argparse.ArgumentParser("python -m keras_dnn_extras", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    fuse = commands.add_parser("fuse", help="fold batch normalizations into the layers around them")
    fuse.add_argument("source", metavar="IN.keras", help="a saved model")
    fuse.add_argument(
        "target", metavar="OUT.keras", type=_keras_path, help="where the model for inference goes"
    )
    fuse.set_defaults(run=lambda given: _fuse(given.source, given.target))
    given = parser.parse_args(arguments)
    return given.run(given)


def _keras_path(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if path.suffix != ".keras":
        raise argparse.ArgumentTypeError(f"expected a name that ends in .keras, got {text!r}")
    return path


def _fuse(source: str, target: pathlib.Path) -> int:
    try:
        model = keras.saving.load_model(source, compile=False)
        result = fuse_batch_norm(model)
        _save(result.model, target)
    except UNREADABLE as error:
        print(f"{source}: {error}", file=sys.stderr)
        return UNUSABLE
    print(result.report)
    return DONE


def _save(model: keras.Model, target: pathlib.Path) -> None:
    """Save `model` to `target`, or leave what is there as it was."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # a file of its own would be private
        path = pathlib.Path(folder) / target.name
        model.save(path)
        os.replace(path, target)


if __name__ == "__main__":
    sys.exit(main())
