"""python -m keras_dnn_extras: what it prints, writes and returns."""

import subprocess
import sys
import zlib

import keras
import numpy as np
import pytest

from keras_dnn_extras.__main__ import main

L = keras.layers


@pytest.fixture
def source(tmp_path):
    stack = [
        L.Dense(4, name="dense"),
        L.BatchNormalization(name="bn"),
        L.ReLU(),
        L.Dropout(0.5, name="drop"),
    ]
    model = keras.Sequential([keras.Input((5,)), *stack, L.Dense(2, name="last")])
    model.compile("sgd", loss="mse")
    model.save(tmp_path / "in.keras")
    return tmp_path / "in.keras"


def test_fuse_writes_the_model_and_prints_the_report(source, tmp_path, capsys):
    target = tmp_path / "out.keras"
    assert main(["fuse", str(source), str(target)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["bn", "backward", "into", "dense"]
    assert printed[1].split() == ["drop", "removed"]
    x = np.ones((3, 5))
    found, expected = (keras.saving.load_model(path).predict(x, verbose=0) for path in (target, source))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.keras", "out.keras"]
    assert target.stat().st_mode == source.stat().st_mode  # not a temporary file's, for one user alone


def test_a_file_may_take_its_own_place(source, capsys):
    assert main(["fuse", str(source), str(source)]) == 0
    assert len(keras.saving.load_model(source).layers) == 3
    assert main(["fuse", str(source), str(source)]) == 0
    assert "0 of 0 batch normalizations" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"no model", b"PK\x03\x04 cut off"])
def test_a_file_that_cannot_be_read_is_an_exit_status_of_2(content, tmp_path, capsys):
    source, target = tmp_path / "in.keras", tmp_path / "out.keras"
    target.write_bytes(b"before")
    if content is not None:
        source.write_bytes(content)
    assert main(["fuse", str(source), str(target)]) == 2
    assert "in.keras" in capsys.readouterr().err
    assert target.read_bytes() == b"before"


@pytest.mark.parametrize("error", [EOFError, zlib.error])
def test_a_damaged_file_is_an_exit_status_of_2(error, source, tmp_path, capsys, monkeypatch):
    def load(*args, **kwargs):  # as `zipfile` raises, whatever bytes are wrong
        raise error("damaged")

    monkeypatch.setattr(keras.saving, "load_model", load)
    assert main(["fuse", str(source), str(tmp_path / "out.keras")]) == 2
    assert "in.keras: damaged" in capsys.readouterr().err


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    model = keras.Sequential([keras.Input((5,)), L.Lambda(lambda x: x + 1), L.BatchNormalization()])
    model.save(tmp_path / "in.keras")
    assert main(["fuse", str(tmp_path / "in.keras"), str(tmp_path / "out.keras")]) == 2
    assert "Lambda" in capsys.readouterr().err
    assert not (tmp_path / "out.keras").exists()


def test_a_folder_that_is_not_there_is_an_exit_status_of_2(source, tmp_path, capsys):
    assert main(["fuse", str(source), str(tmp_path / "none" / "out.keras")]) == 2
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["fuse"], ["fuse", "in.keras"], ["fuse", "a.keras", "b.txt"], ["other"]]
)
def test_wrong_usage_is_an_exit_status_of_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m keras_dnn_extras" in capsys.readouterr().err


def test_it_runs_as_a_module(source, tmp_path):
    command = [sys.executable, "-m", "keras_dnn_extras", "fuse", str(source), str(tmp_path / "out.keras")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "1 of 1 batch normalizations folded" in done.stdout
