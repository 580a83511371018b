"""What the command answers before Keras is imported, which takes seconds."""

import sys
from types import TracebackType

from keras_dnn_extras.command_line.commands import MODULE, check, is_script, main, parse
from keras_dnn_extras.command_line.progress import announce


def answer_early() -> None:
    """End a process that is the command, where it needs no Keras: for help, unusable files and reports.

    The package calls this before it imports anything else. In all other processes it does nothing.
    """
    arguments = getattr(sys, "argv", [])  # there is none where Python is built into another program
    if not is_command(arguments, sys.orig_argv):
        return
    parsed = parse(arguments[1:])
    if not parsed.needs_keras:
        sys.exit(main(arguments[1:]))
    status = check(parsed)
    if status:
        sys.exit(status)
    sys.excepthook = _without_traceback
    announce("importing Keras", quiet=parsed.quiet)


def is_command(arguments: list[str], of_python: list[str]) -> bool:
    """Return whether the process is the command.

    Args:
        arguments, of_python: as `sys.argv` and `sys.orig_argv` are while the package is imported. Python
            has `-m` in place of the file as long as it looks for the module that is to be run.
    """
    if arguments[:1] != ["-m"]:
        return bool(arguments) and is_script(arguments[0])
    place = of_python.index("-m") if "-m" in of_python else len(of_python)
    return of_python[place + 1 : place + 2] == [MODULE]


def _without_traceback(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Report an error that nobody has caught, except Ctrl-C."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
