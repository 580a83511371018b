"""Networks by the guidelines of practice."""

from keras_dnn_extras.guidance.recipes import Recipe, dnn, recipe

__all__ = [
    "Recipe",
    "dnn",
    "recipe",
]
