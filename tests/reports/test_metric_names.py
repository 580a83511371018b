"""What the names in logs stand for."""

import pytest

from keras_dnn_extras.reports.metric_names import (
    higher_is_better,
    learning_rate_of,
    metric_names,
    of_layers,
)
from keras_dnn_extras.reports.run_history import read_history


def run(*names):
    return read_history("history", {name: [1.0] for name in names})


def test_the_loss_comes_first_then_those_of_outputs_and_a_validation_metric_counts_once():
    names = [
        "accuracy",
        "a_loss",
        "val_accuracy",
        "val_only",
        "learning_rate",
        "momentum",
        "loss",
        "val_loss",
    ]
    names += ["gradient_norm", "gradient_norm_max", "clipped_fraction", "gradient_norm/a", "update_ratio/a"]
    assert metric_names(run(*names)) == ["loss", "a_loss", "accuracy", "only"]


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("loss", False),
        ("val_head_loss", False),
        ("mean_squared_error", False),
        ("BinaryCrossentropy", False),
        ("false_positives", False),
        ("accuracy", True),
        ("val_sparse_categorical_accuracy", True),
        ("AUC", True),
        ("auc_1", True),
        ("f1_score", True),
        ("r2_score", True),
        ("backbone", None),  # "acc" is in no part of it
        ("fraction", None),
        ("stage", None),
    ],
)
def test_a_name_tells_which_values_are_better(name, higher):
    assert higher_is_better(name) is higher


def test_layers_of_a_file_are_in_the_order_of_their_numbers(tmp_path):
    names = ["gradient_norm/dense_10", "gradient_norm/conv", "gradient_norm/dense_2", "gradient_norm/dense"]
    (tmp_path / "h.csv").write_text(f"epoch,{','.join(names)}\n0,1,2,3,4\n")
    of_file = read_history("history", tmp_path / "h.csv")
    assert list(of_layers(of_file, "gradient_norm/")) == ["conv", "dense", "dense_2", "dense_10"]
    assert list(of_layers(run(*names), "gradient_norm/")) == ["dense_10", "conv", "dense_2", "dense"]
    order = ["dense_2", "other", "dense", "dense_10"]
    assert list(of_layers(of_file, "gradient_norm/", order)) == ["dense_2", "dense", "dense_10", "conv"]


def test_the_rate_of_keras_2_is_a_learning_rate():
    assert learning_rate_of(run("loss", "lr")).values.tolist() == [1.0]
    assert learning_rate_of(run("loss")) is None
