"""GradientNormMonitor: the norms against closed forms and another gradient, verdicts, logs, no trace."""

import copy
import csv
import itertools
import json
import math
import pickle
import warnings

import keras
import numpy as np
import pytest
import truth

import keras_dnn_extras as kdx
from keras_dnn_extras._models.layer_paths import layers_by_path, owners
from keras_dnn_extras._training_step.gradient_probe import GradientProbe
from keras_dnn_extras._training_step.ring_buffer import RingBuffer
from keras_dnn_extras.gradients.anomalies import IN_A_ROW, Anomaly, AnomalyDetector
from keras_dnn_extras.gradients.findings import FindingReporter, Thresholds

BACKEND = keras.backend.backend()
EPS = float(np.finfo("float32").eps)
SGD = keras.optimizers.SGD
EPOCHS = 2

MODES = {"default": {}, "jit_compile": {"jit_compile": True}, "run_eagerly": {"run_eagerly": True}}
MODES |= {"steps_per_execution": {"steps_per_execution": 3}}
ALL_MODES = MODES
if BACKEND == "torch":  # compiling takes torch half a minute
    MODES = {name: MODES[name] for name in ("default", "run_eagerly")}

CLIPPINGS = {
    "none": {},
    "clipnorm": {"clipnorm": 1.5},
    "global_clipnorm": {"global_clipnorm": 2.4},
    "clipvalue": {"clipvalue": 0.95},
    "never reached": {"global_clipnorm": 0.3e3},
}


