"""The commands of `python -m keras_dnn_extras`, and their exit status."""

import argparse
import sys
from collections.abc import Sequence

from keras_dnn_extras.command_line import fuse
from keras_dnn_extras.command_line.problems import UnusableError

DONE, UNUSABLE, INTERRUPTED = 0, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done. 2: a module, or a file, cannot be used, as a sentence on stderr says. 130: interrupted. In the
    last two cases no file has changed.

    Args:
        arguments: those after the name of the program; None: from the command line. Where they are wrong
            the program ends with the exit status 2.
    """
    parser = argparse.ArgumentParser("python -m keras_dnn_extras", description="The command line.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    fuse.add_parser(commands)
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except UnusableError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE
