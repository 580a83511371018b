"""to_mc_dropout and to_deterministic: copies that draw, what they keep, and what they refuse."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import stochastic
from stochastic import KINDS

import keras_dnn_extras as kdx

L = keras.layers
BACKEND = keras.backend.backend()
SAMPLES = 3000


def weights_of(model):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def assert_deterministic(model, x):
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.predict(x, verbose=0))


# -- the copy draws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_of_the_copy_have_the_distribution_of_keras_in_training(kind):
    keras.utils.set_random_seed(1)
    model = KINDS[kind]()
    x = stochastic.inputs_of(model)
    expected = stochastic.drawn_by_keras(model, x, SAMPLES)
    copy = kdx.to_mc_dropout(model)
    drawn = copy.predict(np.repeat(x, SAMPLES, axis=0), batch_size=SAMPLES // 2, verbose=0)
    stochastic.assert_same_distribution(drawn.astype("float64"), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_the_same_model(kind):
    model = KINDS[kind]()
    x = stochastic.inputs_of(model, rows=4)
    back = kdx.to_deterministic(kdx.to_mc_dropout(model))
    np.testing.assert_array_equal(back.predict(x, verbose=0), model.predict(x, verbose=0))
    assert back.count_params() == model.count_params()
    if kind != "training=True":  # which `predict` overrides: left out
        assert json.dumps(back.get_config()) == json.dumps(model.get_config())


@pytest.mark.parametrize("kind", ["Dropout", "LSTM", "MultiHeadAttention", "Bidirectional"])
@pytest.mark.parametrize("jit_compile", [False] if BACKEND == "torch" else [False, True])
def test_the_copy_draws_in_every_way_of_calling(kind, jit_compile):
    copy = kdx.to_mc_dropout(KINDS[kind]())
    copy.compile("sgd", "mse", jit_compile=jit_compile)
    x = stochastic.inputs_of(copy, rows=3)
    calls = {
        "call": lambda: keras.ops.convert_to_numpy(copy(x)),
        "training=False": lambda: keras.ops.convert_to_numpy(copy(x, training=False)),
        "predict": lambda: copy.predict(x, verbose=0),
        "predict_on_batch": lambda: copy.predict_on_batch(x),
        "evaluate": lambda: np.array(copy.evaluate(x, np.ones((3, 2)), verbose=0)),
    }
    for name, call in calls.items():
        first, second = call(), call()
        assert np.any(first != second), name


def around(*layers):
    return keras.Sequential([keras.Input((stochastic.FEATURES,)), *layers])


def nested():
    inner = around(L.Dense(4), L.Dropout(0.5), L.Dense(4))
    return around(L.Dense(3), keras.Sequential([inner]), L.Dense(2))


def shared():
    inputs, dropout, dense = keras.Input((3,)), L.Dropout(0.5), L.Dense(3)
    return keras.Model(inputs, L.Add()([dropout(dense(inputs)), dense(dropout(inputs))]))


def several():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((3,), name="b")}
    return keras.Model(inputs, {"u": L.Dropout(0.5)(inputs["a"]), "v": L.Dense(2)(inputs["b"])})


def with_statistics():
    return around(L.Dense(4), L.BatchNormalization(), L.Dropout(0.5), L.Dense(2))


@keras.saving.register_keras_serializable(package="tests")
class WithConfig(keras.Model):
    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        parts = [keras.saving.serialize_keras_object(part) for part in self.parts]
        return {**super().get_config(), "parts": parts}

    @classmethod
    def from_config(cls, config):
        parts = [keras.saving.deserialize_keras_object(part) for part in config.pop("parts")]
        return cls(parts, **config)


def subclassed():
    model = WithConfig([L.Dense(4), L.Dropout(0.5), L.Dense(2)])
    model(np.ones((1, 3)))
    return model


MODELS = {"nested": nested, "shared": shared, "statistics": with_statistics, "subclassed": subclassed}


@pytest.mark.parametrize("name", MODELS)
def test_the_copy_has_the_weights_and_names_of_the_model(name):
    model = MODELS[name]()
    copy = kdx.to_mc_dropout(model)
    assert type(copy) is type(model)
    assert [layer.name for layer in copy._flatten_layers()] == [
        layer.name for layer in model._flatten_layers()
    ]
    for first, second in zip(model.weights, copy.weights, strict=True):
        assert first is not second
        assert first.name == second.name
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (first, second)))
    x = np.ones((5, 3))
    assert np.any(copy.predict(x, verbose=0) != copy.predict(x, verbose=0))
    assert_deterministic(kdx.to_deterministic(copy), x)
    mean = kdx.mc_predict(copy, x, 30, seed=1).mean
    np.testing.assert_array_equal(mean, kdx.mc_predict(model, x, 30, seed=1).mean)


@pytest.mark.parametrize("name", MODELS)
def test_the_model_stays_as_it_was(name):
    model = MODELS[name]()
    x, before = np.ones((5, 3)), weights_of(model)
    predicted, config = model.predict(x, verbose=0), json.dumps(model.get_config())
    copy = kdx.to_mc_dropout(model)
    copy.compile(keras.optimizers.SGD(1.0), "mse")
    copy.fit(x, np.zeros((5, copy.output_shape[-1] if name != "subclassed" else 2)), verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, weights_of(copy), strict=True))
    for first, second in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(model.predict(x, verbose=0), predicted)
    assert json.dumps(model.get_config()) == config


def test_batch_normalization_of_the_copy_uses_its_moving_statistics():
    model = with_statistics()
    norm = model.layers[1]
    norm.moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    norm.moving_variance.assign([0.1, 1.0, 2.0, 3.0])
    copy = kdx.to_mc_dropout(model)
    before = weights_of(copy)
    x = np.random.default_rng(0).normal(size=(1, 3))
    repeated = np.repeat(x, SAMPLES, axis=0)  # the variance of which is 0: batch statistics would give 0
    drawn = copy.predict(repeated, batch_size=SAMPLES, verbose=0).astype("float64")
    expected = kdx.mc_predict(model, x, SAMPLES, seed=1, keep_samples=True).samples[:, 0].astype("float64")
    stochastic.assert_same_distribution(drawn, expected)
    for first, second in zip(before, weights_of(copy), strict=True):
        np.testing.assert_array_equal(first, second)


def test_structures_of_inputs_and_outputs_are_kept():
    model = several()
    copy = kdx.to_mc_dropout(model)
    x = {"b": np.ones((2, 3)), "a": np.ones((2, 3))}
    first, second = copy.predict(x, verbose=0), copy.predict(x, verbose=0)
    assert first.keys() == {"u", "v"}
    assert np.any(first["u"] != second["u"])
    np.testing.assert_array_equal(first["v"], second["v"])


def test_layers_keep_their_settings():
    policy = keras.DTypePolicy("mixed_bfloat16")
    inputs = keras.Input((4, 3))
    outputs = L.Dropout(0.5, noise_shape=(None, 1, None), seed=3, name="drop", dtype=policy)(inputs)
    model = keras.Model(inputs, L.SpatialDropout1D(0.25, seed=3, name="spatial")(L.Dense(2)(outputs)))
    model.get_layer("drop").trainable = False
    copy = kdx.to_mc_dropout(model)
    dropout, spatial = copy.get_layer("drop"), copy.get_layer("spatial")
    assert type(dropout) is kdx.MCDropout
    assert type(spatial) is kdx.MCSpatialDropout1D
    assert (dropout.rate, tuple(dropout.noise_shape), dropout.seed) == (0.5, (None, 1, None), 3)
    assert dropout.dtype_policy.name == "mixed_bfloat16"
    assert not dropout.trainable
    assert spatial.seed != 3  # or both would draw alike
    assert kdx.to_mc_dropout(model).get_layer("spatial").seed == spatial.seed


def test_layers_of_equal_seed_draw_apart():
    inputs = keras.Input((1000,))
    outputs = [L.Dropout(0.5, seed=1)(inputs) for _ in range(3)]
    copy = kdx.to_mc_dropout(keras.Model(inputs, outputs))
    kept = np.stack([output[0] > 0 for output in copy.predict(np.ones((1, 1000)), verbose=0)])
    correlations = np.corrcoef(kept)[np.triu_indices(3, 1)]
    assert np.all(np.abs(correlations) < 6 / np.sqrt(1000))


def test_layers_that_drop_nothing_are_as_they_were():
    inputs = keras.Input((4, 3))
    x = L.LSTM(3, return_sequences=True)(inputs)
    x = L.MultiHeadAttention(2, 2)(x, x)
    model = keras.Model(inputs, L.Dropout(0.5)(L.Dropout(0.0)(x)))
    kinds = [type(layer) for layer in kdx.to_mc_dropout(model).layers]
    assert kinds == [L.InputLayer, L.LSTM, L.MultiHeadAttention, L.Dropout, kdx.MCDropout]


def test_what_is_active_already_stays_so():
    copy = kdx.to_mc_dropout(around(kdx.MCDropout(0.5), L.Dropout(0.5)))
    assert [type(layer) for layer in copy.layers] == [kdx.MCDropout, kdx.MCDropout]


def test_a_model_that_is_not_built_is_copied_unbuilt():
    copy = kdx.to_mc_dropout(keras.Sequential([L.Dense(2), L.Dropout(0.5)]))
    assert not copy.built
    assert np.any(copy.predict(np.ones((9, 3)), verbose=0) == 0)


# -- files -----------------------------------------------------------------------------------------------


LOAD_AND_PREDICT = """
import sys
import keras, numpy as np
if sys.argv[2] == "with":
    import keras_dnn_extras
