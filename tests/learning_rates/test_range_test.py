"""find_learning_rate: what it sees, what it suggests, and that it leaves no trace."""

import itertools
import math
import random
import sys
import tracemalloc

import keras
import numpy as np
import pytest
import truth

import keras_dnn_extras as kdx
from keras_dnn_extras.learning_rates import suggestions

BACKEND = keras.backend.backend()
TORCH = BACKEND == "torch"


def search(model, *data, **arguments):
    return kdx.find_learning_rate(model, *data, **{"verbose": 0, "batch_size": 2} | arguments)


def number(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


# -- what it sees ---------------------------------------------------------------------------------------


def losses_of_descent(x, rates, accumulation=1, batch_size=2):
    """Return the loss of each batch of the linear model of truth.py, before its update."""
    weights, losses, waiting = truth.initial_weights(), [], []
    gradients = truth.gradients(x, batch_size)
    for i in range(len(rates) * accumulation):
        batch = i % len(gradients)
        inputs = x[batch * batch_size : (batch + 1) * batch_size]
        losses.append(float(np.mean(inputs @ weights[0] + weights[1]) * truth.UNITS))
        waiting.append(gradients[batch])
        if len(waiting) == accumulation:
            rate = rates[i // accumulation]
            mean = [sum(g) / accumulation for g in zip(*waiting, strict=True)]
            weights = [w - rate * g for w, g in zip(weights, mean, strict=True)]
            waiting = []
    return np.reshape(losses, (-1, accumulation)).mean(axis=1)


def dataset(x, y):
    tf = pytest.importorskip("tensorflow")
    return (tf.data.Dataset.from_tensor_slices((x, y)).batch(2),)


def dataset_of_unknown_length(x, y):
    return (dataset(x, y)[0].filter(lambda x, y: True),)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // 2

    def __getitem__(self, i):
        return self.x[2 * i : 2 * i + 2], self.y[2 * i : 2 * i + 2]


def generator(x, y):
    data = Batches(x, y)
    return ((data[i] for i in itertools.cycle(range(len(data)))),)


def data_loader(x, y):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    return (torch.utils.data.DataLoader(data, batch_size=2),)


def named(x, y):
    return {"named": x[:2]}, y[:2]  # one batch, that shuffling leaves alone


INPUTS = {
    "arrays": lambda x, y: (x[:2], y[:2]),
    "dict": named,
    "dataset": dataset,
    "dataset of unknown length": dataset_of_unknown_length,
    "PyDataset": lambda x, y: (Batches(x, y),),
    "generator": generator,
    "DataLoader": data_loader,
}


@pytest.mark.parametrize("unbuilt", [False, True])
@pytest.mark.parametrize("kind", INPUTS)
def test_the_losses_are_those_of_the_batches_themselves(kind, unbuilt):
    x, y = truth.data(5)
    if kind == "dict":
        inputs = keras.Input((truth.FEATURES,), name="named")
        model = keras.Model({"named": inputs}, truth.dense()(inputs))
    else:
        model = keras.Sequential([*([] if unbuilt else [keras.Input((truth.FEATURES,))]), truth.dense()])
    model.compile(keras.optimizers.SGD(), loss=truth.MeanOutput())
    data = INPUTS[kind](x, y)
    if kind == "PyDataset":  # Keras shuffles its batches
        data = (Batches(np.tile(x[:2], (5, 1)), y),)
    found = search(model, *data, steps=12, max_learning_rate=0.1, min_learning_rate=1e-3)
    rates = np.geomspace(1e-3, 0.1, 12)
    np.testing.assert_allclose(found.learning_rates, rates, rtol=1e-12)
    one_batch = kind in ("arrays", "dict", "PyDataset")
    expected = losses_of_descent(x[:2] if one_batch else x, rates)
    # 12 updates of about 10 roundings of numbers up to 16
    np.testing.assert_allclose(found.losses, expected, rtol=0, atol=12 * 10 * 6e-8 * 16)


MODES = {
    "jit_compile": {"jit_compile": True},
    "run_eagerly": {"run_eagerly": True},
    "steps_per_execution 3": {"steps_per_execution": 3},
}
HERE = [m for m in MODES if not (TORCH and m != "run_eagerly")]


@pytest.mark.slow
@pytest.mark.parametrize("mode", HERE)
def test_the_losses_are_those_of_the_batches_in_every_mode(mode):
    x, y = truth.data(1)
    model = truth.linear_model(keras.optimizers.SGD(), **MODES[mode])
    found = search(model, x, y, steps=10, min_learning_rate=1e-3, max_learning_rate=0.1)
    expected = losses_of_descent(x, np.geomspace(1e-3, 0.1, 10))
    np.testing.assert_allclose(found.losses, expected, rtol=0, atol=10 * 10 * 6e-8 * 16)


def test_a_step_is_an_update_whose_loss_is_the_mean_of_its_batches():
    x, y = truth.data(3)
    model = truth.linear_model(keras.optimizers.SGD(gradient_accumulation_steps=3))
    found = search(model, *generator(x, y), steps=10, min_learning_rate=1e-3, max_learning_rate=0.1)
    expected = losses_of_descent(x, np.geomspace(1e-3, 0.1, 10), accumulation=3)
    np.testing.assert_allclose(found.losses, expected, rtol=0, atol=10 * 10 * 6e-8 * 16)


def test_an_update_that_loss_scaling_skips_is_tried_again():
    x, y = truth.data(1)
    # In float16 the scaled gradients overflow at first: half the scale each time, until they do not.
    model = keras.Sequential([keras.Input((truth.FEATURES,)), truth.dense()])
    model.layers[0].dtype_policy = keras.DTypePolicy("mixed_float16")
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**40)
    model.compile(scaled, loss=truth.MeanOutput())
    drawn = []

    def batches():
        while True:
            drawn.append(len(drawn))
            yield x, y

    found = search(model, batches(), steps=10, min_learning_rate=1e-3, max_learning_rate=0.1)
    # The bias's gradient is scale / UNITS, which float16 has below 2**16: so often the scale is halved.
    skipped = 40 - 16 - math.ceil(math.log2(truth.UNITS))
    assert len(drawn) >= 10 + skipped
    expected = losses_of_descent(x, np.geomspace(1e-3, 0.1, 10))
    # float16 kernels: 3 products of 2**-11 each, of numbers up to 4
    np.testing.assert_allclose(found.losses, expected, rtol=0, atol=3 * 2.0**-11 * 4 * truth.UNITS)
    assert not model.optimizer.built


@keras.saving.register_keras_serializable(package="tests")
class WithoutGradient(keras.losses.Loss):
    """A finite loss whose gradient is not: that of the square root at 0."""

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.sqrt(y_pred * 0), axis=-1)


