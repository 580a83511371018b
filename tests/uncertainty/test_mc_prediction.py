"""mc_predict: what is drawn, what is made of it, and that nothing else changes."""

import copy
import gc
import json
import logging
import subprocess
import sys
import threading
import warnings
import weakref

import keras
import numpy as np
import pytest
import stochastic
from stochastic import KINDS

import keras_dnn_extras as kdx
from keras_dnn_extras._graphs import Graph, output_activations
from keras_dnn_extras.uncertainty import mc_batches, mc_sampler, sampler_cache
from keras_dnn_extras.uncertainty.masks import Streams
from keras_dnn_extras.uncertainty.mc_sampler import Sampler

L = keras.layers
BACKEND = keras.backend.backend()
EPS = float(np.finfo("float32").eps)
SAMPLES = 3000
MASKS = ["shared", "independent"]


def classifier(rate=0.3):
    """Return a small classifier with dropout on the inputs and twice within, and BatchNormalization."""
    keras.utils.set_random_seed(0)
    hidden = [L.Dense(9, "relu"), L.BatchNormalization(), L.Dropout(rate), L.Dense(8, "tanh")]
    model = keras.Sequential(
        [keras.Input((5,)), L.Dropout(rate), *hidden, L.Dropout(rate), L.Dense(3, "softmax")]
    )
    statistics = model.layers[2]
    statistics.moving_mean.assign(np.linspace(-1, 1, 9))
    statistics.moving_variance.assign(np.linspace(0.5, 2, 9))
    return model


def data(rows=50, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 5)).astype("float32")


def state_of(model):
    variables = [*model.variables, *(s.state for layer in model._flatten_layers() for s in seeds_of(layer))]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def seeds_of(layer):
    return getattr(layer, "_seed_generators", [])


def assert_same(first, second, rounding=50):
    """Check two predictions up to roundings, which the order of sums in a product of matrices makes."""
    for name in ("mean", "variance", "expected_entropy", "variation_ratio"):
        for a, b in zip(*(keras.tree.flatten(getattr(p, name)) for p in (first, second)), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=rounding * EPS, atol=rounding * EPS)
    assert first.num_samples == second.num_samples


# -- what is drawn ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_distribution_of_keras_in_training(kind):
    keras.utils.set_random_seed(1)
    model = KINDS[kind]()
    x = stochastic.inputs_of(model)
    expected = stochastic.drawn_by_keras(model, x, SAMPLES)
    for masks in MASKS:
        prediction = kdx.mc_predict(model, x, SAMPLES, seed=2, masks=masks, keep_samples=True)
        stochastic.assert_same_distribution(prediction.samples[:, 0].astype("float64"), expected)


LINEAR = {
    "Dropout": lambda rate: L.Dropout(rate),
    "MCDropout": lambda rate: kdx.MCDropout(rate),
    "GaussianDropout": lambda rate: L.GaussianDropout(rate),
    "MCGaussianDropout": lambda rate: kdx.MCGaussianDropout(rate),
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", LINEAR)
def test_a_linear_network_has_the_mean_and_variance_of_the_closed_form(kind, rate, masks):
    # y = sum of weight * x * noise, and noise has mean 1 and variance rate / (1 - rate)
    model = keras.Sequential([keras.Input((40,)), LINEAR[kind](rate), L.Dense(1, use_bias=False)])
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(40, 1)), rng.normal(size=(3, 40))
    model.set_weights([weights])
    prediction = kdx.mc_predict(model, x, 4000, seed=1, masks=masks)
    variance = rate / (1 - rate) * np.square(x) @ np.square(weights)
    assert np.all(np.abs(prediction.mean - x @ weights) < 6 * np.sqrt(variance / 4000))
    # The variance of an estimated variance is (kurtosis - 1) / n of its square. The noise of one unit has
    # the kurtosis 1 / (rate * (1 - rate)) - 3, or 3; that of the sum is 3 and what exceeds 3, weighed.
    excess = 0 if "Gaussian" in kind else 1 / (rate * (1 - rate)) - 6
    share = np.power(x, 4) @ np.power(weights, 4) / np.square(np.square(x) @ np.square(weights))
    deviation = np.sqrt((2 + excess * share) / 4000)
    assert np.all(np.abs(prediction.variance / variance - 1) < 6 * deviation)


def test_alpha_dropout_in_a_linear_network_has_the_moments_of_the_closed_form():
    # A unit x becomes a * x + b or a * s + b, with a, b such that mean 0 and variance 1 are kept.
    rate, least = 0.3, -1.0507009873554805 * 1.6732632423543772
    model = keras.Sequential([keras.Input((30,)), L.AlphaDropout(rate), L.Dense(1, use_bias=False)])
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(30, 1)), rng.normal(size=(1, 30))
    model.set_weights([weights])
    prediction = kdx.mc_predict(model, x, 4000, seed=1)
    a = ((1 - rate) * (1 + rate * least**2)) ** -0.5
    mean = (a * ((1 - rate) * x + rate * least) - a * rate * least) @ weights
    variance = rate * (1 - rate) * a**2 * np.square(x - least) @ np.square(weights)
    assert np.all(np.abs(prediction.mean - mean) < 6 * np.sqrt(variance / 4000))
    assert np.all(np.abs(prediction.variance / variance - 1) < 6 * np.sqrt(2 / 4000))


@pytest.mark.parametrize("masks", MASKS)
def test_rows_have_the_masks_that_were_asked_for(masks):
    model = classifier()
    x = np.repeat(data(1), 4, axis=0)
    samples = kdx.mc_predict(model, x, 500, seed=1, masks=masks, keep_samples=True).samples[..., 0]
    if masks == "shared":  # equal rows: the very same network
        np.testing.assert_allclose(samples, np.repeat(samples[:, :1], 4, axis=1), atol=10 * EPS)
    else:
        correlations = np.corrcoef(samples.T)[np.triu_indices(4, 1)]
        assert np.all(np.abs(correlations) < 6 / np.sqrt(500))


def identity(*layers, units=2000):
    return keras.Sequential([keras.Input((units,)), *layers])


def masks_of(model, samples=2, **arguments):
    units = model.inputs[0].shape[1]
    found = kdx.mc_predict(model, np.ones((1, units)), samples, seed=3, keep_samples=True, **arguments)
    return keras.tree.map_structure(lambda kept: kept[:, 0] > 0, found.samples)


def test_samples_are_independent():
    kept = masks_of(identity(L.Dropout(0.5)), samples=20)
    correlations = np.corrcoef(kept)[np.triu_indices(20, 1)]
    assert np.all(np.abs(correlations) < 6 / np.sqrt(2000))


def test_layers_of_equal_seed_and_calls_of_one_layer_are_independent():
    inputs, shared = keras.Input((2000,)), L.Dropout(0.5, seed=1)
    outputs = [shared(inputs), L.Dropout(0.5, seed=1)(inputs), shared(inputs)]
    kept = np.stack([mask[0] for mask in masks_of(keras.Model(inputs, outputs))])
    correlations = np.corrcoef(kept)[np.triu_indices(3, 1)]
    assert np.all(np.abs(correlations) < 6 / np.sqrt(2000))


def test_units_are_kept_or_rescaled_exactly():
    x = data(3)
    model = identity(L.Dropout(0.25), units=5)
    samples = kdx.mc_predict(model, x, 200, seed=1, keep_samples=True).samples
    kept = samples != 0
    np.testing.assert_allclose(samples, np.where(kept, x / 0.75, 0), rtol=2 * EPS)


# -- on what the masks depend ----------------------------------------------------------------------------


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("batch_size", [1, 7, 32, 50])
def test_results_do_not_depend_on_the_batch_size(batch_size, masks):
    model, x = classifier(), data()
    whole = kdx.mc_predict(model, x, 100, seed=1, masks=masks, batch_size=200)
    assert_same(kdx.mc_predict(model, x, 100, seed=1, masks=masks, batch_size=batch_size), whole)