def fit(model, x, y, *callbacks, **arguments):
    defaults = {"batch_size": 2, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    return model.fit(x, y, callbacks=list(callbacks), **defaults | arguments)


def odd_data():
    """Return seven batches of 2 samples, the last of which has 1."""
    x, y = truth.data(7)
    return x[:-1], y[:-1]


def batch_means(x):
    return [x[i : i + 2].mean(axis=0, dtype="float64") for i in range(0, len(x), 2)]


def closed_form(x, accumulation=1, epochs=EPOCHS):
    """Return the gradients of the kernel and the bias of `truth.linear_model`, for each update."""
    means = batch_means(x) * epochs
    updates = len(means) // accumulation
    means = np.reshape(means[: updates * accumulation], (updates, accumulation, -1)).mean(axis=1)
    return [[np.repeat(m[:, None], truth.UNITS, axis=1), np.ones(truth.UNITS)] for m in means]


def norm(arrays):
    return math.sqrt(sum(float(np.sum(np.square(a))) for a in arrays))


def clipped(gradients, clipnorm=None, global_clipnorm=None, clipvalue=None):
    if clipnorm:
        return [g * min(1, clipnorm / norm([g])) for g in gradients]
    if global_clipnorm:
        return [g * min(1, global_clipnorm / norm(gradients)) for g in gradients]
    return [np.clip(g, -clipvalue, clipvalue) if clipvalue else g for g in gradients]


# -- norms against closed forms --------------------------------------------------------------------------


CASES = [("default", clipping, accumulation) for clipping in CLIPPINGS for accumulation in (None, 3)]
CASES += [(mode, "global_clipnorm", 3) for mode in MODES if mode != "default"]
if BACKEND == "torch":
    CASES += [pytest.param("jit_compile", "global_clipnorm", 3, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("mode", "clipping", "accumulation"), CASES)
def test_norms_are_those_of_each_update(mode, clipping, accumulation):
    x, y = odd_data()
    optimizer = SGD(0.1, gradient_accumulation_steps=accumulation, **CLIPPINGS[clipping])
    model, monitor = truth.linear_model(optimizer, **ALL_MODES[mode]), kdx.GradientNormMonitor()
    logs = fit(model, x, y, monitor).history
    gradients = closed_form(x, accumulation or 1)
    after = [clipped(g, **CLIPPINGS[clipping]) for g in gradients]
    before = [norm(g) for g in gradients]
    # sums of 8 squares, a root, a quotient of clipping: about 10 roundings
    np.testing.assert_allclose(monitor.history["gradient_norm"], before, rtol=10 * EPS)
    np.testing.assert_array_equal(monitor.history["gradient_norm/linear"], monitor.history["gradient_norm"])
    expected = [norm(g) for g in after]
    np.testing.assert_allclose(monitor.history["clipped_gradient_norm"], expected, rtol=10 * EPS)
    changed = np.array(expected) < np.array(before) * (1 - 1e-9)
    assert clipping in ("none", "never reached") or 0 < changed.sum() <= len(changed)
    first = len(batch_means(x)) // (accumulation or 1)
    for values, epoch in ((slice(0, first), 0), (slice(first, None), 1)):
        np.testing.assert_allclose(logs["gradient_norm"][epoch], np.mean(before[values]), rtol=1e-6)
        np.testing.assert_allclose(logs["gradient_norm/linear"][epoch], np.mean(before[values]), rtol=1e-6)
        np.testing.assert_allclose(logs["gradient_norm_max"][epoch], np.max(before[values]), rtol=1e-6)
        assert logs["clipped_fraction"][epoch] == np.mean(changed[values])
    assert monitor.findings == []


def test_clipping_makes_nan_of_infinity():
    x, y = truth.data(2)
    x[0, 0] = math.inf
    monitor = kdx.GradientNormMonitor(on_problem="ignore")
    fit(truth.linear_model(SGD(0.0, global_clipnorm=2.4)), x, y, monitor, epochs=1)
    assert monitor.history["gradient_norm"][0] == math.inf
    assert math.isnan(monitor.history["clipped_gradient_norm"][0])
    np.testing.assert_allclose(monitor.history["clipped_gradient_norm"][1], 2.4, rtol=10 * EPS)


@keras.saving.register_keras_serializable(package="tests")
class Scaled(truth.MeanOutput):
    """The loss of the linear model, and so its gradient, times a number."""

    factor = 1.0

    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) * self.factor


@pytest.mark.parametrize(
    ("mode", "factor"), [(mode, 1e-30) for mode in MODES] + [("default", f) for f in (1e-21, 1e21, 1e30)]
)
def test_norms_are_right_where_their_squares_are_no_float32(mode, factor):
    x, y = truth.data(4)
    model = truth.linear_model(SGD(0.0))
    loss = Scaled()
    loss.factor = factor
    model.compile(SGD(0.0), loss=loss, **MODES[mode])
    monitor = kdx.GradientNormMonitor(on_problem="ignore")
    fit(model, x, y, monitor, epochs=1)
    expected = [factor * norm(g) for g in closed_form(x, epochs=1)]
    np.testing.assert_allclose(monitor.history["gradient_norm"], expected, rtol=10 * EPS)


@pytest.mark.parametrize("weighted", ["sample_weight", "class_weight"])
def test_weights_of_samples_and_classes_weigh(weighted):
    x, _ = truth.data(6)
    y = np.zeros((len(x), 1))
    y[::3] = 1
    weight = np.where(y[:, 0] == 1, 3.0, 0.5)
    model = keras.Sequential([keras.Input((truth.FEATURES,)), keras.layers.Dense(1, name="linear")])
    model.compile(SGD(0.0), loss=First())
    monitor = kdx.GradientNormMonitor()
    given = {"sample_weight": weight} if weighted == "sample_weight" else {"class_weight": {0: 0.5, 1: 3.0}}
    fit(model, x, y, monitor, epochs=1, **given)
    rows = (weight[:, None] * x).reshape(-1, 2, truth.FEATURES).mean(axis=1)
    biases = weight.reshape(-1, 2).mean(axis=1)
    expected = [norm([k, b]) for k, b in zip(rows, biases, strict=True)]
    np.testing.assert_allclose(monitor.history["gradient_norm"], expected, rtol=10 * EPS)


@keras.saving.register_keras_serializable(package="tests")
class First(keras.losses.Loss):
    """The first output as the loss."""

    def call(self, y_true, y_pred):
        return y_pred[:, 0] + 0 * keras.ops.mean(keras.ops.cast(y_true, y_pred.dtype), axis=-1)


def test_updates_that_loss_scaling_skips_are_not_there():
    x, y = truth.data(40)
    model = keras.Sequential([keras.Input((truth.FEATURES,)), truth.dense()])
    model.layers[0].dtype_policy = keras.DTypePolicy("mixed_float16")
    scaled = keras.optimizers.LossScaleOptimizer(SGD(0.0), initial_scale=2.0**40)
    model.compile(scaled, loss=truth.MeanOutput())
    monitor = kdx.GradientNormMonitor()
    fit(model, x, y, monitor, epochs=1)
    # Of the bias the scaled gradient is scale / UNITS, which float16 has below 2**16.
    skipped = 40 - len(monitor.history["gradient_norm"])
    assert skipped >= 40 - 16 - 1
    expected = [norm(g) for g in closed_form(x, epochs=1)][skipped:]
    # Means of two numbers and a product of them by a power of two, in float16
    np.testing.assert_allclose(monitor.history["gradient_norm"], expected, rtol=4 * 2.0**-11)
    assert monitor.findings == []


# Keras applies constraints after each batch, also where gradients accumulate: it would halve twice.
@pytest.mark.parametrize(("accumulation", "constrained"), [(1, True), (2, False)])
@pytest.mark.parametrize("mode", MODES)
def test_update_ratios_are_those_of_the_change_with_all_that_is_in_it(mode, accumulation, constrained):
    x, y = truth.data(5)
    layer = truth.dense()
    layer.kernel_constraint = Halved() if constrained else None
    model = keras.Sequential([keras.Input((truth.FEATURES,)), layer])
    optimizer = SGD(0.5, weight_decay=0.1, gradient_accumulation_steps=None if accumulation == 1 else 2)
    model.compile(optimizer, truth.MeanOutput(), **MODES[mode])
    monitor = kdx.GradientNormMonitor(update_ratios=True, per_layer=False)
    logs = fit(model, x, y, monitor).history
    kernel, bias = truth.initial_weights()
    ratios = []
    for to_kernel, to_bias in closed_form(x, accumulation):
        new = (kernel - 0.1 * 0.5 * kernel - 0.5 * to_kernel) / (2 if constrained else 1)
        moved = bias - 0.1 * 0.5 * bias - 0.5 * to_bias
        ratios.append(norm([new - kernel, moved - bias]) / norm([kernel, bias]))
        kernel, bias = new, moved
    # Differences of numbers that are at most 10 times as large, after 10 updates of 5 roundings each
    np.testing.assert_allclose(monitor.history["update_ratio/linear"], ratios, rtol=10 * 10 * 5 * EPS)
    half = 5 // accumulation
    means = [np.mean(ratios[:half]), np.mean(ratios[half:])]
    np.testing.assert_allclose(logs["update_ratio/linear"], means, rtol=10 * 10 * 5 * EPS)
    assert "gradient_norm/linear" not in {*logs, *monitor.history}


@keras.saving.register_keras_serializable(package="tests")
class Halved(keras.constraints.Constraint):
    def __call__(self, w):
        return w / 2


def test_weights_of_0_have_no_update_ratio():
    x, y = truth.data(3)
    model = keras.Sequential(
        [keras.Input((truth.FEATURES,)), keras.layers.Dense(truth.UNITS, name="linear")]
    )
    model.layers[0].set_weights([np.zeros((truth.FEATURES, truth.UNITS)), np.zeros(truth.UNITS)])
    model.compile(SGD(0.1), truth.MeanOutput())
    monitor = kdx.GradientNormMonitor(update_ratios=True)
    logs = fit(model, x, y, monitor, epochs=1).history
    ratios = np.array(monitor.history["update_ratio/linear"])
    assert np.isnan(ratios[0])
    assert np.isfinite(ratios[1:]).all()
    np.testing.assert_allclose(logs["update_ratio/linear"][0], ratios[1:].mean(), rtol=1e-12)


DTYPES = ["float64", "bfloat16", "float16"]


def linear_in(dtype, optimizer):
    weights = {"kernel_initializer": "ones", "bias_initializer": "ones", "name": "linear"}
    layer = keras.layers.Dense(truth.UNITS, dtype=dtype, **weights)
    model = keras.Sequential([keras.Input((truth.FEATURES,), dtype=dtype), layer])
    model.compile(optimizer, loss=truth.MeanOutput(dtype=dtype))
    return model


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX has it if it is switched on
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_may_be_of_any_dtype(dtype):
    x, y = odd_data()
    monitor, losses = kdx.GradientNormMonitor(update_ratios=True), kdx.ExponentialLR(1.0)
    model = linear_in(dtype, SGD(0.0625, global_clipnorm=2.4))
    fit(model, x, y, monitor, losses, epochs=1)
    gradients = closed_form(x, epochs=1)
    # Means of two multiples of 1/8 below 2 are exact in 8 bits: the norms have roundings of float32.
    expected = [norm(g) for g in gradients]
    np.testing.assert_allclose(monitor.history["gradient_norm/linear"], expected, rtol=10 * EPS)
    # Clipping, the update and the loss are computed in `dtype`: 5 roundings of each, in each of 7 updates
    bits = {"float64": 24, "bfloat16": 8, "float16": 11}[dtype]
    bound = 5 * 7 * 2.0**-bits
    after = [clipped(g, global_clipnorm=2.4) for g in gradients]
    expected = [norm(g) for g in after]
    np.testing.assert_allclose(monitor.history["clipped_gradient_norm"], expected, rtol=bound)
    kernel, bias = (w.astype("float64") for w in truth.initial_weights())
    ratios, values = [], []
    for (to_kernel, to_bias), mean in zip(after, batch_means(x), strict=True):
        values.append(sum(mean @ kernel + bias))
        ratios.append(0.0625 * norm([to_kernel, to_bias]) / norm([kernel, bias]))
        kernel, bias = kernel - 0.0625 * to_kernel, bias - 0.0625 * to_bias
    np.testing.assert_allclose(losses.losses, values, rtol=2 * bound, atol=2 * bound)
    # A change of about 1/16 of a weight has 4 bits less than the weight
    np.testing.assert_allclose(monitor.history["update_ratio/linear"], ratios, rtol=16 * 2.0**-bits + bound)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clipping", [{"clipnorm": 300.0}, {"global_clipnorm": 122.0}])
def test_roundings_of_a_dtype_are_no_clipping(clipping, dtype):
    x, y = odd_data()  # in bfloat16 and float16, 122 * (1 / 122) is below 1
    monitor = kdx.GradientNormMonitor()
    logs = fit(linear_in(dtype, SGD(0.0625, **clipping)), x, y, monitor).history
    assert logs["clipped_fraction"] == [0.0, 0.0]
    assert monitor.history["clipped_gradient_norm"] == monitor.history["gradient_norm"]


@pytest.fixture
def _bfloat16():
    floatx = keras.config.floatx()
    keras.config.set_floatx("bfloat16")
    yield
    keras.config.set_floatx(floatx)


@pytest.mark.usefixtures("_bfloat16")
def test_floatx_may_be_bfloat16(monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._NUMBERS", 30)  # the ring goes round
    x, y = truth.data(23)
    model, monitor = linear_in("bfloat16", SGD(0.0625)), kdx.GradientNormMonitor(update_ratios=True)
    model.layers[0].kernel.trainable = False  # not all variables have a column
    fit(model, x, y, monitor, epochs=1)
    np.testing.assert_allclose(
        monitor.history["gradient_norm"], [math.sqrt(truth.UNITS)] * 23, rtol=10 * EPS
    )


@pytest.mark.parametrize("first", [2**24 - 3, 3 * 2**24 - 1])
def test_updates_have_numbers_beyond_those_of_float32(first):
    ring = RingBuffer([2], 8, first, lambda s, d: keras.Variable(np.zeros(s), dtype=d, trainable=False))
    updates = []
    for i in range(20):
        if i % 4 == 0:
            updates += ring.read()[0].tolist()
        row = keras.ops.convert_to_tensor([1.0], "float32")
        ring.append(keras.ops.convert_to_tensor(first + i, "int32"), row, row)
    assert updates + ring.read()[0].tolist() == list(range(first, first + 20))


# -- norms against another gradient ----------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """Layers in attributes, one of them shared, two of one name, and a weight of the model's own."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.first = keras.layers.Dense(4, activation="tanh", name="same")
        self.second = keras.layers.Dense(4, activation="tanh", name="same")
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")

    def call(self, inputs, training=None):
        return self.second(self.second(self.first(inputs))) * self.scale

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, 4))