def test_a_test_without_any_update_ends():
    model = keras.Sequential([keras.Input((truth.FEATURES,)), truth.dense()])
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), loss=WithoutGradient())
    found = search(model, *generator(*truth.data(1)), steps=10)  # which never ends
    assert len(found.losses) == 1
    assert found.suggestion is None
    assert "loss scaling skipped all updates" in found.reason


def test_a_test_may_be_longer_than_the_table(monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", 5)
    x, y = truth.data(1)
    model = truth.linear_model(keras.optimizers.SGD())
    found = search(model, x, y, steps=12, min_learning_rate=1e-3, max_learning_rate=0.1)
    expected = losses_of_descent(x, np.geomspace(1e-3, 0.1, 12))
    np.testing.assert_allclose(found.losses, expected, rtol=0, atol=12 * 10 * 6e-8 * 16)


def test_a_schedule_in_the_optimizer_is_replaced_and_put_back():
    x, y = truth.data(1)
    schedule = kdx.OneCycle(0.1, 10)
    model = truth.linear_model(keras.optimizers.SGD(schedule))
    found = search(model, x, y, steps=10, min_learning_rate=1e-3, max_learning_rate=0.1)
    expected = losses_of_descent(x, np.geomspace(1e-3, 0.1, 10))
    np.testing.assert_allclose(found.losses, expected, rtol=0, atol=10 * 10 * 6e-8 * 16)
    assert model.optimizer._learning_rate is schedule


@pytest.mark.slow
@pytest.mark.parametrize("curvature", [2.0, 2000.0])
def test_on_a_quadratic_it_sees_divergence_and_suggests_less(curvature):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 5))
    x *= np.sqrt(curvature / np.linalg.eigvalsh(2 * x.T @ x / 64).max())  # the Hessian of the mean square
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(), loss="mse")
    found = search(model, x, x.sum(axis=1, keepdims=True), batch_size=64)
    limit = 2 / curvature
    assert limit < found.learning_rates[-1] < 20 * limit
    assert len(found.losses) == len(found.learning_rates) < 100
    assert found.suggestion == found.suggestions["valley"]
    for name, rate in found.suggestions.items():
        assert limit / 100 <= rate < limit, (name, rate / limit)


