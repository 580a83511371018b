"""The parts of attention layers, which are no public attributes."""

from typing import Any

PROJECTIONS = {
    "query": "_query_dense",
    "key": "_key_dense",
    "value": "_value_dense",
    "output": "_output_dense",
    "gate": "_gate_dense",
}
"""The attributes of multi-head attention that hold the layers which project its inputs and outputs."""

WEIGHTED_SUM = "_apply_scores"
"""The method of attention layers that drops weights, and takes the mean of the values by them."""


def projection(layer: Any, name: str) -> Any:
    """Return one of the projections of multi-head attention, or None where it does not have it."""
    return getattr(layer, PROJECTIONS[name], None)