def embedding():
    inputs = keras.Input((6,), dtype="int32")
    embedded = keras.layers.Embedding(5, 4, name="embedding")(inputs)  # 6 ids of 5: some are there twice
    outputs = keras.layers.Dense(3, name="head")(keras.layers.Flatten()(embedded))
    return keras.Model(inputs, outputs), ["embedding", "head"]


def nested():
    def block(name):
        return keras.Sequential(
            [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(4, activation="elu", name="out")],
            name=name,
        )

    inputs = keras.Input((6,))
    shared = keras.layers.Dense(6, activation="selu", name="shared")
    x = block("left")(shared(shared(inputs)))
    outputs = keras.layers.Dense(3, name="hidden")(block("right")(x))
    names = ["shared", "left/hidden", "left/out", "right/hidden", "right/out", "hidden"]
    return keras.Model(inputs, outputs), names


def composite():
    inputs = keras.Input((6,))
    x = keras.layers.Reshape((3, 2))(inputs)
    x = keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True), name="both")(x)
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x)), ["both", "attention", "norm", "head"]


def subclassed():
    return Subclassed(), ["same", "same_2", "subclassed"]


def convolutional():
    layers = [keras.Input((6,)), keras.layers.Reshape((2, 3, 1)), keras.layers.Conv2D(4, 2, name="conv")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(3, name="head")]
    model = keras.Sequential(layers)
    model.get_layer("conv").bias.trainable = False
    return model, ["conv", "head"]


MODELS = {f.__name__: f for f in (embedding, nested, composite, subclassed, convolutional)}


MODEL_CASES = [("embedding", 2, "default"), ("nested", None, "default"), ("composite", 2, "default")]
MODEL_CASES += [("subclassed", None, "default"), ("convolutional", 2, "default")]
MODEL_CASES += [("embedding", None, "default"), ("nested", 2, "run_eagerly")]
MODEL_CASES += [("embedding", None, mode) for mode in MODES if mode != "default"]


@pytest.mark.parametrize(("name", "accumulation", "mode"), MODEL_CASES)
def test_norms_are_those_of_another_gradient(name, accumulation, mode):
    keras.utils.set_random_seed(0)
    model, names = MODELS[name]()
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (11, 6)) if name == "embedding" else rng.normal(size=(11, 6)).astype("float32")
    model(x[:1])
    y = rng.normal(size=(11, model(x[:1]).shape[-1])).astype("float32")
    optimizer = SGD(0.1, momentum=0.9, gradient_accumulation_steps=accumulation)
    model.compile(optimizer, loss="mse", **MODES[mode])
    optimizer.build(model.trainable_variables)
    start = model.get_weights()
    monitor = kdx.GradientNormMonitor()
    fit(model, x, y, monitor, batch_size=4)
    model.set_weights(start)
    expected = truth.norms_of_training(model, x, y, 4, EPOCHS, SGD(0.1, momentum=0.9), accumulation or 1)
    paths = owners(model)
    assert [path for path in layers_by_path(model) if path in paths.values()] == names
    by_layer = {
        f"gradient_norm/{path}": np.sqrt(
            sum(expected[i] ** 2 for i, v in enumerate(model.trainable_variables) if paths[id(v)] == path)
        )
        for path in names
    }
    # A gradient of sums of up to 12 products through up to 6 layers, after up to 5 updates that start from
    # the roundings of those before: some 500 roundings at most, of terms that may be 10 times the sum.
    bound = {"rtol": 5000 * EPS, "atol": 5000 * EPS}
    for key, values in by_layer.items():
        np.testing.assert_allclose(monitor.history[key], values, **bound, err_msg=key)
    total = np.sqrt(sum(values**2 for values in by_layer.values()))
    np.testing.assert_allclose(monitor.history["gradient_norm"], total, **bound)
    assert set(monitor.history) == {"gradient_norm", "clipped_gradient_norm", *by_layer}


@pytest.mark.parametrize("mode", MODES)
def test_a_model_may_be_built_by_its_first_step(mode):
    x, y = truth.data(7)
    model = keras.Sequential([truth.dense()])
    model.compile(SGD(0.1), truth.MeanOutput(), **MODES[mode])
    monitor = kdx.GradientNormMonitor(update_ratios=True)
    logs = fit(model, x, y, monitor).history
    expected = [norm(g) for g in closed_form(x)]
    np.testing.assert_allclose(monitor.history["gradient_norm/linear"], expected, rtol=10 * EPS)
    np.testing.assert_allclose(logs["gradient_norm/linear"][0], np.mean(expected[:7]), rtol=1e-6)
    assert len(monitor.history["update_ratio/linear"]) == 14


# -- custom steps -----------------------------------------------------------------------------------------