# -- no trace -------------------------------------------------------------------------------------------


class Nested(keras.Model):
    def __init__(self):
        super().__init__()
        self.body = keras.Sequential([keras.layers.Dense(6, activation="elu"), keras.layers.Dropout(0.3)])
        self.normalization = keras.layers.BatchNormalization()
        self.head = keras.layers.Dense(3, activation="softmax")

    def call(self, x, training=None):
        return self.head(self.normalization(self.body(x, training=training), training=training))


def classifier(kind="sequential", optimizer=None, **compile_arguments):
    keras.utils.set_random_seed(1)
    if kind == "subclassed":
        model = Nested()
    elif kind == "unbuilt, never deterministic":
        model = keras.Sequential([kdx.MCDropout(0.2), keras.layers.Dense(3, activation="softmax")])
    else:
        layers = [
            keras.layers.Dense(6, activation="elu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.GaussianNoise(0.1, seed=3),
            keras.layers.Dense(3, activation="softmax"),
        ]
        model = keras.Sequential([*([] if kind == "unbuilt" else [keras.Input((4,))]), *layers])
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)]
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=metrics, **compile_arguments)
    return model


def classes():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 4)).astype("float32")
    return x, (x.sum(axis=1) > 0).astype("int32") + (x[:, 0] > 1)


def state_of(model):
    own = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    return [number(v) for v in own]


def assert_equal(states, others):
    for state, other in zip(states, others, strict=True):
        np.testing.assert_array_equal(state, other)


def fit(model, **arguments):
    return model.fit(*classes(), batch_size=4, epochs=2, verbose=0, **arguments).history


OPTIMIZERS = {
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "AdamW with a schedule": lambda: keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(0.01, 20), weight_decay=0.1
    ),
    "SGD accumulating": lambda: keras.optimizers.SGD(0.01, momentum=0.9, gradient_accumulation_steps=3),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Nadam(0.01)),
}
FITS = [
    ("sequential", "Adam", {}, True),
    ("unbuilt", "Adam", {}, False),
    ("unbuilt, never deterministic", "Adam", {}, False),
    ("subclassed", "Adam", {}, False),
    ("sequential", "AdamW with a schedule", {}, True),
    ("sequential", "SGD accumulating", {}, True),
    ("sequential", "scaled", {}, False),
    *[("unbuilt", "Adam", MODES[mode], False) for mode in HERE if BACKEND != "jax" or mode[0] != "j"],
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "optimizer", "mode", "trained"), FITS)
def test_a_fit_after_a_search_equals_a_fit_without_one(kind, optimizer, mode, trained):
    def fitted(with_search):
        model = classifier(kind, OPTIMIZERS[optimizer](), **mode)
        if trained:
            fit(model)
        before = len(model.optimizer.variables)
        if with_search:
            found = search(model, *classes(), steps=15, batch_size=4)
            assert np.ptp(found.losses) > 0
            assert len(model.optimizer.variables) == before
        return fit(model), state_of(model)

    (history, states), (expected_history, expected) = fitted(True), fitted(False)
    assert history == expected_history
    assert_equal(states, expected)


@pytest.mark.slow
def test_several_outputs_each_with_a_loss_and_metrics_are_as_they_were():
    def fitted(with_search):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((4,))
        hidden = keras.layers.Dropout(0.2)(keras.layers.Dense(6)(inputs))
        outputs = {name: keras.layers.Dense(1, name=name)(hidden) for name in ("one", "two")}
        model = keras.Model(inputs, outputs)
        losses, weights = {"one": "mse", "two": "mae"}, {"one": 0.5, "two": 2.0}
        model.compile("adam", loss=losses, loss_weights=weights, metrics={"one": ["mae"]})
        x, _ = classes()
        y = {"one": x.sum(axis=1, keepdims=True), "two": x[:, :1]}
        if with_search:
            assert len(search(model, x, y, steps=12, batch_size=4).losses) == 12
        history = model.fit(x, y, batch_size=4, verbose=0).history
        return history, state_of(model)

    (history, states), (expected_history, expected) = fitted(True), fitted(False)
    assert history == expected_history
    assert_equal(states, expected)


