"""A search passed where a learning rate is expected: its suggestion, or the reason why it has none."""

import json

import keras
import numpy as np
import pytest

import keras_dnn_extras as kdx

RATES = np.geomspace(1e-4, 1, 50)
SEARCH = kdx.LearningRateSearch(RATES, 1 / (1 + 100 * RATES) + RATES**4)
FLAT = kdx.LearningRateSearch(RATES, np.ones(50))

TAKES_RATE = {
    "OneCycle": (lambda rate: kdx.OneCycle(rate, 10), "max_learning_rate"),
    "OneCycleScheduler": (kdx.OneCycleScheduler, "max_learning_rate"),
    "PowerDecay": (lambda rate: kdx.PowerDecay(rate, 5), "initial_learning_rate"),
    "ExponentialLR": (
        lambda rate: kdx.ExponentialLR(0.9, initial_learning_rate=rate),
        "initial_learning_rate",
    ),
    "PowerLR": (
        lambda rate: kdx.PowerLR(decay_steps=5, initial_learning_rate=rate),
        "initial_learning_rate",
    ),
}


@pytest.mark.parametrize("name", TAKES_RATE)
def test_a_search_stands_for_its_suggestion(name):
    make, argument = TAKES_RATE[name]
    made = make(SEARCH)
    assert made.get_config() == make(SEARCH.suggestion).get_config()
    assert getattr(made, argument) == SEARCH.suggestion
    json.dumps(made.get_config())  # a number, no search


@pytest.mark.parametrize("name", TAKES_RATE)
def test_a_search_without_a_suggestion_is_refused_with_its_reason(name):
    make, argument = TAKES_RATE[name]
    with pytest.raises(ValueError, match=f"`{argument}`.*the loss is flat.*Received: {argument}="):
        make(FLAT)


def test_fine_tune_takes_a_search():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"`learning_rate`.*the loss is flat"):
        kdx.fine_tune(model, np.ones((4, 2)), np.ones((4, 1)), epochs=1, learning_rate=FLAT)
    history = kdx.fine_tune(
        model, np.ones((4, 2)), np.ones((4, 1)), epochs=1, learning_rate=SEARCH, batch_size=2, verbose=0
    )
    # The second of two updates, where a cycle ends.
    last = float(kdx.OneCycle(SEARCH.suggestion, 2)(1))
    np.testing.assert_allclose(history.history["learning_rate"], [last], rtol=1e-6)