@pytest.mark.parametrize("arguments", [{}, {"tolerance": 1e-9, "max_samples": 60}])
@pytest.mark.parametrize("layer", [L.Dropout(0.5), L.GaussianDropout(0.4)])
def test_masks_beyond_those_that_are_kept_are_the_same_in_all_batches(layer, arguments, monkeypatch):
    model = keras.Sequential([keras.Input((5,)), layer, L.Dense(1)])
    monkeypatch.setattr(mc_sampler, "_ROWS", 7)  # samples times inputs at once
    monkeypatch.setattr(mc_batches, "_CACHED", 5 * 30)  # the masks of some samples, of 60
    x = np.ones((4, 5), "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tolerance
        runs = [
            kdx.mc_predict(model, x, 60, seed=1, batch_size=size, keep_samples=True, **arguments).samples
            for size in (1, 3, 4)
        ]
    for samples in runs:
        np.testing.assert_allclose(samples, np.repeat(runs[-1][:, :1], 4, axis=1), atol=20 * EPS)
        assert len(np.unique(samples[:, 0])) > 25  # of 32 that five units with a rate can make, or more


@pytest.mark.parametrize("kind", ["LSTM", "MultiHeadAttention", "SpatialDropout2D", "AlphaDropout"])
@pytest.mark.parametrize("masks", MASKS)
def test_results_of_no_layer_depend_on_the_batch_size(kind, masks):
    model = KINDS[kind]()
    x = stochastic.inputs_of(model, rows=5)
    whole = kdx.mc_predict(model, x, 30, seed=1, masks=masks)
    assert_same(kdx.mc_predict(model, x, 30, seed=1, masks=masks, batch_size=2), whole)


def dense_chain(**arguments):
    hidden = [L.Dense(12, "relu", **arguments), L.Dropout(0.5), L.Dense(9, "tanh"), kdx.MCDropout(0.4)]
    return keras.Sequential([keras.Input((5,)), L.Dropout(0.2), *hidden, L.Dense(3, "softmax")])


def branches():
    x = inputs = keras.Input((5,))
    x = L.Dropout(0.5)(L.Dense(10, "relu")(x))  # taken by two layers, in which there is dropout, too
    first = L.Dropout(0.5)(L.Dense(8, "elu")(x))
    hidden = L.Dense(8, "elu")(x)
    second = L.Dense(8)(L.Dropout(0.5)(hidden))
    both = L.Dense(3)(L.Concatenate()([first, L.Add()([hidden, second])]))  # taken past the mask, too
    return keras.Model(inputs, {"a": L.Dense(2)(first), "b": both})


def no_chain():
    hidden = [L.Dropout(0.2), L.Dense(8, "softmax")]  # an activation of all units together
    units = [L.Dense(8, "relu"), L.BatchNormalization(), L.Dropout(0.5)]
    thinned = [L.Dense(8, "relu"), L.Dropout(0.5), L.Dense(2)]
    return keras.Sequential([keras.Input((5,)), *hidden, L.Dropout(0.5), *units, *thinned])


def mixed_kinds():
    sequence = [L.Reshape((5, 1)), L.LSTM(4, dropout=0.3), L.GaussianDropout(0.3)]
    chain = [L.Dense(8, "relu"), L.Dropout(0.5), L.Dense(8), L.AlphaDropout(0.2), L.Dense(2)]
    return keras.Sequential([keras.Input((5,)), *sequence, *chain])


def whole_layers_dropped():
    hidden = [L.Dense(3, "tanh"), L.Dropout(0.8), L.Dense(3, "tanh"), L.Dropout(0.8)]
    return keras.Sequential([keras.Input((5,)), L.Dropout(0.8), *hidden, L.Dense(2)])


MANY_ROWS = {
    "chain": dense_chain,
    "without bias": lambda: dense_chain(use_bias=False),
    "bfloat16": lambda: dense_chain(dtype="mixed_bfloat16"),
    "branches": branches,
    "no chain": no_chain,
    "mixed kinds": mixed_kinds,
    "whole layers dropped": whole_layers_dropped,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY_ROWS)
def test_many_rows_at_a_time_give_the_same(name):
    # Above some hundred rows the units that are dropped are left out of the arithmetic.
    keras.utils.set_random_seed(0)
    model, x = MANY_ROWS[name](), data(300)
    model.set_weights([w + 0.3 for w in model.get_weights()])  # so that biases count
    few = kdx.mc_predict(model, x, 30, seed=1, batch_size=30, keep_samples=True)
    for keep_samples in (False, True):
        many = kdx.mc_predict(model, x, 30, seed=1, batch_size=300, keep_samples=keep_samples)
        if name == "bfloat16":  # a rounding can turn a vote
            np.testing.assert_allclose(many.mean, few.mean, atol=2**-7)
            np.testing.assert_allclose(many.std, few.std, atol=2**-7)
        else:
            assert_same(few, many)
    assert all(np.any(output > 0) for output in keras.tree.flatten(few.std))


def test_with_shared_masks_the_order_of_the_rows_does_not_matter():
    model, x = classifier(), data()
    order = np.random.default_rng(1).permutation(len(x))
    first, second = (kdx.mc_predict(model, rows, seed=1, batch_size=8) for rows in (x, x[order]))
    np.testing.assert_allclose(second.mean, first.mean[order], rtol=50 * EPS)
    np.testing.assert_allclose(second.variance, first.variance[order], rtol=50 * EPS, atol=50 * EPS)


def test_equal_seeds_give_equal_bits_and_others_do_not():
    model, x = classifier(), data()
    first, second, other = (kdx.mc_predict(model, x, seed=seed).mean for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.all(first != other)
    keras.utils.set_random_seed(1)
    drawn = [kdx.mc_predict(model, x).mean for _ in range(2)]
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(kdx.mc_predict(model, x).mean, drawn[0])
    assert np.all(drawn[0] != drawn[1])


def test_more_samples_begin_with_the_same_ones():
    model, x = classifier(), data(3)
    few, many = (kdx.mc_predict(model, x, n, seed=1, keep_samples=True).samples for n in (30, 70))
    np.testing.assert_allclose(many[:30], few, atol=10 * EPS)


def test_masks_are_the_same_on_all_backends():
    # The generator is NumPy's: these are drawn by its documented algorithm, from the documented key.
    kept = masks_of(identity(L.Dropout(0.5), units=7), samples=2)
    generator = np.random.SFC64(np.random.SeedSequence(3, spawn_key=(0,)))
    words = np.stack([generator.random_raw(4) for _ in range(2)])
    numbers = np.stack([words & 0xFFFFFFFF, words >> np.uint64(32)], axis=-1).reshape(2, 8)[:, :7]
    np.testing.assert_array_equal(kept, numbers >= 2**31)


# -- models ----------------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self, layers):
        super().__init__()
        self.parts = layers

    def call(self, x, training=False):
        for layer in self.parts:
            x = layer(x, training=training) if isinstance(layer, L.Dropout) else layer(x)
        return x


def nested_in(model):
    inner = keras.Sequential(model.layers[2:5], name="inner")
    outer = keras.Input((5,))
    return keras.Model(
        outer, keras.Sequential(model.layers[5:])(inner(model.layers[1](model.layers[0](outer))))
    )


def recipe_of(model):
    x = inputs = keras.Input((5,))
    for layer in model.layers:
        x = layer(x, training=True) if isinstance(layer, L.Dropout) else layer(x)
    return keras.Model(inputs, x)


FORMS = {
    "nested": nested_in,
    "subclassed": lambda model: Subclassed(model.layers),
    "training=True": recipe_of,
    "MC layers": lambda model: kdx.to_mc_dropout(model),
    "within a model": lambda model: keras.Sequential([keras.Input((5,)), model]),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_model_makes_no_difference(form):
    model, x = classifier(), data(9)
    assert_same(kdx.mc_predict(FORMS[form](model), x, seed=1), kdx.mc_predict(model, x, seed=1))


@pytest.mark.parametrize("subclassed", [False, True])
def test_structures_of_inputs_and_outputs_are_kept(subclassed):
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    dropped = L.Dropout(0.5)(L.Concatenate()([inputs["a"], inputs["b"]]))
    outputs = {"sum": L.Dense(1)(dropped), "pair": (inputs["b"], L.Dense(4, "softmax")(dropped))}
    model = keras.Model(inputs, outputs)
    if subclassed:
        inner = model

        class Around(keras.Model):
            def __init__(self):
                super().__init__()
                self.inner = inner

            def call(self, x):
                return self.inner(x)

        model = Around()
    x = {"b": data(4)[:, :2], "a": data(4)[:, :3]}
    prediction = kdx.mc_predict(model, x, 40, seed=1, batch_size=3, keep_samples=True)
    keras.tree.assert_same_structure(prediction.mean, outputs)
    assert prediction.mean["sum"].shape == (4, 1)
    assert prediction.samples["pair"][1].shape == (40, 4, 4)
    np.testing.assert_array_equal(prediction.mean["pair"][0], x["b"])
    assert not prediction.variance["pair"][0].any()
    assert np.all(prediction.std["sum"] > 0)
    assert prediction.predictive_entropy["sum"] is None
    assert prediction.mutual_information["pair"][1].shape == (4,)
    assert prediction.quantile([0.1, 0.9])["sum"].shape == (2, 4, 1)


@pytest.mark.parametrize("recorded", [False, True])
def test_batch_normalization_uses_its_moving_statistics(recorded):
    model = classifier(rate=1e-6)  # nothing is dropped, and what is kept divided by 1 - 1e-6
    if recorded:  # which `predict` overrides
        x = inputs = keras.Input((5,))
        for layer in model.layers:
            x = layer(x, training=True) if isinstance(layer, L.BatchNormalization) else layer(x)
        model = keras.Model(inputs, x)
    x = np.sort(data(64), axis=0)  # of sorted rows a batch would have other statistics
    prediction = kdx.mc_predict(model, x, 3, seed=1, keep_samples=True)
    closest = np.median(prediction.samples, axis=0)
    np.testing.assert_allclose(closest, model.predict(x, verbose=0), atol=1e-4)  # three times 1e-6, of 10


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_in_other_precisions_samples_are_those_of_float32_but_for_roundings(policy):
    rounding = {"mixed_bfloat16": 2**-8, "mixed_float16": 2**-11, "float64": 2**-23}[policy]
    model = classifier()
    config = model.get_config()
    for layer in config["layers"][1:]:
        layer["config"]["dtype"] = policy
    other = keras.Sequential.from_config(config)
    other.set_weights(model.get_weights())
    first, second = (kdx.mc_predict(m, data(9), 30, seed=1, keep_samples=True) for m in (model, other))
    # seven layers of sums of up to nine products of numbers below 5, in probabilities
    np.testing.assert_allclose(second.samples.astype("float32"), first.samples, atol=50 * rounding)
    assert second.mean.dtype == "float64"
    assert second.expected_entropy is not None


def test_nested_models_turn_their_inputs_into_their_dtype():
    inner_inputs = keras.Input((5,), dtype="float16")
    inner = keras.Model(inner_inputs, L.Rescaling(1.0, dtype="float32")(inner_inputs))
    inputs = keras.Input((5,))
    model = keras.Model(inputs, inner(L.Dropout(1e-9)(inputs)))  # nothing is dropped
    mean = kdx.mc_predict(model, data(9), 3, seed=1).mean
    np.testing.assert_array_equal(mean, data(9).astype("float16"))
    np.testing.assert_array_equal(mean, model.predict(data(9), verbose=0))


@pytest.mark.slow
def test_changed_weights_and_rates_count():
    model, x = classifier(), data(6)
    first = kdx.mc_predict(model, x, seed=1)
    model.layers[-1].set_weights([w * 2 for w in model.layers[-1].get_weights()])
    second = kdx.mc_predict(model, x, seed=1)
    fresh = keras.Sequential.from_config(model.get_config())
    fresh.set_weights(model.get_weights())
    np.testing.assert_array_equal(second.mean, kdx.mc_predict(fresh, x, seed=1).mean)
    assert np.all(first.mean != second.mean)
    model.layers[0].rate = 0.6
    third = kdx.mc_predict(model, x, seed=1)
    fresh = keras.Sequential.from_config(model.get_config())
    fresh.set_weights(model.get_weights())
    np.testing.assert_array_equal(third.mean, kdx.mc_predict(fresh, x, seed=1).mean)
    assert np.all(third.mean != second.mean)


@pytest.mark.slow
def test_a_changed_activation_and_lora_count():
    model, x = dense_chain(), data(300)
    changes = {
        "activation": lambda layer: setattr(layer, "activation", keras.activations.relu),
        "of all units together": lambda layer: setattr(layer, "activation", keras.activations.softmax),
        "lora": lambda layer: (layer.enable_lora(2), layer.lora_kernel_b.assign(np.ones((2, 9)))),
    }
    for change in changes.values():
        before = kdx.mc_predict(model, x, 30, seed=1, batch_size=300).mean
        change(model.layers[3])
        after, few = (kdx.mc_predict(model, x, 30, seed=1, batch_size=n).mean for n in (300, 20))
        expected = np.mean([_sample_by_hand(model, x, k) for k in range(30)], axis=0)
        assert np.any(before != after)
        np.testing.assert_allclose(after, expected, atol=50 * EPS)
        np.testing.assert_allclose(few, expected, atol=50 * EPS)


def _sample_by_hand(model, x, k):
    """Compute sample `k` of `dense_chain` for seed 1 layer by layer, in NumPy but for the dense layers."""
    place = 0
    for layer in model.layers:
        if not isinstance(layer, L.Dropout):
            x = keras.ops.convert_to_numpy(layer(x))
            continue
        generator = np.random.SFC64(np.random.SeedSequence(1, spawn_key=(place,)))
        words = generator.random_raw((k + 1) * -(-x.shape[1] // 2)).astype("<u8")
        numbers = words.view("<u4").reshape(k + 1, -1)[k, : x.shape[1]]
        x = x * (numbers >= round(layer.rate * 2**32)) / np.float32(1 - layer.rate)
        place += 1
    return x


@pytest.mark.slow
def test_a_model_that_trains_on_is_sampled_as_it_is_now():
    model, x = classifier(), data(32)
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    for _ in range(2):
        model.fit(x, np.arange(32) % 3, verbose=0)
        copied = keras.models.clone_model(model)
        copied.set_weights(model.get_weights())
        found, expected = (kdx.mc_predict(m, x, 30, seed=1).mean for m in (model, copied))
        np.testing.assert_allclose(found, expected, atol=10 * EPS)


@pytest.mark.parametrize("how", ["never called", "predicted", "fitted"])
def test_a_model_without_a_declared_input_works(how):
    model = keras.Sequential([L.Dense(4), L.Dropout(0.5), L.Dense(1)])
    model.compile("sgd", "mse")
    if how == "predicted":  # Keras then declares inputs of a fixed batch
        model.predict(data(8), batch_size=8, verbose=0)
    if how == "fitted":
        model.fit(data(8), np.ones((8, 1)), batch_size=8, verbose=0)
    prediction = kdx.mc_predict(model, data(11), 30)
    assert prediction.mean.shape == (11, 1)
    assert np.all(prediction.std > 0)
    assert model.predict(data(11), verbose=0).shape == (11, 1)
    if how == "never called":
        assert model.inputs[0].shape == (None, 5)


# -- shapes, dtypes and structures that change from call to call ------------------------------------------


def of_any_length():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 3))
    steps = L.Dropout(0.3)(L.Dense(4)(inputs))
    pooled = L.GlobalAveragePooling1D()(L.LSTM(3, dropout=0.3, return_sequences=True)(steps))
    return keras.Model(inputs, {"steps": L.Dense(2)(steps), "pooled": L.Dense(2)(pooled)})


def of_any_size():
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(4, 2), L.SpatialDropout2D(0.4), L.Conv2D(3, 1), L.GlobalMaxPooling2D()]
    return keras.Sequential([keras.Input((None, None, 2)), *layers, L.Dropout(0.5), L.Dense(2)])


SHAPES = {
    "lengths": (of_any_length, [(3, 3), (7, 3), (3, 3)]),
    "sizes": (of_any_size, [(4, 5, 2), (6, 3, 2)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("name", SHAPES)
def test_inputs_of_another_shape_are_sampled_as_if_they_were_the_first(name, masks):
    build, shapes = SHAPES[name]
    model, rng = build(), np.random.default_rng(0)
    for shape in shapes:
        x = rng.normal(size=(4, *shape)).astype("float32")
        fresh = build()
        fresh.set_weights(model.get_weights())
        found, expected = (kdx.mc_predict(m, x, 20, seed=1, masks=masks) for m in (model, fresh))
        assert_same(found, expected, rounding=5)
        assert all(np.all(std > 0) for std in keras.tree.flatten(found.std))


@pytest.mark.slow
def test_batches_of_one_dataset_can_differ_in_length():
    model = of_any_length()
    pooled = keras.Model(model.input, model.output["pooled"])
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, length, 3)).astype("float32") for length in (3, 5, 3)]
    together = kdx.mc_predict(pooled, iter(batches), 20, seed=1)
    assert together.mean.shape == (12, 2)
    apart = [kdx.mc_predict(pooled, batch, 20, seed=1).mean for batch in batches]
    np.testing.assert_allclose(together.mean, np.concatenate(apart), atol=10 * EPS)
    with pytest.raises(ValueError, match=r"each length.*\(3, 2\), \(5, 2\)"):
        kdx.mc_predict(model, iter(batches), 20)


def test_rows_of_other_lengths_have_independent_masks_of_their_own():
    inputs = keras.Input((None, 1))
    model = keras.Model(inputs, L.Dropout(0.5)(inputs))
    batches = [np.ones((1, length, 1), "float32") for length in (1000, 1001)]
    reduced = keras.Model(inputs, keras.ops.mean(model.outputs[0], axis=(1, 2)))
    found = kdx.mc_predict(reduced, iter(batches), 400, seed=1, masks="independent", keep_samples=True)
    assert abs(np.corrcoef(found.samples.T)[0, 1]) < 6 / np.sqrt(400)


class TakesAll(keras.Model):
    """Takes its inputs in any structure and dtype, which a graph would not."""

    def __init__(self):
        super().__init__()
        self.drop, self.dense = L.Dropout(0.5), L.Dense(2)

    def call(self, x):
        parts = [keras.ops.cast(part, "float32") for part in keras.tree.flatten(x)]
        return self.dense(self.drop(sum(parts)))


def test_another_structure_and_dtype_of_inputs_counts():
    model, x = TakesAll(), data(4)
    expected = kdx.mc_predict(model, x, 20, seed=1)
    whole = np.round(4 * x).astype("int32")
    for inputs, scale in (([x], 1), ({"a": x, "b": x}, 2), ((x, x, x), 3)):
        found = kdx.mc_predict(model, inputs, 20, seed=1)
        np.testing.assert_allclose(found.mean, scale * expected.mean, rtol=1e-5, atol=1e-6)
    rounded = kdx.mc_predict(model, whole.astype("float32"), 20, seed=1)
    assert_same(kdx.mc_predict(model, whole, 20, seed=1), rounded)


@keras.saving.register_keras_serializable(package="tests")
class Scaled(L.Layer):
    factor = 1.0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = 1.0

    def call(self, x):
        return x * self.factor if self.trainable else x - self.factor


def test_what_is_set_in_a_layer_counts():
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), Scaled(), L.Dense(2)])
    before = kdx.mc_predict(model, data(4), 20, seed=1)
    model.compile("sgd", "mse")
    np.testing.assert_array_equal(kdx.mc_predict(model, data(4), 20, seed=1).mean, before.mean)
    model.layers[1].factor = 2.0
    np.testing.assert_allclose(kdx.mc_predict(model, data(4), 20, seed=1).std, 2 * before.std, rtol=1e-5)
    model.layers[1].trainable = False
    shifted = kdx.mc_predict(model, data(4), 20, seed=1)
    np.testing.assert_allclose(shifted.std, before.std, rtol=1e-5)
    assert np.all(shifted.mean != before.mean)
    model.layers[1].trainable = True
    model.layers[2].dtype_policy = "mixed_bfloat16"
    rounded = kdx.mc_predict(model, data(4), 20, seed=1, keep_samples=True)
    assert str(rounded.samples.dtype) == "bfloat16"


