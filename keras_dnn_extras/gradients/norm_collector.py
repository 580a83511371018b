"""Collects the norms of all updates of a fit."""

import keras
import numpy as np

from keras_dnn_extras._models import layers_by_path, owners
from keras_dnn_extras._training_step import GradientMeasurements
from keras_dnn_extras.gradients.epoch_means import EpochMeans
from keras_dnn_extras.gradients.layer_norms import LayerColumns, LayerNorms


class NormCollector:
    """Collects the norms of layers in the lists of a `history`, and their means over an epoch for its logs.

    Args:
        per_layer: whether `history` and logs have the norms of each layer.
        ratios: whether they have the ratios of weight changes.

    Attributes:
        history: dict of lists with one float per update, by their names.
        layers_with_kernels: those of `layers` that have a weight of two axes or more.
    """

    def __init__(self, *, per_layer: bool, ratios: bool):
        wanted = {"gradient_norm": per_layer, "update_ratio": ratios}
        self.history: dict[str, list[float]] = {"gradient_norm": [], "clipped_gradient_norm": []}
        self._kinds = [kind for kind in wanted if wanted[kind]]
        self.layers_with_kernels: set[str] = set()
        self._columns = LayerColumns([])
        self._series: list[str] = []  # of layers, by their names in `history`
        self._measured: dict[str, bytearray] = {}  # of each layer, whether each update measured it
        self._means = EpochMeans()

    @property
    def layers(self) -> list[str]:
        """The paths of the layers, from the first to the last. None before they are found."""
        return self._columns.layers

    @property
    def updates(self) -> int:
        """The number of updates in `history`."""
        return len(self.history["gradient_norm"])

    @property
    def updates_in_epoch(self) -> int:
        """The number of those in the epoch."""
        return self._means.updates

    def begin_epoch(self) -> None:
        """Begin new means."""
        self._means = EpochMeans()

    def is_of(self, variables: list[keras.Variable]) -> bool:
        """Return whether measurements of `variables` can be added, without looking at the model."""
        return self._columns.are_of(variables)

    def find_layers(
        self, model: keras.Model, variables: list[keras.Variable], of_fit: list[keras.Variable]
    ) -> None:
        """Find the layers of `model`, the first time, and the columns of each, which unfreezing changes.

        Args:
            variables: what has a column in the measurements, in this order.
            of_fit: the weights that are trained in the fit, now or later.
        """
        owner = owners(model)
        if not self.layers:
            trained = {owner[id(weight)] for weight in of_fit}
            kernels = [weight for weight in of_fit if len(weight.shape) > 1]
            self.layers_with_kernels = {owner[id(weight)] for weight in kernels}
            self._name_layers([path for path in layers_by_path(model) if path in trained])
        self._columns.assign(variables, owner)

    def _name_layers(self, layers: list[str]) -> None:
        # From the first epoch on, also those unfrozen later: CSVLogger writes its heading then.
        self._columns = LayerColumns(layers)
        self._series = [f"{kind}/{layer}" for kind in self._kinds for layer in layers]
        self.history |= {name: [] for name in self._series}
        self._measured = {layer: bytearray() for layer in layers}

    def add(self, measurements: GradientMeasurements) -> LayerNorms:
        """Add the measurements of some updates, at least one, and return their norms of layers."""
        norms = LayerNorms.of(measurements, self._columns)
        self._means.add(norms, self.layers)
        self.history["gradient_norm"].extend(norms.total.tolist())
        self.history["clipped_gradient_norm"].extend(norms.clipped_total.tolist())
        for name, values, _ in norms.series(self.layers):
            if name in self.history:
                self.history[name].extend(values.tolist())
        for layer, measured in zip(self.layers, norms.measured.T, strict=True):
            self._measured[layer] += measured.tobytes()
        return norms

    def logs(self) -> dict[str, float]:
        """Return the means over the updates of the epoch so far."""
        return self._means.logs(self._series)

    @property
    def measured(self) -> dict[str, np.ndarray]:
        """By layer, bools of shape `(updates,)`: whether each update measured it."""
        return {layer: np.frombuffer(bytes(flags), bool) for layer, flags in self._measured.items()}
