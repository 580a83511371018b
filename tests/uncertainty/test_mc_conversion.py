"""to_mc_dropout and to_deterministic: copies that draw, what they keep, and what they refuse."""

import inspect
import json
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import stochastic
from stochastic import KINDS

import keras_dnn_extras as kdx
from keras_dnn_extras.uncertainty.dropout_subclasses import draws_at_inference, is_known, likeness

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
    outputs, expected = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (back, model))
    np.testing.assert_array_equal(outputs, expected)
    assert back.count_params() == model.count_params()
    if kind != "training=True":  # which the call overrides: left out
        assert json.dumps(back.get_config()) == json.dumps(model.get_config())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "jit_compile"),
    [
        *((kind, False) for kind in ("Dropout", "MultiHeadAttention", "Bidirectional")),
        *(("LSTM", compiled) for compiled in ([False] if BACKEND == "torch" else [False, True])),
    ],
)
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


@pytest.mark.slow
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


# -- what configs forget ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("wrapped", [False, True])
def test_spatial_dropout_keeps_its_policy_and_whether_it_is_trainable(rank, wrapped):
    spatial = getattr(L, f"SpatialDropout{rank}D")(0.4, dtype="mixed_float16", name="noise", seed=3)
    spatial.trainable = spatial.autocast = False
    spatial.activity_regularizer = keras.regularizers.L2(0.1)
    shape = (2,) * rank + (8,)
    layers = [L.TimeDistributed(spatial, dtype="mixed_float16")] if wrapped else [spatial]
    model = keras.Sequential([keras.Input((3, *shape) if wrapped else shape), *layers, L.Flatten()])
    there = [] if wrapped else [kdx.to_mc_dropout(model)]  # within a loop over time it is refused
    copies = [*there, *map(kdx.to_deterministic, [model, *there]), kdx.replace_head(model, L.Flatten())]
    for copy in copies:
        layer = copy.layers[0].layer if wrapped else copy.layers[0]
        assert layer.dtype_policy.name == "mixed_float16"
        assert (layer.name, layer.seed, layer.rate) == ("noise", 3, 0.4)
        assert not layer.trainable
        assert not layer.autocast
        assert layer.activity_regularizer is not None
        assert [output.dtype for output in copy.outputs] == [output.dtype for output in model.outputs]
    assert "get_config" not in vars(spatial)


