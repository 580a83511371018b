"""Gradient norms of the training step itself, and what they tell of vanishing and exploding gradients."""

import math
import warnings
from array import array
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_dnn_extras.arguments import PACKAGE, check_bool, check_number, check_verbose, config_of
from keras_dnn_extras.gradient_verdicts import IN_A_ROW, Found, Verdict
from keras_dnn_extras.layers import layers_by_path, owners
from keras_dnn_extras.optimizers import innermost_optimizer
from keras_dnn_extras.plotting import axes
from keras_dnn_extras.step_callback import StepCallback
from keras_dnn_extras.step_state import StepState

_NAMED = 10  # layers in a message
_LABELS = 40  # layers on the axis of a plot
_CELLS = 1000  # updates in a plot, before neighbours share a cell

_REMEDIES = {
    "vanishing": "Try another activation than sigmoid or tanh with the initialization that goes with it "
    '(`"elu"` or `"relu"` with `"he_normal"`, `"selu"` with `"lecun_normal"`), BatchNormalization between '
    "the layers, or connections that skip layers.",
    "exploding": "Try gradient clipping (`clipnorm=1.0` in the optimizer), a lower learning rate, another "
    'initialization (`"he_normal"` with `"elu"` or `"relu"`, `"lecun_normal"` with `"selu"`), '
    "BatchNormalization between the layers, or inputs and targets that are scaled to about 1. In the last "
    "update of an epoch it may be BatchNormalization over the few rows that are left: use whole batches.",
    "non-finite": "Look for NaN or infinity in the data of that update, and for a logarithm, a root or a "
    "quotient of 0 in the loss. Else try a lower learning rate or gradient clipping (`clipnorm=1.0` in the "
    "optimizer), and `LossScaleOptimizer` with float16.",
}
_ZERO = (
    "Exactly 0 means dead or saturated units, among them an output of probabilities (compute the loss "
    "with `from_logits=True`), or no connection to the loss. "
)


@dataclass(frozen=True)
class GradientFinding:
    """What is wrong with some gradients. As a string, its `message`.

    Attributes:
        kind: `"vanishing"`, `"exploding"` or `"non-finite"`.
        update: the first one that shows it, from 0 at the beginning of the fit.
        epoch: the one of that update, from 0.
        layers: names of the layers, from the first to the last.
        message: all this in words, and what to try.
    """

    kind: str
    update: int
    epoch: int
    layers: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return self.message


