"""The guidelines of practice as data."""

from dataclasses import dataclass
from typing import Any, Literal

from keras_dnn_extras._arguments import check_choice
from keras_dnn_extras._display import Displayed, Summary, table_text

RecipeName = Literal["default", "self_normalizing", "sparse", "low_latency", "risk_sensitive"]


@dataclass(frozen=True, repr=False)
class Recipe(Displayed):
    """What `dnn` builds by one of its recipes: `str(recipe)` is a table.

    Attributes:
        name: what `dnn` calls it.
        kernel_initializer: of the hidden layers; the output layer has `"glorot_uniform"`.
        activation: of the hidden layers.
        batch_norm_from: the number of hidden layers from which on a network counts as deep, and has
            BatchNormalization between each hidden layer and its activation. None: never.
        kernel_regularizer: `"l1"` or None.
        l1: the factor of the former, or 0.
        dropout: the class of layers that drop hidden units, or None.
        dropout_rate: the share that they drop, or 0.
        dropout_layers: the number of hidden layers that they follow, the last ones.
        most_layers: the number of hidden layers beyond which `dnn` warns, or None.
        optimizer: its class.
        momentum: of the optimizer.
        clipnorm: its `global_clipnorm` in regression, where a gradient is as large as an error can be.
        learning_rate: of the optimizer, where it has no schedule.
        max_learning_rate: the peak of 1cycle, a first guess. `find_learning_rate` finds a better one.
        note: what goes with it, and is up to the user.
    """

    name: RecipeName
    kernel_initializer: str = "he_normal"
    activation: str = "elu"
    batch_norm_from: int | None = 3
    kernel_regularizer: str | None = None
    l1: float = 0.0
    dropout: str | None = None
    dropout_rate: float = 0.0
    dropout_layers: int = 0
    most_layers: int | None = None
    optimizer: str = "SGD"
    momentum: float = 0.9
    clipnorm: float = 1.0
    learning_rate: float = 0.01
    max_learning_rate: float = 0.05
    note: str = "Stop early where the validation loss rises."

    def __str__(self) -> str:
        lines = table_text(list(self._choices().items())).splitlines()
        return "\n".join([self.name, *(f"  {line}" for line in lines)])

    def _summary(self) -> Summary:
        return Summary(f"Recipe {self.name!r}", self._choices())

    def _choices(self) -> dict[str, str]:
        return {
            "kernel initializer": self.kernel_initializer,
            "activation": self.activation,
            "normalization": self._normalization(),
            "regularization": self._regularization(),
            "optimizer": f"{self.optimizer} with momentum {self.momentum}",
            "clipping": f"in regression, global norm {self.clipnorm}",
            "learning rate": f"{self.learning_rate}, or 1cycle up to {self.max_learning_rate}",
            "note": self.note,
        }

    def _normalization(self) -> str:
        if self.batch_norm_from is None:
            return "none"
        deep = f", from {self.batch_norm_from} hidden layers on" if self.batch_norm_from > 1 else ""
        return f"BatchNormalization before the activation{deep}"

    def _regularization(self) -> str:
        if self.kernel_regularizer:
            return f"{self.kernel_regularizer} of {self.l1}"
        if self.dropout:
            return (
                f"{self.dropout} of {self.dropout_rate} after the last {self.dropout_layers} hidden layers"
            )
        return "none"


_RECIPES: dict[RecipeName, Recipe] = {
    each.name: each
    for each in (
        Recipe("default"),
        Recipe(
            "self_normalizing",
            kernel_initializer="lecun_normal",
            activation="selu",
            batch_norm_from=None,
            dropout="AlphaDropout",
            dropout_rate=0.1,
            dropout_layers=3,
            max_learning_rate=0.02,
            note="Standardize the inputs. For plain stacks of dense layers.",
        ),
        Recipe(
            "sparse",
            kernel_regularizer="l1",
            l1=1e-3,
            note="Weights become small, not 0: `zero_small_weights` makes zeros of them.",
        ),
        Recipe(
            "low_latency",
            activation="relu",
            batch_norm_from=1,
            most_layers=3,
            note="Few layers. After training, `fuse_batch_norm` folds the normalization into them.",
        ),
        Recipe(
            "risk_sensitive",
            dropout="MCDropout",
            dropout_rate=0.1,
            dropout_layers=3,
            note="Predict with `mc_predict`. `predict` alone gives one random sample.",
        ),
    )
}


def recipe(name: RecipeName) -> Recipe:
    """Return what `dnn` builds by the recipe `name`, as data.

    Args:
        name: `"default"`, `"self_normalizing"`, `"sparse"`, `"low_latency"` or `"risk_sensitive"`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: there is no recipe of this name.
        TypeError: `name` is no string.

    Example:

    >>> recipe("self_normalizing").activation
    'selu'
    >>> print(recipe("self_normalizing"))
    self_normalizing
      kernel initializer  lecun_normal
      activation          selu
      normalization       none
      regularization      AlphaDropout of 0.1 after the last 3 hidden layers
      optimizer           SGD with momentum 0.9
      clipping            in regression, global norm 1.0
      learning rate       0.01, or 1cycle up to 0.02
      note                Standardize the inputs. For plain stacks of dense layers.

    Reference:
        Géron, Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow, chapter 11, "Summary and
        Practical Guidelines".
    """
    return recipe_named(name, "name")


def recipe_named(name: Any, argument: str) -> Recipe:
    """Return the recipe `name`, an `argument` that may be of any type."""
    check_choice(argument, name, RecipeName)
    return _RECIPES[name]
