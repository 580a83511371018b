"""What is read from a History, a dict and a file of CSVLogger: which value belongs to which epoch."""

import keras
import numpy as np
import pytest

from keras_dnn_extras.reports.csv_history import read_csv
from keras_dnn_extras.reports.epoch_numbers import number_epochs
from keras_dnn_extras.reports.run_history import read_history

NAN = float("nan")


def read(history):
    return read_history("history", history)


def values(run, name):
    return dict(zip(run.series[name].epochs.tolist(), run.series[name].values.tolist(), strict=True))


def logged(path, fits, **settings):
    """Return `path` after `CSVLogger` has written `fits`: lists of the logs by their epochs."""
    for fit in fits:
        logger = keras.callbacks.CSVLogger(path, **settings)
        logger.set_model(keras.Sequential())
        logger.on_train_begin()
        for epoch, logs in fit.items():
            logger.on_epoch_end(epoch, logs)
        logger.on_train_end()
    return path


def test_a_history_has_the_epochs_of_its_fit():
    history = keras.callbacks.History()
    history.epoch, history.history = [5, 6], {"loss": [1.0, np.float32(0.5)]}
    assert values(read(history), "loss") == {6: 1.0, 7: 0.5}
    assert read(history).epochs == 7


def test_a_dict_begins_with_epoch_1_and_takes_numbers_of_any_kind():
    run = read({"loss": (1, np.float16(0.5), np.array(0.25)), "acc": np.array([0.1, 0.2, 0.3], "float32")})
    assert values(run, "loss") == {1: 1.0, 2: 0.5, 3: 0.25}
    assert values(run, "acc") == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3})


def test_a_file_of_csv_logger_equals_the_history(tmp_path):
    fit = {epoch: {"loss": 1 / (epoch + 1), "gradient_norm/dense": NAN} for epoch in range(3)}
    run = read(logged(tmp_path / "h.csv", [fit]))
    assert values(run, "loss") == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}
    assert list(run.series["gradient_norm/dense"].epochs) == [1, 2, 3]  # NaN is a value
    assert np.isnan(run.series["gradient_norm/dense"].values).all()
    assert (run.name, run.notes, run.later_fits) == ("h.csv", (), ())


def test_what_a_file_does_not_have_is_no_value(tmp_path):
    fit = {0: {"loss": 1.0, "val_loss": 2.0}, 1: {"loss": 0.5}}  # CSVLogger writes NA
    run = read(logged(tmp_path / "h.csv", [fit]))
    assert values(run, "val_loss") == {1: 2.0}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_separator_of_csv_logger_is_read(separator, tmp_path):
    path = logged(tmp_path / "h.csv", [{0: {"loss": 1.5, "a": 2.5}}], separator=separator)
    assert values(read(str(path)), "a") == {1: 2.5}


def test_a_second_fit_in_a_file_goes_on_counting(tmp_path):
    fits = [{0: {"loss": 5.0}, 1: {"loss": 4.0}}, {0: {"loss": 3.0}, 1: {"loss": 2.0}}]
    run = read(logged(tmp_path / "h.csv", fits, append=True))
    assert values(run, "loss") == {1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0}
    assert run.later_fits == (3,)
    assert "2 fits" in run.notes[0]


def test_a_resumed_fit_replaces_the_epochs_that_it_trains_again(tmp_path):
    fits = [{0: {"loss": 5.0}, 1: {"loss": 4.0}, 2: {"loss": 9.0}}, {2: {"loss": 3.0}, 3: {"loss": 2.0}}]
    run = read(logged(tmp_path / "h.csv", fits, append=True))
    assert values(run, "loss") == {1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0}
    assert run.later_fits == ()
    assert "1 epoch trained again" in run.notes[0]


@pytest.mark.parametrize(
    ("epochs", "numbers", "rows", "later"),
    [
        ([0, 1, 2], [1, 2, 3], [0, 1, 2], ()),
        ([4, 5, 4, 5], [5, 6, 7, 8], [0, 1, 2, 3], (7,)),
        ([0, 1, 0, 1, 2, 1], [1, 2, 3, 4, 5, 4], [0, 1, 2, 5], (3,)),
        ([0, 0, 0], [1, 2, 3], [0, 1, 2], (2, 3)),
        ([0, None, 1], [1, 2, 3], [0, 1, 2], ()),
        ([0.5, 1.0, 2.0], [1, 2, 3], [0, 1, 2], ()),
        ([0, NAN, 1], [1, 2, 3], [0, 1, 2], ()),
        ([0, 1], [1, 2, 3], [0, 1, 2], ()),
        (None, [1, 2, 3], [0, 1, 2], ()),
    ],
)
def test_epochs_are_numbered_from_1_over_all_fits(epochs, numbers, rows, later):
    numbering = number_epochs(epochs, len(numbers))
    assert numbering.epochs.tolist() == numbers
    assert numbering.rows.tolist() == rows
    assert numbering.later_fits == later


def test_a_history_of_validation_freq_has_its_values_where_they_were_measured():
    run = read({"loss": [5.0, 4.0, 3.0, 2.0, 1.0], "val_loss": [40.0, 20.0]})
    assert values(run, "val_loss") == {2: 40.0, 4: 20.0}
    assert "`val_loss`: 2 values for 5 epochs" in run.notes[0]
    assert "validation_freq=2" in run.notes[0]