@pytest.mark.skipif(BACKEND == "jax", reason="the step of JAX applies all gradients at once")
@pytest.mark.parametrize("mode", MODES)
def test_a_step_may_apply_several_times_and_to_other_variables(mode):
    class Model(keras.Model):
        def train_step(self, data):
            kernel, bias = self.trainable_variables
            two, one = (keras.ops.full(v.shape, value) for v, value in ((kernel, 2.0), (bias, 1.0)))
            total = keras.ops.mean(data[0])  # a step that does not use its data need not be run
            self.optimizer.apply([two + 0 * total], [kernel])
            self.optimizer.apply([one + 0 * total, keras.ops.full((4,), 3.0) + 0 * total], [bias, other])
            return {"loss": total}

    inputs = keras.Input((truth.FEATURES,))
    model = Model(inputs, truth.dense()(inputs))
    other = keras.Variable(np.ones(4), name="other")
    optimizer = SGD(0.1)
    optimizer.build([*model.trainable_variables, other])
    model.compile(optimizer, loss="mse", **MODES[mode])
    monitor = kdx.GradientNormMonitor()
    fit(model, *truth.data(3), monitor, epochs=1)
    kernel, bias, rest = 2 * math.sqrt(truth.FEATURES * truth.UNITS), math.sqrt(truth.UNITS), 6.0
    np.testing.assert_allclose(monitor.history["gradient_norm/linear"], [kernel, bias] * 3, rtol=1e-6)
    total = [kernel, math.hypot(bias, rest)] * 3
    np.testing.assert_allclose(monitor.history["gradient_norm"], total, rtol=1e-6)


class TwoLayers(keras.Model):
    """Constant gradients for a generator and a critic, of which the first may have another optimizer."""

    def __init__(self):
        super().__init__()
        ones = {"kernel_initializer": "ones", "use_bias": False}
        self.critic = keras.layers.Dense(2, name="critic", **ones)
        self.generator = keras.layers.Dense(2, name="generator", **ones)
        self.build((None, 2))

    def build(self, shape):
        self.critic.build(shape)
        self.generator.build(shape)
        self.built = True

    def call(self, inputs):
        return self.critic(self.generator(inputs))

    def apply(self, optimizer, layer, value, data):
        depending_on_data = 0 * keras.ops.mean(data[0])
        gradient = keras.ops.full((2, 2), value) + depending_on_data
        optimizer.apply([gradient], layer.trainable_variables)
        return {"loss": depending_on_data}


def ones(batches):
    return np.ones((2 * batches, 2), "float32"), np.ones((2 * batches, 2), "float32")


@pytest.mark.skipif(BACKEND == "jax", reason="the step of JAX applies all gradients at once")
@pytest.mark.parametrize("mode", MODES)
def test_weights_of_another_optimizer_are_not_measured_and_nothing_is_said_of_them(mode, pyplot):
    class Model(TwoLayers):
        def train_step(self, data):
            self.apply(self.other, self.critic, 0.5, data)
            return self.apply(self.optimizer, self.generator, 2.0, data)

    model, monitor = Model(), kdx.GradientNormMonitor("batch", update_ratios=True, on_problem="raise")
    model.other = SGD(0.125)
    model.compile(SGD(0.125), loss="mse", **MODES[mode])
    logs = fit(model, *ones(12), monitor, epochs=1).history
    np.testing.assert_array_equal(monitor.history["gradient_norm/critic"], [np.nan] * 12)
    np.testing.assert_array_equal(monitor.history["update_ratio/critic"], [np.nan] * 12)
    np.testing.assert_allclose(monitor.history["gradient_norm/generator"], [4.0] * 12, rtol=1e-6)
    np.testing.assert_allclose(monitor.history["gradient_norm"], [4.0] * 12, rtol=1e-6)
    # all four weights go from 1 by steps of 1/4
    ratios = [0.25 / abs(1 - 0.25 * i) if i != 4 else np.nan for i in range(12)]
    np.testing.assert_allclose(monitor.history["update_ratio/generator"], ratios, rtol=1e-6)
    for name in ("gradient_norm/critic", "update_ratio/critic"):
        assert np.isnan(logs[name]).tolist() == [True]
    assert monitor.findings == []
    (mesh,) = monitor.plot().collections
    assert np.ma.getmaskarray(mesh.get_array()).all(axis=1).tolist() == [True, False]  # white, not red


@pytest.mark.skipif(BACKEND == "jax", reason="the step of JAX applies all gradients at once")
def test_of_two_optimizers_in_turn_each_update_measures_its_own():
    class Model(TwoLayers):
        def train_step(self, data):
            self.apply(self.optimizer, self.generator, 2.0, data)
            return self.apply(self.optimizer, self.critic, 0.0, data)

    model, monitor = Model(), kdx.GradientNormMonitor(on_problem="ignore")
    optimizer = SGD(0.0)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, loss="mse")
    logs = fit(model, *ones(12), monitor, epochs=1).history
    np.testing.assert_allclose(monitor.history["gradient_norm/generator"], [4.0, np.nan] * 12, rtol=1e-6)
    np.testing.assert_array_equal(monitor.history["gradient_norm/critic"], [np.nan, 0.0] * 12)
    assert logs["gradient_norm/critic"] == [0.0]
    np.testing.assert_allclose(logs["gradient_norm/generator"], [4.0], rtol=1e-6)
    assert [(f.kind, f.update, f.layers) for f in monitor.findings] == [("vanishing", 1, ("critic",))]
    assert "in 1 of 2 trained layers: `critic`." in str(monitor.findings[0])


@pytest.mark.skipif(BACKEND != "jax", reason="the step of JAX")
def test_weights_that_a_step_of_jax_trains_by_itself_are_not_measured():
    class Model(TwoLayers):
        def train_step(self, state, data):
            (critic, generator), others, own, metrics = state
            gradient = 2.0 + 0.0 * keras.ops.mean(data[0]) + keras.ops.zeros((2, 2))
            (generator,), own = self.optimizer.stateless_apply(own, [gradient], [generator])
            return {"loss": keras.ops.mean(data[0])}, ([critic - 0.5, generator], others, own, metrics)

    model, monitor = Model(), kdx.GradientNormMonitor(update_ratios=True, on_problem="raise")
    optimizer = SGD(0.125)
    optimizer.build(model.generator.trainable_variables)
    model.compile(optimizer, loss="mse")
    fit(model, *ones(12), monitor, epochs=1)
    np.testing.assert_array_equal(monitor.history["gradient_norm/critic"], [np.nan] * 12)
    np.testing.assert_array_equal(monitor.history["update_ratio/critic"], [np.nan] * 12)
    np.testing.assert_allclose(monitor.history["gradient_norm/generator"], [4.0] * 12, rtol=1e-6)
    np.testing.assert_allclose(monitor.history["update_ratio/generator"][0], 0.25, rtol=1e-6)
    assert monitor.findings == []


@keras.saving.register_keras_serializable(package="tests")
class Unused(keras.layers.Layer):
    def build(self, shape):
        self.weight = self.add_weight(shape=(3,), name="weight")

    def call(self, inputs):
        return inputs


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_weights_that_the_loss_does_not_depend_on_have_a_gradient_of_0():
    model = keras.Sequential([keras.Input((truth.FEATURES,)), Unused(name="unused"), truth.dense()])
    model.compile(SGD(0.1), truth.MeanOutput())
    monitor = kdx.GradientNormMonitor(on_problem="ignore")
    x, y = truth.data(IN_A_ROW)
    fit(model, x, y, monitor, epochs=1)
    np.testing.assert_array_equal(monitor.history["gradient_norm/unused"], [0.0] * IN_A_ROW)
    expected = [norm(g) for g in closed_form(x, epochs=1)]
    np.testing.assert_allclose(monitor.history["gradient_norm"], expected, rtol=10 * EPS)
    assert [(f.kind, f.layers) for f in monitor.findings] == [("vanishing", ("unused",))]
    assert "no connection to the loss" in str(monitor.findings[0])


