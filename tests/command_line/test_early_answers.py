"""What the command answers without importing Keras: help, its version, wrong usage, unusable files."""

import subprocess
import sys

import pytest

import keras_dnn_extras as kdx
from keras_dnn_extras.command_line.commands import main, program_name
from keras_dnn_extras.command_line.early_answers import answer_early, is_command

KERAS = {"keras", "tensorflow", "jax", "torch", "matplotlib"}


@pytest.mark.parametrize(
    ("arguments", "status", "printed"),
    [
        (["--version"], 0, f"keras-dnn-extras {kdx.__version__}\n"),
        (["fuse", "gone.keras", "out.keras"], 2, "gone.keras: cannot be loaded: there is no such file"),
    ],
)
def test_no_keras_is_imported_for_an_answer_that_needs_none(arguments, status, printed, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "keras_dnn_extras", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == status
    assert printed in done.stdout + done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "keras_dnn_extras.command_line.commands" in imported
    assert imported & KERAS == set()


@pytest.mark.parametrize(
    ("arguments", "of_python", "answer"),
    [
        (["-m", "--help"], ["python", "-m", "keras_dnn_extras", "--help"], True),
        (["-m"], ["python", "-X", "dev", "-m", "keras_dnn_extras"], True),
        (["-m"], ["python", "-m", "pytest", "-m", "keras_dnn_extras"], False),
        (["train.py", "-m", "keras_dnn_extras"], ["python", "train.py", "-m", "keras_dnn_extras"], False),
        (["/usr/bin/keras-dnn-extras", "fuse"], ["python", "/usr/bin/keras-dnn-extras", "fuse"], True),
        (["keras-dnn-extras.py"], ["python", "keras-dnn-extras.py"], False),
        ([""], ["python"], False),
        ([], ["python"], False),
        (["-c"], ["python", "-c", "import keras_dnn_extras"], False),
    ],
)
def test_other_programs_that_import_the_package_are_let_alone(arguments, of_python, answer):
    assert is_command(arguments, of_python) is answer


def test_a_program_without_a_command_line_is_let_alone(monkeypatch):
    monkeypatch.delattr(sys, "argv")  # as where Python is built into another program
    before = sys.excepthook
    answer_early()
    assert sys.excepthook is before


def test_help_teaches(capsys):
    for arguments, words in (
        (["--help"], ["fuse", "report", "examples:", "exit status:", "130"]),
        (["fuse", "--help"], ["--import MODULE", "--quiet", "examples:", "not for training"]),
        (
            ["report", "--help"],
            ["--baseline OTHER.csv", "--title", "examples:", "CSVLogger", "exit status"],
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert [word for word in words if word not in printed] == []
        assert "%(prog)s" not in printed
        assert max(map(len, printed.splitlines())) <= 108


def test_the_program_is_called_as_users_call_it():
    assert program_name("/home/me/.venv/bin/keras-dnn-extras") == "keras-dnn-extras"
    assert program_name("-m") == "python -m keras_dnn_extras"
    assert program_name("/usr/lib/keras_dnn_extras/__main__.py") == "python -m keras_dnn_extras"


def test_the_installed_script_is_the_command():
    import importlib.metadata
    import pathlib
    import tomllib

    settings = tomllib.loads((pathlib.Path(kdx.__file__).parents[1] / "pyproject.toml").read_text())
    entry = importlib.metadata.EntryPoint(
        "keras-dnn-extras", settings["project"]["scripts"]["keras-dnn-extras"], "console_scripts"
    )
    assert entry.load() is main
