"""The commands of `keras-dnn-extras`, and their exit status."""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence

from keras_dnn_extras._version import __version__
from keras_dnn_extras.command_line import fuse, report
from keras_dnn_extras.command_line.problems import UnusableError

SCRIPT, MODULE = "keras-dnn-extras", "keras_dnn_extras"
DONE, UNUSABLE, INTERRUPTED = 0, 2, 130

# A verb is a file. Its `add_parser` sets defaults: `check` raises an `UnusableError` where a file cannot be
# used, `run` works and returns the exit status, and `needs_keras` says whether Keras is imported first.
_VERBS = (fuse, report)

_EPILOG = """examples:
  %(prog)s fuse model.keras fused.keras
  %(prog)s report history.csv report.html --baseline earlier.csv
  %(prog)s report --help

exit status:
  0    done
  1    done, and what was judged has errors (no command of this version judges)
  2    wrong usage, or a file that cannot be used; no file has changed
  130  interrupted by Ctrl-C; no file has changed"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done. 2: a module, or a file, cannot be used, as a sentence on stderr says. 130: interrupted. In the
    last two cases no file has changed.

    Args:
        arguments: those after the name of the program; None: from the command line. Where they are wrong
            the program ends with the exit status 2.
    """
    parsed = parse(arguments)
    return _status(lambda: parsed.check(parsed)) or _status(lambda: parsed.run(parsed))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the settings of a command. End the program where help is asked for, or they are wrong."""
    parser = argparse.ArgumentParser(
        program_name(sys.argv[0]),
        description="Work with models that Keras has saved, and with the logs of their training.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{SCRIPT} {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for verb in _VERBS:
        verb.add_parser(commands)
    return parser.parse_args(arguments)


def check(parsed: argparse.Namespace) -> int:
    """Return the exit status that the files of a command have before any work: 0, or 2 with a sentence."""
    return _status(lambda: parsed.check(parsed))


def program_name(path: str) -> str:
    """Return what users type to run the program at `path`."""
    return SCRIPT if is_script(path) else f"python -m {MODULE}"


def is_script(path: str) -> bool:
    """Return whether `path` is the installed script."""
    return pathlib.PurePath(path).name in (SCRIPT, f"{SCRIPT}.exe", f"{SCRIPT}-script.py")


def _status(work: Callable[[], int | None]) -> int:
    try:
        return work() or DONE
    except UnusableError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED
