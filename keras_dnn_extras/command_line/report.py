"""The command `report`: a page that tells how a training went."""

import argparse
import os
from typing import Any

from keras_dnn_extras.command_line.files import check_readable, destination, page_path
from keras_dnn_extras.command_line.output import show
from keras_dnn_extras.command_line.problems import UnusableError, reported_as

_DESCRIPTION = """Write one page that tells how a training went, from the file of `CSVLogger`.

The page shows the best epoch, loss and metrics, learning rate and momentum, and, where
`GradientNormMonitor` was in `callbacks`, the gradients of each layer. It needs no network and no
script: mail it, print it, or keep it with the model."""

_EPILOG = """examples:
  %(prog)s history.csv report.html
  %(prog)s history.csv report.html --baseline earlier.csv --title "Wider layers"
  %(prog)s history.csv report.png                      all plots as one picture

to get HISTORY.csv, train with
  model.fit(..., callbacks=[GradientNormMonitor(), keras.callbacks.CSVLogger("history.csv")])

exit status: 0 written, 2 wrong usage or a file that cannot be used, 130 interrupted.
OUT.html is written whole or not at all."""


def add_parser(commands: Any) -> None:
    """Add the command and its arguments to the parsers of `commands`."""
    parser = commands.add_parser(
        "report",
        help="write a page that tells how a training went",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("history", metavar="HISTORY.csv", help="what `keras.callbacks.CSVLogger` wrote")
    parser.add_argument(
        "target", metavar="OUT.html", type=page_path, help="where the page goes; OUT.png: a picture"
    )
    parser.add_argument("--baseline", metavar="OTHER.csv", help="another training to compare with")
    parser.add_argument("--title", help="of the page; by default the name of HISTORY.csv")
    parser.set_defaults(check=check, run=run, needs_keras=False)


def check(arguments: argparse.Namespace) -> None:
    """Raise where a file cannot be used."""
    with reported_as(f"{arguments.target}: cannot be written"):
        target = destination(arguments.target)
    for source in _sources(arguments).values():
        with reported_as(f"{source}: cannot be read"):
            check_readable(source)
        with reported_as(f"{arguments.target}: cannot be written"):
            _refuse_same(source, str(target))


def _refuse_same(source: str, target: str) -> None:
    if os.path.exists(target) and os.path.samefile(source, target):
        raise UnusableError(f"it is the file that is to be read, {source}")


def run(arguments: argparse.Namespace) -> int:
    """Write the page, and print where."""
    from keras_dnn_extras.reports import read_history, training_report

    for name, source in _sources(arguments).items():
        with reported_as(f"{source}: cannot be read"):
            read_history(name, source)
    with reported_as(f"{arguments.target}: cannot be written", (OSError, ImportError)):
        training_report(
            arguments.history, arguments.target, baseline=arguments.baseline, title=arguments.title
        )
    show(f"{arguments.target}: written")
    return 0


def _sources(arguments: argparse.Namespace) -> dict[str, str]:
    sources = {"history": arguments.history, "baseline": arguments.baseline}
    return {name: source for name, source in sources.items() if source is not None}