@pytest.mark.slow
def test_everything_is_the_same_object_with_the_same_value():
    model = classifier()
    fit(model)
    model.evaluate(*classes(), verbose=0)  # leaves metrics with values
    names = ("optimizer", "train_function", "history", "stop_training", "_compile_metrics")
    objects = [getattr(model, name) for name in names]
    rate = model.optimizer.get_config()
    states = state_of(model)
    search(model, *classes(), steps=15)
    for name, value in zip(names, objects, strict=True):
        assert getattr(model, name) is value
    assert model.optimizer.get_config() == rate
    assert_equal(state_of(model), states)


@pytest.mark.slow
def test_a_model_that_was_never_trained_is_as_it_was_compiled():
    model = classifier()
    attributes = set(vars(model))
    states = state_of(model)
    search(model, *classes(), steps=15)
    assert set(vars(model)) == attributes
    assert not model.optimizer.built
    assert not model._compile_loss.built
    assert not model._compile_metrics.built
    assert_equal(state_of(model), states)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "trained"), [(KeyboardInterrupt, True), (ValueError, False)])
def test_everything_is_restored_after_an_exception(error, trained):
    x, y = classes()

    class Stops(Batches):
        def __getitem__(self, i):
            if i == 5:
                raise error("stopped by the test")
            return super().__getitem__(i)

    data = Stops(x, y)
    model, other = classifier(), classifier()
    if trained:
        keras.utils.set_random_seed(2)
        fit(model)
        keras.utils.set_random_seed(2)
        fit(other)
    optimizer, states = model.optimizer, state_of(model)
    with pytest.raises(BaseException, match="stopped by the test"):
        search(model, (data[i] for i in range(13)), steps=15)
    assert model.optimizer is optimizer
    assert_equal(state_of(model), states)
    keras.utils.set_random_seed(3)
    history = fit(model)
    keras.utils.set_random_seed(3)
    assert history == fit(other)
    assert_equal(state_of(model), state_of(other))


def test_bad_data_leaves_the_model_as_it_was():
    model = classifier()
    states = state_of(model)
    x, y = classes()
    with pytest.raises(ValueError, match=r"(?s)."):
        search(model, x[:, :2], y)
    with pytest.raises(ValueError, match=r"(?s)."):
        search(model, x, y[:-3])
    assert_equal(state_of(model), states)
    assert not model.optimizer.built
    assert not model._compile_loss.built


@pytest.mark.slow
def test_the_global_random_generators_are_where_they_were():
    def draws():
        drawn = [random.random(), np.random.random(), number(keras.random.normal((2,))).tolist()]
        if TORCH:
            drawn.append(sys.modules["torch"].rand(2).tolist())
        if BACKEND == "tensorflow":
            drawn.append(sys.modules["tensorflow"].random.normal((2,)).numpy().tolist())
        return drawn

    def batches():
        data = Batches(*classes())
        for i in range(5):
            draws()
            yield data[i]

    model = classifier()
    keras.utils.set_random_seed(4)
    keras.random.normal((2,))  # makes Keras's own
    expected = draws()
    keras.utils.set_random_seed(4)
    keras.random.normal((2,))
    search(model, batches(), steps=5)
    assert draws() == expected


@pytest.mark.slow
def test_a_global_random_generator_that_was_not_there_is_not_there_afterwards():
    def batches():
        keras.random.normal((2,))
        yield from [Batches(*classes())[0]] * 5

    model = classifier()
    keras.utils.set_random_seed(4)
    expected = number(keras.random.normal((2,)))
    keras.utils.set_random_seed(4)
    search(model, batches(), steps=5)
    np.testing.assert_array_equal(number(keras.random.normal((2,))), expected)


@pytest.mark.slow
def test_two_searches_find_the_same():
    model = classifier()
    first, second = (search(model, *classes(), steps=15, batch_size=4) for _ in range(2))
    np.testing.assert_array_equal(first.losses, second.losses)


@pytest.mark.slow
def test_weights_that_changed_their_trainability_are_refused():
    model = classifier()
    fit(model)
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="Compile the model anew"):
        search(model, *classes(), steps=5)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras trains with such states on TensorFlow alone")
def test_the_states_of_recurrent_layers_are_as_they_were():
    model = keras.Sequential([keras.Input(batch_shape=(4, 2, 3)), keras.layers.GRU(2, stateful=True)])
    model.compile("sgd", loss="mse")
    x, y = np.ones((8, 2, 3)), np.ones((8, 2))
    model.fit(x, y, batch_size=4, verbose=0)
    states = [number(state) for state in model.layers[0].states]
    assert np.ptp(states) > 0 or np.max(states) != 0
    search(model, x, y, steps=5, batch_size=4)
    assert_equal([number(state) for state in model.layers[0].states], states)


