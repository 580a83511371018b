"""The Monte-Carlo dropout layers against what the algebra of their noise says.

Tolerances of statistics are five standard errors, which chance exceeds once in two million. Seeds are
fixed, so that a test passes always or never.
"""

import inspect
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_dnn_extras as kdx

BACKEND = keras.backend.backend()
# SELU's value far to the left, -scale * alpha, with the constants of Klambauer et al.
ALPHA_PRIME = -1.0507009873554804934 * 1.6732632423543772848
# The shape of one sample. 32 channels, so that two masks agree by chance in 2**-32 of all pairs.
SHAPES = {
    kdx.MCDropout: (3, 32),
    kdx.MCAlphaDropout: (3, 32),
    kdx.MCGaussianDropout: (3, 32),
    kdx.MCSpatialDropout1D: (3, 32),
    kdx.MCSpatialDropout2D: (2, 2, 32),
    kdx.MCSpatialDropout3D: (2, 1, 2, 32),
}
PARENTS = {
    kdx.MCDropout: keras.layers.Dropout,
    kdx.MCAlphaDropout: keras.layers.AlphaDropout,
    kdx.MCGaussianDropout: keras.layers.GaussianDropout,
    kdx.MCSpatialDropout1D: keras.layers.SpatialDropout1D,
    kdx.MCSpatialDropout2D: keras.layers.SpatialDropout2D,
    kdx.MCSpatialDropout3D: keras.layers.SpatialDropout3D,
}
NAMES = [layer_class.__name__ for layer_class in SHAPES]
SPATIAL = [kdx.MCSpatialDropout1D, kdx.MCSpatialDropout2D, kdx.MCSpatialDropout3D]
DROP_TO_ZERO = [kdx.MCDropout, *SPATIAL]


def each(layer_classes):
    return pytest.mark.parametrize("layer_class", layer_classes, ids=lambda c: c.__name__)


every_layer = each(list(SHAPES))
mixed_policies = pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])


def ones(layer_class, rows=8):
    return np.ones((rows, *SHAPES[layer_class]), "float32")


def sequential(layer_class, *layers):
    return keras.Sequential([keras.Input(SHAPES[layer_class]), *layers])


def to_numpy(outputs):
    return keras.ops.convert_to_numpy(outputs)


def all_rows_differ(*batches):
    rows = np.concatenate([to_numpy(batch).reshape(len(batch), -1) for batch in batches])
    return len(np.unique(rows, axis=0)) == len(rows)


def alpha_scale_and_shift(rate):
    """a and b of the paper, which keep mean 0 and variance 1."""
    a = ((1 - rate) * (1 + rate * ALPHA_PRIME**2)) ** -0.5
    return a, -a * rate * ALPHA_PRIME


def kept_and_dropped(layer_class, rate):
    """What becomes of an input of 1."""
    if layer_class is not kdx.MCAlphaDropout:
        return 1 / (1 - rate), 0.0
    a, b = alpha_scale_and_shift(rate)
    return a + b, a * ALPHA_PRIME + b


# --- Active in every call. The rows of the data are equal: outputs that differ are samples.
# One model with a branch for each layer, since building and compiling it takes longer than the rest.


def data(rows=8):
    return {layer_class.__name__: ones(layer_class, rows) for layer_class in SHAPES}


def all_layers(seed=1):
    return {layer_class.__name__: layer_class(0.5, seed=seed) for layer_class in SHAPES}


def branches(layers, inputs):
    return {name: layer(inputs[name], training=False) for name, layer in layers.items()}


def functional(layers):
    inputs = {name: keras.Input(x.shape[1:], name=name) for name, x in data().items()}
    return keras.Model(inputs, branches(layers, inputs))


def nested_and_frozen(layers):
    inputs = functional(layers).input
    model = keras.Model(inputs, functional(layers)(inputs, training=False))
    model.trainable = False
    return model


class Subclassed(keras.Model):
    def __init__(self, layers):
        super().__init__()
        self.noise = layers

    def call(self, inputs, training=None):
        return branches(self.noise, inputs)


def inactive(*predictions):
    """The names of the layers that gave the same row twice."""
    return [name for name in NAMES if not all_rows_differ(*[p[name] for p in predictions])]


def unequal(first, second):
    """The names of the layers whose outputs are not bit-identical."""
    return [name for name in NAMES if not np.array_equal(to_numpy(first[name]), to_numpy(second[name]))]


CALLS = {
    "model(x)": lambda model, x: model(x),
    "training=False": lambda model, x: model(x, training=False),
    "predict_on_batch": lambda model, x: model.predict_on_batch(x),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_two_calls_differ_in_every_row(call):
    model = functional(all_layers())
    assert inactive(call(model, data()), call(model, data())) == []


COMPILE_ARGUMENTS = [{"run_eagerly": True}, {"jit_compile": False}]
if BACKEND != "torch":  # There, several steps per execution do not exist, and compiling takes long.
    COMPILE_ARGUMENTS += [{"jit_compile": True, "steps_per_execution": 2}]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMPILE_ARGUMENTS, ids=str)
def test_two_predictions_differ_in_every_row_of_every_batch(arguments):
    model = functional(all_layers())
    model.compile(**arguments)
    assert inactive(*[model.predict(data(16), batch_size=8, verbose=0) for _ in range(2)]) == []


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="the test above has jit_compile on the other backends")
def test_two_predictions_differ_with_torch_compile():
    model = sequential(kdx.MCDropout, kdx.MCDropout(0.5, seed=1))
    model.compile(jit_compile=True)
    assert all_rows_differ(*[model.predict(ones(kdx.MCDropout), verbose=0) for _ in range(2)])


@pytest.mark.parametrize("build", [nested_and_frozen, Subclassed])
def test_active_inside_other_models(build):
    model = build(all_layers())
    assert inactive(model(data(), training=False), model.predict(data(), verbose=0)) == []


@pytest.mark.slow
def test_active_in_evaluate():
    model = functional(all_layers())
    model.compile(loss="mse")
    logs = model.evaluate(data(), data(), verbose=0, return_dict=True)
    # The loss of the identity is 0. Dropout at rate 1/2 makes 0 or 2 of 1, at a squared distance of 1.
    for layer_class in SHAPES:
        loss = logs[f"{layer_class.__name__}_loss"]
        assert loss == 1 if layer_class in DROP_TO_ZERO else loss > 0.01, layer_class


@pytest.mark.slow
def test_active_in_fit():
    noisy = functional(all_layers())
    dense = {name: keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros") for name in NAMES}
    outputs = {name: dense[name](keras.layers.Flatten()(noisy.output[name])) for name in NAMES}
    model = keras.Model(noisy.input, outputs)
    # The loss is the sum of the outputs w.x, the gradient the x that the layer lets through.
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y_true, y_pred: y_pred)
    model.fit(data(rows=1), dict.fromkeys(NAMES, np.zeros((1, 1))), verbose=0)
    for layer_class in SHAPES:
        passed = -to_numpy(dense[layer_class.__name__].kernel)
        assert not np.any(passed == 1), layer_class
        assert layer_class not in DROP_TO_ZERO or set(np.unique(passed)) == {0, 2}, layer_class


def test_shared_layer_draws_anew_at_every_use():
    layer, inputs = kdx.MCDropout(0.5, seed=1), keras.Input(SHAPES[kdx.MCDropout])
    model = keras.Model(inputs, [layer(inputs), layer(inputs)])
    assert all_rows_differ(*model.predict(ones(kdx.MCDropout), verbose=0))


def test_odd_last_batch_has_noise_of_its_own():
    outputs = functional(all_layers()).predict(data(rows=9), batch_size=8, verbose=0)
    assert inactive(outputs) == []
    assert {len(outputs[name]) for name in NAMES} == {9}


# --- The noise


SAMPLES = 20_000


def assert_moments(samples, mean, variance, fourth):
    """Sample mean and variance within five standard errors; `fourth` is the fourth central moment.

    The mean of n samples has the variance V/n, the mean square about the true mean (mu4 - V**2)/n.
    """
    n = samples.size
    assert abs(samples.mean() - mean) < 5 * np.sqrt(variance / n)
    assert abs(np.mean((samples - mean) ** 2) - variance) < 5 * np.sqrt((fourth - variance**2) / n)


