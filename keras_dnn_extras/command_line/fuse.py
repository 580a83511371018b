"""The command `fuse`: fold the batch normalizations of a saved model."""

import argparse
import importlib
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import keras

from keras_dnn_extras.command_line.files import destination, keras_path, save
from keras_dnn_extras.command_line.problems import reported_as
from keras_dnn_extras.fusion import fuse_batch_norm


def add_parser(commands: Any) -> None:
    """Add the command and its arguments to the parsers of `commands`."""
    parser = commands.add_parser("fuse", help="fold batch normalizations into the layers around them")
    parser.add_argument("source", metavar="IN.keras", help="a saved model")
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Fuse the model of one file, save it to another, and print what was folded."""
    _fuse(arguments.source, arguments.target, arguments.modules)


def _fuse(source: str, target: pathlib.Path, modules: Sequence[str]) -> None:
    with reported_as(f"{target}: cannot be written"):
        path = destination(target)
    for module in modules:
        with reported_as(f"{module}: cannot be imported"):
            _import(module)
    with reported_as(f"{source}: cannot be loaded"):
        model = keras.saving.load_model(source, compile=False)
    with reported_as(f"{source}: cannot be fused"):
        result = fuse_batch_norm(model)
    with reported_as(f"{target}: cannot be written"):
        save(result.model, path)
    _print(result.report)


def _print(report: object) -> None:
    try:
        print(report, flush=True)
    except BrokenPipeError:  # as of `| head`: nobody reads on, also when Python flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _import(module: str) -> None:
    folder = os.getcwd()
    if folder not in sys.path:  # an installed script has its own folder there
        sys.path.insert(0, folder)
    importlib.import_module(module)