@keras.saving.register_keras_serializable(package="tests")
class Forgetful(L.Layer):
    """Its config tells nothing of what all layers have."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {"factor": self.factor}


def copies_of(model):
    yield kdx.to_mc_dropout(model)
    yield kdx.to_deterministic(model)
    yield kdx.replace_head(model, L.Flatten(name="head"))
    yield kdx.fuse_batch_norm(model).model


@pytest.mark.slow
def test_a_layer_of_ones_own_that_forgets_all_is_copied_whole():
    own = Forgetful(2.0, name="own", dtype="mixed_bfloat16", trainable=False, autocast=False)
    model = around(L.Dense(4, name="first"), own, L.Dropout(0.5), L.Dense(2, autocast=False, name="last"))
    for copy in copies_of(model):
        layer = copy.get_layer("own")
        assert (layer.factor, layer.trainable, layer.autocast) == (2.0, False, False)
        assert layer.dtype_policy.name == "mixed_bfloat16"
        assert "last" not in [each.name for each in copy.layers] or not copy.get_layer("last").autocast


# What each class needs, of those that cannot be made without; not what runs on one backend alone.
NEEDED = {
    "Dense": (3,), "EinsumDense": ("ab,bc->ac", 3), "Embedding": (3, 2), "ReversibleEmbedding": (3, 2),
    "Conv1D": (2, 2), "Conv2D": (2, 2), "Conv3D": (2, 2), "DepthwiseConv1D": (2,), "DepthwiseConv2D": (2,),
    "SeparableConv1D": (2, 2), "SeparableConv2D": (2, 2), "Conv1DTranspose": (2, 2),
    "Conv2DTranspose": (2, 2), "Conv3DTranspose": (2, 2), "LSTM": (3,), "GRU": (3,), "SimpleRNN": (3,),
    "ConvLSTM1D": (2, 2), "ConvLSTM2D": (2, 2), "ConvLSTM3D": (2, 2), "MultiHeadAttention": (2, 3),
    "GroupQueryAttention": (3, 4, 2), "Dropout": (0.3,), "AlphaDropout": (0.3,), "GaussianDropout": (0.3,),
    "GaussianNoise": (0.3,), "SpatialDropout1D": (0.3,), "SpatialDropout2D": (0.3,),
    "SpatialDropout3D": (0.3,), "Normalization": (), "Rescaling": (2.0,), "RandomGrayscale": (),
    "RandomFlip": (), "RandomRotation": (0.2,), "RandomZoom": (0.2,), "RandomContrast": (0.2,),
    "HashedCrossing": (4,), "BatchNormalization": (), "LayerNormalization": (), "GroupNormalization": (),
    "UnitNormalization": (), "Add": (), "Concatenate": (), "Dot": (1,), "Flatten": (), "Masking": (),
    "Permute": ((2, 1),), "RepeatVector": (2,), "Reshape": ((1, 2),), "Softmax": (), "ReLU": (),
    "LeakyReLU": (), "PReLU": (), "Activation": ("elu",), "ActivityRegularization": (0.1,),
    "Cropping1D": (), "ZeroPadding2D": (), "UpSampling2D": (), "MaxPooling2D": (), "GlobalMaxPooling2D": (),
    "CenterCrop": (2, 2), "Resizing": (2, 2), "Attention": (), "AdditiveAttention": (),
}  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_a_copy_of_every_layer_has_what_the_layer_has(name):
    layer_class = getattr(L, name)
    parameters = inspect.signature(layer_class.__init__).parameters
    seed = {"seed": 7} if "seed" in parameters else {}
    dtype = keras.DTypePolicy("mixed_bfloat16") if name != "HashedCrossing" else "int64"
    layer = layer_class(*NEEDED[name], name="own", dtype=dtype, **seed)
    layer.trainable = layer.autocast = False
    model = WithConfig([layer, L.Dropout(0.5)])
    copy = kdx.to_mc_dropout(model).parts[0]
    for attribute in (
        "name",
        "trainable",
        "autocast",
        "dtype_policy",
        *(seed if hasattr(layer, "seed") else ()),
    ):
        assert getattr(copy, attribute) == getattr(layer, attribute), attribute
    assert copy is not layer


# -- classes of the user's own that are always on ---------------------------------------------------------


def always_on(base, **methods):
    """Return the class that books tell to write."""

    def call(self, inputs, training=None):
        return super(kind, self).call(inputs, training=True)

    kind = type(f"MC{base.__name__}", (base,), {"call": call, **methods})
    return kind


class WithoutTraining(L.Dropout):
    def call(self, inputs):
        return super().call(inputs, training=True)


class InCallOfTheObject(L.Dropout):
    def __call__(self, inputs, training=None):
        return super().__call__(inputs, training=True)


class ByHand(L.Dropout):
    def call(self, inputs, training=None):
        return keras.random.dropout(inputs, self.rate, self.noise_shape, seed=self.seed_generator)


@keras.saving.register_keras_serializable(package="tests")
class AlwaysLSTM(L.LSTM):
    def call(self, sequences, initial_state=None, mask=None, training=None):
        return super().call(sequences, initial_state=initial_state, mask=mask, training=True)


class AlwaysGRU(L.GRU):
    def call(self, sequences, initial_state=None, mask=None):
        return super().call(sequences, initial_state=initial_state, mask=mask, training=True)


class AlwaysHeads(L.MultiHeadAttention):
    def call(self, query, value, key=None, training=None):
        return super().call(query, value, key=key, training=True)


class AlwaysAttention(L.Attention):
    def call(self, inputs, mask=None, training=None):
        return super().call(inputs, mask=mask, training=True)


class OfMC(kdx.MCDropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=False)  # which is ignored


class Unchanged(kdx.MCDropout):
    pass


class WithDefaults(always_on(L.Dropout)):
    def __init__(self, **kwargs):
        super().__init__(**{"rate": 0.4, **kwargs})
        self.note = "of the user's"

    def get_config(self):
        return {**super().get_config(), "note": self.note}


def of_sequence(layer):
    return keras.Sequential([keras.Input((4, 3)), layer, L.Flatten(), L.Dense(2)])


def of_steps(layer):
    return keras.Sequential([keras.Input((4, 3)), layer])


def attended(layer):
    query = keras.Input((4, 3))
    arguments = [[query, query]] if isinstance(layer, L.Attention) else [query, query]
    return keras.Model(query, L.Dense(2)(L.Flatten()(layer(*arguments))))


def twice_used(layer):
    inputs = keras.Input((4, 3))
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(layer(L.Dense(3)(layer(inputs))))))


OWN = {
    "MCDropout": (lambda: of_sequence(always_on(L.Dropout)(0.4)), L.Dropout),
    "MCAlphaDropout": (lambda: of_sequence(always_on(L.AlphaDropout)(0.4)), L.AlphaDropout),
    "MCGaussianDropout": (lambda: of_sequence(always_on(L.GaussianDropout)(0.4)), L.GaussianDropout),
    "spatial": (lambda: of_sequence(always_on(L.SpatialDropout1D)(0.4)), L.SpatialDropout1D),
    "seeded, of a low rate": (lambda: of_sequence(always_on(L.Dropout)(0.05, seed=3)), L.Dropout),
    "noise_shape": (lambda: of_sequence(always_on(L.Dropout)(0.4, (None, 1, None))), L.Dropout),
    "without training": (lambda: of_sequence(WithoutTraining(0.4)), L.Dropout),
    "__call__": (lambda: of_sequence(InCallOfTheObject(0.4)), L.Dropout),
    "by hand": (lambda: of_sequence(ByHand(0.4)), L.Dropout),
    "of MCDropout": (lambda: of_sequence(OfMC(0.4)), L.Dropout),
    "of MCDropout, unchanged": (lambda: of_sequence(Unchanged(0.4)), L.Dropout),
    "defaults": (lambda: of_sequence(WithDefaults()), L.Dropout),
    "used twice": (lambda: twice_used(always_on(L.Dropout)(0.4)), L.Dropout),
    "nested": (
        lambda: keras.Sequential([keras.Input((4, 3)), of_sequence(WithoutTraining(0.4))]),
        L.Dropout,
    ),
    "TimeDistributed": (lambda: of_sequence(L.TimeDistributed(always_on(L.Dropout)(0.4))), L.Dropout),
    "LSTM": (lambda: of_sequence(AlwaysLSTM(3, dropout=0.3, recurrent_dropout=0.2)), L.LSTM),
    "GRU": (lambda: of_sequence(AlwaysGRU(3, recurrent_dropout=0.3)), L.GRU),
    "Bidirectional": (lambda: of_sequence(L.Bidirectional(AlwaysLSTM(3, dropout=0.3))), L.LSTM),
    "heads": (lambda: attended(AlwaysHeads(2, 3, dropout=0.3)), L.MultiHeadAttention),
    "attention": (lambda: attended(AlwaysAttention(dropout=0.3)), L.Attention),
    "mixed precision": (lambda: of_sequence(always_on(L.Dropout)(0.4, dtype="mixed_bfloat16")), L.Dropout),
}


SLOW_ON_JAX = ("LSTM", "GRU", "attention")  # ten seconds each; their like is in "Bidirectional" and "heads"


@pytest.mark.parametrize("name", [n for n in OWN if BACKEND != "jax" or n not in SLOW_ON_JAX])
def test_an_always_on_class_is_converted_both_ways_and_sampled(name):
    keras.utils.set_random_seed(0)
    build, plain_class = OWN[name]
    model, x = build(), np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")
    plain, mc_model = kdx.to_deterministic(model), kdx.to_mc_dropout(model)
    assert plain_class in [type(layer) for layer in plain._flatten_layers()]
    pairs = [[keras.ops.convert_to_numpy(m(x)) for _ in range(2)] for m in (model, mc_model, plain)]
    assert [bool(np.any(first != second)) for first, second in pairs] == [True, True, False]
    found, expected = (kdx.mc_predict(m, x, 10, seed=1).mean for m in (model, plain))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_always_on_class_of_an_unbuilt_model_is_converted():
    plain = kdx.to_deterministic(keras.Sequential([AlwaysLSTM(3, dropout=0.3), WithoutTraining(0.3)]))
    assert [type(layer) for layer in plain.layers] == [L.LSTM, L.Dropout]


@pytest.mark.parametrize("name", ["MCDropout", "LSTM", "attention", "seeded, of a low rate"])
def test_looking_at_a_layer_leaves_no_trace(name):
    class Counting(always_on(L.Dropout)):
        calls = 0

        def call(self, inputs, training=None):
            self.calls += 1
            return super().call(inputs, training=training)

    model = OWN[name][0]()
    counting = Counting(0.3)
    model = keras.Model(model.inputs, counting(model.outputs[0]))
    calls, config = counting.calls, json.dumps(model.get_config())
    layers = list(model._flatten_layers())
    attributes = [dict(vars(layer)) for layer in layers]
    keras.utils.set_random_seed(5)
    before = random_states(model)
    assert [likeness(layer) for layer in layers if not is_known(layer)] == ["always"] * 2
    assert draws_at_inference(counting)
    assert counting.calls == calls
    for layer, old in zip(layers, attributes, strict=True):
        assert vars(layer).keys() == old.keys()
        assert all(vars(layer)[key] is old[key] for key in old)
    for first, second in zip(before, random_states(model), strict=True):
        np.testing.assert_array_equal(first, second)
    assert json.dumps(model.get_config()) == config


def random_states(model):
    seeds = [seed for layer in model._flatten_layers() for seed in getattr(layer, "_seed_generators", [])]
    states = [np.array(keras.ops.convert_to_numpy(seed.state)) for seed in seeds]
    return [*states, np.random.get_state()[1], np.array(random.getstate()[1])]


class Windows(L.Dropout):
    """Takes sequences whose length is a number of whole windows."""

    length = 10

    def call(self, x, training=False):
        shape, features = keras.ops.shape(x), x.shape[-1]
        windows = keras.ops.reshape(x, (shape[0], -1, self.length, features))
        return keras.ops.reshape(super().call(windows, training=True), (shape[0], -1, features))


class RareWindows(Windows):
    length = 23  # which no length that is tried otherwise is a multiple of


class SixteenRows(L.Dropout):
    def call(self, x, training=False):
        if x.shape[0] not in (None, 16):
            raise IndexError("sixteen rows wanted")
        return super().call(x, training=True)


class NeverAlone(L.Dropout):
    def call(self, x, training=False):
        if not isinstance(x, keras.KerasTensor):
            raise KeyError("of the user's")
        return super().call(x, training=True)


def of_unknown_length(layer):
    return keras.Sequential([keras.Input((None, 3)), layer, L.GlobalAveragePooling1D(), L.Dense(2)])


def test_a_class_that_does_not_take_all_lengths_is_tried_with_others():
    model = of_unknown_length(Windows(0.4))
    assert likeness(model.layers[0]) == "always"
    assert draws_at_inference(model.layers[0])
    assert type(kdx.to_deterministic(model).layers[0]) is L.Dropout
    assert likeness(around(SixteenRows(0.4)).layers[0]) == "always"


def test_a_class_is_tried_with_the_lengths_of_the_data():
    model, x = of_unknown_length(RareWindows(0.4)), np.ones((3, 46, 3), "float32")
    plain = of_unknown_length(L.Dropout(0.4))
    plain.set_weights(model.get_weights())
    found, expected = (kdx.mc_predict(m, x, 10, seed=1).mean for m in (model, plain))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_class_that_cannot_be_tried_is_refused_with_the_reason():
    model = around(NeverAlone(0.4, name="never"), L.Dense(2))
    assert likeness(model.layers[0]) == "other"
    assert draws_at_inference(model.layers[0]) is None
    for call in (kdx.to_deterministic, kdx.to_mc_dropout, lambda m: kdx.mc_predict(m, np.ones((2, 3)))):
        with pytest.raises(ValueError, match=r"'never' of class `NeverAlone`.* only supposed"):
            call(model)


def test_what_a_trial_puts_into_containers_is_lost():
    class Inner(L.Layer):
        def __init__(self):
            super().__init__()
            self.record = {"lengths": []}

        def call(self, x):
            self.record["lengths"].append(x.shape[0])
            return x

    class Recording(L.Dropout):
        def __init__(self, rate):
            super().__init__(rate)
            self.seen, self.sizes, self.count = [], set(), np.zeros(1)
            self._tracker.unlock()  # as `build` does
            self.inner = Inner()

        def call(self, x, training=False):
            self.seen.append(1)
            self.sizes.add(len(self.seen))
            self.count += 1
            return super().call(self.inner(x), training=True)

    layer = Recording(0.4)
    around(layer, L.Dense(2))

    def contents():
        record = layer.inner.record["lengths"]
        return len(layer.seen), len(layer.sizes), layer.count[0], len(record)

    before, seen = contents(), layer.seen
    assert likeness(layer) == "always"
    assert draws_at_inference(layer)
    assert contents() == before
    assert layer.seen is seen


def test_classes_that_draw_in_training_alone_stay_theirs_and_are_sampled():
    class Logging(L.Dropout):
        def call(self, inputs, training=False):
            return super().call(inputs, training=training)

    class Named(L.Dropout):
        pass

    model = around(L.Dense(4), Logging(0.4), L.Dense(4), Named(0.3), L.Dense(2))
    x = np.ones((3, 3), "float32")
    kinds = [type(layer) for layer in kdx.to_deterministic(model).layers]
    assert kinds == [L.Dense, Logging, L.Dense, Named, L.Dense]
    mc_model = kdx.to_mc_dropout(model)
    assert [type(layer) for layer in mc_model.layers][1::2] == [kdx.MCDropout] * 2
    means = [kdx.mc_predict(m, x, 20, seed=1).mean for m in (model, mc_model)]
    np.testing.assert_array_equal(*means)


class Twice(L.Dropout):
    """Does more than always to be on."""

    def call(self, inputs, training=None):
        return super().call(2 * inputs, training=True)


class TwiceLSTM(AlwaysLSTM):
    def call(self, sequences, initial_state=None, mask=None, training=None):
        return 2 * super().call(sequences, initial_state=initial_state, mask=mask, training=True)


@keras.saving.register_keras_serializable(package="tests")
class WayOut(L.Layer):
    """What the errors say: a layer that holds one of Keras and does the rest itself."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.drop = L.Dropout(rate)

    def call(self, inputs):
        return self.drop(2 * inputs)

    def get_config(self):
        return {**super().get_config(), "rate": self.drop.rate}