@pytest.mark.skipif(not TORCH, reason="a module of torch")
def test_the_buffers_of_a_torch_module_are_as_they_were():
    module = sys.modules["torch"].nn.BatchNorm1d(4)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.TorchModuleWrapper(module), keras.layers.Dense(3)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = {name: number(buffer) for name, buffer in module.named_buffers()}
    search(model, *classes(), steps=5)
    for name, buffer in module.named_buffers():
        np.testing.assert_array_equal(number(buffer), before[name])


@pytest.mark.slow
def test_weights_that_are_excluded_from_decay_are_so_in_the_test():
    def model(exclude):
        optimizer = keras.optimizers.AdamW(weight_decay=100.0)
        if exclude:
            optimizer.exclude_from_weight_decay(var_names=["kernel"])
        return truth.linear_model(optimizer)

    x, y = truth.data(1)
    rates = {"steps": 10, "min_learning_rate": 1e-4, "max_learning_rate": 1e-2}
    growth = kdx.ExponentialLR(100 ** (1 / 9), initial_learning_rate=1e-4)
    model(True).fit(x, y, batch_size=2, epochs=10, callbacks=[growth], verbose=0)
    np.testing.assert_array_equal(search(model(True), x, y, **rates).losses, growth.losses)
    assert search(model(False), x, y, **rates).losses[-1] < 0.9 * growth.losses[-1]


def test_weights_that_were_frozen_in_exchange_for_others_are_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    model.layers[0].trainable = False
    model.compile(keras.optimizers.Adam(), loss="mse")
    x = np.ones((4, 2))
    model.fit(x, x, verbose=0)
    states = state_of(model)
    for layer in model.layers:  # as many weights, of the same shapes
        layer.trainable = not layer.trainable
    with pytest.raises(ValueError, match="Compile the model anew"):
        search(model, x, x)
    for layer in model.layers:
        layer.trainable = not layer.trainable
    assert_equal(state_of(model), states)


class WithTwoOptimizers(keras.Sequential):
    """Its loss counts the updates of a second optimizer."""

    def compute_loss(self, *args, **kwargs):
        if BACKEND != "jax":
            self.second.iterations.assign_add(1)
        return super().compute_loss(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "jax", reason="the step of JAX carries the state of one optimizer")
def test_a_second_optimizer_is_as_it_was():
    model = WithTwoOptimizers([keras.Input((truth.FEATURES,)), truth.dense()])
    model.compile(keras.optimizers.SGD(), loss=truth.MeanOutput())
    model.second = keras.optimizers.Adam()
    model.second.build(model.trainable_variables)
    search(model, *truth.data(1), steps=5)
    assert number(model.second.iterations) == 0
    model.fit(*truth.data(1), batch_size=2, verbose=0)
    assert number(model.second.iterations) == 1


class OfNoConfig(keras.optimizers.SGD):
    def __init__(self, extra, **kwargs):
        super().__init__(**kwargs)


@pytest.mark.slow
def test_an_optimizer_whose_config_lacks_an_argument_is_refused():
    model = truth.linear_model(OfNoConfig(3))
    with pytest.raises(ValueError, match=r"(?s)OfNoConfig.*get_config.*Received: optimizer="):
        search(model, *truth.data(1))


def test_a_model_without_trainable_weights_is_refused():
    model = truth.linear_model(keras.optimizers.SGD())
    model.trainable = False
    with pytest.raises(ValueError, match="trainable weights"):
        search(model, *truth.data(1))


class Unasked(Batches):
    """Data that must not be asked for a batch."""

    def __getitem__(self, i):
        raise AssertionError("asked")


def generator_unasked():
    raise AssertionError("asked")
    yield


