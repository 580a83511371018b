"""Gradient norms of the training step itself, and what they tell of vanishing and exploding gradients."""

import math
from dataclasses import replace
from typing import Any, Literal

import keras
import numpy as np

from keras_dnn_extras._arguments import (
    PACKAGE,
    check_bool,
    check_choice,
    check_number,
    check_verbose,
    config_of,
    counted,
)
from keras_dnn_extras._display import Summary
from keras_dnn_extras._models import innermost_optimizer
from keras_dnn_extras._plotting import Axes
from keras_dnn_extras._training_step import BatchLogsCallback, GradientProbe, TrainingStep, UpdateFreq
from keras_dnn_extras.gradients.anomalies import IN_A_ROW, AnomalyDetector
from keras_dnn_extras.gradients.findings import FindingReporter, GradientFinding, OnProblem, Thresholds
from keras_dnn_extras.gradients.heatmap import draw_history
from keras_dnn_extras.gradients.norm_collector import NormCollector

LayersInPlot = Literal["kernels", "all"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class GradientNormMonitor(BatchLogsCallback):
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

    All layers with trainable weights are there from the first epoch on, those of nested models by their
    path, as `backbone/conv1`. A value is NaN where nothing was measured: in an epoch without an update,
    while a layer is frozen, and where a `train_step` of your own gives its weights to another optimizer
    than `self.optimizer`. Findings, means and the plot leave such values out.

    Gradients of a layer vanish if their norm is below `vanishing_threshold` in ten updates in a row, or in
    all of a shorter `fit`, while others are not, or if it never was above. They explode if it is above
    `exploding_threshold` once. A layer is reported once for each kind in a `fit`.

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
        findings: list of what was found in the last `fit`, each a `GradientFinding` with `kind`, `update`
            (an index of `history`), `epoch`, `layers` and `message`, which `str` returns.

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
        update_freq: UpdateFreq = "epoch",
        *,
        per_layer: bool = True,
        update_ratios: bool = False,
        vanishing_threshold: float = 1e-7,
        exploding_threshold: float = 1e3,
        on_problem: OnProblem = "warn",
        verbose: int = 0,
    ):
        super().__init__(update_freq)
        self.per_layer = per_layer
        self.update_ratios = update_ratios
        self.vanishing_threshold = vanishing_threshold
        self.exploding_threshold = exploding_threshold
        self.on_problem = on_problem
        self.verbose: int = verbose
        _check_arguments(self)
        self.history: dict[str, list[float]] = {}
        self.findings: list[GradientFinding] = []
        self._collector = NormCollector(per_layer=per_layer, ratios=update_ratios)

    def get_config(self) -> dict[str, Any]:
        names = ("update_freq", "per_layer", "update_ratios", "vanishing_threshold")
        return config_of(self, *names, "exploding_threshold", "on_problem", "verbose")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientNormMonitor":
        return cls(**config)

    def _facts(self) -> dict[str, str]:
        facts = _facts_of(self.history)
        return facts and facts | {"findings": str(len(self.findings) or "none")}

    def _summary(self) -> Summary:
        rows = [(found.kind, str(found.update), ", ".join(found.layers)) for found in self.findings]
        header = ("finding", "update", "layers")
        return replace(super()._summary(), rows=rows, header=header, hint="`findings` has all")

    # -- in `fit` -----------------------------------------------------------------------------------

    def _set_up(self, callbacks: list[keras.callbacks.Callback]) -> None:
        innermost_optimizer(self.model)
        thresholds = Thresholds(self.vanishing_threshold, self.exploding_threshold)
        self._reporter = FindingReporter(thresholds, self.on_problem)
        self._detector: AnomalyDetector | None = None  # until the layers are known
        self.findings = self._reporter.findings

    def _join_step(self, step: TrainingStep) -> None:
        step.part(GradientProbe).record_for(self, changes=self.update_ratios)
        self._collector = NormCollector(per_layer=self.per_layer, ratios=self.update_ratios)
        self.history = self._collector.history

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._reporter.begin_epoch(self._collector.updates, epoch)
        self._collector.begin_epoch()

    def _read_batches(self) -> None:
        self._step.part(GradientProbe).download()
        self._read()

    def _batch_logs(self) -> dict[str, float]:
        return self._collector.logs() if self._collector.updates_in_epoch else {}

    def _update_logs(self, epoch: int, logs: dict) -> None:
        self._read()
        logs.update(self._collector.logs())
        if self.verbose:
            mean, most = logs["gradient_norm"], logs["gradient_norm_max"]
            print(
                f"\nEpoch {epoch + 1}: gradient norm {mean:.3g} on average, {most:.3g} at most, clipped "
                f"in {logs['clipped_fraction']:.0%} of the updates."
            )

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if self._detector is not None and self._collector.updates < IN_A_ROW:
            anomaly = self._detector.vanished_throughout()
            if anomaly is not None:
                self._reporter.report("vanishing", anomaly, self._collector.layers)

    def _read(self) -> None:
        """Collect new measurements, and look for anomalies in them."""
        probe, collector = self._step.part(GradientProbe), self._collector
        measurements, variables = probe.measurements(self), probe.measured_variables
        if not collector.is_of(variables):  # TensorFlow may build the model by the first step
            collector.find_layers(self.model, variables, self._step.weights_of_fit)
        if not len(measurements.updates):
            return
        first, norms = collector.updates, collector.add(measurements)
        updates = np.arange(first, collector.updates)
        if self._detector is None:
            thresholds = self.vanishing_threshold, self.exploding_threshold
            self._detector = AnomalyDetector(len(collector.layers), *thresholds)
        anomalies = self._detector.detect(updates, norms.layers, norms.total, norms.measured)
        for kind, anomaly in anomalies.items():
            self._reporter.report(kind, anomaly, collector.layers)

    # -- the picture --------------------------------------------------------------------------------

    def plot(self, ax: Axes | None = None, *, layers: LayersInPlot = "kernels") -> Axes:
        """Draw the gradient norms of the last `fit`: layers by updates, in colours on a log scale.

        The first layer is at the top. The scale goes from `vanishing_threshold` to `exploding_threshold`,
        whatever the norms are, so that pictures of several fits can be compared. Norms below it are light
        blue, those above it red. Grey is not finite, white was not measured, as a layer while it is frozen.
        The first update of a layer that explodes or is not finite has a mark. Of very many updates,
        neighbours share a cell, which is their median. Updates count as in `history`.

        Without `per_layer`, the norm of all gradients together, and the clipped one where clipping changed
        it.

        Args:
            ax: matplotlib `Axes` to draw on, or None for those of a new figure.
            layers: `"kernels"`: those that have a weight of two axes or more, so that normalization is left
                out. The norm is that of the whole layer, bias included. `"all"`: every layer.

        Returns:
            The `Axes`.

        Raises:
            ValueError: there was no update yet, or `layers` is something else.
            ImportError: matplotlib is not installed.
        """
        check_choice("layers", layers, LayersInPlot)
        _check_history(self.history)
        thresholds = Thresholds(self.vanishing_threshold, self.exploding_threshold)
        kernels = self._collector.layers_with_kernels if layers == "kernels" else set()
        return draw_history(ax, self.history, self._collector.measured, thresholds, kernels or None)


