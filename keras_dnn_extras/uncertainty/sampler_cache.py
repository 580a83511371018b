"""Samplers of models, kept from one prediction to the next as long as a model and its layers are the same.

They are kept beside the models, not in them: nothing of them is pickled, copied or saved with a model, and
they go when the model goes.
"""

import weakref
from typing import Any

import keras
from keras import tree

from keras_dnn_extras._models import build
from keras_dnn_extras.uncertainty.mc_sampler import Sampler
from keras_dnn_extras.uncertainty.traced_settings import Settings

_SHAPES = 32  # of inputs, for which samplers are kept
_SAMPLERS: "weakref.WeakKeyDictionary[keras.Model, Samplers]" = weakref.WeakKeyDictionary()


def samplers_of(model: keras.Model, batch: Any) -> "Samplers":
    """Return the samplers of `model`, built for `batch`: those of last time, if it is still the same."""
    build(model, batch)
    samplers = _SAMPLERS.get(model)
    if samplers is None or not samplers.are_of(model):
        samplers = _SAMPLERS[model] = Samplers(model)
    return samplers


class Samplers:
    """The samplers of a model, one for each shape, dtype and structure of its inputs.

    What was traced holds the numbers and functions that the layers had: with others, these are void. They
    hold the layers of the model, and not the model: it would never go.
    """

    def __init__(self, model: keras.Model):
        self._settings = Settings(model)
        self._by_inputs: dict[Any, Sampler] = {}

    def are_of(self, model: keras.Model) -> bool:
        """Return whether `model` still has the layers, and its layers the attributes, that they had."""
        return self._settings.are_of(model)

    def note(self, model: keras.Model) -> None:
        """Take what the layers hold now for what they had: a layer may keep something of a call."""
        self._settings = Settings(model)

    def of(self, model: keras.Model, batch: Any, from_logits: Any) -> Sampler:
        """Return the sampler for inputs like those of `batch`."""
        kinds = tree.map_structure(lambda array: (array.shape[1:], str(array.dtype)), batch)
        key = repr((kinds, from_logits))
        sampler = self._by_inputs.pop(key, None) or Sampler(model, batch, from_logits)
        self._by_inputs[key] = sampler  # the last used one is the last
        if len(self._by_inputs) > _SHAPES:
            del self._by_inputs[next(iter(self._by_inputs))]
        return sampler
