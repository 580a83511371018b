"""Networks by the guidelines of practice."""

from keras_dnn_extras.guidance.networks import dnn
from keras_dnn_extras.guidance.recipes import Recipe, recipe

__all__ = [
    "Recipe",
    "dnn",
    "recipe",
]