def moments_of_sum(coefficients, variance, fourth):
    """Variance and fourth central moment of sum c_i e_i, where the e_i are independent and alike."""
    total = variance * np.sum(coefficients**2)
    excess = (fourth - 3 * variance**2) * np.sum(coefficients**4)
    return total, 3 * total**2 + excess


def sample_linear_network(layer_class, rate):
    """Outputs w.x of a linear network under dropout, x and w, in float64."""
    rng = np.random.default_rng(0)
    # Positive, so that dropping a map moves the sum more than dropping as many values of all maps.
    x, w = rng.uniform(0.5, 1.5, (2, *SHAPES[layer_class])).astype("float32")
    dense = keras.layers.Dense(1, use_bias=False)
    model = sequential(layer_class, layer_class(rate, seed=1), keras.layers.Flatten(), dense)
    dense.set_weights([w.reshape(-1, 1)])
    outputs = to_numpy(model(np.tile(x, (SAMPLES,) + (1,) * x.ndim)))
    return outputs.astype("float64"), x.astype("float64"), w.astype("float64")


@pytest.mark.parametrize("rate", [0.1, 0.5])
@each([c for c in SHAPES if c is not kdx.MCAlphaDropout])
def test_linear_network_has_mean_and_variance_of_the_closed_form(layer_class, rate):
    """Mean w.x, variance p/(1-p) sum (w x)^2; a spatial layer drops the sum over a whole map."""
    outputs, x, w = sample_linear_network(layer_class, rate)
    contributions = w * x
    if layer_class in SPATIAL:
        contributions = contributions.reshape(-1, 32).sum(axis=0)
    odds = rate / (1 - rate)
    # The factor of an input: normal, or 0 with probability p and else 1/(1-p); minus its mean 1.
    fourth = 3 * odds**2 if layer_class is kdx.MCGaussianDropout else rate + (1 - rate) * odds**4
    assert_moments(outputs, np.sum(w * x), *moments_of_sum(contributions, odds, fourth))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_linear_network_under_alpha_dropout_has_mean_and_variance_of_the_closed_form(rate):
    """An output is a (alpha' + (x - alpha') z) + b with z 1 or 0, of variance p(1-p)."""
    outputs, x, w = sample_linear_network(kdx.MCAlphaDropout, rate)
    a, b = alpha_scale_and_shift(rate)
    mean = np.sum(w * (a * ((1 - rate) * x + rate * ALPHA_PRIME) + b))
    variance = rate * (1 - rate)
    fourth = variance * (1 - 3 * variance)  # Of a Bernoulli variable.
    assert_moments(outputs, mean, *moments_of_sum(w * a * (x - ALPHA_PRIME), variance, fourth))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_alpha_dropout_keeps_mean_0_and_variance_1(rate):
    x = np.random.default_rng(0).normal(size=100_000).astype("float32")
    a, b = alpha_scale_and_shift(rate)
    # E (a x + b)^4 of a normal x where it is kept, and the fourth power of the value where it is not.
    fourth = (1 - rate) * (3 * a**4 + 6 * (a * b) ** 2 + b**4) + rate * (a * ALPHA_PRIME + b) ** 4
    assert_moments(to_numpy(kdx.MCAlphaDropout(rate, seed=1)(x)).astype("float64"), 0, 1, fourth)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@each([c for c in SHAPES if c is not kdx.MCGaussianDropout])
def test_outputs_are_kept_and_rescaled_or_dropped_in_the_share_of_the_rate(layer_class, rate):
    kept, dropped = kept_and_dropped(layer_class, rate)
    outputs = to_numpy(layer_class(rate, seed=1)(ones(layer_class, rows=SAMPLES)))
    # A handful of float32 roundings of terms no larger than 5 |kept|.
    tolerance = 8 * np.finfo("float32").eps * abs(kept)
    is_dropped = np.abs(outputs - dropped) < tolerance
    assert np.all(is_dropped | (np.abs(outputs - kept) < tolerance))
    masks = is_dropped.reshape(SAMPLES, -1, 32)[:, 0]  # One position of each map.
    assert abs(masks.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / masks.size)


