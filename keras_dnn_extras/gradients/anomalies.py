"""Which norms of gradients mean that they vanish, explode or are not finite, layer by layer."""

import math
from dataclasses import dataclass

import numpy as np

IN_A_ROW = 10  # updates with small gradients that make them vanishing ones, and no accident


@dataclass(frozen=True)
class Found:
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


class Verdict:
    """Judges the norms of the layers as they come in, and each layer once for each kind."""

    def __init__(self, layers: int, vanishing: float, exploding: float):
        self._vanishing, self._exploding = vanishing, exploding
        self._seen = np.zeros(layers, int)  # updates that measured the layer
        self._run = np.zeros(layers, int)  # of these, the last ones in a row with small gradients
        self._run_began = np.zeros(layers, int)  # in this update
        self._healthy = np.zeros(layers, bool)  # whether they have been large enough
        self._least = np.full(layers, math.inf)
        self._vanished_told = np.zeros(layers, bool)
        self._exploded_told = np.zeros(layers, bool)
        self._not_finite_told = False

    def judge(
        self,
        updates: np.ndarray,
        norms: np.ndarray,
        totals: np.ndarray,
        measured: np.ndarray | None = None,
    ) -> dict[str, Found]:
        """Return what these updates bring to light, by its kind, in the order of the updates.

        Args:
            norms: of shape `(updates, layers)`.
            totals: of shape `(updates,)`, the norms of all gradients together.
            measured: bools of the shape of `norms`: which of them mean something. None for all.
        """
        if measured is None:
            measured = np.ones(norms.shape, bool)
        norms = np.where(measured, norms, math.nan)
        self._seen += measured.sum(axis=0)
        kinds = {
            "non-finite": self._not_finite(updates, norms, measured),
            "exploding": self._exploded(updates, norms, measured),
            "vanishing": self._vanished(updates, norms, totals, measured),
        }
        found = {kind: it for kind, it in kinds.items() if it is not None}
        return dict(sorted(found.items(), key=lambda item: item[1].update))

    def vanished_throughout(self) -> Found | None:
        """Return the layers whose gradients were small in all updates that measured them."""
        layers = (self._run == self._seen) & (self._seen > 0) & ~self._vanished_told
        if not layers.any():
            return None
        return self._small(layers, int(self._run_began[layers].min()), float(self._least[layers].min()))

    def _small(self, layers: np.ndarray, update: int, norm: float) -> Found:
        return Found(update, layers, norm, int(np.count_nonzero(self._seen)))

    def _not_finite(self, updates: np.ndarray, norms: np.ndarray, measured: np.ndarray) -> Found | None:
        where = measured & ~np.isfinite(norms)
        if self._not_finite_told or not where.any():
            return None
        self._not_finite_told = True  # what comes after it is most often its consequence
        first = int(np.argmax(where.any(axis=1)))
        return Found(int(updates[first]), where[first], math.nan, int(measured[first].sum()))

    def _exploded(self, updates: np.ndarray, norms: np.ndarray, measured: np.ndarray) -> Found | None:
        where = np.isfinite(norms) & (norms > self._exploding) & ~self._exploded_told
        if not where.any():
            return None
        layers = where.any(axis=0)
        self._exploded_told |= layers
        first, of_layers = int(np.argmax(where.any(axis=1))), int(measured.any(axis=0).sum())
        return Found(int(updates[first]), layers, float(norms[where].max()), of_layers)

    def _vanished(
        self, updates: np.ndarray, norms: np.ndarray, totals: np.ndarray, measured: np.ndarray
    ) -> Found | None:
        small = norms < self._vanishing
        if not small.any():
            self._run[measured.any(axis=0)] = 0
            self._healthy |= np.any(norms >= self._vanishing, axis=0)
            return None
        firsts, least = [], math.inf
        layers = np.zeros_like(self._healthy)
        for row, update in enumerate(updates):
            norm = norms[row]
            # Where all gradients are small that once were not, the training has come to its end.
            counts = small[row] & (~self._healthy | (totals[row] >= self._vanishing))
            self._extend_runs(int(update), counts, measured[row])
            self._healthy |= norm >= self._vanishing
            self._least = np.fmin(self._least, norm)
            new = (self._run >= IN_A_ROW) & ~self._vanished_told
            if new.any():
                self._vanished_told |= new
                layers |= new
                firsts += self._run_began[new].tolist()
                least = min(least, float(norm[new].min()))
        return self._small(layers, min(firsts), least) if firsts else None

    def _extend_runs(self, update: int, counts: np.ndarray, measured: np.ndarray) -> None:
        """Let an update that did not measure a layer neither extend nor end its run."""
        self._run_began[counts & (self._run == 0)] = update
        self._run[counts] += 1
        self._run[measured & ~counts] = 0