X, Y = truth.data(2)
WRONG_DATA = {
    "None": ((None,), {}, "Expected `x` to be data"),
    "an empty list": (([],), {}, "Expected `x` to be data"),
    "floats": (([1.0, 2.0],), {}, "data type"),
    "a function": ((len,), {}, "data type"),
    "a scalar": ((np.array(1.0), Y), {}, "Expected `x` to be arrays of rows"),
    "a scalar target": ((X, np.float32(1)), {}, "Expected `y` to be arrays of rows"),
    "no rows": ((X[:0], Y[:0]), {}, r"at least one batch. Received: x of shape \(0, 3\)"),
    "no batches": ((Unasked(X[:0], Y[:0]),), {}, "at least one batch"),
    "fewer targets": ((X, Y[:-1]), {}, "same number"),
    "fewer weights": ((X, Y), {"sample_weight": np.ones(3)}, "same number"),
    "targets beside batches": ((Unasked(X, Y), Y), {}, "`y` should not be passed"),
    "weights beside batches": ((Unasked(X, Y),), {"sample_weight": np.ones(4)}, "should not be passed"),
    "weights of classes and samples": (
        (X, Y[:, 0]),
        {"sample_weight": np.ones(4), "class_weight": {0: 2.0}},
        "at the same time",
    ),
    "weights of classes for no labels": ((X,), {"class_weight": {0: 2.0}}, "Pass `y`"),
    "weights of classes for two outputs": (
        (X, {"one": Y, "two": Y}),
        {"class_weight": {0: 2.0}},
        "single output",
    ),
    "weights of classes beside a generator": (
        (generator_unasked(),),
        {"class_weight": {0: 2.0}},
        "generator",
    ),
}


@pytest.mark.parametrize("kind", WRONG_DATA)
def test_what_fit_would_not_take_is_refused_before_the_model_is_built(kind):
    data, weights, message = WRONG_DATA[kind]
    model = keras.Sequential([truth.dense()])
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match=message):
        search(model, *data, **weights)
    assert not model.built


# -- results --------------------------------------------------------------------------------------------


def test_data_that_ends_early_is_told():
    x, y = truth.data(7)
    model = truth.linear_model(keras.optimizers.SGD())
    batches = Batches(x, y)
    found = search(model, (batches[i] for i in range(7)), steps=20)
    assert len(found.losses) == 7
    assert found.suggestion is None
    assert "ended after 7 of 20 steps: there was no more data" in found.reason


def test_nan_in_the_data_gives_no_suggestion_and_the_reason():
    x, y = truth.data(1)
    model = truth.linear_model(keras.optimizers.SGD())
    found = search(model, np.full_like(x, np.nan), y)
    assert found.suggestion is None
    assert set(found.suggestions.values()) == {None}
    assert "not finite" in found.reason
    assert len(found.losses) == 1


def test_samples_count_by_their_weights():
    x, y = truth.data(1)
    weights = np.array([1.0, 3.0], "float32")
    model = truth.linear_model(keras.optimizers.SGD())
    found = search(model, x, y, sample_weight=weights, steps=2, min_learning_rate=1e-9)
    losses = (x @ truth.initial_weights()[0] + 1).sum(axis=1)
    # Keras divides by the number of samples
    np.testing.assert_allclose(found.losses[0], np.sum(weights * losses) / 2, rtol=1e-6)


CLASS_WEIGHT = {0: 1.0, 1: 2.0, np.int64(2): 20.0}


def of_labels(labels):
    return np.array([CLASS_WEIGHT[int(label)] for label in labels])


def one_hot(labels):
    return np.eye(3, dtype="float32")[labels]


WEIGHED = {  # the data to search on with `class_weight`
    "labels": lambda x, y: (x, y),
    "a column": lambda x, y: (x, y[:, None]),
    "one-hot": lambda x, y: (x, one_hot(y)),
    "dataset": dataset,
    "one-hot dataset": lambda x, y: dataset(x, one_hot(y)),
    "PyDataset": lambda x, y: (Batches(x[:2], y[:2]),),
    "one-hot PyDataset": lambda x, y: (Batches(x[:2], one_hot(y[:2])),),
}


def rows(kind):
    x, y = classes()
    return (x[:2], np.array([2, 0])) if "PyDataset" in kind else (x, y)  # Keras shuffles its batches


def losses_of_search(*data, loss="sparse_categorical_crossentropy", **weights):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", loss)
    return search(model, *data, steps=15, max_learning_rate=0.1, shuffle=False, **weights).losses


@pytest.fixture(scope="module")
def losses_by_sample_weights():
    losses = {}
    for kind in ("labels", "PyDataset"):
        x, y = rows(kind)
        losses[kind] = losses_of_search(x, y, sample_weight=of_labels(y))
        assert np.abs(losses[kind] - losses_of_search(x, y)).max() > 0.1  # the weights matter
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("kind", WEIGHED)
def test_classes_count_by_their_weights_as_samples_do(kind, losses_by_sample_weights):
    loss = "categorical_crossentropy" if "one-hot" in kind else "sparse_categorical_crossentropy"
    found = losses_of_search(*WEIGHED[kind](*rows(kind)), loss=loss, class_weight=CLASS_WEIGHT)
    expected = losses_by_sample_weights["PyDataset" if "PyDataset" in kind else "labels"]
    # 15 updates of about 10 roundings of losses up to 20 * 3
    np.testing.assert_allclose(found, expected, rtol=0, atol=15 * 10 * 6e-8 * 60)


