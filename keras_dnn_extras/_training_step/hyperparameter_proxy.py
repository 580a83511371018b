"""A tensor in the place of a float hyperparameter of an optimizer."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._backends import table_dtype

REMEDY = (
    "In an optimizer of your own compute with `keras.ops`, or let the callback leave it alone, as "
    "`OneCycleScheduler(cycle_momentum=False)` does."
)


def without_zeros(values: np.ndarray) -> np.ndarray:
    """Return hyperparameters for the table, each 0 replaced where an optimizer would see it.

    Optimizers ask `momentum != 0` to know whether they have slots, and on PyTorch they ask the tensor:
    an update whose momentum is 0 would leave its slots as they were. Products with the number that
    replaces 0 are 0 in float32.
    """
    if keras.backend.backend() != "torch":
        return values
    return np.where(values == 0, np.finfo(table_dtype()).tiny, values)


def proxy(number: float, value: Any, complement: Any) -> Any:
    """Return the proxy that replaces the hyperparameter `number` in the step.

    Args:
        value: the tensor to compute with, of shape `()`.
        complement: `1 - value`, rounded once.
    """
    return value if keras.backend.backend() == "torch" else _Proxy(number, value, complement)


class _Proxy:
    """A proxy of a float hyperparameter in the step: compared as the number, computed as a tensor.

    Optimizers ask `momentum != 0` or `momentum > 0` to know whether they have slots for it, which is
    decided before the trace, and use it in arithmetic and in `ops.cast`, which is traced. Whatever
    would make a constant of it, as `float` does, is an error.
    """

    def __init__(self, number: float, value: Any, complement: Any):
        self._number = number
        self._value = value
        self._complement = complement

    @property
    def dtype(self) -> Any:
        return self._value.dtype

    @property
    def shape(self) -> tuple:
        return ()

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self._value if dtype is None else ops.cast(self._value, dtype.name)

    def __jax_array__(self) -> Any:
        return self._value

    def _like(self, other: Any, value: Any) -> Any:
        dtype = getattr(other, "dtype", None)
        if dtype is None:
            return value
        dtype = keras.backend.standardize_dtype(dtype)
        return ops.cast(value, dtype) if "float" in dtype else value

    def _refuse(self, *_: Any) -> Any:
        raise TypeError(
            "A hyperparameter that a callback drives is a tensor in the training step, and no Python "
            f"number. {REMEDY}"
        )

    __float__ = __int__ = __index__ = __array__ = _refuse

    def __format__(self, spec: str) -> str:
        return format(self._number, spec)

    def __bool__(self) -> bool:
        return bool(self._number)

    def __eq__(self, other: object) -> bool:
        return self._number == other

    def __ne__(self, other: object) -> bool:
        return self._number != other

    def __lt__(self, other: Any) -> bool:
        return self._number < other

    def __le__(self, other: Any) -> bool:
        return self._number <= other

    def __gt__(self, other: Any) -> bool:
        return self._number > other

    def __ge__(self, other: Any) -> bool:
        return self._number >= other

    __hash__ = None  # type: ignore[assignment]

    def __rsub__(self, other: Any) -> Any:
        if isinstance(other, (int, float)) and other == 1:
            return self._complement
        return ops.subtract(other, self._like(other, self._value))

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, (int, float)) and other == 1:
            return ops.negative(self._complement)
        return ops.subtract(self._like(other, self._value), other)

    def __add__(self, other: Any) -> Any:
        return ops.add(self._like(other, self._value), other)

    def __mul__(self, other: Any) -> Any:
        return ops.multiply(self._like(other, self._value), other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return ops.divide(self._like(other, self._value), other)

    def __rtruediv__(self, other: Any) -> Any:
        return ops.divide(other, self._like(other, self._value))

    def __pow__(self, other: Any) -> Any:
        return ops.power(self._like(other, self._value), other)

    def __rpow__(self, other: Any) -> Any:
        return ops.power(ops.convert_to_tensor(other, self.dtype), self._value)

    def __abs__(self) -> Any:
        return ops.abs(self._value)

    def __neg__(self) -> Any:
        return ops.negative(self._value)
