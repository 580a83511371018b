"""Which norms of gradients mean that they vanish, explode or are not finite, layer by layer."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

AnomalyKind = Literal["vanishing", "exploding", "non-finite"]

IN_A_ROW = 10  # updates with small gradients that make them vanishing ones, and no accident


@dataclass(frozen=True)
class Anomaly:
    """Layers whose gradients are not as they should be.

    Attributes:
        update: the first that shows it.
        layers: a bool for each layer.
        norm: the smallest of those that vanish, the largest of those that explode, else NaN.
        measured: how many layers were measured.
    """

    update: int
    layers: np.ndarray
    norm: float
    measured: int


class AnomalyDetector:
    """Checks the norms of layers as they come in, and reports each layer once for each kind of anomaly."""

    def __init__(self, layers: int, vanishing: float, exploding: float):
        self._vanishing, self._exploding = vanishing, exploding
        self._measured_count = np.zeros(layers, int)  # updates that measured the layer
        self._small_count = np.zeros(layers, int)  # of these, the last ones in a row with small gradients
        self._small_since = np.zeros(layers, int)  # in this update
        self._healthy = np.zeros(layers, bool)  # whether they have been large enough
        self._least = np.full(layers, math.inf)
        self._vanished_reported = np.zeros(layers, bool)
        self._exploded_reported = np.zeros(layers, bool)
        self._not_finite_reported = False

    def detect(
        self,
        updates: np.ndarray,
        norms: np.ndarray,
        totals: np.ndarray,
        measured: np.ndarray | None = None,
    ) -> dict[AnomalyKind, Anomaly]:
        """Return the anomalies that these updates show, by their kind, in the order of the updates.

        Args:
            norms: of shape `(updates, layers)`.
            totals: of shape `(updates,)`, the norms of all gradients together.
            measured: bools of the shape of `norms`: which of them mean something. None for all.
        """
        if measured is None:
            measured = np.ones(norms.shape, bool)
        norms = np.where(measured, norms, math.nan)
        self._measured_count += measured.sum(axis=0)
        kinds: dict[AnomalyKind, Anomaly | None] = {
            "non-finite": self._not_finite(updates, norms, measured),
            "exploding": self._exploded(updates, norms, measured),
            "vanishing": self._vanished(updates, norms, totals, measured),
        }
        anomalies = {kind: anomaly for kind, anomaly in kinds.items() if anomaly is not None}
        return dict(sorted(anomalies.items(), key=lambda item: item[1].update))

    def vanished_throughout(self) -> Anomaly | None:
        """Return the layers whose gradients were small in all updates that measured them."""
        always_small = (self._small_count == self._measured_count) & (self._measured_count > 0)
        layers = always_small & ~self._vanished_reported
        if not layers.any():
            return None
        return self._small(layers, int(self._small_since[layers].min()), float(self._least[layers].min()))

    def _small(self, layers: np.ndarray, update: int, norm: float) -> Anomaly:
        return Anomaly(update, layers, norm, int(np.count_nonzero(self._measured_count)))

    def _not_finite(self, updates: np.ndarray, norms: np.ndarray, measured: np.ndarray) -> Anomaly | None:
        where = measured & ~np.isfinite(norms)
        if self._not_finite_reported or not where.any():
            return None
        self._not_finite_reported = True  # what comes after it is most often its consequence
        first = int(np.argmax(where.any(axis=1)))
        return Anomaly(int(updates[first]), where[first], math.nan, int(measured[first].sum()))

    def _exploded(self, updates: np.ndarray, norms: np.ndarray, measured: np.ndarray) -> Anomaly | None:
        where = np.isfinite(norms) & (norms > self._exploding) & ~self._exploded_reported
        if not where.any():
            return None
        layers = where.any(axis=0)
        self._exploded_reported |= layers
        first, of_layers = int(np.argmax(where.any(axis=1))), int(measured.any(axis=0).sum())
        return Anomaly(int(updates[first]), layers, float(norms[where].max()), of_layers)

    def _vanished(
        self, updates: np.ndarray, norms: np.ndarray, totals: np.ndarray, measured: np.ndarray
    ) -> Anomaly | None:
        small = norms < self._vanishing
        if not small.any():
            self._small_count[measured.any(axis=0)] = 0
            self._healthy |= np.any(norms >= self._vanishing, axis=0)
            return None
        firsts, least = [], math.inf
        layers = np.zeros_like(self._healthy)
        for row, update in enumerate(updates):
            norm = norms[row]
            # Where all gradients are small that once were not, the training has come to its end.
            counts = small[row] & (~self._healthy | (totals[row] >= self._vanishing))
            self._count_small(int(update), counts, measured[row])
            self._healthy |= norm >= self._vanishing
            self._least = np.fmin(self._least, norm)
            new = (self._small_count >= IN_A_ROW) & ~self._vanished_reported
            if new.any():
                self._vanished_reported |= new
                layers |= new
                firsts += self._small_since[new].tolist()
                least = min(least, float(norm[new].min()))
        return self._small(layers, min(firsts), least) if firsts else None

    def _count_small(self, update: int, counts: np.ndarray, measured: np.ndarray) -> None:
        """Let an update that did not measure a layer neither extend nor end its run."""
        self._small_since[counts & (self._small_count == 0)] = update
        self._small_count[counts] += 1
        self._small_count[measured & ~counts] = 0
