"""Files that are written whole or not at all."""

import pytest

from keras_dnn_extras._replacing import replacing


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_after_an_error_what_was_there_stays(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def write_half():
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    with replacing(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "a.txt").read_text() == "new"