@keras.saving.register_keras_serializable(package=PACKAGE)
class GradientNormMonitor(StepCallback):
    """Log the gradient norms of the training step itself, and tell when gradients vanish or explode.

    The L2 norms are those of the very gradients that the optimizer applies: measured inside the compiled
    step, with no second forward or backward pass, before clipping and after. With gradient accumulation
    they are norms of the accumulated gradient, under a distribution strategy of the aggregated one, with
    loss scaling of the unscaled one, updates that it skips left out. The training is the same without it.

    Epoch logs, and so History, the progress bar and all loggers, have over the epoch's updates:

    - `gradient_norm`, `gradient_norm_max`: mean and maximum of the norm of all gradients together;
    - `clipped_fraction`: the share of updates in which clipping changed the gradient;
    - `gradient_norm/<layer name>`: the mean norm of a layer, with `per_layer`;
    - `update_ratio/<layer name>`: the mean of the norm of the weight change over the norm of the weights,
      with `update_ratios`. About 1e-3 is usual. Updates of weights that are all 0 are left out.

    An epoch without an update has NaN. Layers of nested models have paths, as `backbone/conv1`.

    Gradients of a layer vanish if their norm is below `vanishing_threshold` in ten updates in a row, or in
    all updates of a shorter `fit`, while those of others are not, or if they never were above. They explode
    if it is above `exploding_threshold` once. A layer is reported once for each kind in a `fit`.

    Args:
        update_freq: `"epoch"`, `"batch"` or an int > 0: how often the values reach Python, after each
            epoch, each batch or so many batches. Then they are checked, and with the latter two the batch
            logs have, over the updates so far, what the epoch logs will have. `"epoch"` costs the least.
        per_layer: bool, whether logs and `history` have the norms of each layer.
        update_ratios: bool, whether to measure the change of the weights too. It takes a copy of them.
        vanishing_threshold: float >= 0, a norm of a layer's gradient.
        exploding_threshold: float > `vanishing_threshold`, a norm of a layer's gradient. Infinity for none.
        on_problem: `"warn"`, `"raise"` (a RuntimeError, at the next check) or `"ignore"`.
        verbose: 1 prints the norms after each epoch.

    Attributes:
        history: dict of `array.array` with one float per update of the last `fit`, under `"gradient_norm"`,
            `"clipped_gradient_norm"`, and as above `"gradient_norm/<layer name>"` and
            `"update_ratio/<layer name>"`. 8 bytes a value. NaN while a layer is frozen that
            `GradualUnfreezing` unfreezes.
        findings: list of what was found in the last `fit`, each with `kind`, `update`, `epoch`, `layers`
            and `message`, which `str` returns.

    Raises:
        ValueError: a value is out of its range, or, when `fit` begins, the model is not compiled with a
            single optimizer.
        TypeError: a value is of the wrong type.
        RuntimeError: with `on_problem="raise"`, in `fit`: gradients vanish, explode or are not finite.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="zeros", name="linear")])
    >>> model.compile(keras.optimizers.SGD(0.1, global_clipnorm=1.0), loss="mse")
    >>> monitor = GradientNormMonitor()
    >>> x, y = np.ones((32, 3)), np.ones((32, 1))
    >>> history = model.fit(x, y, callbacks=[monitor], verbose=0)  # the gradient is -2 in 3 + 1 weights
    >>> round(history.history["gradient_norm/linear"][0], 3), history.history["clipped_fraction"]
    (4.0, [1.0])
    >>> monitor.findings
    []

    Reference:
        Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010;
        Pascanu et al., On the difficulty of training recurrent neural networks, 2013
        (https://arxiv.org/abs/1211.5063).
    """

    def __init__(
        self,
        update_freq: str | int = "epoch",
        *,
        per_layer: bool = True,
        update_ratios: bool = False,
        vanishing_threshold: float = 1e-7,
        exploding_threshold: float = 1e3,
        on_problem: str = "warn",
        verbose: int = 0,
    ):
        super().__init__()
        if isinstance(update_freq, str) and update_freq not in ("epoch", "batch"):
            raise ValueError(
                'Expected `update_freq` to be "epoch", "batch" or a positive int. '
                f"Received: update_freq={update_freq!r}"
            )
        if not isinstance(update_freq, str):
            check_number("update_freq", update_freq, "a positive int", lambda v: v > 0, Integral)
        check_bool("per_layer", per_layer)
        check_bool("update_ratios", update_ratios)
        expected = "at least 0 and finite"
        check_number("vanishing_threshold", vanishing_threshold, expected, lambda v: 0 <= v < math.inf)
        expected = f"above `vanishing_threshold` ({vanishing_threshold})"
        check_number(
            "exploding_threshold", exploding_threshold, expected, lambda v: v > vanishing_threshold
        )
        if on_problem not in ("warn", "raise", "ignore"):
            raise ValueError(
                'Expected `on_problem` to be "warn", "raise" or "ignore". '
                f"Received: on_problem={on_problem!r}"
            )
        check_verbose(verbose)
        self.update_freq = update_freq
        self.per_layer = per_layer
        self.update_ratios = update_ratios
        self.vanishing_threshold = vanishing_threshold
        self.exploding_threshold = exploding_threshold
        self.on_problem = on_problem
        self.verbose: int = verbose
        self.history: dict[str, array] = {}
        self._begun: dict[str, int] = {}  # updates before the layer was unfrozen
        self.findings: list[GradientFinding] = []

    def get_config(self) -> dict[str, Any]:
        names = ("update_freq", "per_layer", "update_ratios", "vanishing_threshold")
        return config_of(self, *names, "exploding_threshold", "on_problem", "verbose")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientNormMonitor":
        return cls(**config)

    # -- in `fit` -----------------------------------------------------------------------------------

    def set_up(self, others: list[keras.callbacks.Callback]) -> None:
        innermost_optimizer(self.model)
        self.findings = []
        self._epochs: list[tuple[int, int]] = []  # the first update of each epoch, and its index

    def take_part(self, step_state: StepState) -> None:
        step_state.measure_gradients(self, changes=self.update_ratios)
        self.history = {"gradient_norm": array("d"), "clipped_gradient_norm": array("d")}
        self._columns: dict[str, list[int]] = {}
        self._measured: list[int] = []
        self._begun = {}
        self._verdict = Verdict(0, self.vanishing_threshold, self.exploding_threshold)
        self._per_layer: list[str] = []
        self._ratios: list[str] = []
        self._means: dict[str, _Mean] = {}
        self._name_layers()

    def _name_layers(self) -> None:
        """Find the columns of each layer, when the model is built and where `fit` unfreezes layers.

        TensorFlow may build it by the first step.
        """
        variables = self.step_state.measured_variables
        if list(map(id, variables)) == self._measured:
            return
        self._measured = list(map(id, variables))
        owner = owners(self.model)
        columns: dict[str, list[int]] = {path: [] for path in layers_by_path(self.model)}
        for column, variable in enumerate(variables):
            columns[owner[id(variable)]].append(column)
        known = list(self._columns)
        self._columns = {path: found for path, found in columns.items() if found}
        self._per_layer = [f"gradient_norm/{name}" for name in self._columns if self.per_layer]
        self._ratios = [f"update_ratio/{name}" for name in self._columns if self.update_ratios]
        for name in (*self._per_layer, *self._ratios):
            if name not in self.history:  # there were updates without this layer
                self._begun[name] = len(self.history["gradient_norm"])
                self.history[name] = array("d", [math.nan] * self._begun[name])
            self._means.setdefault(name, _Mean())
        of_model = ("gradient_norm", "clipped_gradient_norm")  # then the layers, from the first to the last
        self.history = {name: self.history[name] for name in (*of_model, *self._per_layer, *self._ratios)}
        self._verdict.rearrange([known.index(n) if n in known else None for n in self._columns])

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epochs.append((self.step_state.position(), epoch))
        self._batches_read = 0
        self._means = {name: _Mean() for name in ("gradient_norm", *self._per_layer, *self._ratios)}
        self._clipped, self._most = _Mean(), -math.inf

    @property
    def on_train_batch_end(self) -> Any:
        # Keras waits for every step where a callback overrides this: only if it was asked for.
        return super().on_train_batch_end if self.update_freq == "epoch" else self._end_batch

    def _end_batch(self, batch: int, logs: dict | None = None) -> None:
        every = 1 if self.update_freq == "batch" else int(self.update_freq)
        if batch + 1 - self._batches_read >= every:
            self._batches_read = batch + 1
            self._read()
        if logs is not None and self._clipped.count:
            logs.update(self._logs())

    def update_logs(self, epoch: int, logs: dict) -> None:
        self._read()
        logs.update(self._logs())
        if self.verbose:
            mean, most = logs["gradient_norm"], logs["gradient_norm_max"]
            print(
                f"\nEpoch {epoch + 1}: gradient norm {mean:.3g} on average, {most:.3g} at most, clipped "
                f"in {logs['clipped_fraction']:.0%} of the updates."
            )

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if 0 < len(self.history["gradient_norm"]) < IN_A_ROW:
            self._report("vanishing", self._verdict.vanished_throughout())

    def _logs(self) -> dict[str, float]:
        means = {name: mean.value for name, mean in self._means.items()}
        own = {
            "gradient_norm": means.pop("gradient_norm"),
            "gradient_norm_max": self._most if self._clipped.count else math.nan,
            "clipped_fraction": self._clipped.value,
        }
        return own | means

    def _read(self) -> None:
        """Take what was measured since the last time to the history, to the epoch's means, and to court."""
        measured = self.step_state.measured(self)
        if not len(measured.updates):
            return
        self._name_layers()
        norms = self._of_layers(measured.gradient_norms)
        found = {
            "gradient_norm": _norm(measured.gradient_norms),
            "clipped_gradient_norm": measured.clipped_norm,
            **dict(zip(self._per_layer, norms.T, strict=False)),
        }
        changes, weights = measured.change_norms, measured.weight_norms
        if self.update_ratios and changes is not None and weights is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                ratios = self._of_layers(changes) / self._of_layers(weights)
            ratios[np.isinf(ratios)] = math.nan  # of weights that were all 0
            found |= dict(zip(self._ratios, ratios.T, strict=True))
        for name, values in found.items():
            self.history[name].extend(values)
            if name in self._means:
                self._means[name].add(values[~np.isnan(values)] if name in self._ratios else values)
        self._clipped.add(measured.clipped)
        self._most = float(np.maximum(self._most, found["gradient_norm"].max()))  # NaN if any is
        for kind, where in self._verdict.judge(measured.updates, norms, found["gradient_norm"]).items():
            self._report(kind, where)

    def _of_layers(self, norms: np.ndarray) -> np.ndarray:
        return np.stack([_norm(norms[:, columns]) for columns in self._columns.values()], axis=1)

    # -- findings -----------------------------------------------------------------------------------

    def _report(self, kind: str, found: Found | None) -> None:
        if found is None:
            return
        layers = tuple(name for name, there in zip(self._columns, found.layers, strict=True) if there)
        first, epoch = max(begun for begun in self._epochs if begun[0] <= found.update)
        when = f"update {found.update} (epoch {epoch + 1}, its update {found.update - first}; from 0)"
        message = f"{kind.capitalize()} gradients {self._told(kind, when, found, layers)} {_REMEDIES[kind]}"
        finding = GradientFinding(kind, found.update, epoch, layers, message)
        self.findings.append(finding)
        if self.on_problem == "raise":
            raise RuntimeError(message)
        if self.on_problem == "warn":
            warnings.warn(message, stacklevel=2)

    def _told(self, kind: str, when: str, found: Found, layers: tuple[str, ...]) -> str:
        named = ", ".join(f"`{name}`" for name in layers[:_NAMED])
        if len(layers) > _NAMED:
            named += f" and {len(layers) - _NAMED} more, the last of them `{layers[-1]}`"
        where = f"in {len(layers)} of {len(self._columns)} layers with weights, from the first: {named}."
        if kind == "vanishing":
            zero = _ZERO if found.norm == 0 else ""
            return (
                f"from {when} on, {where} The smallest norm is {found.norm:.2g}, below "
                f"`vanishing_threshold` {self.vanishing_threshold:g}. {zero}"
            ).strip()
        if kind == "exploding":
            return (
                f"in {when}, {where} The largest norm is {found.norm:.2g}, above `exploding_threshold` "
                f"{self.exploding_threshold:g}."
            )
        if len(layers) == len(self._columns):
            return f"in {when}, {where} In all of them: the loss itself may be NaN or infinite."
        return f"in {when}, {where} On the way back from the loss they begin at `{layers[-1]}`."

    # -- the picture --------------------------------------------------------------------------------

    def plot(self, ax: Any = None) -> Any:
        """Draw the gradient norms of the last `fit`: layers by updates, in colours on a log scale.

        Without `per_layer`, the norm of all gradients together. The first layer is at the top. Gradients
        that are not finite are red, and those of exactly 0 black; where a layer was frozen it is white. Of
        very many updates, neighbours share a cell, which is their median.

        Args:
            ax: matplotlib `Axes` to draw on, or None for those of a new figure.

        Returns:
            The `Axes`.

        Raises:
            ValueError: there was no update yet.
            ImportError: matplotlib is not installed.
        """
        if not self.history.get("gradient_norm"):
            raise ValueError(
                "There are no gradient norms to plot. Pass the monitor to `fit` in `callbacks` before. "
                f"Received: history={self.history}"
            )
        drawn = axes(ax)
        drawn.set_xlabel("update")
        names = [name for name in self.history if name.startswith("gradient_norm/")]
        if not names:
            _draw_lines(drawn, self.history)
            return drawn
        if ax is None:  # room for the names
            width, height = drawn.figure.get_size_inches()
            drawn.figure.set_size_inches(width, max(height, 0.16 * min(len(names), _LABELS)))
        norms = np.array([self.history[name] for name in names])
        _draw_map(drawn, norms, [name.removeprefix("gradient_norm/") for name in names])
        for row, name in enumerate(names):
            if self._begun.get(name):
                drawn.broken_barh([(0, self._begun[name])], (row, 1), color="white")
        return drawn