class Tempered(keras.Model):
    """Divides by what users set in many ways."""

    def __init__(self):
        super().__init__()
        self.drop, self.dense = L.Dropout(0.5), L.Dense(2)
        self.temperature, self._hidden, self.factors = 1.0, 1.0, [1.0, {"inner": (1.0,)}]
        self.array = np.ones(1, "float32")

    @property
    def hidden(self):
        return self._hidden

    @hidden.setter
    def hidden(self, value):
        self._hidden = value

    def call(self, x):
        inner = self.factors[1]["inner"][0]
        divisor = self.temperature * self.hidden * self.factors[0] * inner * self.array[0]
        return self.dense(self.drop(x)) / float(divisor)


CHANGES = {
    "an attribute of a model": lambda model: setattr(model, "temperature", 4.0),
    "a property": lambda model: setattr(model, "hidden", 4.0),
    "in a list": lambda model: model.factors.__setitem__(0, 4.0),
    "in a dict in a list": lambda model: model.factors[1].update({"inner": (4.0,)}),
    "in an array, then compile": lambda model: (model.array.fill(4.0), model.compile()),
}


@pytest.mark.slow
@pytest.mark.parametrize("is_nested", [False, True])
def test_what_is_set_in_a_model_counts_wherever_it_is(is_nested):
    inner = Tempered()
    inputs = keras.Input((5,))
    model = keras.Model(inputs, inner(inputs)) if is_nested else inner
    expected = kdx.mc_predict(model, data(4), 20, seed=1).mean
    for change in CHANGES.values():
        change(inner)
        expected = expected / 4
        mean = kdx.mc_predict(model, data(4), 20, seed=1).mean
        np.testing.assert_allclose(mean, expected, rtol=1e-5, err_msg=str(change))


