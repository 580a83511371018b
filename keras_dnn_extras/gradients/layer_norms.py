"""From the norms of variables to those of layers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np

from keras_dnn_extras._training_step import GradientMeasurements


class LayerColumns:
    """Which columns of the measurements belong to each layer.

    Attributes:
        layers: their paths, from the first to the last.
    """

    def __init__(self, layers: list[str]):
        self.layers = layers
        self._columns: list[list[int]] = [[] for _ in layers]
        self._variables: list[int] = []

    def are_of(self, variables: list[keras.Variable]) -> bool:
        """Return whether the columns are those of `variables`."""
        return list(map(id, variables)) == self._variables

    def assign(self, variables: list[keras.Variable], owner: dict[int, str]) -> None:
        """Give each layer the columns of its variables.

        Args:
            variables: what has a column in the measurements, in this order.
            owner: the path of the layer of each, by `id(variable)`.
        """
        self._variables = list(map(id, variables))
        by_layer: dict[str, list[int]] = {layer: [] for layer in self.layers}
        for column, variable in enumerate(variables):
            by_layer[owner[id(variable)]].append(column)
        self._columns = list(by_layer.values())

    def norms(self, norms: np.ndarray, applied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the norms of layers, NaN where none of their weights was applied, and where one was.

        Args:
            norms, applied: of shape `(updates, columns)`.

        Returns:
            Two arrays of shape `(updates, layers)`.
        """
        measured = np.stack([applied[:, columns].any(axis=1) for columns in self._columns], axis=1)
        norms = np.where(applied, norms, 0.0)
        of_layers = np.stack([joint_norm(norms[:, columns]) for columns in self._columns], axis=1)
        return np.where(measured, of_layers, math.nan), measured


@dataclass(frozen=True)
class LayerNorms:
    """Norms of some updates, of layers in the shape `(updates, layers)`, else `(updates,)`.

    Attributes:
        total: of all gradients together.
        clipped_total: the same after clipping.
        clipped: whether clipping changed any.
        layers: of the gradients of each layer, NaN where it was not measured.
        measured: whether it was.
        ratios: norms of weight changes over those of the weights, NaN where there is none, or None where
            they are not measured.
    """

    total: np.ndarray
    clipped_total: np.ndarray
    clipped: np.ndarray
    layers: np.ndarray
    measured: np.ndarray
    ratios: np.ndarray | None

    @classmethod
    def of(cls, measurements: GradientMeasurements, columns: LayerColumns) -> "LayerNorms":
        """Return the norms of layers in `measurements`."""
        applied = measurements.applied
        total = joint_norm(np.where(applied, measurements.gradient_norms, 0.0))
        # What clipping left as it was has the same norm, but for the roundings of another way to it. Of
        # infinity it makes NaN.
        changed = measurements.clipped | ~np.isfinite(total)
        clipped_total = np.where(changed, measurements.clipped_norm, total)
        layers, measured = columns.norms(measurements.gradient_norms, applied)
        ratios = _ratios(measurements, columns)
        return cls(total, clipped_total, measurements.clipped, layers, measured, ratios)

    def series(self, layers: list[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield the name of each series of one of `layers`, its values and which of them count."""
        of_gradients = zip(layers, self.layers.T, self.measured.T, strict=True)
        yield from ((f"gradient_norm/{layer}", values, counts) for layer, values, counts in of_gradients)
        if self.ratios is not None:
            of_changes = zip(layers, self.ratios.T, strict=True)
            yield from (
                (f"update_ratio/{layer}", values, ~np.isnan(values)) for layer, values in of_changes
            )


def joint_norm(norms: np.ndarray) -> np.ndarray:
    """Return the L2 norms of vectors of which `norms`, of shape `(updates, columns)`, has the parts'."""
    return np.sqrt(np.sum(np.square(norms), axis=1))


def _ratios(measurements: GradientMeasurements, columns: LayerColumns) -> np.ndarray | None:
    changes, weights = measurements.change_norms, measurements.weight_norms
    if changes is None or weights is None:
        return None
    (changes, _), (weights, _) = (columns.norms(n, measurements.applied) for n in (changes, weights))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = changes / weights
    ratios[weights == 0] = math.nan
    return ratios
