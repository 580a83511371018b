"""A private name of Keras that is missing is an error of the feature that rests on it."""

import keras
import pytest

from keras_dnn_extras._keras_internals import (
    attributes_of_fit,
    compiled_loss,
    unbuild_optimizer,
    without_inner_layers,
)


def enter(manager):
    with manager:
        pass


USES = {
    "_compile_metrics": (attributes_of_fit, lambda model: model),
    "_compile_loss": (compiled_loss, lambda model: model),
    "_layers": (lambda layer: enter(without_inner_layers(layer)), lambda model: model.layers[0]),
    "_trainable_variables_indices": (
        lambda optimizer: unbuild_optimizer(optimizer, []),
        lambda model: model.optimizer,
    ),
}


@pytest.mark.parametrize("name", USES)
def test_a_name_that_is_missing_is_an_error_that_says_which(name):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    use, of_model = USES[name]
    instance = of_model(model)
    use(instance)
    vars(instance).pop(name)
    with pytest.raises(RuntimeError, match=rf"needs `\w+\.{name}`, which this version of Keras"):
        use(instance)