def small_sequential():
    return keras.Sequential([keras.Input((5,)), L.Dropout(0.5), L.Dense(2)])


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_sequential, Tempered])
def test_what_keras_sets_in_a_model_is_no_change(make, monkeypatch, tmp_path):
    model, sampler_count = make(), []
    monkeypatch.setattr(sampler_cache, "Sampler", lambda *args: sampler_count.append(0) or Sampler(*args))
    kdx.mc_predict(model, data(4), 20, seed=1)
    model.compile("sgd", "mse")
    targets = model.predict(data(4), verbose=0)
    kdx.mc_predict(model, data(4), 20, seed=1)
    assert len(sampler_count) == 2  # `compile` is how Keras is told of a change
    model.fit(data(4), targets, verbose=0, validation_split=0.5)
    kdx.mc_predict(model, data(4), 20, seed=1)
    model.evaluate(data(4), targets, verbose=0)
    kdx.mc_predict(model, data(4), 20, seed=1)
    model.save_weights(tmp_path / "any.weights.h5")
    kdx.mc_predict(model, data(4), 20, seed=2)
    assert len(sampler_count) == 2


def test_what_a_layer_keeps_of_a_call_is_no_change(monkeypatch):
    class Keeping(L.Layer):
        def call(self, x):
            self.last = x
            return x

    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), Keeping(), L.Dense(1)])
    made = []
    monkeypatch.setattr(sampler_cache, "Sampler", lambda *args: made.append(0) or Sampler(*args))
    for _ in range(3):
        kdx.mc_predict(model, data(4), 20, seed=1)
    assert len(made) == 1


class LogHead(L.Layer):
    """Log-probabilities, made by a layer within."""

    def __init__(self):
        super().__init__()
        self.layer = L.Dense(3, "softmax")

    def call(self, x):
        return keras.ops.log(self.layer(x))


class LogOfSteps(L.TimeDistributed):
    def __init__(self):
        super().__init__(L.Dense(3, "softmax"))

    def build(self, shape):
        self.layer.build((None, shape[-1]))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)

    def call(self, x, training=None, mask=None):
        return keras.ops.log(self.layer(x))


