"""The norms of all updates of a fit."""

import numpy as np

from keras_dnn_extras.gradients.layer_norms import LayerNorms


class NormHistory:
    """Appends the norms of updates to the lists of a `history`.

    Args:
        history: dict of lists with one float per update, under `"gradient_norm"`,
            `"clipped_gradient_norm"` and the names of the series of layers.
    """

    def __init__(self, history: dict[str, list[float]]):
        self._history = history
        self._layers: list[str] = []
        self._measured: dict[str, bytearray] = {}  # of each layer, whether each update measured it

    def __len__(self) -> int:
        """Return the number of updates."""
        return len(self._history.get("gradient_norm", ()))

    def name_layers(self, layers: list[str], series: list[str]) -> None:
        """Begin the `series` of `layers`. Before the first update."""
        self._layers = layers
        self._history |= {name: [] for name in series}
        self._measured = {layer: bytearray() for layer in layers}

    def append(self, norms: LayerNorms) -> None:
        """Append the norms of some updates."""
        self._history["gradient_norm"].extend(norms.total.tolist())
        self._history["clipped_gradient_norm"].extend(norms.clipped_total.tolist())
        for name, values, _ in norms.series(self._layers):
            if name in self._history:
                self._history[name].extend(values.tolist())
        for layer, measured in zip(self._layers, norms.measured.T, strict=True):
            self._measured[layer] += measured.tobytes()

    @property
    def measured(self) -> dict[str, np.ndarray]:
        """By layer, bools of shape `(updates,)`: whether each update measured it."""
        return {layer: np.frombuffer(bytes(flags), bool) for layer, flags in self._measured.items()}