# -- the training is the same ----------------------------------------------------------------------------


def mixed_model(optimizer, **arguments):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), keras.layers.Dense(8, activation="elu"), keras.layers.BatchNormalization()]
    layers += [keras.layers.Dropout(0.3, seed=1), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    model.compile(optimizer, loss="mse", **arguments)
    model.optimizer.build(model.trainable_variables)
    return model


def state_of(model):
    return [keras.ops.convert_to_numpy(v) for v in [*model.variables, *model.optimizer.variables]]


PAIRS = [
    case
    for case in CASES
    if (case[1] in ("clipnorm", "clipvalue")) == (case[2] == 3) or case[0] != "default"
]


@pytest.mark.parametrize(("mode", "clipping", "accumulation"), PAIRS)
def test_the_training_is_that_without_it(clipping, accumulation, mode):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(26, 6)), 5 * rng.normal(size=(26, 3))
    arguments = CLIPPINGS[clipping] | {"gradient_accumulation_steps": accumulation}
    models = [mixed_model(keras.optimizers.AdamW(0.01, **arguments), **ALL_MODES[mode]) for _ in range(2)]
    fit(models[0], x, y, batch_size=4)
    fit(models[1], x, y, kdx.GradientNormMonitor(update_ratios=True), batch_size=4)
    # XLA fuses another program, and may add in another order: 14 steps of Adam, where the difference of
    # one rounding grows at most in proportion to the rate.
    compiled = BACKEND == "jax" or mode == "jit_compile"
    bound = 14 * 0.01 * 1e-3 if compiled else 0
    for plain, monitored in zip(*map(state_of, models), strict=True):
        np.testing.assert_allclose(monitored, plain, rtol=bound, atol=bound)


@pytest.mark.parametrize("monitor_first", [True, False])
def test_with_one_cycle_both_are_right(monitor_first):
    x, y = truth.data(7)
    model = truth.linear_model(SGD(0.1, momentum=0.9))
    cycle, monitor = kdx.OneCycleScheduler(0.25), kdx.GradientNormMonitor(update_ratios=True)
    callbacks = [monitor, cycle] if monitor_first else [cycle, monitor]
    logs = fit(model, x, y, *callbacks).history
    gradients = truth.gradients(x) * EPOCHS
    weights = truth.apply_eagerly(
        SGD(0.1, momentum=0.9), gradients, cycle.history["learning_rate"], cycle.history["momentum"]
    )
    for value, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=14 * 20 * EPS)
    np.testing.assert_allclose(
        monitor.history["gradient_norm"], [norm(g) for g in gradients], rtol=10 * EPS
    )
    assert {"learning_rate", "momentum", "gradient_norm", "update_ratio/linear"} <= set(logs)


