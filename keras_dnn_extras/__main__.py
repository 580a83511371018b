"""The command line: `python -m keras_dnn_extras fuse IN.keras OUT.keras`."""

import argparse
import contextlib
import importlib
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence

import keras

from keras_dnn_extras.fusion import fuse_batch_norm

DONE, UNUSABLE, INTERRUPTED = 0, 2, 130
_LONGEST = 300  # characters of what Keras says


class UnusableError(Exception):
    """What the command was given cannot be used: tells what, and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done. 2: a module, or a file, cannot be used, as a sentence on stderr says. 130: interrupted. In the
    last two cases no file has changed.

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
    fuse.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module that registers classes of the model, of the current folder too; may be repeated",
    )
    fuse.set_defaults(run=lambda given: _fuse(given.source, given.target, given.modules))
    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except UnusableError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def _keras_path(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if path.suffix != ".keras":
        raise argparse.ArgumentTypeError(f"expected a name that ends in .keras, got {text!r}")
    return path


def _fuse(source: str, target: pathlib.Path, modules: Sequence[str]) -> None:
    with _telling(f"{target}: cannot be written"):
        destination = _destination(target)
    for module in modules:
        with _telling(f"{module}: cannot be imported"):
            _import(module)
    with _telling(f"{source}: cannot be loaded"):
        model = keras.saving.load_model(source, compile=False)
    with _telling(f"{source}: cannot be fused"):
        result = fuse_batch_norm(model)
    with _telling(f"{target}: cannot be written"):
        _save(result.model, destination)
    _print(result.report)


def _print(report: object) -> None:
    try:
        print(report, flush=True)
    except BrokenPipeError:  # as of `| head`: nobody reads on, also when Python flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Tell any exception as `what` and its reason."""
    try:
        yield
    # Keras checks no file that it loads. A damaged one raises whatever its reader, its code or an allocator
    # meets: RecursionError, AttributeError, IndexError, MemoryError, RuntimeError. A module may exit.
    except (Exception, SystemExit) as error:
        raise UnusableError(f"{what}: {_reason(error)}") from error


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


def _destination(target: pathlib.Path) -> pathlib.Path:
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


def _import(module: str) -> None:
    folder = os.getcwd()
    if folder not in sys.path:  # an installed script has its own folder there
        sys.path.insert(0, folder)
    importlib.import_module(module)


def _save(model: keras.Model, path: pathlib.Path) -> None:
    """Save `model` to `path`, or leave what is there as it was."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # a file of its own would be private
        temporary = pathlib.Path(folder) / path.name
        model.save(temporary)
        os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
