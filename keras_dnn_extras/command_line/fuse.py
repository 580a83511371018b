"""The command `fuse`: fold the batch normalizations of a saved model."""

import argparse
import importlib
import os
import pathlib
import sys
from typing import Any

from keras_dnn_extras._replacing import replacing
from keras_dnn_extras.command_line.files import check_keras_file, destination, keras_path
from keras_dnn_extras.command_line.output import show
from keras_dnn_extras.command_line.problems import UnusableError, reported_as
from keras_dnn_extras.command_line.progress import progress

_DESCRIPTION = """Fold the batch normalizations of a saved model into the layers around them.

The result gives the same predictions with fewer layers, which is faster. It is a plain Keras model
for inference, not for training. What was folded, and what stays and why, is printed. The result is
compared with the model before it is written."""

_EPILOG = """examples:
  %(prog)s model.keras fused.keras
  %(prog)s model.keras model.keras                     in place of the model
  %(prog)s model.keras fused.keras --import my_layers  with classes of your own

exit status: 0 written, 2 wrong usage or a file that cannot be used, 130 interrupted.
OUT.keras is written whole or not at all."""


def add_parser(commands: Any) -> None:
    """Add the command and its arguments to the parsers of `commands`."""
    parser = commands.add_parser(
        "fuse",
        help="fold batch normalizations into the layers around them",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="IN.keras", help="a saved model, .keras or .h5")
    parser.add_argument(
        "target", metavar="OUT.keras", type=keras_path, help="where the model for inference goes"
    )
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module that registers classes of the model, of the current folder too; may be repeated",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(check=check, run=run, needs_keras=True)


def check(arguments: argparse.Namespace) -> None:
    """Raise where a file cannot be used, before anything is imported or loaded."""
    with reported_as(f"{arguments.target}: cannot be written"):
        destination(arguments.target)
    with reported_as(f"{arguments.source}: cannot be loaded"):
        check_keras_file(arguments.source)


def run(arguments: argparse.Namespace) -> int:
    """Fuse the model of one file, save it to another, and print what was folded."""
    for module in arguments.modules:
        with reported_as(f"{module}: cannot be imported"):
            _import(module)
    show(_fused(arguments.source, arguments.target, arguments.quiet))
    return 0


def _fused(source: str, target: pathlib.Path, quiet: bool) -> object:
    """Write the fused model and return the report."""
    import keras

    from keras_dnn_extras.fusion import fuse_batch_norm

    with reported_as(f"{source}: cannot be loaded"), progress(f"loading {source}", quiet=quiet):
        model = keras.saving.load_model(source, compile=False)
    with reported_as(f"{source}: cannot be fused"), progress("folding and comparing", quiet=quiet):
        result = fuse_batch_norm(model)
    with (
        reported_as(f"{target}: cannot be written"),
        progress(f"writing {target}", quiet=quiet),
        replacing(destination(target)) as temporary,
    ):
        result.model.save(temporary)
    return result.report


def _import(module: str) -> None:
    if module.endswith(".py"):
        raise UnusableError(f"pass the name of the module, {module.removesuffix('.py')}, not its file")
    folder = os.getcwd()
    if folder not in sys.path:  # an installed script has its own folder there
        sys.path.insert(0, folder)
    importlib.import_module(module)
