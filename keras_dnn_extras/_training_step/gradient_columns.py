"""Which column of a table a variable of the model has."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._training_step.tensor_norms import scaled_norm

NOT_APPLIED = -1.0  # in the place of a norm: of a variable that an update was not given


class GradientColumns:
    """A column for each of some variables, and one behind them for all others together.

    Args:
        variables: those with a column of their own.
    """

    def __init__(self, variables: list[keras.Variable]):
        self.variables = variables
        self._indices = {id(variable): i for i, variable in enumerate(variables)}

    def arrange(self, norms: Any, variables: list, applied: list) -> list:
        """Return vectors that joined are the norms by column, the last one that of all other variables.

        It is 0 for what was `applied` without a norm, and `NOT_APPLIED` for all other columns.

        Args:
            norms: float32 tensor of shape `(len(variables),)`.
            variables: what the norms are of, in any order.
            applied: all that the optimizer was given.
        """
        count, columns = len(self._indices), self._columns_of(variables)
        if columns == list(range(count)):
            return [norms, ops.zeros((1,), "float32")]
        number = len(variables)
        zero, none = number, number + 1  # in the padded norms
        sources = np.full(count + 1, none, "int32")
        sources[self._columns_of(applied)] = zero
        sources[columns] = np.arange(number)
        without_column = [i for i, column in enumerate(columns) if column == count]
        padding = ops.convert_to_tensor([0.0, NOT_APPLIED], "float32")
        padded = ops.concatenate([norms, padding])
        # As int32: on JAX a NumPy array becomes float32 where `floatx` is bfloat16 (keras issue 23703).
        by_column = ops.take(padded, ops.convert_to_tensor(sources[:count], "int32"))
        rest = ops.take(padded, ops.convert_to_tensor([*without_column, zero], "int32"))
        return [by_column, ops.reshape(scaled_norm(rest), (1,))]

    def _columns_of(self, variables: list) -> list[int]:
        """Return the columns of `variables`: behind the last one for those that have none of their own."""
        return [self._indices.get(id(variable), len(self._indices)) for variable in variables]
