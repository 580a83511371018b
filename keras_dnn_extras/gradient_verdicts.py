"""Which norms of gradients mean that they vanish, explode or are not finite, layer by layer."""

import math
from dataclasses import dataclass

import numpy as np

KINDS = ("vanishing", "exploding", "non-finite")
IN_A_ROW = 10  # updates with small gradients that make them vanishing ones, and no accident


@dataclass(frozen=True)
class Found:
    """Layers whose gradients are not as they should be.

    Attributes:
        update: the first that shows it.
        layers: a bool for each layer.
        norm: the smallest of those that vanish, the largest of those that explode, else NaN.
    """

    update: int
    layers: np.ndarray
    norm: float


class Verdict:
    """Judges the norms of the layers as they come in, and each layer once for each kind."""

    def __init__(self, layers: int, vanishing: float, exploding: float):
        self._vanishing, self._exploding = vanishing, exploding
        self._run = np.zeros(layers, int)  # updates in a row with small gradients
        self._healthy = np.zeros(layers, bool)  # whether they have been large enough
        self._least = np.full(layers, math.inf)
        self._first: int | None = None
        self._seen = np.zeros(layers, int)
        self._told = {kind: np.zeros(layers, bool) for kind in KINDS}

    def rearrange(self, places: list[int | None]) -> None:
        """Go on with other layers: those that were in these `places`, and new ones where it is None."""
        new = Verdict(len(places), self._vanishing, self._exploding)
        old = [(i, place) for i, place in enumerate(places) if place is not None]
        for mine, theirs in zip(self._by_layer(), new._by_layer(), strict=True):
            for i, place in old:
                theirs[i] = mine[place]
        self._run, self._healthy, self._least, self._seen, *told = new._by_layer()
        self._told = dict(zip(KINDS, told, strict=True))

    def _by_layer(self) -> list[np.ndarray]:
        return [self._run, self._healthy, self._least, self._seen, *self._told.values()]

    def judge(self, updates: np.ndarray, norms: np.ndarray, totals: np.ndarray) -> dict[str, Found]:
        """Return what these updates bring to light, by its kind, in the order of the updates.

        Args:
            norms: of shape `(updates, layers)`.
            totals: of shape `(updates,)`, the norms of all gradients together.
        """
        if self._first is None:
            self._first = int(updates[0])
        self._seen += len(updates)
        finite = np.isfinite(norms)
        kinds = {
            "non-finite": self._not_finite(updates, ~finite),
            "exploding": self._exploded(updates, norms, finite & (norms > self._exploding)),
            "vanishing": self._vanished(updates, norms, totals),
        }
        found = {kind: it for kind, it in kinds.items() if it is not None}
        return dict(sorted(found.items(), key=lambda item: item[1].update))

    def vanished_throughout(self) -> Found | None:
        """Return the layers whose gradients were small in all updates so far."""
        layers = (self._run == self._seen) & ~self._told["vanishing"]
        if not layers.any() or self._first is None:
            return None
        return Found(self._first, layers, float(self._least[layers].min()))

    def _not_finite(self, updates: np.ndarray, where: np.ndarray) -> Found | None:
        told = self._told["non-finite"]
        if told.all() or not where.any():
            return None
        first = int(np.argmax(np.any(where, axis=1)))
        told[:] = True  # what comes after it is most often its consequence
        return Found(int(updates[first]), where[first], math.nan)

    def _exploded(self, updates: np.ndarray, norms: np.ndarray, where: np.ndarray) -> Found | None:
        where = where & ~self._told["exploding"]
        if not where.any():
            return None
        first, layers = int(np.argmax(np.any(where, axis=1))), np.asarray(np.any(where, axis=0))
        self._told["exploding"] |= layers
        return Found(int(updates[first]), layers, float(norms[where].max()))

    def _vanished(self, updates: np.ndarray, norms: np.ndarray, totals: np.ndarray) -> Found | None:
        small = norms < self._vanishing
        if not small.any():
            self._run[:] = 0
            self._healthy |= np.any(norms >= self._vanishing, axis=0)
            return None
        first, least = None, math.inf
        layers = np.zeros_like(self._healthy)
        for update, norm, total, is_small in zip(updates, norms, totals, small, strict=True):
            # Where all gradients are small that once were not, the training has come to its end.
            self._run = np.where(is_small & (~self._healthy | (total >= self._vanishing)), self._run + 1, 0)
            self._healthy |= norm >= self._vanishing
            self._least = np.minimum(self._least, norm)
            new = (self._run >= IN_A_ROW) & ~self._told["vanishing"]
            if new.any():
                self._told["vanishing"] |= new
                layers |= new
                first = int(update) - IN_A_ROW + 1 if first is None else first
                least = min(least, float(norm[new].min()))
        return None if first is None else Found(first, layers, least)
