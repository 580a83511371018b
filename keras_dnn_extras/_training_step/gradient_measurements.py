"""What the gradient probe has measured in some updates."""

from dataclasses import dataclass

import numpy as np

from keras_dnn_extras._training_step.gradient_columns import NOT_APPLIED


@dataclass(frozen=True)
class GradientMeasurements:
    """What some updates of a `fit` have brought. Norms are L2 norms, of shape `(updates, columns)`.

    Attributes:
        updates: their numbers, from 0 at the beginning of the fit.
        gradient_norms: before clipping, unscaled, accumulated, and added over replicas. A column for
            each trainable variable of the model, and one for all others that the step applied.
        applied: of the same shape: whether the optimizer was given the variable in that update. Where it
            was not, as where another optimizer trains it, the norms mean nothing.
        clipped_norm: of shape `(updates,)`: of all gradients together, after clipping.
        clipped: of shape `(updates,)`: whether clipping changed any of them.
        change_norms, weight_norms: of what the update did to the weights, and of the weights before it,
            or None where nobody asked for them.
    """

    updates: np.ndarray
    gradient_norms: np.ndarray
    applied: np.ndarray
    clipped_norm: np.ndarray
    clipped: np.ndarray
    change_norms: np.ndarray | None = None
    weight_norms: np.ndarray | None = None

    @classmethod
    def of_tables(cls, updates: np.ndarray, tables: list[np.ndarray]) -> "GradientMeasurements":
        """Return the measurements in tables of the widths that `table_widths` returns."""
        first = tables[0]
        norms = first[:, :-2]
        halves = np.split(tables[1], 2, axis=1) if len(tables) > 1 else []
        return cls(updates, norms, norms != NOT_APPLIED, first[:, -2], first[:, -1] > 0, *halves)


def table_widths(variables: int, changes: bool) -> list[int]:
    """Return the widths of the tables that measure so many variables, and their changes maybe."""
    columns = variables + 1
    return [columns + 2, 2 * columns] if changes else [columns + 2]