AXES = [
    (kdx.MCDropout, {}, (8, 3, 32), ()),
    (kdx.MCAlphaDropout, {}, (8, 3, 32), ()),
    (kdx.MCSpatialDropout1D, {}, (8, 3, 32), (1,)),
    (kdx.MCSpatialDropout2D, {"data_format": "channels_last"}, (8, 2, 2, 32), (1, 2)),
    (kdx.MCSpatialDropout2D, {"data_format": "channels_first"}, (8, 32, 2, 2), (2, 3)),
    (kdx.MCSpatialDropout3D, {"data_format": "channels_last"}, (8, 2, 2, 3, 32), (1, 2, 3)),
    (kdx.MCSpatialDropout3D, {"data_format": "channels_first"}, (8, 32, 2, 2, 3), (2, 3, 4)),
]


def constant_along(outputs, axis):
    return np.all(outputs == np.take(outputs, [0], axis))


@pytest.mark.parametrize(("layer_class", "arguments", "shape", "axes"), AXES)
def test_mask_is_shared_within_a_map_of_a_spatial_layer_only(layer_class, arguments, shape, axes):
    outputs = to_numpy(layer_class(0.5, seed=1, **arguments)(np.ones(shape)))
    assert [i for i in range(len(shape)) if constant_along(outputs, i)] == list(axes)


@each([kdx.MCSpatialDropout2D, kdx.MCSpatialDropout3D])
def test_data_format_is_the_one_of_the_keras_config(layer_class):
    before = keras.config.image_data_format()
    try:
        for data_format in ("channels_first", "channels_last"):
            keras.config.set_image_data_format(data_format)
            assert layer_class(0.5).get_config()["data_format"] == data_format
    finally:
        keras.config.set_image_data_format(before)


@pytest.mark.parametrize("noise_shape", [(None, 1, None), [None, None, 1], (1, None, None), (8, 1, 32)])
@each([kdx.MCDropout, kdx.MCAlphaDropout])
def test_noise_shape_shares_the_mask_along_its_ones(layer_class, noise_shape):
    outputs = to_numpy(layer_class(0.5, noise_shape=noise_shape, seed=1)(np.ones((8, 3, 32))))
    assert [i for i in range(3) if constant_along(outputs, i)] == [noise_shape.index(1)]


@every_layer
def test_rate_0_is_the_identity(layer_class):
    x = np.random.default_rng(0).normal(size=(8, *SHAPES[layer_class])).astype("float32")
    model = sequential(layer_class, layer_class(0))
    assert np.array_equal(to_numpy(model(x, training=True)), x)


@each(DROP_TO_ZERO)
def test_rate_1_returns_zeros(layer_class):
    assert not np.any(to_numpy(layer_class(1)(ones(layer_class))))


# --- Seeds


def test_equal_seeds_give_equal_sequences_and_others_do_not():
    def sequence(seed):
        model = functional(all_layers(seed=seed))
        return [model(data()) for _ in range(3)]

    first, again = sequence(seed=7), sequence(seed=7)
    assert [unequal(p, q) for p, q in zip(first, again, strict=True)] == [[], [], []]
    # Not seed 8: with torch Keras adds the number of the call to the seed.
    assert inactive(*first, *sequence(seed=100)) == []


def test_equal_seeds_train_to_equal_weights():
    def train():
        dense = keras.layers.Dense(1, kernel_initializer="zeros")
        layer = kdx.MCDropout(0.5, seed=7)
        model = sequential(kdx.MCDropout, layer, keras.layers.Flatten(), dense)
        model.compile("sgd", loss="mse")
        model.fit(ones(kdx.MCDropout), np.ones((8, 1)), batch_size=2, shuffle=False, verbose=0)
        return to_numpy(dense.kernel)

    assert np.array_equal(train(), train())


@every_layer
def test_layers_without_a_seed_draw_apart_unless_keras_is_seeded(layer_class):
    x = ones(layer_class)

    def draw():
        return to_numpy(layer_class(0.5)(x))

    keras.utils.set_random_seed(1)
    first = draw()
    assert all_rows_differ(first, draw())
    keras.utils.set_random_seed(1)
    assert np.array_equal(first, draw())


# --- Inputs: masks, precision, batches, wrong ones


