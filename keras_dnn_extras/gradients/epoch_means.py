"""The means of norms over the updates of an epoch, for its logs."""

import math

import numpy as np

from keras_dnn_extras.gradients.layer_norms import LayerNorms


class EpochMeans:
    """The means over the updates of an epoch so far."""

    def __init__(self) -> None:
        self._norm, self._clipped = _Mean(), _Mean()
        self._largest = -math.inf
        self._of_layers: dict[str, _Mean] = {}

    @property
    def updates(self) -> int:
        """How many updates there were."""
        return self._norm.count

    def add(self, norms: LayerNorms, layers: list[str]) -> None:
        """Take in the norms of some updates, at least one.

        Args:
            layers: the paths of the layers of `norms`.
        """
        self._norm.add(norms.total)
        self._clipped.add(norms.clipped)
        self._largest = float(np.maximum(self._largest, norms.total.max()))  # NaN if any is
        for name, values, counts in norms.series(layers):
            self._of_layers.setdefault(name, _Mean()).add(values[counts])

    def logs(self, series: list[str]) -> dict[str, float]:
        """Return the logs of the epoch, with the means of these `series` of layers. NaN of no update."""
        return {
            "gradient_norm": self._norm.value,
            "gradient_norm_max": self._largest if self.updates else math.nan,
            "clipped_fraction": self._clipped.value,
            **{name: self._of_layers.get(name, _Mean()).value for name in series},
        }


class _Mean:
    """A mean that grows: NaN of nothing."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: np.ndarray) -> None:
        """Take in `values` of shape `(updates,)`."""
        self.total += float(np.sum(values))
        self.count += len(values)

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else math.nan
