"""The summary at the top: the best epoch, the last values, and what stands out."""

import numpy as np

from keras_dnn_extras._arguments import counted
from keras_dnn_extras.reports.blocks import Block, Cell, Figure, Remark, Section, Table
from keras_dnn_extras.reports.metric_names import CLIPPED, higher_is_better, metric_names
from keras_dnn_extras.reports.run_history import RunHistory, Series
from keras_dnn_extras.reports.sources import Sources
from keras_dnn_extras.reports.wording import change, number, percent

_FIGURES = 4  # metrics that are read first, besides the best epoch
_ROWS = 12  # of the table that is always seen
_OVERFITTED = 1.02  # the last validation loss over the lowest one


def summary_section(sources: Sources) -> Section:
    """Return the summary."""
    blocks: list[Block] = [*_figures(sources), *_remarks(sources), *_tables(sources)]
    return Section("summary", "Summary", tuple(blocks))


def decisive_loss(run: RunHistory) -> str | None:
    """Return the loss that tells the best epoch: of the validation data where there are some."""
    return next((name for name in ("val_loss", "loss") if name in run.series), None)


# -- what is read first ----------------------------------------------------------------------------


def _figures(sources: Sources) -> list[Figure]:
    run = sources.run
    names = [
        name for name in metric_names(run)[:_FIGURES] if name in run.series or f"val_{name}" in run.series
    ]
    return [*_best_epoch(run), *(_last_value(sources, name) for name in names)]


def _best_epoch(run: RunHistory) -> list[Figure]:
    name = decisive_loss(run)
    best = run.series[name].best() if name else None
    if name is None or best is None:
        return [Figure("Epochs", str(run.epochs))]
    return [Figure("Best epoch", f"{best[0]} of {run.epochs}", f"{name} {number(best[1])}")]


def _last_value(sources: Sources, name: str) -> Figure:
    shown = f"val_{name}" if f"val_{name}" in sources.run.series else name
    value = sources.run.series[shown].last
    note = ""
    if shown != name and name in sources.run.series:
        note = f"training {number(sources.run.series[name].last)}"
    before = sources.baseline.series.get(shown) if sources.baseline else None
    difference = None if before is None else change(value, before.last, higher_is_better(name))
    return Figure(f"Last {shown}", number(value), note, difference)


# -- what stands out -------------------------------------------------------------------------------


def _remarks(sources: Sources) -> list[Remark]:
    run = sources.run
    remarks = [*_not_finite(run), *_course(run), *_clipping(run)]
    if sources.monitor is not None and sources.monitor.findings:
        problems = counted(len(sources.monitor.findings), "problem")
        remarks.append(Remark("warning", f"The gradient monitor reports {problems}, listed below."))
    return remarks


def _not_finite(run: RunHistory) -> list[Remark]:
    series = {name: run.series[name] for name in ("loss", "val_loss") if name in run.series}
    broken = {name: one.epochs[~np.isfinite(one.values)] for name, one in series.items()}
    texts = [
        f"`{name}` is NaN or infinite in {counted(len(epochs), 'epoch')}, first in epoch {epochs[0]}."
        for name, epochs in broken.items()
        if len(epochs)
    ]
    remedy = "Lower the learning rate, clip gradients (`clipnorm=1.0`), and look for NaN in the data."
    return [Remark("error", " ".join(texts), remedy=remedy)] if texts else []


def _course(run: RunHistory) -> list[Remark]:
    series = run.series.get("val_loss")
    best = series.best() if series is not None else None
    if series is None or best is None or len(series.values) < 3:
        return []
    epoch, lowest = best
    if epoch == series.epochs[-1]:
        text = "The validation loss was lowest in the last epoch. A longer training may lower it further."
        return [Remark("info", text)]
    if lowest > 0 and np.isfinite(series.last) and series.last > _OVERFITTED * lowest:
        return [_overfitted(run, epoch, series.last / lowest - 1)]
    return []


def _overfitted(run: RunHistory, epoch: int, rise: float) -> Remark:
    text = f"The validation loss was lowest in epoch {epoch} and is {percent(rise)} higher in the last one."
    loss = run.series.get("loss")
    if loss is None or not _fell_after(loss, epoch):
        return Remark("warning", text)
    text += " The training loss went on falling: the model overfits."
    remedy = "Stop earlier (`EarlyStopping(restore_best_weights=True)`), regularize, or get more data."
    return Remark("warning", text, remedy=remedy)


def _fell_after(loss: Series, epoch: int) -> bool:
    at = loss.values[loss.epochs == epoch]
    return bool(len(at) and loss.last < at[0])


def _clipping(run: RunHistory) -> list[Remark]:
    series = run.series.get(CLIPPED)
    if series is None or not np.isfinite(series.values).any() or np.nanmean(series.values) <= 0.5:
        return []
    text = f"Clipping changed {percent(float(np.nanmean(series.values)))} of the updates."
    remedy = "Its threshold sets the length of most steps. Raise it, unless you want just that."
    return [Remark("info", text, remedy=remedy)]


# -- all metrics -----------------------------------------------------------------------------------


def _tables(sources: Sources) -> list[Table]:
    names = metric_names(sources.run)
    rows = [row for name in names for row in _rows(sources.run, name)]
    columns = ("", "last", "best", "in epoch")
    tables = [Table(columns, rows[:_ROWS])]
    if len(rows) > _ROWS:
        tables.append(Table(columns, rows[_ROWS:], f"{len(rows) - _ROWS} more metrics"))
    return tables


def _rows(run: RunHistory, name: str) -> list[tuple[str | Cell, ...]]:
    present = [shown for shown in (name, f"val_{name}") if shown in run.series]
    return [_row(shown, run.series[shown]) for shown in present]


def _row(name: str, series: Series) -> tuple[str | Cell, ...]:
    highest = higher_is_better(name)
    best = None if highest is None else series.best(highest)
    last = Cell(number(series.last), None if np.isfinite(series.last) else "error")
    return (name, last, "-", "-") if best is None else (name, last, number(best[1]), str(best[0]))
