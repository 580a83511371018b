"""The arguments of callbacks that decay the learning rate, checked."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_dnn_extras._arguments import check_in_float32, check_number
from keras_dnn_extras.learning_rates.range_test_result import LearningRateSearch
from keras_dnn_extras.learning_rates.suggested_rate import rate_of


def checked_initial(rate: float | LearningRateSearch | None) -> float | None:
    if rate is None:
        return None
    rate = rate_of("initial_learning_rate", rate)
    check_in_float32("initial_learning_rate", rate)
    return rate


def check_one_of(**arguments: float | None) -> None:
    """Raise unless one of two arguments is given, and positive."""
    first, second = arguments
    passed = {name: value for name, value in arguments.items() if value is not None}
    if len(passed) != 1:
        received = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise ValueError(f"Expected either `{first}` or `{second}`, and not both. Received: {received}")
    for name, value in passed.items():
        check_in_float32(name, value)


def check_none_of(beside: str, **arguments: float | None) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"`{name}` goes with `decay_rate`, not with `{beside}`. Received: {name}={value!r}"
            )


def check_list(name: str, values: Any, check: Callable[[str, Any], None]) -> None:
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, str):
        raise TypeError(f"Expected `{name}` to be a list of numbers. Received: {name}={values!r}")
    for i, value in enumerate(values):
        check(f"{name}[{i}]", value)


def check_boundary(name: str, value: Any) -> None:
    check_number(name, value, "at least 0 and finite", lambda v: 0 <= v < math.inf)
