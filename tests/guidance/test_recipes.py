"""dnn and recipe: the built model read against the tables, what it learns, and what it refuses."""

import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

import keras_dnn_extras as kdx

L = keras.layers
I = keras.initializers  # noqa: E741
# The book's tables and the notes beneath them: initializer, activation, BatchNormalization in a shallow and
# in a deep network, L1, dropout.
TABLE = {
    "default": (I.HeNormal, "elu", False, True, False, None),
    "self_normalizing": (I.LecunNormal, "selu", False, False, False, L.AlphaDropout),
    "sparse": (I.HeNormal, "elu", False, True, True, None),
    "low_latency": (I.HeNormal, "relu", True, True, False, None),
    "risk_sensitive": (I.HeNormal, "elu", False, True, False, kdx.MCDropout),
}
SHALLOW, DEEP = [20, 15], [20, 15, 10, 5, 5]
DROPOUTS = (L.Dropout, L.AlphaDropout, L.GaussianDropout)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return train_test_split(x, y, test_size=360, stratify=y, random_state=0)


def built(*arguments, **options):
    """Return `dnn`, without the warning of many layers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is meant for at most 3 hidden layers")
        return kdx.dnn(*arguments, **options)


def values(weights):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in weights]


def same(one, other):
    return all((a == b).all() for a, b in zip(values(one), values(other), strict=True))


# -- what is built --------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [SHALLOW, DEEP])
@pytest.mark.parametrize("name", TABLE)
def test_the_model_has_what_the_table_says(name, units):
    initializer, activation, shallow, deep, l1, dropout = TABLE[name]
    model = built(7, units, 4, recipe=name)
    kinds = [type(layer) for layer in model.layers]
    *hidden, output = [layer for layer in model.layers if type(layer) is L.Dense]
    assert [layer.units for layer in hidden] == units
    assert {type(layer.kernel_initializer) for layer in hidden} == {initializer}
    activations = [layer.activation for layer in model.layers[:-1] if hasattr(layer, "activation")]
    assert {a.__name__ for a in activations} - {"linear"} == {activation}
    assert sum(a.__name__ == activation for a in activations) == len(units)
    assert kinds.count(L.BatchNormalization) == len(units) * (deep if units is DEEP else shallow)
    for layer in (*hidden, output):
        assert isinstance(layer.kernel_regularizer, keras.regularizers.L1) is l1
    drops = [layer for layer in model.layers if isinstance(layer, DROPOUTS)]
    assert {type(layer) for layer in drops} == ({dropout} if dropout else set())
    assert len(drops) == (min(3, len(units)) if dropout else 0)
    assert kinds[-2:] == [dropout, L.Dense] if dropout else kinds[-1] is L.Dense
    assert type(output.kernel_initializer) is I.GlorotUniform
    assert output.activation.__name__ == "softmax"
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.optimizer.momentum == 0.9


@pytest.mark.parametrize("name", TABLE)
def test_batch_normalization_is_between_a_layer_without_bias_and_its_activation(name):
    layers = built(7, DEEP, 4, recipe=name).layers
    for before, norm, after in zip(layers, layers[1:], layers[2:], strict=False):
        if isinstance(norm, L.BatchNormalization):
            assert not before.use_bias
            assert before.activation is keras.activations.linear
            assert type(after) is L.Activation
    assert all(layer.use_bias for layer in layers[-1:])


@pytest.mark.parametrize("name", TABLE)
def test_the_recipe_tells_as_data_what_is_built(name):
    told = kdx.recipe(name)
    model = built(7, DEEP, 4, recipe=name)
    first = model.layers[0]
    assert told.name == name
    assert told.kernel_initializer == keras.src.utils.naming.to_snake_case(
        type(first.kernel_initializer).__name__
    )
    l1 = float(first.kernel_regularizer.l1) if told.kernel_regularizer else 0.0
    assert told.l1 == pytest.approx(l1)  # which is a float32
    drops = [layer for layer in model.layers if isinstance(layer, DROPOUTS)]
    assert [layer.rate for layer in drops] == [told.dropout_rate] * told.dropout_layers
    assert float(model.optimizer.learning_rate) == pytest.approx(told.learning_rate)
    norms = [
        any(isinstance(layer, L.BatchNormalization) for layer in built(7, [5] * n, 4, recipe=name).layers)
        for n in (1, 2, 3)
    ]
    assert norms == [told.batch_norm_from is not None and told.batch_norm_from <= n for n in (1, 2, 3)]
    for part in (name, told.kernel_initializer, told.activation, str(told.learning_rate), told.note):
        assert part in str(told)


@pytest.mark.parametrize(
    ("task", "outputs", "activation", "loss", "metric"),
    [
        ("classification", 1, "sigmoid", "binary_crossentropy", "accuracy"),
        ("classification", 2, "softmax", "sparse_categorical_crossentropy", "accuracy"),
        ("regression", 1, "linear", "mse", "mae"),
        ("regression", 3, "linear", "mse", "mae"),
    ],
)
def test_the_output_and_the_loss_follow_from_the_task(task, outputs, activation, loss, metric):
    model = kdx.dnn(3, [4], outputs, task=task)
    assert model.output_shape == (None, outputs)
    assert model.layers[-1].activation.__name__ == activation
    assert (model.loss, model._compile_metrics._user_metrics) == (loss, [metric])
    clipnorm = 1.0 if task == "regression" else None
    assert model.optimizer.global_clipnorm == clipnorm


def test_total_steps_puts_a_one_cycle_schedule_into_the_optimizer():
    model = kdx.dnn(3, [4], 2, total_steps=50)
    schedule = model.optimizer._learning_rate
    assert schedule.get_config() == kdx.OneCycle(kdx.recipe("default").max_learning_rate, 50).get_config()
    model.fit(np.ones((4, 3)), np.zeros(4), verbose=0)


def test_several_axes_are_standardized_one_by_one_then_flattened():
    sample = np.random.default_rng(0).normal(3, 2, size=(40, 4, 3))
    model = kdx.dnn((4, 3), [5], 2, inputs=sample)
    assert [layer.name for layer in model.layers[:2]] == ["normalization", "flatten"]
    found = np.array(keras.ops.convert_to_numpy(model.layers[0](sample.astype("float32"))))
    np.testing.assert_allclose(found, (sample - sample.mean(0)) / sample.std(0), atol=1e-5)
    assert model.predict(sample, verbose=0).shape == (40, 2)
    assert [layer.name for layer in kdx.dnn((4, 3), [5], 2).layers[:1]] == ["flatten"]


# -- inputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_a_feature_that_is_constant_in_the_sample_does_not_explode_later(constant):
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(1000, 2)).astype("float32")
    sample[:, 1] = constant
    model = kdx.dnn(2, [5], 2, inputs=sample)
    others = np.float32([[0, constant], [0, constant + 1]])
    same_value, other = np.array(keras.ops.convert_to_numpy(model.layers[0](others)))[:, 1]
    # Centered alone, up to the rounding of `constant` in float32 (0.06 at a million).
    assert abs(same_value) < 0.07
    assert other - same_value == pytest.approx(1, abs=0.07)


def test_a_feature_that_varies_little_beside_its_mean_is_standardized():
    """Times within an hour, in seconds since 1970: float32 has steps of 128 there."""
    sample = 1.7e9 + np.random.default_rng(0).uniform(0, 3600, size=(500, 1))
    found = keras.ops.convert_to_numpy(kdx.dnn(1, [4], 2, inputs=sample).layers[0](sample))
    assert np.abs(found).max() < 2.5  # sqrt(3), and a step of 128 over a deviation of 1039, and rounding


def test_large_samples_of_large_numbers_are_standardized_as_long_as_their_variance_is_a_float32():
    sample = np.repeat([[1e18], [-1e18]], 500, axis=0)  # the sum of the squares is none
    found = keras.ops.convert_to_numpy(kdx.dnn(1, [4], 2, inputs=sample).layers[0](sample))
    assert found.std() == pytest.approx(1, abs=1e-5)


def test_a_sample_that_float32_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"Scale the features down.*inputs as large as"):
        kdx.dnn(2, [4], 2, inputs=np.float64([[1e20, 0.0], [-1e20, 1.0]]))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float16", "float64"])
def test_samples_of_any_number_type(dtype):
    sample = np.random.default_rng(0).integers(0, 2, size=(30, 3)).astype(dtype)
    model = kdx.dnn(3, [4], 2, inputs=sample)
    found = np.array(keras.ops.convert_to_numpy(model.layers[0](sample.astype("float32"))))
    assert found.std(axis=0) == pytest.approx(np.ones(3), abs=1e-5)
    same_again = kdx.dnn(3, [4], 2, inputs=keras.ops.convert_to_tensor(sample))
    assert same(same_again.layers[0].weights, model.layers[0].weights)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, num_batches=3):
        super().__init__()
        self.x, self._num_batches = x, num_batches

    @property
    def num_batches(self):
        return self._num_batches

    def __getitem__(self, index):
        return self.x[4 * index : 4 * index + 4], np.zeros(4)


def tf_dataset(x, **structure):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices({"only": x} if structure else (x, np.zeros(len(x)))).batch(4)


def loader(x):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.zeros(len(x)))
    return torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)


DATASETS = {
    "PyDataset": Batches,
    "tf.data": tf_dataset,
    "tf.data of dicts": lambda x: tf_dataset(x, dict=True),
    "DataLoader": loader,
    "dict": lambda x: {"only": x},
}


@pytest.mark.parametrize("kind", DATASETS)
def test_a_dataset_adapts_as_the_array_of_its_rows_does(kind):
    # Batches of 4, 4 and 2 rows, whose means differ: the variance between them counts.
    x = (np.random.default_rng(0).normal(size=(10, 3)) + np.arange(10)[:, None]).astype("float32")
    found = kdx.dnn(3, [4], 2, inputs=DATASETS[kind](x)).layers[0]
    mean, variance = x.mean(axis=0, dtype="float64"), x.var(axis=0, dtype="float64")
    for weight, expected in ((found.adapt_mean, mean), (found.adapt_variance, variance)):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), expected, rtol=1e-6)


def test_the_moments_of_a_dataset_are_those_of_float64():
    x = 1e7 + 0.3 * np.arange(10.0)[:, None] * np.ones(3)  # float32 has steps of 1 there
    normalization = kdx.dnn(3, [4], 2, inputs=Batches(x)).layers[0]
    variance = keras.ops.convert_to_numpy(normalization.adapt_variance)
    np.testing.assert_allclose(variance, np.full(3, 0.3**2 * 8.25), rtol=1e-6)  # (10**2 - 1) / 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for inputs in (x * 1e301, Batches(x * 1e301)):
            with pytest.raises(ValueError, match=r"Scale the features down.*inputs as large as 1.0e\+308"):
                kdx.dnn(3, [4], 2, inputs=inputs)


def test_inputs_beside_their_targets_are_told_by_their_shapes():
    with pytest.raises(ValueError, match=r"Received: inputs=\(<ndarray of shape \(4, 3\)>, <ndarray of"):
        kdx.dnn(3, [4], 2, inputs=(np.ones((4, 3)), np.ones((4, 1))))


def test_data_that_ends_never_or_can_be_read_once_is_refused():
    x = np.ones((12, 3), "float32")
    with pytest.raises(ValueError, match=r"`inputs` to have an end.*Received: inputs="):
        kdx.dnn(3, [4], 2, inputs=Batches(x, num_batches=None))
    with pytest.raises(ValueError, match=r"`inputs` to have an end.*Received: inputs="):
        kdx.dnn(3, [4], 2, inputs=tf_dataset(x).repeat())
    batches = (batch for batch in [x])
    with pytest.raises(ValueError, match=r"`inputs` to be data that can be read again"):
        kdx.dnn(3, [4], 2, inputs=batches)
    assert next(batches) is x


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (np.ones((12, 4), "float32"), r"shape \(n, 3\).*inputs of shape \(4, 4\)"),
        (np.full((12, 3), np.nan, "float32"), "to be finite"),
        (np.ones((0, 3), "float32"), "which has no row"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(x, told):
    with pytest.raises(ValueError, match=told):
        kdx.dnn(3, [4], 2, inputs=tf_dataset(x))


def test_inputs_of_two_names_are_refused():
    with pytest.raises(ValueError, match="those of one input"):
        kdx.dnn(3, [4], 2, inputs={"a": np.ones((4, 3)), "b": np.ones((4, 3))})


@pytest.mark.slow
def test_in_mixed_precision_both_ends_compute_in_float32():
    before = keras.config.dtype_policy()
    sample = np.random.default_rng(0).normal(1e6, 1e5, size=(64, 3))  # beyond float16
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = kdx.dnn(3, [8, 8, 8], 3, inputs=sample, recipe="risk_sensitive", seed=0)
    finally:
        keras.config.set_dtype_policy(before)
    dtypes = [layer.compute_dtype for layer in model.layers]
    assert dtypes[0] == dtypes[-1] == "float32"
    assert set(dtypes[1:-1]) == {"float16"}
    model.fit(sample, np.zeros(64), verbose=0)
    probabilities = model.predict(sample, verbose=0)
    assert probabilities.dtype == "float32"
    assert np.isfinite(probabilities).all()


# -- what it does ---------------------------------------------------------------------------------------


def hidden_statistics(model, x):
    outputs = [layer.output for layer in model.layers if layer.name.startswith("hidden")]
    found = keras.Model(model.inputs, outputs).predict(x, batch_size=len(x), verbose=0)
    return np.array([(np.mean(a), np.std(a)) for a in found]).T


@pytest.mark.slow
def test_selu_keeps_mean_and_deviation_through_50_layers():
    """The mean within 0.1 of 0 and the standard deviation within 0.1 of 1.

    SELU with LeCun draws (mean, variance) back to (0, 1) in each layer, so that the errors of the layers do
    not add up. That of one is the chance of a finite kernel: of the mean of 300 units about
    1 / sqrt(300) = 0.06 at most, if all rows of `x` were alike, and less as they are not.
    """
    x = np.random.default_rng(0).normal(2, 5, size=(300, 40)).astype("float32")
    for seed in (0, 1):
        model = kdx.dnn(40, [300] * 50, 10, recipe="self_normalizing", inputs=x, seed=seed)
        mean, std = hidden_statistics(model, x)
        assert len(std) == 50
        assert np.abs(mean).max() < 0.1
        assert np.abs(std - 1).max() < 0.1
    # Another initializer of the same network is seen.
    for layer in model.layers:
        if layer.name.startswith("hidden"):
            layer.kernel.assign(1.1 * layer.kernel)
    assert np.abs(hidden_statistics(model, x)[1] - 1).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_it_learns_the_digits_with_one_cycle_and_momentum(name, digits):
    train, test, train_labels, test_labels = digits
    model = kdx.dnn(64, [100, 100, 100], 10, recipe=name, inputs=train, seed=0)
    one_cycle = kdx.OneCycleScheduler(kdx.recipe(name).max_learning_rate, cycle_momentum=True)
    model.fit(train, train_labels, epochs=12, callbacks=[one_cycle], verbose=0)
    momentum = list(one_cycle.history["momentum"])
    assert (max(momentum), min(momentum)) == (pytest.approx(0.95), pytest.approx(0.85, abs=1e-3))
    if name == "risk_sensitive":
        prediction = kdx.mc_predict(model, test, samples=50, seed=0)
        assert prediction.std.max() > 0.05
        probabilities = prediction.mean
    else:
        probabilities = model.predict(test, verbose=0)
        assert (model.predict(test, verbose=0) == probabilities).all()
    assert np.mean(probabilities.argmax(axis=1) == test_labels) >= 0.95
    if name == "sparse":
        # Without L1 a kernel has about 1 weight in 100 below 0.001 (He: deviation 0.14).
        assert kdx.sparsity(model).zeros == 0
        assert kdx.sparsity(model, 0.001).share > 0.2
        kdx.zero_small_weights(model, 0.001)
        assert np.mean(model.predict(test, verbose=0).argmax(axis=1) == test_labels) >= 0.95


@pytest.mark.slow
def test_two_classes_with_a_schedule_in_the_optimizer():
    x, y = load_breast_cancer(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(x, y, stratify=y, random_state=0)
    model = kdx.dnn(30, [30, 30], 1, inputs=train, total_steps=14 * 15, seed=0)
    model.fit(train, train_labels, epochs=15, verbose=0)
    assert model.evaluate(test, test_labels, verbose=0, return_dict=True)["accuracy"] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 77.0])
def test_regression_beats_the_mean_also_on_targets_that_are_not_scaled(scale):
    x, y = load_diabetes(return_X_y=True)
    y = y / 77 * scale
    model = kdx.dnn(10, [50, 50], 1, task="regression", inputs=x, seed=0)
    errors = model.fit(x, y, epochs=25, verbose=0).history["mae"]
    assert errors[-1] < 0.8 * np.abs(y - y.mean()).mean()


@pytest.mark.parametrize("name", ["default", "low_latency"])
def test_all_batch_normalization_is_folded(name):
    sample = np.random.default_rng(0).normal(2, 3, size=(50, 6))
    model = kdx.dnn(6, [5, 4, 3], 3, recipe=name, inputs=sample)
    for weight in model.weights:  # as training would leave them: none is 0 or 1
        if weight.name in ("gamma", "beta", "moving_mean", "moving_variance"):
            weight.assign(np.random.default_rng(1).uniform(0.5, 2, size=weight.shape))
    fused = kdx.fuse_batch_norm(model)
    assert len(fused.report.fused) == 3
    assert fused.report.kept == []
    assert {type(layer) for layer in fused.model.layers} <= {L.Dense, L.Activation}
    found, expected = (m.predict(sample, verbose=0) for m in (fused.model, model))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# -- seeds and files ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["self_normalizing", "risk_sensitive"])
def test_a_seed_repeats_weights_and_dropout_bit_for_bit(name):
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")

    def trained(seed, other):
        keras.utils.set_random_seed(other)  # on which nothing here depends
        model = kdx.dnn(8, [16, 16], 3, recipe=name, seed=seed)
        start = values(model.weights)
        model.fit(x, np.arange(32) % 3, batch_size=16, shuffle=False, verbose=0)
        return start, values(model.weights)

    for one, two in zip(trained(7, 1), trained(7, 2), strict=True):
        assert all((a == b).all() for a, b in zip(one, two, strict=True))
    _, end = trained(8, 1)
    assert all((a != b).any() for a, b in zip(one, end, strict=True) if a.ndim == 2)
    twins = [layer.kernel for layer in kdx.dnn(16, [16, 16], 3, recipe=name, seed=7).layers[:3:2]]
    assert not same(twins[:1], twins[1:])


@pytest.mark.parametrize("name", ["self_normalizing", "risk_sensitive"])
def test_no_two_layers_have_the_same_masks(name):
    drops = [la for la in kdx.dnn(8, [16] * 4, 3, recipe=name, seed=7).layers if isinstance(la, DROPOUTS)]
    ones = np.ones((64, 16), "float32")
    masks = [np.array(keras.ops.convert_to_numpy(layer(ones, training=True))) for layer in drops]
    agreement = np.mean(masks[0] == masks[1])
    # 1024 pairs that agree with probability 0.9**2 + 0.1**2 = 0.82, and a standard error of 0.012.
    assert abs(agreement - 0.82) < 5 * 0.012


def test_without_a_seed_two_models_differ():
    one, two = kdx.dnn(8, [16], 3), kdx.dnn(8, [16], 3)
    assert not same(one.weights[:1], two.weights[:1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping variable loading")  # of an optimizer that was never used
def test_files_load_in_plain_keras_but_mc_dropout_and_one_cycle(tmp_path):
    sample = np.random.default_rng(0).normal(size=(20, 6))
    models = {name: kdx.dnn(6, [4, 4, 4], 3, recipe=name, inputs=sample, seed=0) for name in TABLE}
    models["total_steps"] = kdx.dnn(6, [4], 3, total_steps=9)
    for name, model in models.items():
        if name in ("default", "total_steps"):
            model.fit(sample, np.arange(20) % 3, verbose=0)
        model.save(tmp_path / f"{name}.keras")
        again = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert same(again.weights, model.weights)
        assert again.optimizer.momentum == 0.9
    assert again.optimizer._learning_rate.total_steps == 9
    again = keras.saving.load_model(tmp_path / "default.keras")
    predicted = [model.predict(sample, verbose=0) for model in (again, models["default"])]
    np.testing.assert_array_equal(*predicted)
    script = (
        "import sys, keras, pathlib\n"
        f"for path in sorted(pathlib.Path({str(tmp_path)!r}).glob('*.keras')):\n"
        "    try:\n"
        "        keras.saving.load_model(path)\n"
        "    except TypeError:\n"
        "        print(path.stem)\n"
        "assert 'keras_dnn_extras' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["risk_sensitive", "total_steps"]


# -- what is refused ------------------------------------------------------------------------------------

GOOD = {"input_shape": 3, "hidden_units": [4], "outputs": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_shape": 0},
        {"input_shape": ()},
        {"input_shape": (3, -1)},
        {"hidden_units": []},
        {"hidden_units": [4, 0]},
        {"outputs": 0},
        {"recipe": "sparce"},
        {"task": "clustering"},
        {"total_steps": 0},
        {"seed": -1},
        {"inputs": np.ones((5, 4))},
        {"inputs": np.ones(3)},
        {"inputs": np.ones((0, 3))},
        {"inputs": np.array([[1.0, np.nan, 2.0]])},
        {"inputs": np.array([["a", "b", "c"]])},
    ],
)
def test_values_that_do_not_fit_are_errors_in_keras_form(wrong):
    (name, _) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"(?s)`{name}`.*Received: {name}"):
        kdx.dnn(**GOOD | wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_shape": None},
        {"input_shape": (None, 3)},
        {"hidden_units": 4},
        {"hidden_units": [4.0]},
        {"outputs": 2.5},
        {"outputs": True},
        {"recipe": None},
        {"task": 1},
        {"total_steps": 1.5},
        {"seed": "a"},
    ],
)
def test_arguments_of_the_wrong_type_are_errors(wrong):
    (name, _) = next(iter(wrong.items()))
    with pytest.raises(TypeError, match=rf"`{name}`.*Received: {name}"):
        kdx.dnn(**GOOD | wrong)


def test_there_is_no_recipe_of_another_name():
    with pytest.raises(ValueError, match="'default', 'self_normalizing', 'sparse'"):
        kdx.recipe("deep")
    with pytest.raises(TypeError, match="name=3"):
        kdx.recipe(3)


def test_many_layers_for_low_latency_are_a_warning():
    with pytest.warns(UserWarning, match=r"at most 3 .* hidden_units=\[4, 4, 4, 4\]"):
        kdx.dnn(3, [4] * 4, 2, recipe="low_latency")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kdx.dnn(3, [4] * 3, 2, recipe="low_latency")


@pytest.mark.parametrize("number", [np.int64, np.int32])
def test_numpy_ints_are_ints(number):
    model = kdx.dnn(number(3), np.array([4, 5]), number(2), total_steps=number(9), seed=number(1))
    config = model.layers[0].get_config()
    assert (type(config["units"]), config["units"]) == (int, 4)
    keras.models.model_from_json(model.to_json())


# -- losses, metrics and optimizers of one's own ---------------------------------------------------------


@pytest.mark.slow
def test_one_hot_labels_train_as_integer_labels_do():
    x, labels = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 3
    weights = []
    for targets, loss in ((labels, None), (np.eye(3)[labels], "categorical_crossentropy")):
        model = kdx.dnn(3, [4], 3, seed=0, loss=loss)
        history = model.fit(x, targets, epochs=2, shuffle=False, verbose=0).history
        assert set(history) == {"loss", "accuracy"}
        weights.append(model.get_weights())
    for found, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_is_given_is_compiled_and_the_rest_follows_from_the_recipe():
    optimizer = keras.optimizers.Adam(0.1)
    model = kdx.dnn(3, [4], 1, task="regression", optimizer=optimizer, metrics=["mape"])
    assert model.optimizer is optimizer
    assert model.loss == "mse"
    assert isinstance(kdx.dnn(3, [4], 1, optimizer="adam").optimizer, keras.optimizers.Adam)
    found = kdx.dnn(3, [4], 1, task="regression", loss=keras.losses.Huber(), metrics=[])
    assert isinstance(found.loss, keras.losses.Huber)
    assert found.optimizer.global_clipnorm == kdx.recipe("default").clipnorm
    x = np.ones((4, 3))
    assert set(found.fit(x, x[:, :1], verbose=0).history) == {"loss"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"loss": "lossy"}, "lossy"),
        ({"optimizer": "adamant"}, "adamant"),
        ({"optimizer": "adam", "total_steps": 10}, "Leave it out"),
    ],
)
def test_a_loss_or_optimizer_that_does_not_fit_is_an_error(wrong, told):
    with pytest.raises(ValueError, match=told):
        kdx.dnn(3, [4], 2, **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [np.array(["no", "yes"]), np.array([3, 5, 9])])
def test_it_is_a_model_of_scikit_learns_classifiers(labels):
    pytest.importorskip("sklearn")

    def network(X, y, units):  # noqa: N803
        loss = "categorical_crossentropy"
        return kdx.dnn(X.shape[1], [units], y.shape[1], inputs=X, loss=loss, seed=0)

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    kinds = np.arange(60) % len(labels)
    x, y = 5.0 * np.eye(3)[kinds] + rng.normal(size=(60, 3)), labels[kinds]
    model = keras.wrappers.SKLearnClassifier(network, model_kwargs={"units": 8})
    model.fit(x, y, epochs=30, verbose=0)
    assert model.score(x, y) > 0.9
    assert set(model.predict(x)) == set(labels)


@pytest.mark.slow
def test_it_is_a_model_of_scikit_learns_regressors():
    pytest.importorskip("sklearn")
    x = np.random.default_rng(0).normal(size=(60, 2))
    y = x @ [1.0, -0.5]

    def network(X, y):  # noqa: N803
        return kdx.dnn(X.shape[1], [8], 1, task="regression", seed=0)

    keras.utils.set_random_seed(0)
    model = keras.wrappers.SKLearnRegressor(network)
    assert model.fit(x, y, epochs=40, verbose=0).score(x, y) > 0.8


def test_a_grid_search_of_scikit_learn_copies_it():
    model_selection = pytest.importorskip("sklearn.model_selection")

    def network(X, y, units):  # noqa: N803
        return kdx.dnn(X.shape[1], units, 1, task="regression", inputs=X, seed=0)

    x = np.random.default_rng(0).normal(size=(60, 2))
    # A single unit cannot bend: the better network is known.
    grid = {"model_kwargs": [{"units": [1]}, {"units": [20]}]}
    search = model_selection.GridSearchCV(keras.wrappers.SKLearnRegressor(network), grid, cv=2)
    search.fit(x, np.abs(x[:, 0]), epochs=30, batch_size=4, verbose=0)
    assert search.best_params_ == {"model_kwargs": {"units": [20]}}
    assert search.best_estimator_.model_.layers[1].units == 20
