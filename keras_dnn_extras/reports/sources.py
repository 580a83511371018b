"""What a report tells of, checked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_dnn_extras.reports.run_history import RunHistory, read_history

_FIELDS_OF_PREDICTION = ("mean", "variance", "num_samples", "predictive_entropy", "mutual_information")


@dataclass(frozen=True)
class Sources:
    """What a report tells of. All but `run` may be None.

    Attributes:
        run, baseline: the logs of this training and of the one to compare it with.
        model, monitor, scheduler, prediction, y_true, diagnosis: as of `training_report`.
    """

    run: RunHistory
    baseline: RunHistory | None = None
    model: Any = None
    monitor: Any = None
    scheduler: Any = None
    prediction: Any = None
    y_true: Any = None
    diagnosis: Any = None

    def layer_order(self) -> list[str] | None:
        """Return the paths of the model's layers, or None without a model."""
        if self.model is None:
            return None
        from keras_dnn_extras._models import layers_by_path

        return list(layers_by_path(self.model))


def checked_sources(history: Any, baseline: Any, **parts: Any) -> Sources:
    """Read the logs and check the types of `parts`, by the names of the attributes of `Sources`."""
    _check_model(parts["model"])
    _check_callback("monitor", parts["monitor"], "a `GradientNormMonitor`", ("findings",))
    _check_callback("scheduler", parts["scheduler"], "a learning-rate callback of keras_dnn_extras", ())
    _check_prediction(parts["prediction"], parts["y_true"])
    _check_diagnosis(parts["diagnosis"])
    run = read_history("history", history)
    return Sources(run, None if baseline is None else read_history("baseline", baseline), **parts)


def _check_model(model: Any) -> None:
    if model is not None:
        from keras_dnn_extras._models import check_model

        check_model("model", model)


def _check_callback(name: str, callback: Any, expected: str, attributes: tuple[str, ...]) -> None:
    if callback is None:
        return
    # A `History` has a dict of this kind too, one value per epoch.
    is_callback = isinstance(getattr(callback, "history", None), Mapping) and not hasattr(callback, "epoch")
    if not is_callback or not all(hasattr(callback, attribute) for attribute in attributes):
        raise TypeError(f"Expected `{name}` to be {expected} that `fit` had. Received: {name}={callback!r}")


def _check_prediction(prediction: Any, y_true: Any) -> None:
    if prediction is None and y_true is not None:
        raise ValueError(
            "`y_true` are the labels of `prediction`. Pass both, or none. Received: prediction=None"
        )
    if prediction is not None and not all(hasattr(prediction, name) for name in _FIELDS_OF_PREDICTION):
        raise TypeError(
            "Expected `prediction` to be an `MCPrediction` as `mc_predict` returns it. "
            f"Received: prediction={prediction!r}"
        )


def _check_diagnosis(diagnosis: Any) -> None:
    if diagnosis is None:
        return
    fields = ("rule", "severity", "layer", "message", "remedy")
    is_sequence = isinstance(diagnosis, Iterable) and not isinstance(diagnosis, (str, bytes, Mapping))
    if not is_sequence or not all(hasattr(finding, field) for finding in diagnosis for field in fields):
        raise TypeError(
            f"Expected `diagnosis` to be a sequence of findings with {', '.join(map(repr, fields))}. "
            f"Received: diagnosis={diagnosis!r}"
        )
