"""keras-dnn-extras report: what it writes, and which file it blames."""

import io
import os
import subprocess
import sys

import pytest

from keras_dnn_extras.command_line.commands import main

pytest.importorskip("matplotlib")

LOGS = "epoch,loss,val_loss\n0,2.0,3.0\n1,1.0,2.5\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "history.csv").write_text(LOGS)
    (tmp_path / "earlier.csv").write_text("epoch,loss,val_loss\n0,4.0,5.0\n")
    return tmp_path


def test_report_writes_the_page_and_says_where(folder, capsys):
    arguments = ["--baseline", "earlier.csv", "--title", "A <wider> net"]
    assert main(["report", "history.csv", "report.html", *arguments]) == 0
    assert capsys.readouterr().out == "report.html: written\n"
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<title>A &lt;wider&gt; net</title>" in text
    assert "Comparison with the baseline" in text
    assert "2 of 2" in text


def test_report_writes_a_picture_by_the_suffix(folder):
    assert main(["report", "history.csv", "report.png"]) == 0
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["histori.csv", "r.html"],
            "histori.csv: cannot be read: there is no such file; is it history.csv?",
        ),
        (["gone/h.csv", "r.html"], "gone/h.csv: cannot be read: there is no such file, and no folder gone"),
        (["folder.html", "r.html"], "folder.html: cannot be read: it is a folder"),
        (["empty.csv", "r.html"], "empty.csv: cannot be read: it is empty"),
        (["binary.csv", "r.html"], "binary.csv: cannot be read: Expected `history` to be a text file"),
        (["header.csv", "r.html"], "header.csv: cannot be read: There is no epoch in `history`"),
        (["history.csv", "gone/r.html"], "gone/r.html: cannot be written: there is no folder "),
        (["history.csv", "folder.html"], "folder.html: cannot be written: it is a folder"),
        (["history.csv", "link.html"], "link.html: cannot be written: it is the file that is to be read"),
        (
            ["history.csv", "r.html", "--baseline", "no.csv"],
            "no.csv: cannot be read: there is no such file",
        ),
        (
            ["history.csv", "r.html", "--baseline", "header.csv"],
            "header.csv: cannot be read: There is no ep",
        ),
    ],
)
def test_the_file_that_cannot_be_used_is_named(arguments, said, folder, capsys):
    (folder / "folder.html").mkdir()
    (folder / "empty.csv").write_bytes(b"")
    (folder / "binary.csv").write_bytes(b"\xff\x00\x01" * 9)
    (folder / "header.csv").write_text("epoch,loss\n")
    (folder / "link.html").symlink_to(folder / "history.csv")
    assert main(["report", *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(said)
    assert printed.count("\n") == 1
    assert (folder / "history.csv").read_text() == LOGS
    assert not (folder / "r.html").exists()


def test_a_file_that_may_not_be_read_is_named(folder, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)  # the superuser may read all
    assert main(["report", "history.csv", "r.html"]) == 2
    assert "history.csv: cannot be read: there is no permission" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["report.pdf", "report", "history.csv"])
def test_another_suffix_is_wrong_usage(target, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", "history.csv", target])
    assert ended.value.code == 2
    assert "expected a name that ends in .html or .htm or .png" in capsys.readouterr().err


def test_without_matplotlib_it_is_said_how_to_install_it(folder, capsys, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._plotting.find_spec", lambda name: None)
    assert main(["report", "history.csv", "r.html"]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_a_report_needs_no_keras(folder):
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "keras_dnn_extras",
        "report",
        "history.csv",
        "r.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "matplotlib.figure" in imported
    assert imported & {"keras", "tensorflow", "jax", "torch"} == set()
    assert (folder / "r.html").exists()


def test_nobody_has_to_read_what_is_printed(folder):
    command = [sys.executable, "-m", "keras_dnn_extras", "report", "history.csv", "r.html"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # as `| head` does
        assert (process.stderr.read(), process.wait()) == ("", 0)
    assert (folder / "r.html").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_refused_as_one(folder, capsys):
    os.mkfifo(folder / "pipe.csv")
    assert main(["report", "pipe.csv", "r.html"]) == 2
    assert capsys.readouterr().err.startswith("pipe.csv: cannot be read: it is a pipe")


def test_what_the_terminal_cannot_show_is_escaped(folder, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["report", "history.csv", "\xfc.html"]) == 0
    assert stream.buffer.getvalue().split() == [rb"\xfc.html:", b"written"]
