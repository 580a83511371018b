"""python -m keras_dnn_extras: what it prints, writes and returns."""

import io
import json
import os
import subprocess
import sys
import zipfile
import zlib

import keras
import numpy as np
import pytest

from keras_dnn_extras.command_line.commands import main

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


@pytest.mark.parametrize("error", [EOFError, zlib.error, MemoryError, RecursionError, AttributeError])
def test_a_damaged_file_is_an_exit_status_of_2(error, source, tmp_path, capsys, monkeypatch):
    def load(*args, **kwargs):  # as `zipfile` raises, whatever bytes are wrong
        raise error("damaged.\nAnd more.")

    monkeypatch.setattr(keras.saving, "load_model", load)
    assert main(["fuse", str(source), str(tmp_path / "out.keras")]) == 2
    assert capsys.readouterr().err == f"{source}: cannot be loaded: damaged ({error.__name__})\n"


def with_config(source, change):
    """Return the path of a copy of `source` whose config is `change(config)`, or those bytes."""
    path = source.with_name("changed.keras")
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(path, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name == "config.json":
                content = change(json.loads(content)) if callable(change) else change
            after.writestr(name, content)
    return path


def with_layer(name, **settings):
    """Return a function that changes settings of one layer in the config of a model."""

    def change(config):
        (layer,) = (layer for layer in config["config"]["layers"] if layer["config"]["name"] == name)
        if None in settings.values():
            layer["config"] = None
        else:
            layer["config"].update(settings)
        return json.dumps(config)

    return change


DAMAGES = {  # to the config, and what is said of them where that is Python's or Keras's own
    "lists in lists": (b"[" * 200_000 + b"]" * 200_000, "RecursionError"),
    "cut off": (b'{"module": "keras"', "JSONDecodeError"),
    "null": (b"null", "TypeError"),
    "an object of nothing": (b"{}", ""),
    "a layer of nothing": (with_layer("dense", units=None), "Dense"),
    "an axis that is not there": (with_layer("bn", axis=7), "IndexError"),
    "no units": (with_layer("dense", units=-1), "units"),
    "20 TB of units": (with_layer("dense", units=10**12), ""),
    "more units than memory has addresses": (with_layer("dense", units=2**62), ""),
    "more units than an index has digits": (with_layer("dense", units=2**70), ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_config_is_an_exit_status_of_2_and_a_line(damage, source, tmp_path, capsys):
    change, said = DAMAGES[damage]
    path, target = with_config(source, change), tmp_path / "out.keras"
    assert main(["fuse", str(path), str(target)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{path}: cannot be loaded: ")
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 500
    assert not target.exists()


@pytest.mark.parametrize(
    ("suffix", "begin", "length"),
    [(".keras", 0.0, 400), (".keras", 0.5, 50), (".keras", 0.9, 9999), (".h5", 0, 9)],
)
def test_wrong_and_missing_bytes_are_an_exit_status_of_2(suffix, begin, length, source, tmp_path, capsys):
    path, target = source.with_name(f"wrong{suffix}"), tmp_path / "out.keras"
    keras.saving.load_model(source).save(path)
    content = path.read_bytes()
    first = int(begin * len(content))
    rest = content[first + length :]
    path.write_bytes(content[:first] + (b"\xff" * length + rest if rest else b""))
    assert main(["fuse", str(path), str(target)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"{path}: cannot be loaded: ")
    assert printed.count("\n") == 1
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.keras", None, "there is no such file"),
        ("im.keras", None, "there is no such file; is it "),
        ("in.keras", b"", "it is empty"),
        ("in.keras", b"epoch,loss", "it is no model of Keras (.keras or .h5), or not all of one"),
        ("in.weights.h5", b"\x89HDF\r\n\x1a\n and more", "it holds the weights of a model alone"),
        ("in.keras", {"weights.txt": "1"}, "it is an archive, and no model of Keras"),
        ("folder", None, "it is a folder"),
    ],
)
def test_a_file_that_is_no_model_is_named_before_keras_reads_it(
    name, content, said, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(keras.saving, "load_model", unread)
    (tmp_path / "folder").mkdir()
    (tmp_path / "i.keras").write_bytes(b"")
    path = tmp_path / name
    if isinstance(content, dict):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(*content.popitem())
    elif content is not None:
        path.write_bytes(content)
    assert main(["fuse", str(path), str(tmp_path / "out.keras")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"{path}: cannot be loaded: {said}")
    assert printed.count("\n") == 1


def test_fuse_shows_what_it_is_at_on_a_terminal_unless_it_is_to_be_quiet(source, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for options, shown in (([], True), (["--quiet"], False)):
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert main(["fuse", str(source), str(tmp_path / "out.keras"), *options]) == 0
        assert ("folding and comparing" in sys.stderr.getvalue()) is shown


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    model = keras.Sequential([keras.Input((5,)), L.Lambda(lambda x: x + 1), L.BatchNormalization()])
    model.save(tmp_path / "in.keras")
    assert main(["fuse", str(tmp_path / "in.keras"), str(tmp_path / "out.keras")]) == 2
    assert "Lambda" in capsys.readouterr().err
    assert not (tmp_path / "out.keras").exists()


def unread(*args, **kwargs):
    raise AssertionError("the source was read")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none/out.keras", "there is no folder "),
        ("in.keras/out.keras", "there is no folder "),
        ("folder.keras", "it is a folder"),
        ("loose.keras", "there is no folder "),
    ],
)
def test_a_target_that_cannot_be_is_named_before_the_source_is_read(
    name, said, source, tmp_path, capsys, monkeypatch
):
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "loose.keras").symlink_to(tmp_path / "gone" / "out.keras")
    monkeypatch.setattr(keras.saving, "load_model", unread)
    assert main(["fuse", str(source), str(tmp_path / name)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"{tmp_path / name}: cannot be written: {said}")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("protected", ["folder", "file"])
def test_a_target_without_permission_is_named_before_the_source_is_read(
    protected, source, tmp_path, capsys, monkeypatch
):
    target = tmp_path / "out.keras"
    target.write_bytes(b"before")
    refused = tmp_path if protected == "folder" else target
    monkeypatch.setattr(os, "access", lambda path, mode: path != refused)  # the superuser has all of them
    monkeypatch.setattr(keras.saving, "load_model", unread)
    assert main(["fuse", str(source), str(target)]) == 2
    assert capsys.readouterr().err == (
        f"{target}: cannot be written: there is no permission to write to {refused}\n"
    )
    assert target.read_bytes() == b"before"


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_file_that_is_not_written_whole_leaves_the_target_as_it_was(
    error, source, tmp_path, capsys, monkeypatch
):
    def save(self, path):
        path.write_bytes(b"half of a mo")
        raise error

    target = tmp_path / "out.keras"
    target.write_bytes(b"before")
    monkeypatch.setattr(keras.Model, "save", save)
    interrupted = isinstance(error, KeyboardInterrupt)
    assert main(["fuse", str(source), str(target)]) == (130 if interrupted else 2)
    said = f"{target}: cannot be written: No space left on device (OSError)\n"
    assert capsys.readouterr().err == ("" if interrupted else said)
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.keras", "out.keras"]


def test_a_link_stays_one_and_leads_to_the_model(source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "link.keras", tmp_path / "elsewhere" / "out.keras"
    link.symlink_to(target)
    assert main(["fuse", str(source), str(link)]) == 0
    assert link.is_symlink()
    assert len(keras.saving.load_model(target).layers) == 3


MODULE = """
import keras

@keras.saving.register_keras_serializable(package="{0}")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.fixture
def of_own_class(tmp_path, monkeypatch):
    """The folder of a model with a class that the module `doubling` registers, which is not imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    (tmp_path / "doubling.py").write_text(MODULE.format("tests of the command line"))
    registered = dict(keras.saving.get_custom_objects())
    space = {"__name__": "doubling"}
    exec(compile((tmp_path / "doubling.py").read_text(), "doubling.py", "exec"), space)
    stack = [L.Dense(4, name="dense"), L.BatchNormalization(name="bn"), space["Doubled"]()]
    model = keras.Sequential([keras.Input((5,)), *stack])
    model.save(tmp_path / "own.keras")
    model.save(tmp_path / "own.h5")
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(registered)
    yield tmp_path
    sys.modules.pop("doubling", None)
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(registered)


@pytest.mark.parametrize("name", ["own.keras", "own.h5"])
def test_a_class_of_ones_own_is_found_by_importing_its_module(name, of_own_class, capsys):
    assert main(["fuse", name, "out.keras"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{name}: cannot be loaded: ")
    assert "Doubled'; if it is your own, import" in said
    assert "`--import MODULE`" in said
    assert main(["fuse", name, "out.keras", "--import", "json", "--import", "doubling"]) == 0
    x = np.ones((3, 5))
    found, expected = (keras.saving.load_model(n).predict(x, verbose=0) for n in ("out.keras", name))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "content", "said"),
    [
        ("none_of_that_name", None, "No module named 'none_of_that_name'"),
        ("broken_by_syntax", "def", "SyntaxError"),
        ("broken", "raise KeyError('x')", "KeyError"),
        ("ends_the_program", "import sys; sys.exit(0)", "SystemExit"),
        (".relative", None, "TypeError"),
        ("", None, "ValueError"),
        ("own.py", None, "pass the name of the module, own, not its file"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_before_the_source_is_read(
    module, content, said, source, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(keras.saving, "load_model", unread)
    if content is not None:
        (tmp_path / f"{module}.py").write_text(content)
    assert main(["fuse", str(source), str(tmp_path / "out.keras"), "--import", module]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"{module}: cannot be imported: ")
    assert said in printed


def test_an_imported_module_does_not_let_code_in_a_file_run(of_own_class, capsys):
    keras.Sequential([keras.Input((5,)), L.Lambda(lambda x: x + 1)]).save("code.keras")
    assert main(["fuse", "code.keras", "out.keras", "--import", "doubling"]) == 2
    assert "Lambda" in capsys.readouterr().err


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