def test_a_file_saved_in_mid_fit_is_plain_keras(tmp_path):
    class Save(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.save(tmp_path / "model.keras")

    model = mixed_model(keras.optimizers.Adam(0.01))
    x = np.ones((12, 6))
    fit(model, x, np.ones((12, 3)), kdx.GradientNormMonitor(update_ratios=True), Save())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras warns of optimizer variables that do not fit
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    assert int(loaded.optimizer.iterations) == EPOCHS * 6 - 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_the_next_fit_is_right(error):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 3:
                raise error("stopped by the test")

    x, y = truth.data(7)
    optimizer = SGD(0.1, global_clipnorm=2.0)
    model, monitor = truth.linear_model(optimizer), kdx.GradientNormMonitor(update_ratios=True)
    before = set(vars(optimizer))
    with pytest.raises(error):
        fit(model, x, y, monitor, Stop())
    added = set(vars(optimizer)) - before
    assert not added & {"apply", "_clip_gradients", "_backend_apply_gradients", "_backend_update_step"}
    fit(model, x, y, monitor)
    expected = [norm(g) for g in closed_form(x)]
    np.testing.assert_allclose(monitor.history["gradient_norm"], expected, rtol=10 * EPS)


# -- how values reach Python -----------------------------------------------------------------------------


class Seen(keras.callbacks.Callback):
    """What a logger sees."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


@pytest.mark.parametrize(("update_freq", "every"), [("batch", 1), (3, 3), ("epoch", 100)])
def test_values_reach_the_logs_as_often_as_asked(update_freq, every):
    x, y = truth.data(7)
    model, monitor, seen = truth.linear_model(SGD(0.1)), kdx.GradientNormMonitor(update_freq), Seen()
    fit(model, x, y, seen, monitor)
    norms = [norm(g) for g in closed_form(x)]
    for i, logs in enumerate(seen.batches):
        epoch, batch = divmod(i, 7)
        read = (batch + 1) // every * every
        assert ("gradient_norm" in logs) == (read > 0)
        if read:
            so_far = norms[7 * epoch : 7 * epoch + read]
            np.testing.assert_allclose(logs["gradient_norm"], np.mean(so_far), rtol=1e-6)
            np.testing.assert_allclose(logs["gradient_norm_max"], np.max(so_far), rtol=1e-6)
    for epoch, logs in enumerate(seen.epochs):
        np.testing.assert_allclose(
            logs["gradient_norm"], np.mean(norms[7 * epoch : 7 * epoch + 7]), rtol=1e-6
        )
        assert all(type(value) is float for name, value in logs.items() if name != "loss")
    assert len(monitor.history["gradient_norm"]) == 14


def test_at_epoch_the_device_is_asked_once_an_epoch_and_keras_waits_for_no_step(monkeypatch):
    reads = []
    read = GradientProbe.download
    monkeypatch.setattr(GradientProbe, "download", lambda self: (reads.append(1), read(self)))
    model, monitor = truth.linear_model(SGD(0.1)), kdx.GradientNormMonitor()
    fit(model, *truth.data(50), monitor)
    assert len(reads) == 2 * EPOCHS  # when an epoch begins and when it ends
    assert getattr(monitor.on_train_batch_end, "_is_default", False)
    assert not getattr(kdx.GradientNormMonitor("batch").on_train_batch_end, "_is_default", False)


@pytest.mark.parametrize("update_freq", ["epoch", 4])
def test_a_fit_may_be_longer_than_the_ring(update_freq, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._NUMBERS", 30)  # 5 rows of 6 numbers
    reads, read = [], GradientProbe.download
    monkeypatch.setattr(GradientProbe, "download", lambda self: (reads.append(1), read(self)))
    x, y = truth.data(23)
    model, monitor = truth.linear_model(SGD(0.1)), kdx.GradientNormMonitor(update_freq)
    fit(model, x, y, monitor)
    assert len(reads) >= EPOCHS * 23 / 6  # in an epoch, and not only where it begins and ends
    expected = [norm(g) for g in closed_form(x)]
    np.testing.assert_allclose(monitor.history["gradient_norm"], expected, rtol=10 * EPS)


def test_a_second_fit_begins_again_and_a_plain_one_is_plain():
    x, y = truth.data(7)
    model, monitor = truth.linear_model(SGD(0.1)), kdx.GradientNormMonitor()
    fit(model, x, y)  # traces the step
    fit(model, x, y, monitor)
    fit(model, x[:6], y[:6], monitor)
    logs = fit(model, x, y).history
    assert len(monitor.history["gradient_norm"]) == 6
    assert set(logs) == {"loss"}


def test_two_monitors_have_the_same_norms():
    x, y = truth.data(7)
    model, two = truth.linear_model(SGD(0.1)), [kdx.GradientNormMonitor(), kdx.GradientNormMonitor(2)]
    fit(model, x, y, *two)
    assert two[0].history == two[1].history
    assert len(two[0].history["gradient_norm"]) == 14


class InBetween(keras.callbacks.Callback):
    def __init__(self, x, y):
        super().__init__()
        self.batch = x[:2] * 100, y[:2]

    def on_epoch_begin(self, epoch, logs=None):
        self.model.train_on_batch(*self.batch)


def test_updates_of_others_in_between_are_not_there():
    x, y = truth.data(7)
    model, monitor = truth.linear_model(SGD(0.1)), kdx.GradientNormMonitor()
    fit(model, x, y, monitor, InBetween(x, y))
    expected = [norm(g) for g in closed_form(x)]
    np.testing.assert_allclose(monitor.history["gradient_norm"], expected, rtol=10 * EPS)


def test_an_epoch_without_an_update_logs_nan():
    x, y = truth.data(2)
    model = truth.linear_model(SGD(0.1, gradient_accumulation_steps=3))
    logs = fit(model, x, y, kdx.GradientNormMonitor()).history
    for name in ("gradient_norm", "gradient_norm_max", "clipped_fraction", "gradient_norm/linear"):
        assert math.isnan(logs[name][0])
        assert not math.isnan(logs[name][1])


@pytest.mark.parametrize("plan", [{}, {3: "frozen"}, {1: "norm", 3: "frozen"}])
def test_every_epoch_has_the_keys_of_what_this_fit_trains_also_if_its_model_is_not_built_yet(
    plan, tmp_path
):
    x, y = truth.data(2)
    frozen = keras.layers.Dense(3, name="frozen", trainable=False)
    norm_layer = keras.layers.BatchNormalization(name="norm", trainable=False)
    model = keras.Sequential([frozen, norm_layer, keras.layers.ReLU(), truth.dense()])
    model.compile(SGD(0.1, gradient_accumulation_steps=3), truth.MeanOutput())
    callbacks = [keras.callbacks.CSVLogger(tmp_path / "log.csv")]
    if plan:
        callbacks += [kdx.GradualUnfreezing(plan, batch_norm=True)]
    logs = fit(model, x, y, kdx.GradientNormMonitor(update_ratios=True), *callbacks).history
    trained = {"linear", *plan.values()}
    for kind in ("gradient_norm", "update_ratio"):
        assert {name for name in logs if name.startswith(f"{kind}/")} == {f"{kind}/{n}" for n in trained}
        for name in trained:
            updated = [False, name != "frozen"]  # the first epoch is shorter than an update
            assert np.isfinite(logs[f"{kind}/{name}"]).tolist() == updated
    header, *rows = csv.reader((tmp_path / "log.csv").read_text().splitlines())
    assert {f"gradient_norm/{name}" for name in trained} < set(header)
    assert [len(row) for row in rows] == [len(header)] * EPOCHS


def test_a_finding_has_its_index_in_the_history_also_after_a_resume(tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("stopped by the test")

    def run(x, *callbacks):
        model = truth.linear_model(SGD(0.1))
        monitor = kdx.GradientNormMonitor(on_problem="ignore", exploding_threshold=100.0)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        fit(model, x, y, monitor, backup, *callbacks, epochs=4)
        return monitor

    x, y = truth.data(7)
    with pytest.raises(RuntimeError):
        run(x, Crash())
    x[2 * 3, 1] = 1e3
    monitor = run(x, InBetween(x, y))  # other updates in the fit have no place in the history
    (finding,) = monitor.findings
    assert (finding.update, finding.epoch) == (3, 2)
    assert [value > 100 for value in monitor.history["gradient_norm"][:5]] == [False] * 3 + [True, False]
    assert "in update 3 (epoch 3, its update 3; from 0)" in str(finding)
    assert len(monitor.history["gradient_norm"]) == 2 * 7


def test_the_history_is_plain_and_json_takes_it():
    x, y = truth.data(3)
    x[0] = np.nan
    model, monitor = (
        truth.linear_model(SGD(0.1)),
        kdx.GradientNormMonitor(update_ratios=True, on_problem="ignore"),
    )
    cycle = kdx.OneCycleScheduler(0.1)
    fit(model, x, y, monitor, cycle)
    for history in (monitor.history, cycle.history):
        assert {type(values) for values in history.values()} == {list}
        assert {type(value) for values in history.values() for value in values} == {float}
        again = json.loads(json.dumps(history))
        for name, values in history.items():
            np.testing.assert_array_equal(again[name], values)


def test_data_of_unknown_length_has_as_many_norms_as_batches():
    x, y = truth.data(5)
    batches = ((x[i : i + 2], y[i : i + 2]) for i in range(0, 10, 2))
    model, monitor = truth.linear_model(SGD(0.1)), kdx.GradientNormMonitor(update_ratios=True)
    model.fit(batches, verbose=0, callbacks=[monitor])
    expected = [norm(g) for g in closed_form(x, epochs=1)]
    np.testing.assert_allclose(monitor.history["gradient_norm"], expected, rtol=10 * EPS)
    assert len(monitor.history["update_ratio/linear"]) == 5


def test_copies_work():
    x, y = truth.data(3)
    model, monitor = truth.linear_model(SGD(0.1)), kdx.GradientNormMonitor("batch")
    fit(model, x, y, monitor)
    for twin in (pickle.loads(pickle.dumps(monitor)), copy.deepcopy(monitor)):
        assert twin.history == monitor.history
        fit(truth.linear_model(SGD(0.1)), x[:2], y[:2], twin)
        assert len(twin.history["gradient_norm"]) == 2
    assert len(monitor.history["gradient_norm"]) == 6


def test_verbose_prints_a_line_an_epoch(capsys):
    fit(truth.linear_model(SGD(0.1)), *truth.data(3), kdx.GradientNormMonitor(verbose=1))
    assert capsys.readouterr().out.count("gradient norm") == EPOCHS


# -- verdicts --------------------------------------------------------------------------------------------


def deep(activation, initializer, *, batch_norm=False, depth=30, units=32):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((64,))]
    for i in range(depth):
        layers.append(
            keras.layers.Dense(units, kernel_initializer=initializer, use_bias=not batch_norm, name=f"d{i}")
        )
        layers += [keras.layers.BatchNormalization()] if batch_norm else []
        layers.append(keras.layers.Activation(activation))
    model = keras.Sequential([*layers, keras.layers.Dense(10, name="head")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(SGD(0.01, momentum=0.9), loss)
    return model


def resnet():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,))
    x = keras.layers.Reshape((8, 8, 1))(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    for _ in range(3):
        y = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
        y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
        y = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(y)
        x = keras.layers.ReLU()(x + keras.layers.BatchNormalization()(y))
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(SGD(0.05, momentum=0.9), loss)
    return model


def digits():
    x, y = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    return ((x - x.mean()) / x.std())[:640].astype("float32"), y[:640]


NORMAL = {"sigmoid": 0.05, "relu": 0.5}  # Keras's "random_normal", and ten times that


@pytest.mark.parametrize(("kind", "activation"), [("vanishing", "sigmoid"), ("exploding", "relu")])
def test_a_deep_network_that_is_badly_initialized_is_found(kind, activation):
    model = deep(activation, keras.initializers.RandomNormal(stddev=NORMAL[activation], seed=0))
    monitor = kdx.GradientNormMonitor()
    with pytest.warns(UserWarning, match=f"^{kind.capitalize()} gradients .*`d0`, `d1`.*[Tt]ry") as told:
        fit(model, *digits(), monitor, batch_size=32)
    finding = monitor.findings[0]
    assert (finding.kind, finding.update, finding.epoch) == (kind, 0, 0)
    assert finding.layers[:5] == ("d0", "d1", "d2", "d3", "d4")
    mine = [str(w.message) for w in told if "gradients" in str(w.message)]
    assert mine == [str(f) for f in monitor.findings]
    assert len(mine) <= EPOCHS * 3
    reported = [(f.kind, layer) for f in monitor.findings for layer in f.layers]
    assert len(set(reported)) == len(reported)
    if kind == "vanishing":
        assert "head" not in finding.layers
        norms = [monitor.history[f"gradient_norm/d{i}"][0] for i in (0, 10, 20)]
        assert 0 < norms[0] < 1e-4 * norms[1] < 1e-8 * norms[2]


HEALTHY = {
    "SELU": lambda: deep("selu", "lecun_normal"),
    "ELU": lambda: deep("elu", "he_normal", batch_norm=True),
    "ResNet": resnet,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_well_made_network_is_not_complained_about(name):
    monitor = kdx.GradientNormMonitor(on_problem="raise")
    fit(HEALTHY[name](), *digits(), monitor, batch_size=32)
    assert monitor.findings == []
    assert len(monitor.history["gradient_norm"]) == EPOCHS * 20


@pytest.mark.parametrize("mode", MODES)
def test_one_nan_in_one_batch_is_located(mode):
    x, y = truth.data(7)
    x[2 * 4, 1] = np.nan
    model, monitor = truth.linear_model(SGD(0.1), **MODES[mode]), kdx.GradientNormMonitor()
    with pytest.warns(UserWarning, match=r"Non-finite gradients in update 4 \(epoch 1, its update 4"):
        fit(model, x, y, monitor)
    assert [(f.kind, f.update, f.layers) for f in monitor.findings] == [("non-finite", 4, ("linear",))]
    norms = monitor.history["gradient_norm"]
    assert np.isfinite(norms[:4]).all()
    assert not np.isfinite(norms[4])


@keras.saving.register_keras_serializable(package="tests")
class RootOf0(keras.layers.Layer):
    """Finite itself, with a gradient that is not."""

    def call(self, inputs):
        return inputs + keras.ops.sqrt(keras.ops.relu(inputs) * 0)


def test_a_gradient_that_is_not_finite_is_located_where_it_begins():
    names = ["a", "b", "c", "d"]
    layers = [keras.layers.Dense(3, name=name) for name in names]
    model = keras.Sequential([keras.Input((truth.FEATURES,)), *layers[:2], RootOf0(), *layers[2:]])
    model.compile(SGD(0.1), loss="mse")
    x, _ = truth.data(1)
    monitor = kdx.GradientNormMonitor(on_problem="raise")
    with pytest.raises(RuntimeError, match=r"Non-finite gradients in update 0.*they begin at `b`"):
        fit(model, x, np.zeros((2, 3)), monitor)
    assert monitor.findings[0].layers == ("a", "b")


def test_raise_ends_the_fit_and_ignore_says_nothing():
    model = truth.linear_model(SGD(0.1))
    monitor = kdx.GradientNormMonitor("batch", exploding_threshold=1.0, on_problem="raise")
    with pytest.raises(RuntimeError, match=r"Exploding gradients in update 0 .*clipnorm"):
        fit(model, *truth.data(7), monitor)
    assert len(monitor.history["gradient_norm"]) == 1
    monitor = kdx.GradientNormMonitor(exploding_threshold=1.0, on_problem="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, *truth.data(7), monitor)
    assert [f.kind for f in monitor.findings] == ["exploding"]


@pytest.mark.parametrize("updates", [1, 3])
def test_a_fit_of_few_updates_is_judged_at_its_end(updates):
    model = truth.linear_model(SGD(0.0))
    monitor = kdx.GradientNormMonitor(vanishing_threshold=100.0, exploding_threshold=1e3)
    with pytest.warns(UserWarning, match="Vanishing gradients from update 0"):
        fit(model, *truth.data(updates), monitor, epochs=1)
    assert [f.layers for f in monitor.findings] == [("linear",)]


def judged(norms, **thresholds):
    norms = np.array(norms, float)
    detector = AnomalyDetector(norms.shape[1], **{"vanishing": 1e-7, "exploding": 1e3} | thresholds)
    return detector.detect(np.arange(len(norms)), norms, np.sqrt(np.sum(norms**2, axis=1)))


def test_a_finding_has_the_epoch_that_its_update_is_in():
    reporter = FindingReporter(Thresholds(1e-7, 1e3), "ignore")
    for first_update, epoch in ((0, 3), (5, 4), (10, 5)):  # a fit that goes on in epoch 3
        reporter.begin_epoch(first_update, epoch)
    for update in (4, 5, 12):
        reporter.report("exploding", Anomaly(update, np.array([False, True]), 2e3, 2), ["first", "last"])
    assert [finding.epoch for finding in reporter.findings] == [3, 4, 5]
    assert {finding.layers for finding in reporter.findings} == {("last",)}
    assert "update 12 (epoch 6, its update 2; from 0)" in reporter.findings[2].message


def test_small_gradients_vanish_only_after_some_updates_in_a_row():
    assert judged([[1e-9, 1.0]] * (IN_A_ROW - 1) + [[1e-3, 1.0]] + [[1e-9, 1.0]] * (IN_A_ROW - 1)) == {}
    found = judged([[1e-3, 1.0]] * 3 + [[1e-9, 1.0]] * IN_A_ROW)["vanishing"]
    assert (found.update, found.layers.tolist(), found.norm) == (3, [True, False], 1e-9)


def test_training_that_has_come_to_its_end_does_not_vanish():
    assert judged([[1.0, 1.0]] * 3 + [[1e-9, 1e-9]] * 30) == {}
    assert "vanishing" in judged([[1e-9, 1e-9]] * 30)  # which never began


def test_what_is_not_finite_does_not_explode():
    found = judged([[1.0, 1.0], [math.inf, 2e3], [math.nan, 1.0]])
    assert {kind: (f.update, f.layers.tolist()) for kind, f in found.items()} == {
        "non-finite": (1, [True, False]),
        "exploding": (1, [False, True]),
    }


def test_each_layer_is_judged_once_for_each_kind():
    detector = AnomalyDetector(2, 1e-7, 1e3)
    first, second = np.array([[2e3, 1.0]]), np.array([[2e3, 2e3]])
    assert detector.detect(np.array([0]), first, first[:, 0])["exploding"].layers.tolist() == [True, False]
    assert detector.detect(np.array([1]), second, second[:, 0])["exploding"].layers.tolist() == [
        False,
        True,
    ]
    assert detector.detect(np.array([2]), second, second[:, 0]) == {}


def test_a_run_of_small_gradients_ends_with_a_block_without_any():
    detector = AnomalyDetector(2, 1e-7, 1e3)
    small, large = np.array([[1e-9, 1.0]] * (IN_A_ROW - 1)), np.array([[0.5e-7, 1.0], [1e-3, 1.0]])
    for first, norms in ((0, small), (9, large[1:]), (10, small)):
        assert detector.detect(np.arange(first, first + len(norms)), norms, norms[:, 1]) == {}
    found = detector.detect(np.array([19]), small[:1], small[:1, 1])["vanishing"]
    assert (found.update, found.layers.tolist()) == (10, [True, False])
    assert detector.vanished_throughout() is None


def test_gradients_that_are_not_finite_are_told_once_for_all_layers():
    detector = AnomalyDetector(3, 1e-7, 1e3)
    first, later = np.array([[1.0, 1.0, math.nan]]), np.array([[math.nan, math.inf, math.nan]])
    assert detector.detect(np.array([0]), first, first[:, 0])["non-finite"].layers.tolist() == [
        False,
        False,
        True,
    ]
    assert detector.detect(np.array([1]), later, later[:, 0]) == {}


def test_an_update_that_does_not_measure_a_layer_neither_ends_its_run_nor_counts():
    detector = AnomalyDetector(3, 1e-7, 1e3)
    norms = np.array([[1e-9, 1.0, math.nan], [math.inf, 1.0, math.nan]] * (IN_A_ROW - 1))
    measured = np.array([[True, True, False], [False, True, False]] * (IN_A_ROW - 1))
    totals = np.ones(len(norms))
    assert detector.detect(np.arange(18), norms, totals, measured) == {}
    throughout = detector.vanished_throughout()
    assert (throughout.update, throughout.layers.tolist(), throughout.measured) == (
        0,
        [True, False, False],
        2,
    )
    found = detector.detect(np.array([18]), norms[:1], totals[:1], measured[:1])["vanishing"]
    assert (found.update, found.layers.tolist(), found.measured) == (0, [True, False, False], 2)
    assert detector.vanished_throughout() is None  # told already


# -- the picture -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "labels"), [(5, 5), (150, 38)])
def test_the_plot_has_layers_by_updates(layers, labels, pyplot):
    monitor = kdx.GradientNormMonitor()
    norms = np.logspace(-9, 1, layers)[:, None] * np.ones(2500)
    norms[1, 7], norms[2] = np.nan, 0.0
    monitor.history = {"gradient_norm": [1.0]} | {f"gradient_norm/d{i}": row for i, row in enumerate(norms)}
    ax = monitor.plot()
    (mesh,) = ax.collections
    cells = mesh.get_array()
    assert cells.shape == (layers, 1000)  # of 2 or 3 updates each
    assert (cells[0] == norms[0, 0]).all()
    assert (
        cells[1] == norms[1, 0]
    ).all()  # the median, which one update that is not finite does not change
    assert ax.lines[0].get_xydata().tolist() == [[7.5, 1.5]]  # the mark does not hide it
    assert (cells[2] < mesh.norm.vmin).all()  # 0 is under the scale, which is logarithmic
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert len(names) == labels
    assert names[0] == "d0"
    assert ax.get_ylim() == (layers, 0)  # the first one at the top
    ax.figure.canvas.draw()
    heights = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(a.y0 > b.y1 - 1 for a, b in itertools.pairwise(heights))  # none over another


def test_without_layers_the_plot_has_the_norm_before_and_after_clipping(pyplot):
    monitor = kdx.GradientNormMonitor(per_layer=False)
    fit(truth.linear_model(SGD(0.1, clipnorm=1.0)), *truth.data(7), monitor)
    ax = pyplot.gca()
    assert monitor.plot(ax) is ax
    for line, name in zip(ax.lines, ("gradient_norm", "clipped_gradient_norm"), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), monitor.history[name])


def test_the_plot_has_no_second_line_where_clipping_changed_nothing(pyplot):
    monitor = kdx.GradientNormMonitor(per_layer=False)
    fit(truth.linear_model(SGD(0.1, global_clipnorm=300.0)), *truth.data(7), monitor)
    assert len(monitor.plot().lines) == 1
    x, y = odd_data()
    norms = np.array([norm(g) for g in closed_form(x)])
    most = float(np.median(norms)) * 1.001
    fit(truth.linear_model(SGD(0.1, global_clipnorm=most)), x, y, monitor)
    before, after = (line.get_ydata() for line in monitor.plot().lines)
    np.testing.assert_allclose(before, norms, rtol=10 * EPS)
    assert 0 < (norms > most).sum() < len(norms)
    np.testing.assert_allclose(after, np.where(norms > most, most, np.nan), rtol=10 * EPS)


def test_messages_count_one_in_the_singular():
    monitor = kdx.GradientNormMonitor(exploding_threshold=1.0, on_problem="ignore")
    fit(truth.linear_model(SGD(0.1)), *truth.data(1), monitor, epochs=1)
    assert ", in 1 of 1 trained layer: `linear`. The largest" in str(monitor.findings[0])


@pytest.mark.parametrize(("x", "scale"), [(1.0, "log"), (0.0, "linear")])
def test_the_norms_are_plotted_on_a_logarithm_unless_all_are_0(x, scale, pyplot):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(SGD(0.0), "mse")
    monitor = kdx.GradientNormMonitor(per_layer=False, on_problem="ignore")
    fit(model, np.full((4, 2), x), np.ones((4, 1)), monitor)
    assert monitor.plot().get_yscale() == scale


def test_there_is_no_plot_before_a_fit():
    with pytest.raises(ValueError, match="no gradient norms to plot"):
        kdx.GradientNormMonitor().plot()


# -- arguments -------------------------------------------------------------------------------------------

BAD = {
    "update_freq": [("sometimes", ValueError), (0, ValueError), (1.5, TypeError), (True, TypeError)],
    "per_layer": [(1, TypeError)],
    "update_ratios": [("yes", TypeError)],
    "vanishing_threshold": [(-1.0, ValueError), (math.nan, ValueError), ("small", TypeError)],
    "exploding_threshold": [(1e-8, ValueError), (math.nan, ValueError), (None, TypeError)],
    "on_problem": [("panic", ValueError), (None, TypeError)],
    "verbose": [("loud", TypeError)],
}


@pytest.mark.parametrize(
    ("name", "value", "error"), [(name, *case) for name, cases in BAD.items() for case in cases]
)
def test_a_bad_argument_is_told(name, value, error):
    with pytest.raises(error, match=rf"`{name}`.*Received: {name}="):
        kdx.GradientNormMonitor(**{name: value})


def test_a_monitor_that_is_listed_twice_is_refused():
    monitor = kdx.GradientNormMonitor()
    with pytest.raises(ValueError, match="`GradientNormMonitor` is listed twice"):
        fit(truth.linear_model(SGD(0.1)), *truth.data(2), monitor, monitor)


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has none")
def test_several_optimizers_are_refused():
    model = truth.linear_model(SGD(0.1))
    model.compile(keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(SGD())), truth.MeanOutput())
    with pytest.raises(ValueError, match="one learning rate"):
        fit(model, *truth.data(2), kdx.GradientNormMonitor())