@pytest.mark.slow
def test_classes_without_a_weight_count_once():
    x, y = classes()
    (first, second) = (
        search(classifier(), x, y, steps=5, class_weight=weights).losses
        for weights in ({2: 3.0}, {0: 1, 1: 1, 2.0: 3})
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_without_shuffling_the_batches_come_in_their_order():
    x, y = truth.data(5)
    rates = np.geomspace(1e-3, 0.1, 12)
    model = truth.linear_model(keras.optimizers.SGD())
    arguments = {"steps": 12, "min_learning_rate": 1e-3, "max_learning_rate": 0.1}
    found = search(model, x, y, shuffle=False, **arguments)
    np.testing.assert_allclose(found.losses, losses_of_descent(x, rates), rtol=0, atol=12 * 10 * 6e-8 * 16)
    keras.utils.set_random_seed(0)
    shuffled = search(model, x, y, **arguments)
    assert np.abs(shuffled.losses - found.losses).max() > 0.1


@pytest.mark.slow
def test_a_search_can_be_made_from_the_records_of_a_callback():
    x = np.random.default_rng(0).normal(size=(64, 5))
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(), loss="mse")
    growth = kdx.ExponentialLR(1.2, initial_learning_rate=1e-6)
    model.fit(x, x.sum(axis=1), batch_size=64, epochs=80, callbacks=[growth], verbose=0)
    found = kdx.LearningRateSearch(growth.rates, growth.losses)
    assert 1e-4 < found.suggestion < 1


@pytest.mark.slow
def test_the_progress_bar_is_there_and_can_be_silenced(capsys):
    x, y = truth.data(1)
    model = truth.linear_model(keras.optimizers.SGD())
    search(model, x, y, steps=5, verbose=1, max_learning_rate=0.1)
    assert "5/5" in capsys.readouterr().out
    search(model, x, y, steps=5, max_learning_rate=0.1)
    assert capsys.readouterr().out == ""


def test_the_plot_marks_the_suggestions(pyplot):
    rates = np.geomspace(1e-4, 1, 50)
    found = kdx.LearningRateSearch(rates, 1 / (1 + 100 * rates) + 9 * rates**4)
    ax = found.plot()
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["smoothed"].get_ydata(), found.smoothed_losses)
    for name, rate in found.suggestions.items():
        assert lines[f"{name}: {rate:.2g}"].get_xdata()[0] == rate
    assert ax.get_xscale() == "log"
    assert ax.get_ylim()[1] < 2  # divergence is out of the picture
    kdx.LearningRateSearch(rates[:2], [np.nan, np.inf]).plot()


# -- refusals -------------------------------------------------------------------------------------------

BAD_ARGUMENTS = [
    ({"batch_size": 0}, ValueError),
    ({"batch_size": 2.0}, TypeError),
    ({"min_learning_rate": 0.0}, ValueError),
    ({"min_learning_rate": "low"}, TypeError),
    ({"max_learning_rate": float("inf")}, ValueError),
    ({"max_learning_rate": 1e-7}, ValueError),
    ({"min_learning_rate": 1e-300, "max_learning_rate": 1e300}, ValueError),
    ({"min_learning_rate": 1.0, "max_learning_rate": 1.0000000000000002}, ValueError),
    ({"steps": 1}, ValueError),
    ({"steps": 10.0}, TypeError),
    ({"divergence_factor": 1.0}, ValueError),
    ({"divergence_factor": None}, TypeError),
    ({"divergence_factor": 10**400}, ValueError),
    ({"divergence_factor": float("nan")}, ValueError),
    ({"min_learning_rate": float("nan")}, ValueError),
    ({"min_learning_rate": -1e-3}, ValueError),
    ({"min_learning_rate": 1e-40}, ValueError),  # 0 in float32, on some devices
    ({"max_learning_rate": 1e39}, ValueError),  # infinity in float32
    ({"max_learning_rate": 10**400}, ValueError),
    ({"steps": 2**31}, ValueError),
    ({"steps": 10**400}, ValueError),
    ({"class_weight": [1.0, 2.0]}, TypeError),
    ({"class_weight": {"cat": 2.0}}, TypeError),
    ({"class_weight": {0.5: 2.0}}, TypeError),
    ({"class_weight": {0: "2"}}, TypeError),
    ({"class_weight": {0: float("inf")}}, ValueError),
    ({"shuffle": "yes"}, TypeError),
    ({"verbose": "yes"}, TypeError),
]


