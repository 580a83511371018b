"""What is shown while the command works, and that files and terminals without a reader get none of it."""

import io
import sys

import pytest

from keras_dnn_extras.command_line import progress as module
from keras_dnn_extras.command_line.progress import announce, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_the_work_and_is_clean_afterwards(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(KeyboardInterrupt), progress("folding", quiet=False):
        raise KeyboardInterrupt
    assert "folding ..." in sys.stderr.getvalue()
    assert sys.stderr.getvalue().endswith("\r\x1b[K")


def test_long_work_tells_its_seconds(monkeypatch):
    clock = iter([0.0, 0.5, 61.0])
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    waits = iter([False, True])

    class Done:
        def wait(self, seconds):
            return next(waits)

    module._show_seconds("folding", Done())
    assert sys.stderr.getvalue() == "\r\x1b[Kfolding ...\r\x1b[Kfolding ... 61 s"


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO, False), (Terminal, True)])
def test_nothing_is_shown_where_nobody_reads_it(stream, quiet, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    announce("importing Keras", quiet=quiet)
    with progress("folding", quiet=quiet):
        pass
    assert sys.stderr.getvalue() == ""