def test_fewer_values_of_another_kind_begin_with_the_first_epoch():
    run = read({"loss": [4.0, 3.0, 2.0], "val_loss": [9.0, 8.0], "stage": [1.0]})
    assert values(run, "val_loss") == {1: 9.0, 2: 8.0}  # no `validation_freq` gives 2 of 3
    assert values(run, "stage") == {1: 1.0}
    assert len(run.notes) == 2


def test_what_is_no_number_is_left_out_and_named(tmp_path):
    (tmp_path / "h.csv").write_text('epoch,loss,note,f1\n0,1.0,good,"[0.1, 0.2]"\n1,0.5,bad,"[0.1, 0.2]"\n')
    run = read(tmp_path / "h.csv")
    assert list(run.series) == ["loss"]
    assert run.notes == ("`note`, `f1`: no numbers, left out.",)
    assert list(read({"loss": [1.0], "f1": [np.ones(3)], "late": []}).series) == ["loss"]


def test_one_column_may_have_numbers_and_text(tmp_path):
    (tmp_path / "h.csv").write_text("epoch,loss\n0,1.0\n1,oops\n2,0.25\n")
    assert values(read(tmp_path / "h.csv"), "loss") == {1: 1.0, 3: 0.25}


def test_joined_files_are_read_by_their_own_headings(tmp_path):
    (tmp_path / "h.csv").write_text("epoch,loss,a\n0,1.0,7\nepoch,a,loss,b\n0,8,0.5,9\n")
    run = read(tmp_path / "h.csv")
    assert values(run, "loss") == {1: 1.0, 2: 0.5}
    assert values(run, "a") == {1: 7.0, 2: 8.0}
    assert values(run, "b") == {2: 9.0}


def test_a_file_that_was_cut_off_and_one_of_pandas_are_read(tmp_path):
    (tmp_path / "h.csv").write_text(",loss,val_loss\n0,1.0,2.0\n1,0.5")
    run = read(tmp_path / "h.csv")
    assert values(run, "loss") == {1: 1.0, 2: 0.5}
    assert values(run, "val_loss") == {1: 2.0}


def test_cells_beyond_the_heading_are_told(tmp_path):
    (tmp_path / "h.csv").write_text("epoch,loss\n0,1.0,3,4\n1,0.5\n")
    columns, notes = read_csv("history", tmp_path / "h.csv")
    assert columns == {"epoch": ["0", "1"], "loss": ["1.0", "0.5"]}
    assert notes == ["1 row longer than the heading: cells beyond it are left out."]


@pytest.mark.parametrize("content", [b"", b"epoch,loss\n", b"\n\n", b"epoch,loss\n0,NA\n"])
def test_a_file_without_a_number_is_refused(content, tmp_path):
    (tmp_path / "h.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"no epoch in `history`.*Received: history="):
        read(tmp_path / "h.csv")


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\xff\xfe", b"\xff" * 50, b'a,b\n"' + b"x" * 200_000]
)
def test_a_file_that_is_no_text_is_refused(content, tmp_path):
    (tmp_path / "h.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"a text file as `keras\.callbacks.CSVLogger` writes it"):
        read(tmp_path / "h.csv")


@pytest.mark.parametrize(
    "history", [{}, {"loss": []}, {"loss": "none"}, {"loss": 0.5}, keras.callbacks.History()]
)
def test_logs_without_a_number_are_refused(history):
    if isinstance(history, keras.callbacks.History):
        history.epoch = []
    with pytest.raises(ValueError, match="no epoch in `history`"):
        read(history)


@pytest.mark.parametrize("history", [None, 3, [1.0], keras.callbacks.EarlyStopping()])
def test_other_types_are_refused(history):
    with pytest.raises(
        TypeError, match=r"Expected `baseline` to be a Keras `History`.*Received: baseline="
    ):
        read_history("baseline", history)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        read(tmp_path / "gone.csv")


def test_the_best_epoch_is_that_of_a_finite_value():
    series = read({"loss": [3.0, NAN, 1.0, -float("inf"), 2.0, float("inf")]}).series["loss"]
    assert series.best() == (3, 1.0)
    assert series.best(highest=True) == (1, 3.0)
    assert read({"loss": [NAN]}).series["loss"].best() is None


def test_empty_lines_before_the_heading_are_skipped(tmp_path):
    (tmp_path / "h.csv").write_text("\n\nepoch;loss\n0;1\n")
    assert values(read(tmp_path / "h.csv"), "loss") == {1: 1.0}


def test_a_file_without_a_heading_is_refused(tmp_path):
    (tmp_path / "h.csv").write_text("0,1.5,2\n1,1.2,3\n")
    with pytest.raises(ValueError, match=r"names in its first line.*which begins with \['0', '1.5', '2'\]"):
        read(tmp_path / "h.csv")


def test_names_that_utf_8_does_not_have_are_escaped():
    assert list(read({"a\udcff": [1]}).series) == ["a\\udcff"]