model = keras.models.load_model(sys.argv[1])
x = np.ones((3, *model.inputs[0].shape[1:]))
print(bool(np.any(model.predict(x, verbose=0) != model.predict(x, verbose=0))))
"""


@pytest.mark.parametrize("package", ["with", "without"])
def test_the_copy_loads_in_another_process_with_the_package_only(package, tmp_path):
    inputs = keras.Input((4, 3))
    hidden = L.Bidirectional(L.GRU(3, dropout=0.3, return_sequences=True))(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.MultiHeadAttention(2, 3, dropout=0.4)(hidden, hidden)))
    kdx.to_mc_dropout(model).save(tmp_path / "model.keras")
    command = [sys.executable, "-c", LOAD_AND_PREDICT, str(tmp_path / "model.keras"), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if package == "with":
        assert done.stdout.strip().endswith("True"), done.stderr
    else:
        assert done.returncode != 0
        assert "keras_dnn_extras" in done.stderr


@pytest.mark.parametrize(
    "kind", ["Dropout", "LSTM", "Attention", "GroupQueryAttention", "cells in a stack"]
)
def test_the_copy_comes_back_from_a_file_and_a_clone(kind, tmp_path):
    copy = kdx.to_mc_dropout(KINDS[kind]())
    copy.save(tmp_path / "model.keras")
    x = stochastic.inputs_of(copy, rows=4)
    for other in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(copy)):
        other.set_weights(copy.get_weights())
        assert [type(layer) for layer in other.layers] == [type(layer) for layer in copy.layers]
        assert np.any(other.predict(x, verbose=0) != other.predict(x, verbose=0))
        means = [kdx.mc_predict(m, x, 20, seed=1).mean for m in (copy, other)]
        np.testing.assert_array_equal(*means)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a SavedModel is TensorFlow's")
def test_an_exported_copy_draws(tmp_path):
    import tensorflow as tf

    model = KINDS["LSTM"]()
    kdx.mc_predict(model, stochastic.inputs_of(model))  # leaves nothing that could be in the way
    for copy, draws in ((model, False), (kdx.to_mc_dropout(model), True)):
        copy.export(tmp_path / "exported", verbose=False)
        loaded = tf.saved_model.load(tmp_path / "exported")
        x = stochastic.inputs_of(model, rows=4)
        assert np.any(loaded.serve(x).numpy() != loaded.serve(x).numpy()) == draws


# -- refused ---------------------------------------------------------------------------------------------


class WithoutConfig(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.parts = [L.Dense(units), L.Dropout(0.5)]

    def call(self, x):
        return self.parts[1](self.parts[0](x))


class InCode(WithoutConfig):
    def get_config(self):
        return {"units": 3}


def built(model):
    model(np.ones((1, 3)))
    return model


REFUSED = {
    "no dropout": (lambda: around(L.Dense(2)), "no dropout in the model"),
    "rate 0": (lambda: around(L.Dropout(0.0)), "no dropout in the model"),
    "no config": (lambda: built(WithoutConfig(2)), "cannot be rebuilt"),
    "in code": (lambda: built(InCode(3)), "'dropout.*' in code of its own"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_is_refused_with_the_way_out(case):
    build, reason = REFUSED[case]
    with pytest.raises(ValueError, match=reason):
        kdx.to_mc_dropout(build())


def test_the_way_out_works():
    prediction = kdx.mc_predict(built(WithoutConfig(2)), np.ones((4, 3)), 30)
    assert np.all(prediction.std > 0)


@pytest.mark.parametrize("convert", [kdx.to_mc_dropout, kdx.to_deterministic])
def test_what_is_no_model_is_refused(convert):
    with pytest.raises(TypeError, match="Keras model"):
        convert(L.Dropout(0.5))
