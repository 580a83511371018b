"""The door to private Keras: a missing name says which feature needs it, and the rest goes on working."""

import keras
import numpy as np
import pytest

import keras_dnn_extras as kdx
from keras_dnn_extras._keras_internals import functional
from keras_dnn_extras._keras_internals.private_names import private_attribute, private_object

L = keras.layers


def test_a_missing_attribute_tells_which_feature_needs_it():
    with pytest.raises(RuntimeError, match=r"Reading graphs needs `Dense._no_such`.*Received: keras=="):
        private_attribute(L.Dense(1), "_no_such", "Reading graphs")


@pytest.mark.parametrize("module", ["keras.src.no_such", "keras.src.models.functional"])
def test_a_missing_class_tells_which_feature_needs_it(module):
    with pytest.raises(RuntimeError, match=r"Copying models needs `keras.src.*NoSuch`"):
        private_object(module, "NoSuch", "Copying models")


def test_what_needs_no_missing_name_goes_on_working(monkeypatch):
    monkeypatch.setattr(
        functional, "_functional_class", lambda: private_object("keras.src", "Gone", "Reading graphs")
    )
    inputs = keras.Input((2,))
    with pytest.raises(RuntimeError, match=r"Reading graphs needs `keras.src.Gone`"):
        kdx.fuse_batch_norm(keras.Model(inputs, L.Dense(1)(inputs)))
    assert kdx.brier_score(np.array([0, 1]), np.array([0.0, 1.0])) == 0
