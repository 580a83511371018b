"""The types of what users hand to Keras through this package.

Type checkers see nothing of Keras where they are told to pass over it, as mypy has to be. So these name no
class of Keras where another type says it as well: a loss, a metric and an initializer can all be called.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import keras


class BatchSource(Protocol):
    """What Keras's `PyDataset` has: batches by their number."""

    @property
    def num_batches(self) -> int | None: ...

    def __getitem__(self, index: int, /) -> Any: ...


Data: TypeAlias = Iterable[Any] | BatchSource
"""Arrays, dicts and lists of them, pandas, `tf.data.Dataset`, `DataLoader`, generators, and `PyDataset`."""

ByName: TypeAlias = str | Callable[..., Any] | Mapping[str, Any]
"""What Keras gets by a name, a config or as itself: losses, activations, initializers, regularizers."""

Losses: TypeAlias = ByName | Sequence[Any]
Metrics: TypeAlias = Sequence[Any] | Mapping[str, Any]
OptimizerChoice: TypeAlias = str | keras.optimizers.Optimizer | Mapping[str, Any]

Head: TypeAlias = keras.layers.Layer | Sequence[keras.layers.Layer]

LayerChoice: TypeAlias = str | int | slice | re.Pattern[str] | keras.layers.Layer | None
"""Layers of a model: a name or path, an index, a slice, a layer, a regular expression, None for all."""

LayerChoices: TypeAlias = LayerChoice | Sequence[LayerChoice]
