"""Gradient norms of the training step itself, and what they tell of vanishing and exploding gradients."""

import math
import warnings
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import PACKAGE, check_bool, check_number, check_verbose, config_of
from keras_dnn_extras._models import innermost_optimizer, layers_by_path, owners
from keras_dnn_extras._plotting import axes
from keras_dnn_extras._training_step import Measured, StepCallback, StepState
from keras_dnn_extras.gradients.anomalies import IN_A_ROW, Found, Verdict
from keras_dnn_extras.gradients.findings import GradientFinding, describe
from keras_dnn_extras.gradients.heatmap import draw_lines, draw_map, make_room


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

    All layers with weights that may be trained are there from the first epoch on, those of nested models by
    their path, as `backbone/conv1`. A value is NaN where nothing was measured: in an epoch without an
    update, while a layer is frozen, and where a `train_step` of your own gives its weights to another
    optimizer than `self.optimizer`. Findings, means and the plot leave out what was not measured.

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
        history: dict of lists with one float per update of the last `fit`, under `"gradient_norm"`,
            `"clipped_gradient_norm"`, and as above `"gradient_norm/<layer name>"` and
            `"update_ratio/<layer name>"`. They begin where this `fit` did, also if it went on after an
            interruption; so do the updates in `findings` and in the plot.
        findings: list of what was found in the last `fit`, each with `kind`, `update` (an index of
            `history`), `epoch`, `layers` and `message`, which `str` returns.

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
        self.history: dict[str, list[float]] = {}
        self._measured: dict[str, bytearray] = {}  # of each layer, whether each update measured it
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
        self.history = {"gradient_norm": [], "clipped_gradient_norm": []}
        self._measured = {}
        self._variables: list[int] = []
        self._columns: dict[str, list[int]] = {}
        self._per_layer: list[str] = []
        self._ratios: list[str] = []

    def _find_columns(self) -> None:
        """Find the layers, once the model is built, and the columns of each, which unfreezing changes.

        TensorFlow may build the model by the first step.
        """
        variables = self.step_state.measured_variables
        if list(map(id, variables)) == self._variables:
            return
        self._variables = list(map(id, variables))
        owner = owners(self.model)
        if not self._columns:
            self._name_layers({owner[id(weight)] for weight in self.step_state.weights_of_fit})
        self._columns = {name: [] for name in self._columns}
        for column, variable in enumerate(variables):
            self._columns[owner[id(variable)]].append(column)

    def _name_layers(self, found: set[str]) -> None:
        # From the first epoch on, also those unfrozen later: CSVLogger writes its heading then.
        names = [name for name in layers_by_path(self.model) if name in found]
        self._columns = {name: [] for name in names}
        self._measured = {name: bytearray() for name in names}
        self._per_layer = [f"gradient_norm/{name}" for name in names if self.per_layer]
        self._ratios = [f"update_ratio/{name}" for name in names if self.update_ratios]
        self.history |= {name: [] for name in (*self._per_layer, *self._ratios)}
        self._verdict = Verdict(len(names), self.vanishing_threshold, self.exploding_threshold)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epochs.append((len(self.history["gradient_norm"]), epoch))
        self._batches_read = 0
        self._means: dict[str, _Mean] = {}
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
        return {
            "gradient_norm": self._mean("gradient_norm").value,
            "gradient_norm_max": self._most if self._clipped.count else math.nan,
            "clipped_fraction": self._clipped.value,
            **{name: self._mean(name).value for name in (*self._per_layer, *self._ratios)},
        }

    def _mean(self, name: str) -> "_Mean":
        return self._means.setdefault(name, _Mean())

    def _read(self) -> None:
        """Append new measurements to `history` and the means of the epoch, and judge them."""
        measured = self.step_state.measured(self)
        self._find_columns()
        if not len(measured.updates):
            return
        first = len(self.history["gradient_norm"])
        total = _norm(np.where(measured.applied, measured.gradient_norms, 0.0))
        norms, there = self._of_layers(measured.gradient_norms, measured.applied)
        # What clipping left as it was has the same norm, but for the roundings of another way to it. Of
        # infinity it makes NaN.
        changed = measured.clipped | ~np.isfinite(total)
        clipped = np.where(changed, measured.clipped_norm, total)
        self._append({"gradient_norm": total, "clipped_gradient_norm": clipped})
        self._append(dict(zip(self._per_layer, norms.T, strict=False)))
        self._append_ratios(measured)
        self._mean("gradient_norm").add(total)
        for i, name in enumerate(self._columns):
            self._measured[name] += there[:, i].tobytes()
            self._mean(f"gradient_norm/{name}").add(norms[there[:, i], i])
        self._clipped.add(measured.clipped)
        self._most = float(np.maximum(self._most, total.max()))  # NaN if any is
        updates = np.arange(first, first + len(total))
        for kind, found in self._verdict.judge(updates, norms, total, there).items():
            self._report(kind, found)

    def _append_ratios(self, measured: Measured) -> None:
        changes, weights = measured.change_norms, measured.weight_norms
        if not self.update_ratios or changes is None or weights is None:
            return
        (changes, _), (weights, _) = (self._of_layers(n, measured.applied) for n in (changes, weights))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = changes / weights
        ratios[weights == 0] = math.nan
        self._append(dict(zip(self._ratios, ratios.T, strict=True)))
        for name, values in zip(self._ratios, ratios.T, strict=True):
            self._mean(name).add(values[~np.isnan(values)])

    def _append(self, values: dict[str, np.ndarray]) -> None:
        for name, of_updates in values.items():
            self.history[name].extend(of_updates.tolist())

    def _of_layers(self, norms: np.ndarray, applied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the norms of layers, NaN where none of their weights was applied, and where one was."""
        columns = self._columns.values()
        there = np.stack([applied[:, own].any(axis=1) for own in columns], axis=1)
        norms = np.where(applied, norms, 0.0)
        found = np.stack([_norm(norms[:, own]) for own in columns], axis=1)
        return np.where(there, found, math.nan), there

    def _report(self, kind: str, found: Found | None) -> None:
        if found is None:
            return
        layers = tuple(name for name, there in zip(self._columns, found.layers, strict=True) if there)
        first, epoch = max(begun for begun in self._epochs if begun[0] <= found.update)
        when = f"update {found.update} (epoch {epoch + 1}, its update {found.update - first}; from 0)"
        message = describe(kind, found, layers, when, self.vanishing_threshold, self.exploding_threshold)
        self.findings.append(GradientFinding(kind, found.update, epoch, layers, message))
        if self.on_problem == "raise":
            raise RuntimeError(message)
        if self.on_problem == "warn":
            warnings.warn(message, stacklevel=2)

    # -- the picture --------------------------------------------------------------------------------

    def plot(self, ax: Any = None) -> Any:
        """Draw the gradient norms of the last `fit`: layers by updates, in colours on a log scale.

        Without `per_layer`, the norm of all gradients together, and the clipped one where clipping changed
        it. The first layer is at the top. Gradients that are not finite are red, those of exactly 0 black,
        and what was not measured is white, as of a layer while it is frozen. Of very many updates,
        neighbours share a cell, which is their median. Updates count as in `history`.

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
            draw_lines(drawn, self.history["gradient_norm"], self.history["clipped_gradient_norm"])
            return drawn
        if ax is None:
            make_room(drawn.figure, len(names))
        norms = np.array([self.history[name] for name in names])
        names = [name.removeprefix("gradient_norm/") for name in names]
        measured = np.ones(norms.shape, bool)
        for row, name in enumerate(names):
            if name in self._measured:
                measured[row] = np.frombuffer(bytes(self._measured[name]), bool)
        draw_map(drawn, norms, measured, names)
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