@pytest.mark.parametrize(("arguments", "error"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_and_named(arguments, error):
    x, y = truth.data(1)
    model = truth.linear_model(keras.optimizers.SGD())
    with pytest.raises(error, match=f"(?s){next(iter(arguments))}.*Received: "):
        search(model, x, y, **arguments)


@pytest.mark.slow
def test_as_many_steps_as_float32_has_rates_are_taken_and_one_more_is_not():
    low, unit = 1.0, 2.0**-23  # a float32 above 1 is `unit` away from the next
    arguments = {"min_learning_rate": low, "max_learning_rate": low + 7 * unit}
    model = truth.linear_model(keras.optimizers.SGD())
    found = search(model, *truth.data(1), steps=7, **arguments)
    assert np.all(np.diff(found.learning_rates.astype("float32")) > 0)
    with pytest.raises(ValueError, match=r"at most 7: .* no room"):
        search(model, *truth.data(1), steps=9, **arguments)


@pytest.mark.slow
def test_many_steps_cost_what_they_do_and_not_what_they_might():
    model = truth.linear_model(keras.optimizers.SGD())
    batches = Batches(*truth.data(4))
    tracemalloc.start()
    found = search(model, (batches[i] for i in range(4)), steps=10**8)  # 800 MB, as an array
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    factor = (10 / 1e-7) ** (1 / (10**8 - 1))
    np.testing.assert_allclose(found.learning_rates, 1e-7 * factor ** np.arange(4), rtol=1e-12)
    assert "after 4 of 100,000,000 steps" in found.reason


@pytest.mark.slow
def test_the_cost_of_a_step_does_not_grow_with_the_steps_before_it(monkeypatch):
    counted = []
    after = suggestions.Smoothing.after
    monkeypatch.setattr(
        suggestions.Smoothing, "after", lambda self, loss: counted.append(loss) or after(self, loss)
    )
    found = search(truth.linear_model(keras.optimizers.SGD()), *truth.data(1), steps=30)
    assert counted == found.losses.tolist()


def test_a_model_that_is_not_compiled_is_refused():
    with pytest.raises(ValueError, match="compiled"):
        search(keras.Sequential([truth.dense()]), *truth.data(1))


def test_data_without_a_batch_is_refused():
    model = keras.Sequential([truth.dense()])
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="at least one batch"):
        search(model, (batch for batch in ()))


@pytest.mark.slow
def test_an_empty_dataset_of_unknown_length_leaves_the_model_as_it_was():
    x, y = truth.data(1)
    model = truth.linear_model(keras.optimizers.SGD())
    states = state_of(model)
    with pytest.raises((ValueError, StopIteration)):  # the last is Keras's own, on JAX
        search(model, dataset_of_unknown_length(x, y)[0].filter(lambda x, y: False), steps=2)
    assert_equal(state_of(model), states)


@pytest.mark.parametrize(
    "losses", [["1.0", "2.0"], [None, 1.0], [1.0, [2.0]], [1.0, 1j], "12", 1.0, np.array(["1", "2"])]
)
def test_losses_that_are_no_numbers_are_refused(losses):
    with pytest.raises(
        TypeError, match=r"(?s)`losses` to be .* of (floats|real numbers).*Received: losses="
    ):
        kdx.LearningRateSearch([0.1, 0.2], losses)


def test_losses_in_an_array_of_objects_are_taken():
    losses = np.array([1.0, np.float32(0.5), 2], object)
    np.testing.assert_array_equal(kdx.LearningRateSearch([0.1, 0.2, 0.3], losses).losses, [1.0, 0.5, 2.0])


@pytest.mark.parametrize(
    ("rates", "losses"),
    [([0.2, 0.1], [1.0, 1.0]), ([0.0, 0.1], [1.0, 1.0]), ([0.1], [1.0, 2.0]), ([[0.1]], [[1.0]])],
)
def test_a_search_needs_increasing_rates_and_as_many_losses(rates, losses):
    with pytest.raises(ValueError, match="Received: "):
        kdx.LearningRateSearch(rates, losses)
