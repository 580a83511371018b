"""One page that tells how a training went."""

import datetime
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._plotting import check_matplotlib
from keras_dnn_extras._replacing import replacing
from keras_dnn_extras._version import __version__
from keras_dnn_extras.reports.blocks import LeftOut, Report, Section
from keras_dnn_extras.reports.comparison_section import comparison_section
from keras_dnn_extras.reports.curve_sections import metrics_section, rate_section
from keras_dnn_extras.reports.files import checked_path
from keras_dnn_extras.reports.findings_section import diagnosis_section, findings_section
from keras_dnn_extras.reports.gradient_sections import clipping_section, gradient_section
from keras_dnn_extras.reports.html import html_page
from keras_dnn_extras.reports.image import png_image
from keras_dnn_extras.reports.sources import Sources, checked_sources
from keras_dnn_extras.reports.summary_section import summary_section
from keras_dnn_extras.reports.uncertainty_section import uncertainty_section
from keras_dnn_extras.reports.wording import writable

if TYPE_CHECKING:  # a report from a file needs no Keras
    import os
    from collections.abc import Iterable, Mapping, Sequence

    import keras

    from keras_dnn_extras.gradients import GradientNormMonitor
    from keras_dnn_extras.uncertainty import MCPrediction

    Logs: TypeAlias = "keras.callbacks.History | Mapping[str, Sequence[float]] | str | os.PathLike[str]"

_SECTIONS: tuple[Callable[[Sources], Section | LeftOut], ...] = (
    summary_section,
    metrics_section,
    rate_section,
    gradient_section,
    clipping_section,
    uncertainty_section,
    findings_section,
    comparison_section,
    diagnosis_section,
)


def training_report(
    history: "Logs",
    path: "str | os.PathLike[str]",
    *,
    model: "keras.Model | None" = None,
    monitor: "GradientNormMonitor | None" = None,
    scheduler: "keras.callbacks.Callback | None" = None,
    prediction: "MCPrediction | None" = None,
    y_true: Any = None,
    diagnosis: "Iterable[Any] | None" = None,
    baseline: "Logs | None" = None,
    title: str | None = None,
) -> pathlib.Path:
    """Write one page that tells how a training went.

    The page stands alone: it loads nothing and runs no script, so that it can be mailed, printed, or kept
    with the model. It shows the best epoch and the last values, loss and metrics, learning rate and
    momentum, gradients layer by layer, the share of clipped updates, uncertainty and calibration, what the
    gradient monitor and the diagnosis have found, and the difference from a baseline. Sections without
    data are left out, and the last lines of the page say why.

    Args:
        history: what `fit` returned, its dict of lists with one value per epoch, or the path of a file that
            `keras.callbacks.CSVLogger` wrote. A file that several fits were appended to is numbered as one.
        path: where the page goes. With the suffix `.png` it is a picture of all plots instead.
        model: the Keras model, or None. It tells its size, and the order of its layers.
        monitor: the `GradientNormMonitor` that `fit` had, or None. It adds its findings, and the norms of
            each update. The logs have their means over each epoch, which is what is shown without it.
        scheduler: the `OneCycleScheduler` or other learning-rate callback that `fit` had, or None. It adds
            the values of each update.
        prediction: an `MCPrediction` of `mc_predict`, or None.
        y_true: labels of the rows of `prediction`, in the structure of the outputs, or None: integers of
            shape `(n,)` for classes, else numbers in the shape of the predictions.
        diagnosis: a sequence of findings with `rule`, `severity`, `layer`, `message` and `remedy`, or None.
        baseline: another training to compare with, in any form that `history` has, or None.
        title: string, or None for one by the model or the file.

    Returns:
        The path of the file, a `pathlib.Path`.

    Raises:
        ValueError: `history` has no epoch with a number, the suffix of `path` is another one, a file is no
            text, or `y_true` does not fit `prediction`. No file has changed.
        TypeError: an argument is of the wrong type.
        OSError: a file cannot be read, or the folder of `path` is missing.
        ImportError: matplotlib is not installed.

    Example:

    >>> import pathlib, tempfile
    >>> logs = {"loss": [1.0, 0.5, 0.4], "val_loss": [1.1, 0.7, 0.8], "learning_rate": [0.1, 0.1, 0.01]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = training_report(logs, pathlib.Path(folder) / "report.html", title="Three epochs")
    ...     "Best epoch" in page.read_text(encoding="utf-8")
    True

    Reference:
        Mitchell et al., Model Cards for Model Reporting, 2019 (https://arxiv.org/abs/1810.03993).
    """
    target = checked_path(path)
    check_matplotlib("training_report")
    if title is not None and not isinstance(title, str):
        raise TypeError(f"Expected `title` to be a string. Received: title={title!r}")
    sources = checked_sources(
        history,
        baseline,
        model=model,
        monitor=monitor,
        scheduler=scheduler,
        prediction=prediction,
        y_true=y_true,
        diagnosis=diagnosis,
    )
    report = _report(sources, title)
    is_picture = target.suffix.lower() == ".png"
    content = png_image(report) if is_picture else html_page(report).encode("utf-8", "backslashreplace")
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    return target


def _report(sources: Sources, title: str | None) -> Report:
    parts = [section(sources) for section in _SECTIONS]
    return Report(
        writable(title or _title(sources)),
        tuple(_facts(sources)),
        tuple(part for part in parts if isinstance(part, Section)),
        tuple(part for part in parts if isinstance(part, LeftOut)),
        _notes(sources),
        _written(),
    )


def _title(sources: Sources) -> str:
    name = sources.run.name if sources.model is None else sources.model.name
    return f"Training report: {name}" if name else "Training report"


def _facts(sources: Sources) -> list[str]:
    facts = [counted(sources.run.epochs, "epoch")]
    if sources.run.name:
        facts.append(f"from `{sources.run.name}`")
    if sources.model is not None:
        facts += _facts_of_model(sources.model)
    if sources.baseline is not None:
        facts.append(f"baseline `{sources.baseline.name}`" if sources.baseline.name else "with a baseline")
    return facts


def _facts_of_model(model: Any) -> list[str]:
    facts = [f"{type(model).__name__} `{model.name}`"]
    if model.built:
        facts.append(f"{model.count_params():,} weights")
    optimizer = getattr(model, "optimizer", None)
    return facts if optimizer is None else [*facts, type(optimizer).__name__]


def _notes(sources: Sources) -> tuple[str, ...]:
    baseline = () if sources.baseline is None else sources.baseline.notes
    return (*sources.run.notes, *(f"Baseline: {note}" for note in baseline))


def _written() -> str:
    return f"Written by keras_dnn_extras {__version__} on {datetime.date.today():%Y-%m-%d}."
