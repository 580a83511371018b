"""The cells of a map of gradient norms, each of one update or of several."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_MOST = 1000  # cells, before neighbours share one


@dataclass(frozen=True)
class Cells:
    """What the map shows, in cells that may each stand for several updates.

    Attributes:
        edges: where the cells begin and end on the axis of the updates, of shape `(cells + 1,)`.
        norms: of shape `(layers, cells)`: the median of a cell, infinity where most are not finite, NaN
            where nothing was measured.
        first_above: by layer, the first update whose norm is above a threshold, NaN where there is none.
        first_not_finite: by layer, the first whose norm is not finite, NaN where there is none.
    """

    edges: np.ndarray
    norms: np.ndarray
    first_above: np.ndarray
    first_not_finite: np.ndarray

    @classmethod
    def of(cls, norms: np.ndarray, measured: np.ndarray, threshold: float) -> "Cells":
        """Return the cells of `norms` and `measured`, which are of shape `(layers, updates)`."""
        updates = norms.shape[1]
        edges = np.unique(np.linspace(0, updates, min(updates, _MOST) + 1).astype(int))
        norms = np.where(np.isfinite(norms), norms, math.inf)
        medians = [_medians(norms[:, a:b], measured[:, a:b]) for a, b in pairwise(edges)]
        not_finite = np.isinf(norms) & measured
        above = (norms > threshold) & ~not_finite & measured
        return cls(edges, np.stack(medians, axis=1), _firsts(above), _firsts(not_finite))


def _firsts(where: np.ndarray) -> np.ndarray:
    """Return the first index of each row that is True, or NaN."""
    return np.where(where.any(axis=1), where.argmax(axis=1), math.nan)


def _medians(norms: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return the median of each row over what was `measured`: NaN where nothing was."""
    if measured.all():
        return _lower_median(norms)
    rows = zip(norms, measured, strict=True)
    return np.array([_lower_median(row[there]) if there.any() else math.nan for row, there in rows])


def _lower_median(norms: np.ndarray) -> np.ndarray:
    """Return the lower median over the last axis: between a number and infinity there is no mean."""
    return np.sort(norms)[..., (norms.shape[-1] - 1) // 2]
