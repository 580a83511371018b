"""Each piece of state that can be rolled back, by itself: it is put back, bit for bit, and no other is."""

import random

import keras
import numpy as np
import pytest
from transfer_models import MODELS, assert_same, data, fit, layer, nested, values

from keras_dnn_extras._backends import random_generators
from keras_dnn_extras._keras_internals import attributes_of_fit, compiled_loss
from keras_dnn_extras._models import (
    compiled_optimizer,
    graph_nodes,
    optimizer_attributes,
    recompile,
    rolled_back_training,
    set_trainable,
    trainable_flags,
    variable_values,
)
from keras_dnn_extras._rollback import rolled_back

L = keras.layers


def trained(make=nested):
    model = make()
    model.compile(keras.optimizers.Adam(0.1), "mse", metrics=["mae"])
    fit(model)
    return model


def updates(model):
    return int(values([model.optimizer.iterations])[0])


def flags(model):
    return [found.trainable for found in (*model._flatten_layers(), *model.variables)]


@pytest.mark.slow
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_values_of_variables(make):
    model = trained(make)
    before, updates_before = values(model.weights), updates(model)
    with rolled_back(variable_values(model.weights)):
        fit(model)
        assert any((new != old).any() for new, old in zip(values(model.weights), before, strict=True))
    assert_same(values(model.weights), before)
    assert updates(model) == 2 * updates_before  # which nobody has named


@pytest.mark.slow
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_trainable_flags_of_layers_and_weights(make):
    model = trained(make)
    layer(model, "second").trainable = False
    layer(model, "first").kernel.trainable = False  # unlike its layer
    before = flags(model)
    with rolled_back(trainable_flags(model)):
        set_trainable(model, [layer(model, "second")], True)
        set_trainable(model, [layer(model, "first"), layer(model, "head")], False)
        assert flags(model) != before
    assert flags(model) == before


@pytest.mark.slow
def test_the_optimizer_that_a_model_is_compiled_with():
    model = trained()
    optimizer = model.optimizer
    with rolled_back(compiled_optimizer(model), trainable_flags(model)):
        set_trainable(model, [layer(model, "first")], False)
        recompile(model)
        assert model.optimizer is not optimizer
    assert model.optimizer is optimizer
    fit(model)


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(keras.Model, "_warn_if_trainable_state_changed"), reason="Keras does not warn yet"
)
def test_what_was_trainable_when_a_model_was_compiled_so_that_keras_still_warns():
    model = trained()
    layer(model, "first").trainable = False  # and not compiled again
    with rolled_back(compiled_optimizer(model), trainable_flags(model)):
        recompile(model)
    with pytest.warns(UserWarning, match="first"):
        model._warn_if_trainable_state_changed()  # which Keras 3.15 calls behind a `raise`


@pytest.mark.slow
def test_the_optimizer_of_a_model_that_was_trained_meanwhile_goes_on():
    model = trained()
    optimizer, before = model.optimizer, updates(model)
    with rolled_back(compiled_optimizer(model), trainable_flags(model)):
        set_trainable(model, [layer(model, "first")], False)
        recompile(model)
        fit(model)
    assert model.optimizer is not optimizer
    assert updates(model) == 2 * before
    assert len(model.optimizer.variables) == len(optimizer.variables)
    fit(model)


@pytest.mark.slow
def test_the_variables_that_an_optimizer_has():
    model = trained()
    optimizer = model.optimizer
    before = [id(variable) for variable in optimizer.variables]
    with rolled_back(optimizer_attributes(optimizer)):
        optimizer.add_variable_from_reference(model.weights[0], "extra")
        assert [id(variable) for variable in optimizer.variables] != before
    assert [id(variable) for variable in optimizer.variables] == before
    fit(model)


@pytest.mark.slow
def test_the_losses_that_are_chosen_by_the_data():
    model = nested()
    model.compile("sgd", "mse")
    with rolled_back(compiled_loss(model)):
        model.evaluate(*data(), verbose=0)
        assert model._compile_loss.built
    assert not model._compile_loss.built
    fit(model)


@pytest.mark.slow
def test_what_fit_leaves_in_a_model():
    model = trained()
    history, function = model.history, model.train_function
    with rolled_back(attributes_of_fit(model)):
        model.stop_training = True
        model.make_train_function(force=True)
        model.history = None
    assert model.history is history
    assert model.train_function is function
    assert model.stop_training is False


def test_the_random_generators():
    def draws():
        return [random.random(), np.random.random(), *values([keras.random.uniform((2,))])[0]]

    keras.utils.set_random_seed(0)
    draws()
    with rolled_back(random_generators()):
        first = draws()
    assert draws() == first


def test_names_and_nodes_of_layers():
    dense = L.Dense(2, name="dense")
    within = keras.Sequential([keras.Input((3,)), dense])
    nodes = len(dense._inbound_nodes), len(within._inbound_nodes)
    with rolled_back(graph_nodes([within])):
        within(keras.Input((3,)))
        dense(keras.Input((3,)))
        dense.name = "other"
    assert (len(dense._inbound_nodes), len(within._inbound_nodes)) == nodes
    assert dense.name == "dense"


@pytest.mark.slow
def test_a_whole_training():
    model = trained()
    optimizer, history = model.optimizer, model.history
    before = values([*model.variables, *optimizer.variables])
    with rolled_back_training(model, 0.5):
        fit(model, epochs=2)
        assert float(values([model.optimizer.learning_rate])[0]) == 0.5
    assert model.optimizer is optimizer
    assert model.history is history
    assert_same(values([*model.variables, *optimizer.variables]), before)
