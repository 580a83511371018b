"""Arguments of public classes and functions: checked in Keras's words, and told in configs."""

from collections.abc import Callable
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np

PACKAGE = "keras_dnn_extras"  # the name that classes are registered under: part of the file format


def check_number(
    name: str, value: Any, expected: str, holds: Callable[[Any], bool], kind: type = Real
) -> None:
    """Raise unless `value` is a number of the `kind` Real or Integral, and `holds(value)`.

    Args:
        expected: what `holds` asks for, as in "Expected `name` to be positive".
    """
    if isinstance(value, bool) or not isinstance(value, kind):
        expected = "a number" if kind is Real else "an int"
        raise TypeError(f"Expected `{name}` to be {expected}. Received: {name}={value!r}")
    _check_float(name, value)
    if not holds(value):
        raise ValueError(f"Expected `{name}` to be {expected}. Received: {name}={value!r}")


def _check_float(name: str, value: Any) -> None:
    try:
        float(value)
    except OverflowError as error:  # of an int of more than 308 digits, which may be too many to print
        raise ValueError(
            f"Expected `{name}` to be at most {np.finfo('float64').max:.2g}, the largest float. "
            f"Received: {name}=<{type(value).__name__}, too large to print>"
        ) from error


def check_positive(name: str, value: Any, kind: type = Real) -> None:
    """Raise unless `value` is a positive and finite number."""
    expected = "a positive int" if kind is Integral else "positive and finite"
    check_number(name, value, expected, lambda v: 0 < v < float("inf"), kind)


def positive_float(name: str, value: Any) -> float:
    """Return `value` as a float; raise unless it is one number, positive and in the range of float32.

    Tensors, variables and arrays of shape `()` are numbers too, as `optimizer.learning_rate` is.
    """
    shape, dtype = getattr(value, "shape", None), str(getattr(value, "dtype", ""))
    is_number = shape is not None and tuple(shape) == () and ("float" in dtype or "int" in dtype)
    if isinstance(value, Decimal) or (is_number and not isinstance(value, Real)):
        value = float(value)
    check_in_float32(name, value)
    return float(value)


def check_in_float32(name: str, value: Any, kind: type = Real) -> None:
    """Raise unless `value` is a positive number that float32, which steps compute in, can hold."""
    check_positive(name, value, kind)
    limits = np.finfo("float32")
    least, most = float(limits.tiny), float(limits.max)
    expected = f"from {least:.2g} to {most:.2g}, the range of float32"
    expected = f"at most {most:.2g}" if kind is Integral else expected
    check_number(name, value, expected, lambda v: least <= v <= most, kind)


def check_rate(name: str, value: Any) -> None:
    """Raise unless `value` is a learning rate: 0, or a positive number that float32 can hold."""
    check_number(name, value, "at least 0 and finite", lambda v: 0 <= v < float("inf"))
    if value:
        check_in_float32(name, value)


def check_bool(name: str, value: Any) -> None:
    """Raise unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"Expected `{name}` to be a bool. Received: {name}={value!r}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise unless `value` is one of `choices`, a `Literal` of strings."""
    if not isinstance(value, str):
        raise TypeError(f"Expected `{name}` to be a string. Received: {name}={value!r}")
    if value not in get_args(choices):
        expected = ", ".join(map(repr, get_args(choices)))
        raise ValueError(f"Expected `{name}` to be one of {expected}. Received: {name}={value!r}")


def check_verbose(verbose: Any) -> None:
    """Raise unless `verbose` is an int, or a bool."""
    if not isinstance(verbose, Integral):
        raise TypeError(f"Expected `verbose` to be 0 or 1. Received: verbose={verbose!r}")


def real_array(name: str, values: Any) -> np.ndarray:
    """Return `values` as an array of float64. Raise where they are no real numbers.

    NumPy would make NaN of None and numbers of strings, and leave out imaginary parts.
    """
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.array(None)
    of_numbers = array.dtype.kind == "O" and array.ndim and all(isinstance(v, Real) for v in array.flat)
    if array.dtype.kind in "cmMOSU" and not of_numbers:
        raise TypeError(f"Expected `{name}` to be an array of real numbers. Received: {name}={values!r}")
    return array.astype("float64")


def config_of(instance: Any, *names: str) -> dict[str, Any]:
    """Return the attributes `names` as a config holds them: NumPy's numbers as Python's."""
    return {name: _plain(getattr(instance, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def counted(count: int, noun: str) -> str:
    """Return `count` with the singular or the plural of `noun`: `1 layer`, `2,000 batches`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith(('s', 'tch', 'x')) else 's'}"