@keras.saving.register_keras_serializable(package="tests")
class OwnNoise(L.Layer):
    def __init__(self, in_training_alone=False, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(0)
        self.in_training_alone = in_training_alone

    def call(self, x, training=False):
        if self.in_training_alone and not training:
            return x
        return x * keras.random.uniform(keras.ops.shape(x), seed=self.generator)

    def get_config(self):
        return {**super().get_config(), "in_training_alone": self.in_training_alone}


def test_what_does_more_than_to_draw_is_refused_by_name_with_the_way_out():
    model = around(L.Dense(4), Twice(0.3, name="twice"), L.Dense(2))
    x = np.ones((3, 3), "float32")
    calls = (
        lambda: kdx.mc_predict(model, x),
        lambda: kdx.to_mc_dropout(model),
        lambda: kdx.to_deterministic(model),
        lambda: kdx.compile_for_inference(model, engine="numpy"),
    )
    for call in calls:
        with pytest.raises(
            ValueError, match=r"'twice' of class `Twice`.* holds a `keras\.layers\.Dropout`"
        ):
            call()
    recurrent = of_sequence(TwiceLSTM(3, dropout=0.3, name="twice"))
    for convert in (kdx.to_mc_dropout, kdx.to_deterministic):
        with pytest.raises(
            ValueError, match=r"'twice' of class `TwiceLSTM`.* holds a `keras\.layers\.LSTM`"
        ):
            convert(recurrent)
    own = around(OwnNoise(name="noise"), L.Dense(2))
    with pytest.raises(ValueError, match="'noise' of class `OwnNoise` draws random numbers in every call"):
        kdx.to_deterministic(own)
    in_training = around(OwnNoise(True), L.Dense(2))
    assert_deterministic(kdx.to_deterministic(in_training), x)


def test_the_way_out_of_a_class_that_does_more_works_everywhere():
    model, x = around(L.Dense(4), WayOut(0.3), L.Dense(2)), np.ones((1, 3), "float32")
    expected = model.predict(x, verbose=0)
    assert np.all(kdx.mc_predict(model, x, 20).std > 0)
    assert_deterministic(kdx.to_deterministic(model), x)
    np.testing.assert_array_equal(kdx.to_deterministic(model).predict(x, verbose=0), expected)
    fused = kdx.fuse_batch_norm(model).model
    np.testing.assert_allclose(fused.predict(x, verbose=0), expected, rtol=1e-6)


def test_a_model_of_the_book_is_compiled_after_the_remedy_of_the_error():
    model = around(L.Dense(4), L.BatchNormalization(), always_on(L.Dropout)(0.3), L.Dense(2))
    with pytest.raises(ValueError, match=r"compile `to_deterministic\(model\)`"):
        kdx.compile_for_inference(model, engine="numpy")
    plain = kdx.to_deterministic(model)
    fast = kdx.compile_for_inference(plain, engine="numpy")
    x = np.random.default_rng(0).normal(size=(1, 3)).astype("float32")
    np.testing.assert_allclose(fast(x), plain.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    assert len(fast.report.fused) == 1


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


@pytest.mark.slow
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


@pytest.mark.slow
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