class TakesMask(keras.layers.Layer):
    supports_masking = True

    def call(self, inputs, mask=None):
        return keras.ops.cast(mask, "int32")


@every_layer
def test_mask_of_an_embedding_is_passed_on(layer_class):
    shape = SHAPES[layer_class][:-1]
    ids = np.random.default_rng(0).integers(0, 2, (8, *shape))
    inputs = keras.Input(shape, dtype="int32")
    embedded = keras.layers.Embedding(2, 32, mask_zero=True)(inputs)
    model = keras.Model(inputs, TakesMask()(layer_class(0.5, seed=1)(embedded)))
    assert np.array_equal(to_numpy(model(ids)), ids)


@each([c for c in SHAPES if len(SHAPES[c]) == 2])
def test_mask_of_a_masking_layer_is_passed_on(layer_class):
    mask = np.random.default_rng(0).integers(0, 2, (8, 3))
    x = np.ones((8, 3, 32), "float32") * mask[..., None]
    inputs = keras.Input((3, 32))
    noisy = layer_class(0.5, seed=1)(keras.layers.Masking()(inputs))
    assert np.array_equal(to_numpy(keras.Model(inputs, TakesMask()(noisy))(x)), mask)


@every_layer
@mixed_policies
def test_mixed_precision_computes_in_the_compute_dtype(layer_class, policy):
    layer = layer_class(0.5, seed=1, dtype=keras.dtype_policies.DTypePolicy(policy))
    outputs = layer(ones(layer_class))
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype == policy[6:]
    assert all_rows_differ(to_numpy(outputs).astype("float32"))


@every_layer
@mixed_policies
def test_mixed_precision_policy_survives_config_and_file(layer_class, policy, tmp_path):
    model = sequential(layer_class, layer_class(0.5, dtype=keras.dtype_policies.DTypePolicy(policy)))
    model.save(tmp_path / "model.keras")
    (layer,), (loaded,) = model.layers, keras.saving.load_model(tmp_path / "model.keras").layers
    assert layer_class.from_config(layer.get_config()).dtype_policy == layer.dtype_policy
    assert loaded.dtype_policy == keras.dtype_policies.DTypePolicy(policy)


@every_layer
@pytest.mark.parametrize("rows", [0, 1])
def test_batch_of_one_or_no_sample(layer_class, rows):
    x = ones(layer_class)[:rows]
    outputs = to_numpy(layer_class(0.5, seed=1)(x))
    assert outputs.shape == x.shape
    assert not np.any(outputs == x)


@every_layer
@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_wrong_rate_is_refused(layer_class, rate):
    with pytest.raises(ValueError, match=f"Received: rate={rate}"):
        layer_class(rate)


@each([kdx.MCAlphaDropout, kdx.MCGaussianDropout])
def test_rate_1_with_infinite_noise_is_refused_with_the_remedy(layer_class):
    with pytest.raises(ValueError, match=r"Use a smaller rate\. Received: rate=1"):
        layer_class(1)


@each([kdx.MCSpatialDropout2D, kdx.MCSpatialDropout3D])
def test_wrong_data_format_is_refused(layer_class):
    with pytest.raises(ValueError, match="Received: data_format='last'"):
        layer_class(0.5, data_format="last")


@each(SPATIAL)
def test_spatial_layer_refuses_inputs_of_another_rank(layer_class):
    with pytest.raises(ValueError, match="expected ndim="):
        layer_class(0.5)(np.ones((4, 32)))


# --- A Keras layer like its parent


@every_layer
def test_is_a_layer_of_the_keras_class(layer_class):
    assert isinstance(layer_class(0.5), PARENTS[layer_class])


ARGUMENTS = {"rate": 0.3, "noise_shape": (None, 1, None), "seed": 7, "data_format": "channels_first"}


def all_arguments(layer_class):
    own = set(inspect.signature(layer_class.__init__).parameters) - {"self", "kwargs"}
    return {name: ARGUMENTS[name] for name in own} | {"name": "noise", "trainable": False}


