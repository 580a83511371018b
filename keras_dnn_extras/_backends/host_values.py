"""Values of variables as NumPy arrays."""

import keras
import numpy as np
from keras import ops


def value_on_host(variable: keras.Variable) -> np.ndarray:
    """Return a copy of the value of `variable`.

    On JAX the array that Keras returns shares the variable's memory, which a step gives away.
    """
    return np.array(ops.convert_to_numpy(variable))