def _norm(norms: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(np.square(norms), axis=1))


class _Mean:
    """A mean that grows: NaN of nothing."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: np.ndarray) -> None:
        self.total += float(np.sum(values))
        self.count += len(values)

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else math.nan


def _draw_lines(ax: Any, history: dict[str, array]) -> None:
    before, after = history["gradient_norm"], history["clipped_gradient_norm"]
    ax.plot(before, color="C0", label="before clipping")
    if before != after:
        ax.plot(after, color="C1", linestyle="--", label="after clipping")
        ax.legend()
    if max(before) > 0:
        ax.set_yscale("log")
    ax.set_ylabel("gradient norm")


def _draw_map(ax: Any, norms: np.ndarray, names: list[str]) -> None:
    from matplotlib import colormaps, colors

    layers, updates = norms.shape
    norms = np.where(np.isfinite(norms), norms, math.nan)
    edges = np.unique(np.linspace(0, updates, min(updates, _CELLS) + 1).astype(int))
    cells = np.stack([np.median(norms[:, a:b], axis=1) for a, b in pairwise(edges)], 1)
    positive = cells[cells > 0]
    least, most = (positive.min(), positive.max()) if len(positive) else (1e-7, 1.0)
    if least == most:
        least, most = least / 10, most * 10
    colormap = colormaps["viridis"].with_extremes(bad="red", under="black")
    cells = np.where(cells == 0, least / 10, cells)  # a logarithm would have none
    scale = colors.LogNorm(least, most)
    mesh = ax.pcolormesh(edges, np.arange(layers + 1), cells, norm=scale, cmap=colormap)
    ax.figure.colorbar(mesh, ax=ax, label="gradient norm (red: not finite, black: 0)")
    every = -(-layers // _LABELS)
    ax.set_yticks(np.arange(0, layers, every) + 0.5, names[::every], fontsize="small")
    ax.set_ylim(layers, 0)