@pytest.mark.parametrize("head", [LogHead, LogOfSteps])
def test_the_activation_within_a_layer_of_the_users_own_tells_nothing(head):
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), head()])
    assert kdx.mc_predict(model, data(4), 20).mutual_information is None
    sampled = kdx.mc_predict(model, data(4), 20, seed=1, keep_samples=True)
    logits = kdx.mc_predict(model, data(4), 20, seed=1, from_logits=True)  # the softmax undoes the log
    np.testing.assert_allclose(logits.mean, np.exp(sampled.samples).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("around", [L.TimeDistributed, L.SpectralNormalization])
def test_the_activation_within_a_wrapper_of_keras_is_that_of_the_output(around):
    head = around(L.Dense(2, "softmax"))
    model = keras.Sequential([keras.Input((3, 5)), L.Dropout(0.5), head])
    graph = Graph.of(model)
    assert output_activations(graph) == ["softmax"]


def test_an_output_is_read_by_the_activation_that_it_has_now():
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), L.Dense(1)])
    assert kdx.mc_predict(model, data(4), 20).mutual_information is None
    model.layers[-1].activation = keras.activations.sigmoid
    assert kdx.mc_predict(model, data(4), 20).mutual_information.shape == (4,)


def test_statistics_of_a_normalization_that_is_adapted_later_count():
    norm = L.Normalization()
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), norm, L.Dense(2)])
    before = kdx.mc_predict(model, data(4), 20, seed=1).mean
    norm.adapt(3 + 2 * data(50))
    after = kdx.mc_predict(model, data(4), 20, seed=1).mean
    fresh = keras.models.clone_model(model)
    fresh.set_weights(model.get_weights())
    fresh.layers[1].finalize_state()
    np.testing.assert_array_equal(after, kdx.mc_predict(fresh, data(4), 20, seed=1).mean)
    assert np.all(before != after)


def test_samplers_are_kept_by_shape_and_thrown_away_where_they_are_many(monkeypatch):
    monkeypatch.setattr(sampler_cache, "_SHAPES", 2)
    model = of_any_size()
    made = []
    monkeypatch.setattr(sampler_cache, "Sampler", lambda *args: made.append(0) or Sampler(*args))
    for size in (3, 4, 3, 5, 3, 4):  # the last 4 was thrown away when 5 came
        kdx.mc_predict(model, np.ones((2, size, 3, 2)), 5)
    assert len(made) == 4


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="what TensorFlow says of functions that it traces")
def test_tensorflow_does_not_warn_of_retracing():
    import tensorflow as tf

    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    tf.get_logger().addHandler(handler)
    try:
        model = of_any_size()
        for size in range(3, 10):
            kdx.mc_predict(model, np.ones((size, size, 3, 2)), size)
    finally:
        tf.get_logger().removeHandler(handler)
    assert not any("retracing" in message for message in said)


# -- models that preprocess what they take ----------------------------------------------------------------


class Task(keras.Model):
    """A functional model with the protocol of KerasHub's tasks."""

    def __init__(self, **kwargs):
        inputs = {"ids": keras.Input((None,), dtype="int32", name="ids")}
        embedded = L.Dropout(0.4)(L.Embedding(300, 4)(inputs["ids"]))
        super().__init__(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(embedded)), **kwargs)
        self.preprocessor = self.preprocessed

    @staticmethod
    def preprocessed(x, y=None, sample_weight=None):
        assert isinstance(x, (list, tuple)), "tokenizers take lists of strings"
        first = [" ".join(pair) for pair in zip(*x, strict=True)] if isinstance(x, tuple) else x
        assert all(isinstance(text, str) for text in first)
        ids = np.array([list(text.encode().ljust(12)[:12]) for text in first], "int32")
        return ({"ids": ids}, y, sample_weight) if y is not None else {"ids": ids}

    def predict(self, x, **kwargs):
        return super().predict(self.preprocessed(x), **kwargs)


TEXTS = ["the quick", "brown fox", "jumped", "over", "a dog"]


def batches_of_pairs():
    return ((np.array(TEXTS[i : i + 2], object), np.zeros(2)) for i in (0, 2, 4))


@pytest.mark.parametrize(
    "texts",
    [TEXTS, np.array(TEXTS), np.array(TEXTS, "S"), batches_of_pairs],
    ids=["list", "array", "bytes", "generator"],
)
def test_strings_go_through_the_preprocessor_of_a_task(texts):
    keras.utils.set_random_seed(0)
    task = Task()
    plain = keras.Model(task.input, task.outputs[0])
    expected = kdx.mc_predict(plain, Task.preprocessed(TEXTS), 20, seed=1)
    found = kdx.mc_predict(task, texts() if callable(texts) else texts, 20, seed=1, batch_size=2)
    np.testing.assert_allclose(found.mean, expected.mean, atol=10 * EPS)
    assert np.all(found.std > 0)


def test_pairs_of_strings_and_inputs_that_are_preprocessed_already_work():
    task = Task()
    pairs = (TEXTS, TEXTS[::-1])
    found = kdx.mc_predict(task, pairs, 20, seed=1, batch_size=2)
    task.preprocessor = None  # as KerasHub has it for inputs that are preprocessed
    again = kdx.mc_predict(task, Task.preprocessed(pairs), 20, seed=1)
    np.testing.assert_allclose(found.mean, again.mean, atol=10 * EPS)


def test_an_attribute_of_that_name_is_not_applied_where_predict_does_not():
    model = classifier()
    model.preprocessor = lambda x: x * 0
    found, expected = (kdx.mc_predict(m, data(3), 20, seed=1).mean for m in (model, classifier()))
    np.testing.assert_array_equal(found, expected)


# -- what is made of the samples -------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [4, 32])
def test_fields_are_those_of_the_samples(batch_size):
    model, x = classifier(), data(10)
    prediction = kdx.mc_predict(model, x, 300, seed=1, batch_size=batch_size, keep_samples=True)
    samples = prediction.samples.astype("float64")
    assert samples.shape == (300, 10, 3)
    np.testing.assert_allclose(prediction.mean, samples.mean(axis=0), rtol=10 * EPS)
    np.testing.assert_allclose(prediction.variance, samples.var(axis=0), rtol=1e-5, atol=10 * EPS)
    np.testing.assert_allclose(prediction.std, samples.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(prediction.standard_error, prediction.std / np.sqrt(300))
    entropies = kdx.entropy_decomposition(samples)
    np.testing.assert_allclose(prediction.predictive_entropy, entropies.total, atol=20 * EPS)
    np.testing.assert_allclose(prediction.expected_entropy, entropies.aleatoric, atol=20 * EPS)
    np.testing.assert_allclose(prediction.mutual_information, entropies.epistemic, atol=40 * EPS)
    votes = np.stack([np.bincount(row, minlength=3) for row in samples.argmax(axis=-1).T])
    np.testing.assert_array_equal(prediction.variation_ratio, 1 - votes.max(axis=-1) / 300)
    np.testing.assert_array_equal(prediction.quantile(0.25), np.quantile(prediction.samples, 0.25, axis=0))
    assert prediction.num_samples == 300


def test_without_kept_samples_the_fields_are_the_same():
    model, x = classifier(), data(10)
    kept, streamed = (kdx.mc_predict(model, x, 300, seed=1, keep_samples=keep) for keep in (True, False))
    assert_same(kept, streamed, rounding=5)
    assert streamed.samples is None
    with pytest.raises(ValueError, match="keep_samples=True"):
        streamed.quantile(0.5)


def test_a_small_spread_round_a_large_mean_is_right():
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), L.Dense(2)])
    model.layers[-1].bias.assign([1e6, -1e6])
    prediction = kdx.mc_predict(model, data(4), 500, seed=1, keep_samples=True)
    samples = prediction.samples.astype("float64")
    assert np.all(prediction.std < 10)
    np.testing.assert_allclose(prediction.mean, samples.mean(axis=0), rtol=1e-9)
    # Differences of such numbers are exact in float32: what is lost are roundings of sums of squares.
    np.testing.assert_allclose(prediction.variance, samples.var(axis=0), rtol=20 * EPS)


