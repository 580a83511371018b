"""Pretraining: the mirror image, reconstruction whole and layer by layer, auxiliary tasks."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from transfer_models import assert_same, layer, values

import keras_dnn_extras as kdx

L = keras.layers
FEATURES = 6


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def data(rows=24, features=FEATURES):
    return np.random.default_rng(0).normal(size=(rows, features)).astype("float32")


def chain(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers], name="encoder")


def encoder():
    """Two dense layers, with BatchNormalization and dropout."""
    return chain(
        (FEATURES,),
        L.Dense(5, name="first", kernel_initializer="he_normal"),
        L.BatchNormalization(name="norm"),
        L.Activation("elu", name="bend"),
        L.Dropout(0.1),
        L.Dense(3, activation="tanh", name="second"),
    )


def linear(kernel, *front):
    """A linear encoder by `kernel`, which has a tied mirror image without any random numbers."""
    made = chain((len(kernel),), *front, L.Dense(kernel.shape[1], use_bias=False, name="there"))
    layer(made, "there").set_weights([kernel])
    return made


def pretrain(model, x=None, **settings):
    settings = {"epochs": 1, "batch_size": 8, "shuffle": False, "verbose": 0} | settings
    return kdx.pretrain_autoencoder(model, data() if x is None else x, **settings).history


def names(layers):
    return [type(found).__name__ for found in layers]


# -- the mirror image ------------------------------------------------------------------------------------

MIRRORS = {
    "dense": (encoder, ["Dense", "BatchNormalization", "Activation", "Dense"]),
    "inline activations": (
        lambda: chain((4,), L.Dense(3, "relu"), L.Dense(2, "tanh")),
        ["Dense", "Activation", "Dense"],
    ),
    "strides and odd sizes": (
        lambda: chain((7, 9, 3), L.Conv2D(2, 3, strides=2, padding="same"), L.ReLU(), L.Conv2D(2, 3)),
        ["Conv2DTranspose", "ReLU", "Conv2DTranspose", "Cropping2D"],
    ),
    "pixels that are not seen": (
        lambda: chain((8, 6, 1), L.Conv2D(2, 3, strides=3)),
        ["Conv2DTranspose", "ZeroPadding2D"],
    ),
    "kernel below the strides": (
        lambda: chain((11, 8, 2), L.Conv2D(2, 2, strides=3)),
        ["Conv2DTranspose", "Cropping2D"],
    ),
    "pooling, then dense": (
        lambda: chain(
            (5, 4, 1), L.Conv2D(2, 2, activation="relu"), L.MaxPooling2D(2), L.Flatten(), L.Dense(2)
        ),
        ["Dense", "Reshape", "UpSampling2D", "ZeroPadding2D", "Activation", "Conv2DTranspose"],
    ),
    "one dimension": (
        lambda: chain(
            (17, 2),
            L.Conv1D(2, 3, dilation_rate=2),
            L.Conv1D(2, 3, padding="causal"),
            L.AveragePooling1D(3, 2),
        ),
        ["UpSampling1D", "ZeroPadding1D", "Conv1DTranspose", "Conv1DTranspose"],
    ),
    "three dimensions": (
        lambda: chain((3, 4, 5, 1), L.Conv3D(2, 2, strides=2), L.MaxPooling3D(2, padding="same")),
        ["UpSampling3D", "Cropping3D", "Conv3DTranspose", "ZeroPadding3D"],
    ),
    "separable and depthwise": (
        lambda: chain((6, 6, 2), L.SeparableConv2D(3, 3), L.DepthwiseConv2D(3, depth_multiplier=2)),
        ["Conv2DTranspose", "Conv2DTranspose"],
    ),
    "grouped": (
        lambda: chain(
            (4, 4, 4), L.Conv2D(4, 3, groups=2, padding="same"), L.GroupNormalization(2), L.Conv2D(2, 1)
        ),
        ["Conv2DTranspose", "GroupNormalization", "Conv2DTranspose"],
    ),
    "shapes": (
        lambda: chain(
            (5, 4, 2),
            L.ZeroPadding2D(((1, 0), (2, 1))),
            L.Cropping2D(((0, 1), (1, 0))),
            L.Permute((3, 1, 2)),
            L.Reshape((-1,)),
            L.Dense(2),
        ),
        ["Dense", "Reshape", "Permute", "ZeroPadding2D", "Cropping2D"],
    ),
    "steps of any number": (
        lambda: chain((None, 4), L.Dense(3), L.LayerNormalization(), L.PReLU(shared_axes=[1]), L.Dense(2)),
        ["Dense", "LayerNormalization", "PReLU", "Dense"],
    ),
}


@pytest.mark.parametrize("kind", MIRRORS)
def test_the_mirror_image_has_a_layer_for_each_and_the_shape_of_the_inputs(kind):
    make, expected = MIRRORS[kind]
    model = make()
    autoencoder = kdx.build_autoencoder(model)
    assert autoencoder.output_shape == model.input_shape
    assert autoencoder.layers[1] is model
    assert names(autoencoder.layers[2:]) == [*expected, "Activation"]
    x = np.ones([2, *(size or 3 for size in model.input_shape[1:])], "float32")
    assert autoencoder(x).shape == x.shape


def test_what_was_padded_and_cropped_comes_back_in_its_place():
    edges = L.ZeroPadding2D(((1, 0), (0, 2))), L.Cropping2D(((0, 1), (2, 0)))
    model = chain((4, 4, 1), *edges, L.Conv2D(1, 1, use_bias=False))
    model.layers[-1].set_weights([np.ones((1, 1, 1, 1))])
    autoencoder = kdx.build_autoencoder(model)
    next(found for found in autoencoder.layers if "Transpose" in type(found).__name__).set_weights(
        [np.ones((1, 1, 1, 1)), np.zeros(1)]
    )
    x = np.arange(16.0, dtype="float32").reshape(1, 4, 4, 1)
    expected = x.copy()
    expected[:, 3] = expected[:, :, :2] = 0
    np.testing.assert_array_equal(autoencoder.predict(x, verbose=0), expected)


def test_first_scaling_layers_are_undone():
    norm = L.Normalization()
    x = 5 + 3 * data()
    norm.adapt(x)
    identity = np.eye(FEATURES)
    model = linear(identity, norm, L.Rescaling(0.5, offset=2.0))
    found = kdx.build_autoencoder(model, tied=True).predict(x, verbose=0)
    # A few roundings of numbers below 20 in float32.
    np.testing.assert_allclose(found, x, atol=2e-5)


def test_other_shapes_before_a_scaling_layer_are_undone_and_dropout_has_no_image():
    front = [L.Permute((2, 1)), L.Flatten(), L.Dropout(0.5), L.Rescaling(0.5, offset=2.0)]
    model = chain((2, 3), *front, L.Dense(6, use_bias=False, name="there"))
    layer(model, "there").set_weights([np.eye(6)])
    x = np.arange(24.0, dtype="float32").reshape(4, 2, 3)
    autoencoder = kdx.build_autoencoder(model, tied=True)
    np.testing.assert_array_equal(autoencoder.predict(x, verbose=0), x)


def test_an_encoder_with_lora_weights_has_a_mirror_image_that_is_not_tied():
    model = linear(np.eye(FEATURES))
    layer(model, "there").enable_lora(2)
    assert kdx.build_autoencoder(model).output_shape == (None, FEATURES)
    with pytest.raises(ValueError, match="LoRA"):
        kdx.build_autoencoder(model, tied=True)


@pytest.mark.slow
@pytest.mark.parametrize("structure", [dict, list])
def test_an_input_in_a_structure_and_nested_models(structure):
    inner = keras.Sequential([keras.Input((FEATURES,)), L.Dense(4, name="inner"), L.Dropout(0.2)])
    given = keras.Input((FEATURES,), name="given")
    inputs = {"given": given} if structure is dict else [given]
    model = keras.Model(inputs, L.Dense(2, name="outer")(inner(given)))
    x = {"given": data()} if structure is dict else [data()]
    assert kdx.build_autoencoder(model, noise=0.1).predict(x, verbose=0).shape == data().shape
    before = values(model.weights)
    pretrain(model, x, greedy=True)
    assert all((a != b).any() for a, b in zip(values(model.weights), before, strict=True))


@pytest.mark.slow
def test_training_the_autoencoder_trains_the_encoder_and_saves_with_it(tmp_path):
    model = encoder()
    autoencoder = kdx.build_autoencoder(model, tied=True, noise=0.1, output_activation="sigmoid")
    before = values(model.weights)
    autoencoder.compile("adam", "mse")
    autoencoder.fit(data(), data(), verbose=0)
    assert all((a != b).any() for a, b in zip(values(model.weights), before, strict=True))
    autoencoder.save(tmp_path / "autoencoder.keras")
    loaded = keras.models.load_model(tmp_path / "autoencoder.keras")
    assert layer(loaded, "second_transposed").kernel is layer(loaded, "second").kernel
    assert_same([loaded.predict(data(), verbose=0)], [autoencoder.predict(data(), verbose=0)])
    clone = keras.models.clone_model(autoencoder)
    assert layer(clone, "second_transposed").kernel is layer(clone, "second").kernel
    assert len(clone.weights) == len(autoencoder.weights)


# -- reconstruction --------------------------------------------------------------------------------------


def test_a_step_is_that_of_the_closed_form_on_scaled_inputs():
    x, kernel = data(8), np.random.default_rng(1).normal(size=(FEATURES, 3)) / 2
    mean, variance = np.full(FEATURES, 0.5), np.full(FEATURES, 4.0)
    model = linear(kernel, L.Normalization(mean=mean, variance=variance))
    history = pretrain(model, x, tied=True, optimizer=keras.optimizers.SGD(0.1))
    z = (x.astype("float64") - 0.5) / 2
    error = z @ kernel @ kernel.T - z
    gradient = 2 / z.size * (z.T @ error @ kernel + error.T @ z @ kernel)
    # Sums of at most 48 products in float32.
    assert history["loss"] == pytest.approx([(error**2).mean()], rel=1e-5)
    np.testing.assert_allclose(values(model.trainable_weights)[0], kernel - 0.1 * gradient, atol=1e-5)


@pytest.mark.slow
def test_noise_is_to_be_removed_and_is_in_training_alone():
    x = np.random.default_rng(0).normal(size=(4000, FEATURES)).astype("float32")
    model = linear(np.eye(FEATURES), L.Rescaling(10.0))  # reconstructs what it is given
    history = pretrain(
        model, x / 10, tied=True, noise=0.5, optimizer=keras.optimizers.SGD(0.0), batch_size=4000
    ) | pretrain(model, x / 10, tied=True, optimizer=keras.optimizers.SGD(0.0), validation_data=x / 10)
    assert history["loss"] == pytest.approx([0.0], abs=1e-10)
    assert history["val_loss"] == pytest.approx([0.0], abs=1e-10)
    keras.utils.set_random_seed(0)
    noisy = pretrain(
        model,
        x / 10,
        tied=True,
        noise=0.5,
        optimizer=keras.optimizers.SGD(0.0),
        batch_size=4000,
        validation_data=x / 10,
    )
    # The mean of 24,000 squares of variance 2 * 0.5**4: five standard errors.
    assert noisy["loss"] == pytest.approx([0.25], abs=5 * 0.25 * np.sqrt(2 / 24000))
    assert noisy["val_loss"] == pytest.approx([0.0], abs=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"greedy": True}, {"tied": True}, {"noise": 0.1}])
def test_the_loss_falls_and_nothing_else_of_the_encoder_changes(settings):
    model = encoder()
    x = data(48) @ np.random.default_rng(1).normal(size=(FEATURES, FEATURES)).astype("float32")
    model.compile(keras.optimizers.AdamW(0.01), "mse", metrics=["mae"])
    model.fit(x, x[:, :3], verbose=0)
    layer(model, "bend").trainable = False
    optimizer, state = model.optimizer, values(model.optimizer.variables)
    flags = [found.trainable for found in model._flatten_layers()]
    config, nodes = model.get_config(), [len(found._inbound_nodes) for found in model.layers]
    before = values(model.weights)
    history = pretrain(model, x, epochs=8, optimizer=keras.optimizers.Adam(0.01), **settings)
    losses = np.reshape(history["loss"], (-1, 8))
    assert (losses[:, -1] < losses[:, 0]).all()
    assert all((a != b).any() for a, b in zip(values(model.weights), before, strict=True))
    assert model.optimizer is optimizer
    assert_same(values(optimizer.variables), state)
    assert [found.trainable for found in model._flatten_layers()] == flags
    assert (model.get_config(), [len(found._inbound_nodes) for found in model.layers]) == (config, nodes)
    assert len(model.fit(x, x[:, :3], verbose=0).history["loss"]) == 1


class Records(keras.callbacks.Callback):
    """The weights of an encoder before and after each fit."""

    def __init__(self, model):
        super().__init__()
        self.encoder, self.found = model, []

    def on_train_begin(self, logs=None):
        self.found.append(values(self.encoder.weights))

    on_train_end = on_train_begin


@pytest.mark.slow
def test_layer_by_layer_the_layers_below_stand_still(capsys, tmp_path):
    model = encoder()
    records, path = Records(model), tmp_path / "encoder.keras"
    saving = keras.callbacks.ModelCheckpoint(path)
    history = pretrain(
        model,
        greedy=True,
        epochs=2,
        validation_data=data(),
        callbacks=[saving, records],
        verbose=2,
        noise=0.1,
    )
    assert history["stage"] == [0, 0, 1, 1]
    assert len(history["loss"]) == len(history["val_loss"]) == 4
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Layer")]
    assert told == ["Layer 1 of 2: first", "Layer 2 of 2: second"]
    changed = [
        [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
        for before, after in (records.found[:2], records.found[2:])
    ]
    # The kernel and the bias of a Dense, and the four weights of the BatchNormalization.
    assert changed == [[True] * 6 + [False] * 2, [False] * 6 + [True] * 2]
    saved = keras.models.load_model(path)
    assert_same(values(saved.weights), values(model.weights))
    assert all(found.trainable for found in saved._flatten_layers())


def test_the_codes_of_the_layers_below_are_what_the_next_layer_reconstructs():
    model = encoder()
    layer(model, "first").trainable = layer(model, "norm").trainable = False  # so that it is not trained
    layer(model, "norm").moving_mean.assign(np.arange(5.0))
    layer(model, "second").set_weights([np.zeros((5, 3)), np.zeros(3)])
    history = pretrain(model, data(8), greedy=True, tied=True)
    below = keras.Model(model.inputs, layer(model, "bend").output)
    codes = below.predict(data(8), verbose=0)
    assert history["stage"] == [0]
    assert history["loss"] == pytest.approx([(codes**2).mean()], rel=1e-5)  # reconstructed as zero


def kinds_of_data():
    x = data()
    batches = [x[i : i + 8] for i in range(0, len(x), 8)]

    class Batches(keras.utils.PyDataset):
        with_labels = False

        def __len__(self):
            return len(batches)

        def __getitem__(self, i):
            return (batches[i], np.zeros(8)) if self.with_labels else (batches[i],)

    class Labelled(Batches):
        with_labels = True

    def endless():
        while True:
            yield from batches

    kinds = {
        "PyDataset": (Batches(), {}),
        "labels left aside": (Labelled(), {}),
        "generator": (((batch,) for batch in endless()), {"steps_per_epoch": 3}),
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        kinds["tf.data"] = tf.data.Dataset.from_tensor_slices(x).batch(8), {}
    if keras.backend.backend() == "torch":
        import torch

        kinds["torch"] = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x)), 8), {}
    return kinds


@pytest.mark.slow
def test_all_kinds_of_data_give_the_same_weights():
    kernel = np.random.default_rng(1).normal(size=(FEATURES, 3))
    model = linear(kernel)
    pretrain(model, tied=True)
    expected = values(model.weights)
    assert (expected[0] != kernel).any()
    for name, (x, arguments) in kinds_of_data().items():
        model = linear(kernel)
        arguments = {"batch_size": None, "tied": True} | arguments
        history = pretrain(model, x, **arguments)
        assert_same(values(model.weights), expected), name
        assert len(history["loss"]) == 1


@pytest.mark.slow
def test_compiling_otherwise_changes_nothing():
    kernel = np.random.default_rng(1).normal(size=(FEATURES, 3))
    found = []
    for arguments in ({}, {"run_eagerly": True}, {"jit_compile": keras.backend.backend() != "torch"}):
        model = linear(kernel)
        history = pretrain(model, tied=True, metrics=["mae"], **arguments)
        assert history["mean_absolute_error" if "mean_absolute_error" in history else "mae"][0] > 0
        found.append(values(model.weights)[0])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-6)  # XLA adds in another order


@pytest.mark.slow
def test_an_encoder_that_is_not_built_is_built():
    model = keras.Sequential([L.Dense(4, "relu"), L.Dense(2)])
    assert len(pretrain(model)["loss"]) == 1
    assert [tuple(weight.shape) for weight in model.weights] == [(6, 4), (4,), (4, 2), (2,)]


@pytest.mark.slow
def test_in_mixed_precision_the_reconstruction_is_compared_in_full():
    model = chain(
        (FEATURES,), L.Dense(4, "relu", dtype="mixed_bfloat16"), L.Dense(2, dtype="mixed_bfloat16")
    )
    autoencoder = kdx.build_autoencoder(model, tied=True)
    assert keras.backend.standardize_dtype(autoencoder(data()).dtype) == "float32"
    assert names(autoencoder.layers[2:]) == ["DenseTranspose", "Activation", "DenseTranspose", "Activation"]
    assert [found.compute_dtype for found in autoencoder.layers[2:]] == ["bfloat16"] * 3 + ["float32"]
    assert np.isfinite(pretrain(model, greedy=True)["loss"]).all()


# -- with other features ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_schedules_and_monitors_of_this_package_take_part():
    monitor, one_cycle = kdx.GradientNormMonitor(on_problem="ignore"), kdx.OneCycleScheduler(0.1)
    history = pretrain(encoder(), greedy=True, epochs=2, callbacks=[monitor, one_cycle])
    assert len(history["gradient_norm"]) == len(history["learning_rate"]) == 4
    assert history["gradient_norm/encoder/second"][-1] > 0
    assert history["learning_rate"][0] == history["learning_rate"][2]  # it begins anew


@pytest.mark.slow
def test_after_an_exception_the_layers_are_as_trainable_as_before():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    model = encoder()
    layer(model, "norm").trainable = False
    flags = [found.trainable for found in model._flatten_layers()]
    with pytest.raises(KeyboardInterrupt):
        pretrain(model, greedy=True, callbacks=[Stop()])
    assert [found.trainable for found in model._flatten_layers()] == flags
    assert np.isfinite(model.predict(data(), verbose=0)).all()
    pretrain(model)


@pytest.mark.slow
def test_a_checkpoint_is_the_encoder_in_plain_keras(tmp_path):
    models = {"autoencoder": encoder(), "auxiliary": encoder()}
    paths = {how: tmp_path / f"{how}.keras" for how in models}
    saving = {how: [keras.callbacks.ModelCheckpoint(path)] for how, path in paths.items()}
    pretrain(models["autoencoder"], tied=True, callbacks=saving["autoencoder"])
    settings = {"loss": "mse", "epochs": 1, "verbose": 0, "callbacks": saving["auxiliary"]}
    kdx.pretrain_auxiliary(models["auxiliary"], L.Dense(1), data(), data()[:, :1], **settings)
    script = (
        "import sys, keras\n"
        f"for path in {list(map(str, paths.values()))!r}:\n"
        "    model = keras.models.load_model(path)\n"
        "    print(model.layers[0].name)\n"
        "assert 'keras_dnn_extras' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-2:] == ["first", "first"]
    for how, model in models.items():
        assert_same(values(keras.models.load_model(paths[how]).weights), values(model.weights))


@pytest.mark.slow
def test_a_head_and_fine_tuning_go_on_from_the_encoder():
    model = encoder()
    kdx.pretrain_autoencoder(model, data(), epochs=1, tied=True, verbose=0)
    head = L.Dense(2, activation="softmax", name="classes")
    classifier = kdx.replace_head(model, head, after=model.layers[-1].name)
    codes = model.predict(data(), verbose=0)
    body = keras.Sequential(classifier.layers[:-1])
    assert_same([body.predict(data(), verbose=0)], [codes])
    classifier.compile("adam", "sparse_categorical_crossentropy")
    before = values(model.weights)
    history = kdx.fine_tune(classifier, data(), np.arange(24) % 2, epochs=3, batch_size=8, verbose=0)
    assert len(history.history["loss"]) == 3
    assert (values(classifier.weights)[0] != before[0]).any()
    assert_same(values(model.weights), before)


# -- an auxiliary task -----------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="tests")
class OwnCode(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = L.Dense(5, activation="tanh", name="first")

    def call(self, inputs):
        return self.first(inputs["a"]) + self.first(inputs["b"])


@pytest.mark.slow
def test_the_auxiliary_task_trains_encoder_and_head_as_one_model_would():
    x, y = data(), data()[:, :2]
    model, head = encoder(), [L.Dense(4, "relu"), L.Dense(2)]
    model.layers[3].rate = 0.0  # random numbers are drawn in another order
    whole = keras.Sequential([*encoder().layers, L.Dense(4, "relu"), L.Dense(2)])
    whole.layers[3].rate = 0.0
    whole.build((None, FEATURES))
    for made, other in zip(head, whole.layers[-2:], strict=True):
        made.build((None, other.kernel.shape[0]))
        made.set_weights(other.get_weights())
    model.set_weights(whole.get_weights()[:-4])
    whole.compile(keras.optimizers.SGD(0.1), "mse")
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": 2, "validation_data": (x, y)}
    expected = whole.fit(x, y, **settings).history
    model.compile("adam", "mae")
    optimizer = model.optimizer
    history = kdx.pretrain_auxiliary(
        model, head, x, y, loss="mse", optimizer=keras.optimizers.SGD(0.1), **settings
    ).history
    found = values([*model.weights, *head[0].weights, *head[1].weights])
    for new, old in zip(found, values(whole.weights), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)  # another order of additions
    assert history["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)
    assert model.optimizer is optimizer
    assert not optimizer.built or int(optimizer.iterations) == 0


def test_any_encoder_may_have_an_auxiliary_task():
    model = OwnCode()
    x = {"a": data(), "b": data()}
    settings = {"loss": "mse", "epochs": 1, "verbose": 0, "metrics": ["mae"], "optimizer": "sgd"}
    history = kdx.pretrain_auxiliary(model, L.Dense(1), x, data()[:, :1], **settings).history
    assert history["loss"][0] > 0
    assert len(model.weights) == 2


# -- refusals --------------------------------------------------------------------------------------------


def branching():
    inputs = keras.Input((4,))
    hidden = L.Dense(4, name="hidden")(inputs)
    return keras.Model(inputs, L.Add(name="joined")([hidden, inputs]))


def two_inputs():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(inputs, L.Concatenate()(inputs))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (OwnCode, "code of its own|no weights"),
        (lambda: keras.Sequential([L.Dense(2)]), "no weights yet"),
        (branching, "'joined'"),
        (two_inputs, "one input"),
        (lambda: chain((4,), L.Dropout(0.1)), "no dense or convolutional layer"),
        (
            lambda: chain((4, 4, 1), L.Conv2D(2, 3), L.GlobalAveragePooling2D(name="pool")),
            "positions.*'pool'",
        ),
        (lambda: chain((4, 3), L.LSTM(2, name="memory")), "'memory'"),
        (lambda: chain((4,), L.Dense(2), L.Rescaling(0.1, name="late")), "first layers.*'late'"),
        (lambda: chain((None, None, 1), L.Conv2D(2, 3, name="any")), "'any' to be known"),
        (lambda: chain((4,), L.Rescaling(0.0), L.Dense(2)), "not to be 0"),
        (lambda: chain((4,), L.Lambda(lambda x: x, name="own"), L.Dense(2)), "'own'"),
    ],
)
def test_what_has_no_mirror_image_is_an_error_that_names_the_layer(make, told):
    with pytest.raises(ValueError, match=told):
        kdx.build_autoencoder(make())


@pytest.mark.parametrize("pack", [lambda x: x, lambda x: [x]])
def test_sample_weights_of_arrays_weigh_the_rows(pack):
    """The mean of `weight * error` over the rows, of an encoder that does not move."""
    rng = np.random.default_rng(0)
    kernel, x, weights = rng.normal(size=(4, 2)), rng.normal(size=(8, 4)), rng.uniform(size=8)
    errors = np.mean((x - x @ kernel @ kernel.T) ** 2, axis=1)
    found = pretrain(
        linear(kernel),
        pack(x),
        tied=True,
        optimizer=keras.optimizers.SGD(0.0),
        sample_weight=weights,
        validation_data=(x, None, 2 * weights),
    )
    expected = np.mean(weights * errors)
    assert found["loss"] == pytest.approx([expected], rel=1e-5)
    assert found["val_loss"] == pytest.approx([2 * expected], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"epochs": 0}, ValueError, "epochs"),
        ({"epochs": 1.5}, TypeError, "epochs"),
        ({"greedy": 1}, TypeError, "greedy"),
        ({"tied": None}, TypeError, "tied"),
        ({"noise": 2.0}, ValueError, "noise"),
        ({"noise": "much"}, TypeError, "noise"),
        ({"y": np.ones(24)}, TypeError, "its own target"),
        ({"class_weight": {0: 1.0}}, TypeError, "class_weight"),
        ({"loss": None}, ValueError, "loss=None"),
        ({"x": (batch for batch in [data()]), "sample_weight": np.ones(24)}, ValueError, "sample_weight"),
        ({"loss": "lossy"}, ValueError, "lossy"),
        ({"output_activation": "active"}, ValueError, "active"),
        ({"x": np.ones((0, FEATURES))}, ValueError, "at least one row"),
        ({"bathc_size": 3}, TypeError, "bathc_size"),
        ({"optimizer": "adamant"}, ValueError, "adamant"),
        (
            {"greedy": True, "callbacks": [keras.callbacks.BackupAndRestore("b")]},
            ValueError,
            "BackupAndRestore",
        ),
        ({"greedy": True, "x": (batch for batch in [data()])}, ValueError, "steps_per_epoch"),
    ],
)
def test_wrong_arguments_are_errors_and_change_nothing(settings, error, told):
    model = encoder()
    before, flags = values(model.weights), [found.trainable for found in model._flatten_layers()]
    with pytest.raises(error, match=told):
        pretrain(model, settings.pop("x", None), **settings)
    assert_same(values(model.weights), before)
    assert [found.trainable for found in model._flatten_layers()] == flags


def test_an_unbuilt_encoder_is_not_built_by_a_call_that_fails():
    model = keras.Sequential([L.Dense(2)])
    for settings in ({"optimizer": "adamant"}, {"loss": "lossy"}, {"bathc_size": 3}):
        with pytest.raises((TypeError, ValueError)):
            pretrain(model, np.ones((8, 3)), **settings)
    with pytest.raises(TypeError, match="x=None"):
        kdx.pretrain_autoencoder(model, None, epochs=1)
    assert not model.built


@pytest.mark.slow
def test_what_cannot_be_tied_frozen_or_made_noisy_is_an_error():
    with pytest.raises(ValueError, match="Only dense layers"):
        kdx.build_autoencoder(chain((4, 4, 1), L.Conv2D(2, 3)), tied=True)
    model = encoder()
    model.trainable = False
    for settings in ({}, {"greedy": True}):
        with pytest.raises(ValueError, match="frozen"):
            pretrain(model, **settings)
    with pytest.raises(ValueError, match="frozen"):
        kdx.pretrain_auxiliary(model, L.Dense(1), data(), data()[:, :1], loss="mse", epochs=1)
    pixels = keras.Sequential([keras.Input((4,), dtype="uint8"), L.Rescaling(1 / 255), L.Dense(2)])
    with pytest.raises(ValueError, match="integers"):
        kdx.build_autoencoder(pixels, noise=0.1)
    assert pretrain(pixels, np.ones((8, 4), "uint8"))["loss"][0] > 0


@pytest.mark.parametrize("head", [None, [], "dense", [L.Dense(2), 3]])
def test_no_head_is_an_error(head):
    with pytest.raises(TypeError, match="head"):
        kdx.pretrain_auxiliary(encoder(), head, data(), data(), loss="mse", epochs=1)


def test_what_is_no_model_is_an_error():
    for function in (
        kdx.build_autoencoder,
        lambda e: pretrain(e),
        lambda e: kdx.pretrain_auxiliary(e, L.Dense(1), data(), loss="mse", epochs=1),
    ):
        with pytest.raises(TypeError, match="Keras model"):
            function(L.Dense(2))


@pytest.mark.parametrize(
    ("validation", "error", "told"),
    [
        (lambda x: x[:, :3], ValueError, "does not fit the model"),
        (lambda x: (x, None, np.ones(3)), ValueError, "same number of rows"),
        (lambda x: 3, TypeError, "to be data"),
    ],
)
def test_validation_data_that_fit_cannot_use_is_told_before_training(validation, error, told):
    model, x = encoder(), data()
    before = values(model.weights)
    for pretrain_ in (
        lambda bad: pretrain(model, greedy=True, validation_data=bad),
        lambda bad: kdx.pretrain_auxiliary(
            model, L.Dense(1), x, x[:, :1], loss="mse", epochs=1, verbose=0, validation_data=bad
        ),
    ):
        with pytest.raises(error, match=told):
            pretrain_(validation(x))
    assert_same(values(model.weights), before)


def test_validation_targets_of_another_shape_are_told_before_training():
    model, x = encoder(), data()
    before = values(model.weights)
    with pytest.raises(ValueError, match="`validation_data` does not fit"):
        kdx.pretrain_auxiliary(
            model, L.Dense(2), x, x[:, :2], loss="mse", epochs=1, validation_data=(x, x[:, :5])
        )
    assert_same(values(model.weights), before)


@pytest.mark.slow
@pytest.mark.parametrize("greedy", [True, False])
def test_the_encoders_own_loss_is_not_tried_on_targets_that_nobody_looks_at(greedy):
    model, x = encoder(), data()
    model.compile("sgd", "mse")
    assert "val_loss" in pretrain(model, greedy=greedy, validation_data=(x, x))
    with pytest.raises(ValueError, match="does not fit the model"):
        pretrain(model, greedy=greedy, validation_data=(x[:, :3], x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "columns", "told"),
    [
        pytest.param([], 3, "does not fit the model", id="validation data of another shape"),
        pytest.param([L.Reshape((7,))], FEATURES, "(?s)Reshape", id="a head that cannot come last"),
    ],
)
def test_a_head_is_not_built_by_an_auxiliary_task_that_fails(more, columns, told):
    model, x = encoder(), data()
    head = L.Dense(1)
    arguments = {"loss": "mse", "epochs": 1, "verbose": 0}
    with pytest.raises(ValueError, match=told):
        kdx.pretrain_auxiliary(
            model, [head, *more], x, x[:, :1], validation_data=(x[:, :columns], x[:, :1]), **arguments
        )
    assert not head.built
    wider = keras.Sequential([keras.Input((FEATURES,)), L.Dense(9)])
    assert kdx.pretrain_auxiliary(wider, head, x, x[:, :1], **arguments).history["loss"]
    assert head.kernel.shape == (9, 1)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("tied", [True, False])
def test_an_autoencoder_that_cannot_be_built_leaves_no_trace_in_the_encoder(tied, error, monkeypatch):
    def fails(*args, **kwargs):
        raise error("stop here")

    model = chain((6,), L.Dense(4, "relu", name="first"), L.Dense(2, name="second"))
    attributes = {layer.name: set(vars(layer)) for layer in model.layers}
    with monkeypatch.context() as patch:
        patch.setattr(L.Activation, "compute_output_spec", fails)  # after the encoder has been called
        with pytest.raises(error, match="stop here"):
            kdx.build_autoencoder(model, tied=tied, noise=0.1)
    assert {layer.name: set(vars(layer)) for layer in model.layers} == attributes
    # The next call of the encoder is its first one in a graph.
    autoencoder = kdx.build_autoencoder(model, tied=tied)
    inner = keras.Model(model.inputs, model.get_layer("first").output)
    assert inner.output_shape == (None, 4)
    assert len(model._inbound_nodes) == 1
    assert autoencoder.output_shape == (None, 6)


def test_numbers_of_any_kind_are_noise():
    for number in (np.float32(0.5), np.int64(1), 1):
        autoencoder = kdx.build_autoencoder(encoder(), noise=number)
        (noise,) = [layer for layer in autoencoder.layers if layer.name == "noise"]
        assert type(noise.stddev) is float
        keras.models.clone_model(autoencoder)