@every_layer
def test_config_round_trip_keeps_every_argument(layer_class):
    arguments = all_arguments(layer_class)
    layer = layer_class(**arguments, activity_regularizer="l2", dtype="mixed_bfloat16")
    copy = layer_class.from_config(layer.get_config())
    assert {name: getattr(copy, name) for name in arguments} == arguments
    assert arguments.items() <= layer.get_config().items()
    assert copy.get_config() == layer.get_config()
    assert copy.dtype_policy == keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    assert copy.activity_regularizer.get_config() == keras.regularizers.L2().get_config()


@every_layer
def test_takes_every_argument_of_the_keras_class(layer_class):
    theirs = inspect.signature(PARENTS[layer_class].__init__).parameters
    ours = inspect.signature(layer_class.__init__).parameters
    assert set(theirs) - {"name", "dtype"} <= set(ours)


@every_layer
def test_has_no_weights(layer_class):
    layer = layer_class(0.5)
    layer(ones(layer_class))
    assert layer.weights == []
    assert layer.count_params() == 0


def test_predict_and_evaluate_leave_the_weights_as_they_are():
    noisy = functional(all_layers())
    flat = keras.layers.Concatenate()([keras.layers.Flatten()(y) for y in noisy.outputs])
    model = keras.Model(noisy.input, keras.layers.Dense(1)(keras.layers.BatchNormalization()(flat)))
    model.compile("sgd", loss="mse")
    before = model.get_weights()
    model.evaluate(data(), model.predict(data(), verbose=0), verbose=0)
    assert len(before) == 6  # Four of BatchNormalization, two of Dense.
    assert all(map(np.array_equal, before, model.get_weights()))


def test_frozen_layer_is_active():
    assert all_rows_differ(kdx.MCDropout(0.5, seed=1, trainable=False)(ones(kdx.MCDropout)))


# --- Files and clones


def noisy_dense(layer_class, **arguments):
    keras.utils.set_random_seed(1)
    return sequential(layer_class, layer_class(0.5, seed=1, **arguments), keras.layers.Dense(3))


def assert_same_model(copy, model):
    assert [type(layer) for layer in copy.layers] == [type(layer) for layer in model.layers]
    assert copy.layers[0].get_config() == model.layers[0].get_config()
    assert all(map(np.array_equal, copy.get_weights(), model.get_weights()))


@every_layer
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_model_is_the_same_and_active(layer_class, suffix, tmp_path):
    model = noisy_dense(layer_class, trainable=False)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.saving.load_model(tmp_path / f"model{suffix}")
    assert_same_model(loaded, model)
    assert all_rows_differ(loaded(ones(layer_class)))


@every_layer
def test_weights_file_fits_the_model_with_plain_dropout_and_back(layer_class, tmp_path):
    plain = sequential(layer_class, PARENTS[layer_class](0.5), keras.layers.Dense(3))
    model, path = noisy_dense(layer_class), tmp_path / "model.weights.h5"
    model.save_weights(path)
    plain.load_weights(path)
    assert all(map(np.array_equal, plain.get_weights(), model.get_weights()))
    plain.set_weights([w + 1 for w in plain.get_weights()])
    plain.save_weights(path)
    model.load_weights(path)
    assert all(map(np.array_equal, plain.get_weights(), model.get_weights()))


@every_layer
def test_clone_is_the_same_and_active(layer_class):
    model = noisy_dense(layer_class, trainable=False)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same_model(clone, model)
    assert all_rows_differ(clone(ones(layer_class)))


LOAD_AND_CALL = """
import sys
import keras_dnn_extras
import keras
import numpy as np

model = keras.saving.load_model(sys.argv[1], safe_mode=True)
outputs = model({name: np.ones((8, *x.shape[1:]), "float32") for name, x in model.input.items()})
np.savez(sys.argv[2], **{name: keras.ops.convert_to_numpy(outputs[name]) for name in outputs})
"""


def test_file_loads_in_another_process_and_draws_the_same_masks(tmp_path):
    model = functional(all_layers())
    model.save(tmp_path / "model.keras")
    files = [tmp_path / "model.keras", tmp_path / "outputs.npz"]
    variables = {"KERAS_BACKEND": BACKEND, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", LOAD_AND_CALL, *files], env=os.environ | variables, check=True)
    with np.load(files[1]) as theirs:
        assert unequal(theirs, model(data())) == []
        assert inactive(theirs) == []