ENTROPIES = ("expected_entropy", "predictive_entropy", "mutual_information", "variation_ratio")


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("activation", [None, "sigmoid", "relu"])
def test_outputs_that_are_no_probabilities_have_no_entropies(activation, units):
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), L.Dense(units, activation)])
    if activation != "sigmoid":  # values that probabilities could have, by chance
        share = 0.5 if units == 1 else 1 / units
        model.layers[-1].set_weights([np.full((5, units), 1e-6), np.full(units, share)])
    prediction = kdx.mc_predict(model, data(4), 30)
    are_probabilities = activation == "sigmoid" and units == 1
    for name in ENTROPIES:
        assert (getattr(prediction, name) is not None) == are_probabilities


class Unseen(keras.Model):
    """A model whose graph tells nothing."""

    def __init__(self, *layers):
        super().__init__()
        self.parts = layers

    def call(self, x):
        for layer in self.parts:
            x = layer(x)
        return x


def heads(*layers):
    return [L.Dropout(0.4), L.Dense(7, "tanh"), L.Dropout(0.4), *layers]


def nested_sigmoid():
    inner = keras.Sequential([keras.Input((5,)), *heads(L.Dense(1, "sigmoid"))])
    return keras.Sequential([keras.Input((5,)), inner])


BINARY = {
    "sigmoid": lambda: keras.Sequential([keras.Input((5,)), *heads(L.Dense(1, "sigmoid"))]),
    "activation layer": lambda: keras.Sequential(
        [keras.Input((5,)), *heads(L.Dense(1), L.Activation("sigmoid"), L.Activation("linear"))]
    ),
    "operation": lambda: (lambda model: keras.Model(model.inputs, keras.ops.sigmoid(model.outputs[0])))(
        keras.Sequential([keras.Input((5,)), *heads(L.Dense(1))])
    ),
    "without an axis": lambda: keras.Sequential(
        [keras.Input((5,)), *heads(L.Dense(1, "sigmoid"), L.Reshape(()))]
    ),
    "nested": nested_sigmoid,
    "by its values": lambda: Unseen(*heads(L.Dense(1, "sigmoid"))),
    "bfloat16": lambda: keras.Sequential(
        [keras.Input((5,)), *heads(L.Dense(1, "sigmoid", dtype="mixed_bfloat16"))]
    ),
}


def assert_fields_of(prediction, samples):
    """Check the entropies against those of samples of class probabilities, with all classes."""
    samples = samples.astype("float64")
    entropies = kdx.entropy_decomposition(samples)
    tolerance = dict(rtol=0, atol=100 * EPS)
    np.testing.assert_allclose(prediction.predictive_entropy, entropies.total, **tolerance)
    np.testing.assert_allclose(prediction.expected_entropy, entropies.aleatoric, **tolerance)
    np.testing.assert_allclose(prediction.mutual_information, entropies.epistemic, **tolerance)
    classes = samples.shape[-1]
    votes = (samples.argmax(axis=-1)[..., None] == np.arange(classes)).sum(axis=0)
    expected = 1 - votes.max(axis=-1) / len(samples)
    np.testing.assert_allclose(prediction.variation_ratio, expected, rtol=0, atol=EPS)


@pytest.mark.parametrize("name", BINARY)
def test_one_sigmoid_unit_has_the_entropies_of_two_classes(name):
    keras.utils.set_random_seed(0)
    prediction = kdx.mc_predict(BINARY[name](), data(6), 50, seed=1, keep_samples=True)
    second = prediction.samples.astype("float32").reshape(50, 6)
    assert prediction.mutual_information.shape == (6,)
    assert_fields_of(prediction, np.stack([1 - second, second], axis=-1))


def test_a_map_of_one_sigmoid_has_entropies_at_each_place():
    model = keras.Sequential([keras.Input((3, 2, 4)), L.Dropout(0.5), L.Conv2D(1, 1, activation="sigmoid")])
    prediction = kdx.mc_predict(model, np.ones((5, 3, 2, 4)), 20)
    assert prediction.mutual_information.shape == prediction.variation_ratio.shape == (5, 3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("units", [1, 4])
def test_logits_give_what_their_probabilities_give(units):
    keras.utils.set_random_seed(0)
    body = heads(L.Dense(units, kernel_initializer="random_normal"))
    logits = keras.Sequential([keras.Input((5,)), *body])
    activation = "softmax" if units > 1 else "sigmoid"
    probabilities = keras.Sequential([keras.Input((5,)), *body, L.Activation(activation)])
    for rows in (data(6), data(300)):  # where units that are dropped are left out, too
        first, second = (
            kdx.mc_predict(model, rows, 20, seed=1, batch_size=300, keep_samples=True, from_logits=True)
            for model in (logits, probabilities)  # which are no logits, and stay as they are
        )
        assert_same(first, second)
        np.testing.assert_allclose(first.samples, second.samples, atol=50 * EPS)


@pytest.mark.slow
def test_each_output_is_read_in_its_own_way():
    inputs = keras.Input((5,))
    x = L.Dense(6, "tanh")(L.Dropout(0.4)(inputs))
    outputs = {
        "logits": L.Dense(3)(x),
        "rest": [
            L.Dense(1)(x),
            L.Dense(4, "softmax")(x),
            L.Dense(1, "sigmoid")(x),
            L.Dense(3, "sigmoid")(x),
        ],
    }
    model = keras.Model(inputs, outputs)
    flags = {"logits": True, "rest": [False, False, False, False]}
    found = kdx.mc_predict(model, data(4), 30, seed=1, keep_samples=True, from_logits=flags)
    plain = kdx.mc_predict(model, data(4), 30, seed=1, keep_samples=True)
    weights = np.exp(plain.samples["logits"].astype("float64"))
    expected = weights / weights.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found.mean["logits"], expected.mean(axis=0), atol=20 * EPS)
    assert plain.mutual_information["logits"] is None
    shapes = [None if each is None else each.shape for each in found.mutual_information["rest"]]
    assert shapes == [None, (4,), (4,), None]
    for key in (0, 1, 2, 3):
        np.testing.assert_array_equal(found.mean["rest"][key], plain.mean["rest"][key])
    everywhere = kdx.mc_predict(model, data(4), 30, seed=1, from_logits=True)
    assert everywhere.mutual_information["rest"][0].shape == (4,)  # asked for
    np.testing.assert_array_equal(everywhere.mean["rest"][1], plain.mean["rest"][1])  # no logits


def test_whole_numbers_and_single_numbers_are_counted():
    inputs = keras.Input((5,))
    dropped = L.Dropout(0.5)(inputs)
    outputs = [keras.ops.argmax(dropped, axis=-1), keras.ops.sum(dropped, axis=-1)]
    prediction = kdx.mc_predict(keras.Model(inputs, outputs), data(4), 50, seed=1, keep_samples=True)
    for mean, samples in zip(prediction.mean, prediction.samples, strict=True):
        assert mean.shape == (4,)
        np.testing.assert_allclose(mean, samples.astype("float64").mean(axis=0), rtol=10 * EPS, atol=EPS)
    assert prediction.expected_entropy == [None, None]


def test_samples_that_agree_have_no_mutual_information_below_zero():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), L.Dropout(1e-7), L.Dense(3, "softmax")])
    prediction = kdx.mc_predict(model, data(200), 64, seed=1)  # nothing is dropped: roundings are left
    difference = prediction.predictive_entropy - prediction.expected_entropy
    assert difference.min() < 0 <= prediction.mutual_information.min()


def test_certain_classes_have_entropy_zero():
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), L.Dense(3, "softmax")])
    model.layers[-1].bias.assign([-1e4, 1e4, -1e4])
    prediction = kdx.mc_predict(model, data(4), 30)
    for name in ("expected_entropy", "predictive_entropy", "mutual_information", "variation_ratio"):
        assert not getattr(prediction, name).any()


def test_probabilities_at_each_step_have_entropies_at_each_step():
    model = keras.Sequential([keras.Input((4, 3)), L.Dropout(0.5), L.Dense(5, "softmax")])
    prediction = kdx.mc_predict(model, np.ones((6, 4, 3)), 30)
    assert prediction.mutual_information.shape == prediction.variation_ratio.shape == (6, 4)


