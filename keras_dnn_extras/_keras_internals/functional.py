"""The class of functional models, which Keras does not export."""

from typing import Any

import keras
from keras.src.models.functional import Functional


def functional_of(model: Any) -> Any:
    """Return the functional model that computes `model`, if there is one and nothing else."""
    if isinstance(model, keras.Sequential) and type(model).call is keras.Sequential.call:
        return model._functional
    return model if isinstance(model, Functional) and type(model).call is Functional.call else None
