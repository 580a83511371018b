"""This run beside another one."""

from typing import Any

from keras_dnn_extras._plotting import BLUE
from keras_dnn_extras.reports.blocks import Block, Cell, LeftOut, Picture, Section, Table
from keras_dnn_extras.reports.figures import Line, draw_lines
from keras_dnn_extras.reports.metric_names import higher_is_better, logarithmic, metric_names
from keras_dnn_extras.reports.run_history import RunHistory, Series
from keras_dnn_extras.reports.sources import Sources
from keras_dnn_extras.reports.svg import FAINT
from keras_dnn_extras.reports.wording import change, listed, number

_PICTURES = 4
_ROWS = 12  # of the table that is always seen


def comparison_section(sources: Sources) -> Section | LeftOut:
    """Return tables and pictures of what both runs have logged."""
    title, baseline = "Comparison with the baseline", sources.baseline
    if baseline is None:
        return LeftOut(title, "no `baseline` was passed")
    names = [name for base in metric_names(sources.run) for name in (f"val_{base}", base)]
    shared = [name for name in names if name in sources.run.series and name in baseline.series]
    if not shared:
        return LeftOut(title, "the two logs have no metric in common")
    pictures = [_picture(sources.run, baseline, name) for name in _pictured(shared)]
    blocks: list[Block] = [*_tables(sources.run, baseline, shared), *pictures]
    return Section("baseline", title, tuple(blocks), _lead(sources.run, baseline, shared))


def _pictured(shared: list[str]) -> list[str]:
    """Return the validation metrics first, those of the training where there is no other."""
    return sorted(shared, key=lambda name: not name.startswith("val_"))[:_PICTURES]


def _lead(run: RunHistory, baseline: RunHistory, shared: list[str]) -> str:
    name = f"the baseline, {baseline.name}," if baseline.name else "the baseline"
    lead = f"This run has {run.epochs} epochs, {name} {baseline.epochs}."
    missing = [name for name in metric_names(run, baseline) if not {name, f"val_{name}"} & set(shared)]
    return f"{lead} Only one of them has {listed(missing)}." if missing else lead


def _tables(run: RunHistory, baseline: RunHistory, names: list[str]) -> list[Table]:
    columns = ("", "this run", "baseline", "difference")
    rows = [_row(name, run.series[name], baseline.series[name]) for name in names]
    tables = [Table(columns, rows[:_ROWS])]
    if len(rows) > _ROWS:
        tables.append(Table(columns, rows[_ROWS:], f"{len(rows) - _ROWS} more metrics"))
    return tables


def _row(name: str, series: Series, before: Series) -> tuple[str | Cell, ...]:
    """Return the best values of both, or the last ones where it is not known which are better."""
    highest = higher_is_better(name)
    best, earlier = (None if highest is None else one.best(highest) for one in (series, before))
    if best is None or earlier is None:
        values, kind = (series.last, before.last), "last"
    else:
        values, kind = (best[1], earlier[1]), "best"
    return f"{kind} {name}", number(values[0]), number(values[1]), change(*values, highest)


def _picture(run: RunHistory, baseline: RunHistory, name: str) -> Picture:
    series, before = run.series[name], baseline.series[name]
    lines = [
        Line(before.epochs, before.values, "baseline", FAINT, "--"),
        Line(series.epochs, series.values, "this run", BLUE),
    ]

    def draw(ax: Any) -> None:
        draw_lines(ax, lines, logarithmic=logarithmic(name))

    text = f"{name} by epoch: this run ends at {number(series.last)}, the baseline at {number(before.last)}"
    return Picture(draw, name, text)