def _facts_of(history: dict[str, list[float]]) -> dict[str, str]:
    """Return what there is to say about the norms of a fit: nothing where there was no update."""
    if not history.get("gradient_norm"):
        return {}
    norms, clipped = (np.array(history[f"{of}gradient_norm"]) for of in ("", "clipped_"))
    finite = norms[np.isfinite(norms)]
    changed = (norms != clipped) & ~np.isnan(norms)
    return {
        "last fit": counted(len(norms), "update"),
        "gradient norm": _mean_and_most(finite),
        "not finite": f"{1 - len(finite) / len(norms):.0%} of the updates",
        "clipped": f"{changed.mean():.0%} of the updates",
    }


def _mean_and_most(norms: np.ndarray) -> str:
    return f"{norms.mean():.3g} on average, {norms.max():.3g} at most" if len(norms) else "never finite"


def _check_arguments(monitor: GradientNormMonitor) -> None:
    check_bool("per_layer", monitor.per_layer)
    check_bool("update_ratios", monitor.update_ratios)
    expected = "at least 0 and finite"
    check_number("vanishing_threshold", monitor.vanishing_threshold, expected, lambda v: 0 <= v < math.inf)
    expected = f"above `vanishing_threshold` ({monitor.vanishing_threshold})"
    check_number(
        "exploding_threshold",
        monitor.exploding_threshold,
        expected,
        lambda v: v > monitor.vanishing_threshold,
    )
    check_choice("on_problem", monitor.on_problem, OnProblem)
    check_verbose(monitor.verbose)


def _check_history(history: dict[str, list[float]]) -> None:
    if not history.get("gradient_norm"):
        raise ValueError(
            "There are no gradient norms to plot. Pass the monitor to `fit` in `callbacks` before. "
            f"Received: history={history}"
        )