def test_nan_in_one_row_takes_the_entropies_of_that_row_alone():
    x = data(4)
    x[1, 0] = np.nan
    for units, activation in ((3, "softmax"), (1, "sigmoid")):
        model = keras.Sequential([keras.Input((5,)), L.Dropout(0.3), L.Dense(units, activation)])
        entropy = kdx.mc_predict(model, x, 20, seed=1).predictive_entropy
        assert np.isnan(entropy).tolist() == [False, True, False, False]


# -- tolerance -------------------------------------------------------------------------------------------


def test_sampling_goes_on_until_the_standard_error_is_small():
    model, x = classifier(), data(10)
    prediction = kdx.mc_predict(model, x, seed=1, tolerance=0.01, batch_size=4)
    count = prediction.num_samples
    assert prediction.standard_error.max() < 0.01
    assert count % 20 == 0
    before = kdx.mc_predict(model, x, count - 20, seed=1)
    assert before.standard_error.max() >= 0.01
    assert_same(prediction, kdx.mc_predict(model, x, count, seed=1))


def test_at_least_20_samples_are_taken():
    assert kdx.mc_predict(classifier(), data(3), tolerance=10.0).num_samples == 20


def test_a_tolerance_that_is_not_reached_is_told():
    with pytest.warns(UserWarning, match="after 50 samples is .* Raise `max_samples`"):
        prediction = kdx.mc_predict(classifier(), data(3), tolerance=1e-9, max_samples=50)
    assert prediction.num_samples == 50


# -- data ------------------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    def __init__(self, x, size):
        super().__init__()
        self.x, self.size = x, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, i):
        rows = self.x[i * self.size : (i + 1) * self.size]
        return rows, np.zeros(len(rows))


def as_tf(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(x).batch(4)


def as_torch(x):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x)), batch_size=4)


DATA = {
    "list": lambda x: [x],
    "float64": lambda x: x.astype("float64"),
    "tensor": lambda x: keras.ops.convert_to_tensor(x),
    "PyDataset": lambda x: Batches(x, 4),
    "generator": lambda x: (x[i : i + 4] for i in range(0, len(x), 4)),
    "generator of pairs": lambda x: ((x[i : i + 4], None) for i in range(0, len(x), 4)),
    "uneven batches": lambda x: iter([x[:3], x[3:8], x[8:]]),
    "tf.data": as_tf,
    "DataLoader": as_torch,
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("kind", DATA)
def test_all_kinds_of_data_give_the_same(kind, masks):
    model, x = classifier(), data(10)
    expected = kdx.mc_predict(model, x, 30, seed=1, masks=masks)
    assert_same(kdx.mc_predict(model, DATA[kind](x), 30, seed=1, masks=masks), expected)


# -- what stays as it is ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("batch_size", [1, 16])
def test_nothing_of_the_model_moves_by_a_bit(batch_size, masks):
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy")
    x = data(32)[np.argsort(data(32)[:, 0])]
    model.fit(x, np.arange(32) % 3, verbose=0)
    before, predicted = state_of(model), model.predict(x, verbose=0)
    optimizer = [np.array(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    config, random = model.get_config(), np.random.get_state()[1].tolist()
    kdx.mc_predict(model, x, 30, masks=masks, batch_size=batch_size)
    for old, new in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(optimizer, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(new))
    np.testing.assert_array_equal(model.predict(x, verbose=0), predicted)
    assert model.get_config() == config
    assert np.random.get_state()[1].tolist() == random
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_after_an_error_within_the_model_nothing_is_left():
    class Failing(L.Layer):
        fails = False

        def call(self, x):
            if self.fails:
                raise ZeroDivisionError
            return x

    failing = Failing()
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), failing, L.Dense(1)])
    failing.fails = True
    with pytest.raises(ZeroDivisionError):
        kdx.mc_predict(model, data(4))
    failing.fails = False
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    assert np.all(kdx.mc_predict(model, data(4)).std > 0)


@pytest.mark.slow
def test_a_sampled_model_is_copied_saved_and_forgotten(tmp_path):
    model, x = classifier(), data(4)
    kdx.mc_predict(model, x)
    model.save(tmp_path / "model.keras")
    for other in (copy.deepcopy(model), keras.models.load_model(tmp_path / "model.keras")):
        np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
        assert np.all(kdx.mc_predict(other, x, seed=1).mean == kdx.mc_predict(model, x, seed=1).mean)
    gone = weakref.ref(model)
    del model, other
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None


class LayersInItself(keras.Model):
    """A model of its own `call`, whose layer leads back to it."""

    def __init__(self):
        super().__init__()
        self.drop, self.dense = L.Dropout(0.5), L.Dense(2)
        self.dense.back = lambda: self

    def call(self, x):
        return self.dense(self.drop(x))


