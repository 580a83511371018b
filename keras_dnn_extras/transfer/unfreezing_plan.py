"""The plan of `GradualUnfreezing`: from epochs to layers, checked, and as a config holds it."""

import re
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import keras

from keras_dnn_extras._arguments import check_number

_KINDS_OF_LAYERS = (str, Integral, slice, re.Pattern, keras.layers.Layer)


def check_plan(plan: Any) -> None:
    """Raise unless `plan` is a dict from epochs to what `unfreeze` takes."""
    if not isinstance(plan, Mapping):
        raise TypeError(f"Expected `plan` to be a dict from epochs to layers. Received: plan={plan!r}")
    if not plan:
        raise ValueError(f"Expected `plan` to have at least one epoch. Received: plan={plan!r}")
    for epoch, layers in plan.items():
        check_number("the epochs of plan", epoch, "at least 0", lambda epoch: epoch >= 0, Integral)
        for item in layers if isinstance(layers, (list, tuple)) else [layers]:
            if item is not None and (isinstance(item, bool) or not isinstance(item, _KINDS_OF_LAYERS)):
                raise TypeError(
                    "Expected the layers of `plan` to be None, a name, an int, a slice, a layer, a "
                    f"compiled regular expression, or a list of these. Received: plan={plan!r}"
                )


def plan_to_config(plan: Mapping[int, Any]) -> dict[int, Any]:
    return {epoch: _to_config(layers) for epoch, layers in plan.items()}


def plan_from_config(config: Mapping[Any, Any]) -> dict[int, Any]:
    return {int(epoch): _from_config(layers) for epoch, layers in config.items()}


def _to_config(layers: Any) -> Any:
    if isinstance(layers, (list, tuple)):
        return [_to_config(item) for item in layers]
    if isinstance(layers, slice):
        return {"slice": [layers.start, layers.stop, layers.step]}
    if isinstance(layers, re.Pattern):
        return {"regex": layers.pattern, "flags": layers.flags}
    return layers.name if isinstance(layers, keras.layers.Layer) else layers


def _from_config(layers: Any) -> Any:
    if isinstance(layers, (list, tuple)):
        return [_from_config(item) for item in layers]
    if not isinstance(layers, dict):
        return layers
    return slice(*layers["slice"]) if "slice" in layers else re.compile(layers["regex"], layers["flags"])