FORGOTTEN = {
    "sequential": classifier,
    "of its own call": LayersInItself,
    "nested": lambda: keras.Sequential([keras.Input((5,)), classifier(), L.Dropout(0.5)]),
    "recurrent": lambda: keras.Sequential([keras.Input((3, 5)), L.LSTM(2, dropout=0.5)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORGOTTEN)
def test_what_is_kept_for_a_model_goes_with_it(kind):
    model = FORGOTTEN[kind]()
    before = set(vars(model))
    x = np.ones((4, 3, 5), "float32") if kind == "recurrent" else data(4)
    if kind == "of its own call":
        model(x)
        before = set(vars(model))
    kdx.mc_predict(model, x, 5)
    kdx.mc_predict(model, x, 5, masks="independent")
    assert set(vars(model)) == before
    assert model in sampler_cache._SAMPLERS
    count, gone = len(sampler_cache._SAMPLERS), weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None
    assert len(sampler_cache._SAMPLERS) < count


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dropout", "lstm"])
def test_models_that_share_layers_are_sampled_at_the_same_time(kind):
    class Waiting(L.Layer):
        """Says that it is called, and waits until the other thread is."""

        def call(self, inputs):
            if waits:
                barrier.wait(60)
            return inputs

    shape = (5,) if kind == "dropout" else (3, 5)
    shared = L.Dropout(0.5) if kind == "dropout" else L.LSTM(4, dropout=0.5)
    x = np.random.default_rng(0).normal(size=(6, *shape)).astype("float32")
    waits, barrier = False, threading.Barrier(2)
    models = [keras.Sequential([keras.Input(shape), shared, Waiting(), L.Dense(2)]) for _ in range(2)]
    expected = [kdx.mc_predict(model, x, 6, seed=seed).mean for seed, model in enumerate(models)]
    for model in models:
        model.layers[-1].note = "changed"  # so that it is traced again
    means, waits = {}, True

    def sample(seed):
        means[seed] = kdx.mc_predict(models[seed], x, 6, seed=seed).mean

    threads = [threading.Thread(target=sample, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(2):
        np.testing.assert_allclose(means[seed], expected[seed], rtol=1e-5)
    assert "call" not in vars(shared)


@pytest.mark.slow
def test_threads_do_not_disturb_each_other():
    model, x = classifier(), data(20)
    expected, predicted = kdx.mc_predict(model, x, seed=1).mean, model.predict(x, verbose=0)
    found, plain = [], []

    def sample():
        found.extend(kdx.mc_predict(model, x, seed=1).mean for _ in range(5))

    def predict():
        plain.extend(keras.ops.convert_to_numpy(model(x, training=False)) for _ in range(20))

    threads = [threading.Thread(target=target) for target in (sample, predict, sample, predict)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    assert len(plain) == 40
    for mean in found:
        np.testing.assert_array_equal(mean, expected)
    for outputs in plain:
        np.testing.assert_allclose(outputs, predicted, atol=10 * EPS)


@pytest.mark.slow
def test_the_progress_bar_is_asked_for(capsys):
    kdx.mc_predict(classifier(), data(10), batch_size=5)
    assert capsys.readouterr().out == ""
    kdx.mc_predict(classifier(), data(10), batch_size=5, verbose=1)
    assert "2/2" in capsys.readouterr().out
    kdx.mc_predict(classifier(), data(10), batch_size=5, tolerance=0.05, verbose=1)
    assert "standard error" in capsys.readouterr().out


LOAD_AND_SAMPLE = """
import json, sys
import keras, numpy as np
import keras_dnn_extras as kdx
model = keras.models.load_model(sys.argv[1])
x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
print(json.dumps(kdx.mc_predict(model, x, seed=1).mean.tolist()))
"""


def test_a_model_from_a_file_gives_the_same_in_another_process(tmp_path):
    model = kdx.to_mc_dropout(classifier())
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-c", LOAD_AND_SAMPLE, str(tmp_path / "model.keras")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = kdx.mc_predict(model, data(4), seed=1).mean
    np.testing.assert_array_equal(json.loads(printed.splitlines()[-1]), expected)


# -- refused ---------------------------------------------------------------------------------------------


class OwnNoise(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(0)

    def call(self, x):
        return x * keras.random.uniform(keras.ops.shape(x), seed=self.generator)


def with_unused_dropout():
    inputs = keras.Input((5,))
    model = Subclassed([L.Dense(1)])
    model.unused = L.Dropout(0.5)
    return keras.Model(inputs, model(inputs))


def minus_mean():
    inputs = keras.Input((5,))
    dropped = L.Dropout(0.5)(inputs)
    return keras.Model(inputs, dropped - keras.ops.mean(dropped, axis=0, keepdims=True))


def within(layer):
    return keras.Sequential([keras.Input((5, 4)), layer, L.Dense(1)])


def dropout_in_a_cell():
    class Cell(L.SimpleRNNCell):
        def __init__(self, units):
            super().__init__(units)
            self.drop = L.Dropout(0.5)

        def call(self, inputs, states, training=False):
            return super().call(self.drop(inputs, training=training), states, training)

    return L.RNN(Cell(2))


REFUSED = {
    "no dropout": (lambda: keras.Sequential([keras.Input((5,)), L.Dense(1)]), "no dropout in the model"),
    "rate 0": (lambda: keras.Sequential([keras.Input((5,)), L.Dropout(0.0)]), "no dropout in the model"),
    "unused": (with_unused_dropout, "takes part in its outputs"),
    "noise of its own": (
        lambda: keras.Sequential([keras.Input((5,)), OwnNoise(), L.Dropout(0.5)]),
        "random numbers of its own",
    ),
    "a fixed batch": (
        lambda: (lambda x: keras.Model(x, L.Dropout(0.5)(x)))(keras.Input((5,), batch_size=4)),
        "without a batch size",
    ),
    "a mean over rows": (minus_mean, "would mix samples"),
    "within TimeDistributed": (
        lambda: within(L.TimeDistributed(keras.Sequential([L.Dense(2), L.Dropout(0.5)]))),
        "loop over time",
    ),
    "within a cell": (lambda: within(dropout_in_a_cell()), "loop over time"),
    "stateful": (
        lambda: keras.Sequential(
            [keras.Input((5, 4), batch_size=4), L.LSTM(2, stateful=True, dropout=0.5)]
        ),
        "stateful=False",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_sampled_is_refused_with_the_reason(case):
    build, reason = REFUSED[case]
    model = build()
    x = np.ones((4, *model.inputs[0].shape[1:]))
    with pytest.raises(ValueError, match=reason):
        kdx.mc_predict(model, x)


ARGUMENTS = [
    ({"samples": 0}, ValueError, "samples=0"),
    ({"samples": 1.5}, TypeError, "samples=1.5"),
    ({"batch_size": 0}, ValueError, "batch_size=0"),
    ({"seed": -1}, ValueError, "seed=-1"),
    ({"seed": "a"}, TypeError, "seed='a'"),
    ({"masks": "each"}, ValueError, "masks='each'"),
    ({"tolerance": 0.0}, ValueError, "tolerance=0.0"),
    ({"tolerance": 0.1, "max_samples": 19}, ValueError, "max_samples=19"),
    ({"max_samples": 100}, ValueError, "max_samples=100"),
    ({"keep_samples": 1}, TypeError, "keep_samples=1"),
    ({"samples": 2**40, "keep_samples": True}, ValueError, "samples=1099511627776, keep_samples=True"),
    (
        {"tolerance": 0.1, "max_samples": 2**40, "keep_samples": True},
        ValueError,
        "max_samples=1099511627776, keep_samples=True",
    ),
    ({"from_logits": 1}, TypeError, "from_logits=1"),
    ({"from_logits": {"a": True}}, ValueError, "from_logits={'a': True}"),
    ({"verbose": "a"}, TypeError, "verbose=.a"),
]


@pytest.mark.parametrize(("arguments", "error", "received"), ARGUMENTS)
def test_wrong_arguments_are_refused(arguments, error, received):
    with pytest.raises(error, match=f"Received: .*{received}"):
        kdx.mc_predict(classifier(), data(3), **arguments)


def test_logits_are_told_in_the_structure_that_the_error_names():
    inputs = keras.Input((5,))
    hidden = L.Dropout(0.5)(inputs)
    model = keras.Model(inputs, {"a": L.Dense(3)(hidden), "b": L.Dense(2)(hidden)})
    with pytest.raises(ValueError, match=r"which is \{'a': 'bool', 'b': 'bool'\}\. Received"):
        kdx.mc_predict(model, data(3), from_logits=[True, False])
    for flag in (np.True_, {"a": np.True_, "b": True}):
        found = kdx.mc_predict(model, data(3), 20, from_logits=flag)
        assert all(entropies is not None for entropies in found.expected_entropy.values())


@pytest.mark.parametrize("layer", [L.Dropout(0.5), L.GaussianDropout(0.4)])
def test_of_one_batch_no_generator_is_kept(layer, monkeypatch):
    made = []
    monkeypatch.setattr(mc_batches, "Streams", lambda *args: made.append(Streams(*args)) or made[-1])
    model = keras.Sequential([keras.Input((5,)), layer, L.Dense(1)])
    arguments = dict(seed=1, masks="independent", keep_samples=True)
    at_once = kdx.mc_predict(model, data(4), 30, **arguments).samples
    assert not any(streams.position() for streams in made)
    for size in (1, 3):  # in batches, where each goes on behind the one before
        samples = kdx.mc_predict(model, data(4), 30, batch_size=size, **arguments).samples
        np.testing.assert_allclose(samples, at_once, atol=20 * EPS)
    of_batches = iter([data(4)[:3], data(4)[3:]])
    samples = kdx.mc_predict(model, of_batches, 30, **arguments).samples
    np.testing.assert_allclose(samples, at_once, atol=20 * EPS)


@pytest.mark.parametrize("x", [np.ones((0, 5)), iter([])])
def test_no_rows_are_refused(x):
    with pytest.raises(ValueError, match="at least one row"):
        kdx.mc_predict(classifier(), x)


def test_inputs_that_differ_in_their_length_are_refused():
    inputs = [keras.Input((5,)), keras.Input((5,))]
    model = keras.Model(inputs, L.Dropout(0.5)(L.Add()(inputs)))
    with pytest.raises(ValueError, match=r"shapes \[\(3, 5\), \(4, 5\)\]"):
        kdx.mc_predict(model, [data(3), data(4)])


@pytest.mark.parametrize(("model", "x"), [("model", data(3)), (None, data(3)), (classifier, 5)])
def test_what_is_no_model_or_no_data_is_refused(model, x):
    with pytest.raises(TypeError, match="Received: "):
        kdx.mc_predict(model() if callable(model) else model, x)


def test_inputs_of_another_shape_are_refused_by_keras():
    with pytest.raises(ValueError, match="shape"):
        kdx.mc_predict(classifier(), np.ones((3, 4)))


@pytest.mark.parametrize("masks", MASKS)
def test_nan_in_one_row_stays_in_that_row(masks):
    x = data(6)
    x[2, 1] = np.nan
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), L.Dense(3, "softmax")])
    prediction = kdx.mc_predict(model, x, 60, masks=masks)
    bad = np.isnan(prediction.mean).any(axis=1)
    assert bad.tolist() == [False, False, True, False, False, False]
