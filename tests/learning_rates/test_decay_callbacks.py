"""ExponentialLR, PowerLR and PiecewiseConstantLR: against Keras, torch and what the weights show."""

import copy
import json
import pickle
import warnings

import keras
import numpy as np
import pytest
import truth

import keras_dnn_extras as kdx
from keras_dnn_extras.learning_rates.learning_rate_callback import FitToCome

BACKEND = keras.backend.backend()
TORCH = BACKEND == "torch"
BATCHES, EPOCHS = 10, 2
TOTAL = BATCHES * EPOCHS
EPS = np.finfo("float32").eps
schedules = keras.optimizers.schedules


def sgd(**arguments):
    return keras.optimizers.SGD(0.05, momentum=0.9, **arguments)


def adam(**arguments):
    return keras.optimizers.Adam(0.05, **arguments)


MODES = {
    "default": {},
    "jit_compile": {"jit_compile": True},
    "run_eagerly": {"run_eagerly": True},
    "steps_per_execution 3": {"steps_per_execution": 3},
    "steps_per_execution 4": {"steps_per_execution": 4},
}
# `torch.compile` takes most of a minute, and Keras refuses to group steps on torch.
HERE = [m for m in MODES if not (TORCH and (m.startswith("steps") or m == "jit_compile"))]

# Callbacks, and what each is for update `i` of a fit with the optimizer's rate at 0.05. The last is told
# `i` and the epoch that the update is applied in, as a float.
KINDS = {
    "ExponentialLR": (lambda: kdx.ExponentialLR(0.9), lambda i, e: 0.05 * 0.9**i),
    "PowerLR": (lambda: kdx.PowerLR(decay_steps=4, power=2), lambda i, e: 0.05 / (1 + i / 4) ** 2),
    "PiecewiseConstantLR": (
        lambda: kdx.PiecewiseConstantLR([0.3, 1], [0.05, 0.02, 0.08]),
        lambda i, e: np.where(e < 0.3, 0.05, np.where(e < 1, 0.02, 0.08)),
    ),
}


def rates_of(kind, accumulation=1):
    i = np.arange(TOTAL // accumulation)
    last_batch = (i + 1) * accumulation - 1
    return KINDS[kind][1](i.astype(float), last_batch / BATCHES)


def fit(model, callbacks, x=None, y=None, **arguments):
    if x is None:
        x, y = truth.data(BATCHES)
    defaults = {"batch_size": 2, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    return model.fit(x, y, callbacks=callbacks, **defaults | arguments)


def assert_same_weights(model, expected):
    for weight, value in zip(model.get_weights(), expected, strict=True):
        # Compiled arithmetic may fuse and reorder: 30 updates of about 20 operations, each off by half a
        # unit in the last place of numbers up to the largest that occur, weights and slots.
        bound = 30 * 20 * EPS / 2 * max(2.0, np.max(np.abs(value)))
        np.testing.assert_allclose(weight, value, rtol=0, atol=bound)


def assert_updates_had(rates, model, callback, optimizer=sgd, accumulation=1, epochs=EPOCHS):
    """Assert it by the weights of a linear model, and by the callback's records."""
    x, _ = truth.data(BATCHES)
    gradients = truth.accumulated(truth.gradients(x) * epochs, accumulation)
    assert len(gradients) == len(rates)
    assert_same_weights(model, truth.apply_eagerly(optimizer(), gradients, rates))
    np.testing.assert_allclose(callback.history["learning_rate"], rates, rtol=1e-12)


# -- what is in force ---------------------------------------------------------------------------------


# The callback that looks at epochs in each mode, the others as the optimizer is built by `fit`.
PAIRS = [("PiecewiseConstantLR", mode, sgd) for mode in HERE]
PAIRS += [
    (kind, "default", optimizer) for kind in ("ExponentialLR", "PowerLR") for optimizer in (sgd, adam)
]


@pytest.mark.parametrize(("kind", "mode", "optimizer"), PAIRS)
def test_each_update_has_the_rate_of_its_formula(kind, mode, optimizer):
    callback = KINDS[kind][0]()
    model = truth.linear_model(optimizer(), build_optimizer=mode != "default", **MODES[mode])
    fit(model, [callback])
    assert_updates_had(rates_of(kind), model, callback, optimizer)


@pytest.mark.slow
@pytest.mark.skipif(not TORCH, reason="other backends compile in a second, and are tested above")
@pytest.mark.parametrize("kind", KINDS)
def test_each_update_has_the_rate_of_its_formula_under_torch_compile(kind):
    callback = KINDS[kind][0]()
    model = truth.linear_model(sgd(), jit_compile=True)
    fit(model, [callback])
    assert_updates_had(rates_of(kind), model, callback)


@pytest.mark.parametrize("accumulation", [2, 3])  # 3 leaves a rest, and goes across the epochs
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_of_several_batches_counts_once(kind, accumulation):
    callback = KINDS[kind][0]()
    model = truth.linear_model(sgd(gradient_accumulation_steps=accumulation))
    fit(model, [callback])
    assert_updates_had(rates_of(kind, accumulation), model, callback, accumulation=accumulation)


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_under_loss_scaling(kind):
    callback = KINDS[kind][0]()
    optimizer = keras.optimizers.LossScaleOptimizer(adam(), initial_scale=8.0)
    model = truth.linear_model(optimizer)
    fit(model, [callback])
    assert_updates_had(rates_of(kind), model, callback, adam)


@pytest.mark.parametrize("kind", KINDS)
def test_updates_that_loss_scaling_skips_do_not_count_and_do_not_shift_epochs(kind):
    make, formula = KINDS[kind]
    callback = make()
    optimizer = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=8.0)
    model = truth.linear_model(optimizer)
    x, y = truth.data(BATCHES)
    x[16:18] = np.inf  # batch 8 of each epoch
    fit(model, [callback], x, y)
    finite = [g for i, g in enumerate(truth.gradients(x)) if i != 8] * EPOCHS
    epochs = np.concatenate([np.arange(BATCHES - 1) / BATCHES + epoch for epoch in range(EPOCHS)])
    rates = formula(np.arange(len(finite)), epochs)
    assert_same_weights(model, truth.apply_eagerly(sgd(), finite, rates))
    np.testing.assert_allclose(callback.history["learning_rate"], rates, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_may_be_longer_than_the_table(kind, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", 3)
    callback = KINDS[kind][0]()
    model = truth.linear_model(sgd())
    fit(model, [callback])
    assert_updates_had(rates_of(kind), model, callback)


@pytest.mark.parametrize("rows", [3, 4096])
def test_history_has_what_the_updates_had_and_is_not_computed_once_more(rows, monkeypatch):
    class Random(kdx.ExponentialLR):
        def _curves_for(self, fit, initial):
            rng = np.random.default_rng(0)  # another value in each call
            return {"learning_rate": lambda i: rng.uniform(0.01, 0.1, np.shape(i))}

    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", rows)
    model, callback = truth.linear_model(sgd()), Random(0.9)
    logs = fit(model, [callback]).history["learning_rate"]
    rates = callback.history["learning_rate"]
    assert len(set(rates)) == TOTAL
    assert logs == rates[BATCHES - 1 :: BATCHES]
    assert_updates_had(rates, model, callback)


@pytest.mark.parametrize("rows", [3, 4096])
def test_history_goes_back_with_an_optimizer_that_is_restored_in_mid_epoch(rows, tmp_path, monkeypatch):
    class Restore(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                self.model.save_weights(tmp_path / "model.weights.h5")
            if batch == 6:
                self.model.load_weights(tmp_path / "model.weights.h5")

    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", rows)
    callback = kdx.ExponentialLR(0.9)
    fit(truth.linear_model(sgd()), [callback, Restore()], epochs=1)
    expected = 0.05 * 0.9 ** np.arange(3 + BATCHES - 7)
    np.testing.assert_allclose(callback.history["learning_rate"], expected, rtol=1e-12)


# -- the formulas ---------------------------------------------------------------------------------------


def keras_rates(schedule):
    return np.array([float(keras.ops.convert_to_numpy(schedule(i))) for i in range(TOTAL)])


def change_at(*boundaries):
    """Return the rates that change at updates `boundaries`. Keras changes one later."""
    values = [0.05, 0.02, 0.08][: len(boundaries) + 1]
    return keras_rates(schedules.PiecewiseConstantDecay([b - 1 for b in boundaries], values))


def exponential(*arguments, **options):
    return kdx.ExponentialLR(decay_rate=0.5, **options), lambda: keras_rates(
        schedules.ExponentialDecay(0.05, *arguments, staircase=options.get("staircase", False))
    )


def power(steps, **options):
    return kdx.PowerLR(**options), lambda: keras_rates(schedules.InverseTimeDecay(0.05, steps, 1.0))


def piecewise(boundaries, at, **options):
    values = [0.05, 0.02, 0.08][: len(boundaries) + 1]
    return kdx.PiecewiseConstantLR(boundaries, values, **options), lambda: change_at(*at)


REFERENCES = {
    "steps": exponential(7, 0.5, decay_steps=7),
    "a float of steps": exponential(2.5, 0.5, decay_steps=2.5),
    "stairs of steps": exponential(7, 0.5, decay_steps=7, staircase=True),
    "epochs": exponential(10, 0.5, decay_epochs=1),
    "a float of epochs": exponential(15, 0.5, decay_epochs=1.5),
    "stairs of epochs": exponential(10, 0.5, decay_epochs=1, staircase=True),
    "stairs within epochs": exponential(5, 0.5, decay_epochs=0.5, staircase=True),
    # 0.1 * 10 and 0.3 / 0.1 are not exact in floats.
    "stairs of an update": exponential(1, 0.5, decay_epochs=0.1, staircase=True),
    "stairs of three updates": exponential(3, 0.5, decay_epochs=0.3, staircase=True),
    "power by steps": power(4, decay_steps=4),
    "power by epochs": power(10, decay_epochs=1),
    "power by a float of epochs": power(5, decay_epochs=0.5),
    "constant by updates": piecewise([3, 11], [3, 11], unit="update"),
    "constant by a float of updates": piecewise([3.5], [4], unit="update"),
    "constant by epochs": piecewise([1], [10]),
    "constant within epochs": piecewise([0.5, 1.5], [5, 15]),
    "constant from between two updates": piecewise([0.55, 1.01], [6, 11]),
    "constant by an inexact product": piecewise([0.7, 1.1], [7, 11]),
    "constant by an array": piecewise(np.array([0.3, 1.9]), [3, 19]),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_the_rates_are_those_of_the_schedule_of_keras(case):
    callback, reference = REFERENCES[case]
    # Without a fit: that what is to come is what a fit does, is tested below, with the plots.
    rates = callback._curves_for(FitToCome(TOTAL, BATCHES), lambda: 0.05)["learning_rate"](np.arange(TOTAL))
    # Keras computes in float32: exponents to 20 powers of 2, and a few roundings more.
    np.testing.assert_allclose(rates, reference(), rtol=(20 + 4) * EPS)


@pytest.mark.slow
def test_a_factor_is_the_gamma_of_torch():
    torch = pytest.importorskip("torch", reason="the reference is torch's ExponentialLR")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.05)
    reference = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    expected = []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    callback = kdx.ExponentialLR(0.9)
    fit(truth.linear_model(sgd()), [callback])
    # torch multiplies update by update, each with a rounding.
    np.testing.assert_allclose(callback.rates, expected, rtol=TOTAL * np.finfo(float).eps)


@pytest.mark.parametrize("batches", [3, 7, 10])
@pytest.mark.parametrize("boundary", [lambda k, n: k / n, lambda k, n: k * (1 / n)])
def test_a_boundary_at_each_update_of_an_epoch_gives_each_its_own_rate(boundary, batches):
    # `k / n * n` is below `k` for some, and `k * (1 / n)` above `k / n` for others.
    updates = range(1, 2 * batches)
    values = list(0.01 * np.arange(1, 2 * batches + 1))
    callback = kdx.PiecewiseConstantLR([boundary(k, batches) for k in updates], values)
    fit(truth.linear_model(sgd()), [callback], *truth.data(batches))
    assert callback.history["learning_rate"] == values


def test_a_boundary_at_the_very_first_update_leaves_out_the_first_value():
    for unit in ("epoch", "update"):
        callback = kdx.PiecewiseConstantLR([0], [0.5, 0.01], unit=unit)
        fit(truth.linear_model(sgd()), [callback], epochs=1)
        assert callback.history["learning_rate"] == [0.01] * BATCHES


@pytest.mark.slow
def test_no_boundary_and_a_boundary_past_the_end_are_a_constant_rate():
    for boundaries, values in (([], [0.25]), ([99], [0.25, 0.5])):
        callback = kdx.PiecewiseConstantLR(boundaries, values)
        model = truth.linear_model(sgd())
        fit(model, [callback])
        assert_updates_had(np.full(TOTAL, 0.25), model, callback)


def test_a_rate_of_zero_leaves_the_weights():
    model = truth.linear_model(keras.optimizers.SGD(0.1))
    fit(model, [kdx.PiecewiseConstantLR([1], [0.0, 0])])
    assert_same_weights(model, truth.initial_weights())


WITH_A_RATE = {
    "SGD": sgd,
    "Nesterov": lambda: sgd(nesterov=True),
    "decay": lambda: sgd(weight_decay=0.1),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.05, momentum=0.9),
    "Adam": adam,
    "AdamW": lambda: keras.optimizers.AdamW(0.05),
    "Nadam": lambda: keras.optimizers.Nadam(0.05),
    "Adamax": lambda: keras.optimizers.Adamax(0.05),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.05),
    "Adadelta": lambda: keras.optimizers.Adadelta(0.05),
    "Adafactor": lambda: keras.optimizers.Adafactor(0.05),
    "Lamb": lambda: keras.optimizers.Lamb(0.05),
    "Lion": lambda: keras.optimizers.Lion(0.05),
    "Muon": lambda: keras.optimizers.Muon(0.05),
}


@pytest.mark.parametrize("name", WITH_A_RATE)
def test_a_rate_of_exactly_0_in_some_updates_leaves_the_others_as_they_are(name):
    make, callback = WITH_A_RATE[name], kdx.PiecewiseConstantLR([3, 5], [0.05, 0, 0.02], unit="update")
    model = truth.linear_model(make())
    fit(model, [callback], epochs=1)
    rates = [0.05] * 3 + [0.0] * 2 + [0.02] * 5
    assert_updates_had(rates, model, callback, make, epochs=1)


@pytest.fixture
def restored_floatx():
    floatx = keras.config.floatx()
    yield
    keras.config.set_floatx(floatx)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "of_all"), [("float16", True), ("float16", False), ("bfloat16", False), ("float64", True)]
)
@pytest.mark.usefixtures("restored_floatx")
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX has float32 for it
def test_it_holds_for_weights_of_every_dtype(dtype, of_all):
    if of_all:
        keras.config.set_floatx(dtype)
    x, y = truth.data(BATCHES)
    gradients = [of_batch[0].astype("float64") for of_batch in truth.gradients(x) * EPOCHS]
    layer = keras.layers.Dense(truth.UNITS, kernel_initializer="ones", dtype=dtype)
    model = keras.Sequential([keras.Input((truth.FEATURES,)), layer])
    cycle = kdx.OneCycleScheduler(0.05)
    cases = {kind: (make(), rates_of(kind)) for kind, (make, _) in KINDS.items()}
    cases["OneCycleScheduler"] = cycle, kdx.OneCycle(0.05, TOTAL).curve(np.arange(TOTAL))
    epsilon = max(2.0**-24, {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, 0))
    for callback, rates in cases.values():
        model.compile(keras.optimizers.SGD(0.05), loss=truth.MeanOutput())
        layer.kernel.assign(truth.initial_weights()[0])
        monitor = kdx.GradientNormMonitor(on_problem="ignore")
        fit(model, [callback] if dtype == "float64" else [callback, monitor], x, y)
        np.testing.assert_allclose(callback.history["learning_rate"], rates, rtol=1e-12)
        expected = 1 - sum(rate * g for rate, g in zip(rates, gradients, strict=True))
        kernel = np.asarray(keras.ops.convert_to_numpy(layer.kernel), "float64")
        # In each update the rate, the product and the sum of numbers up to 1.1 are rounded.
        np.testing.assert_allclose(kernel, expected, rtol=0, atol=TOTAL * 2.5 * epsilon)
    assert (
        cases["ExponentialLR"][0].losses[0] == np.mean(x[:2] @ np.ones((truth.FEATURES, 1))) * truth.UNITS
    )


@pytest.mark.slow
def test_the_first_update_that_is_applied_in_an_epoch_has_its_rate():
    # Updates of 3 batches are applied at batches 2, 5, 8, 11, 14 and 17, epoch 1 begins at batch 10.
    for boundary, changes_at in ((1, 3), (0.5, 1), (0.6, 2)):
        callback = kdx.PiecewiseConstantLR([boundary], [0.1, 0.01])
        model = truth.linear_model(sgd(gradient_accumulation_steps=3))
        fit(model, [callback])
        rates = [0.1] * changes_at + [0.01] * (6 - changes_at)
        assert_updates_had(rates, model, callback, accumulation=3)


def test_a_fit_that_begins_inside_an_update_has_its_epochs_right():
    # The first fit leaves 1 batch of 10: the second applies its updates at its batches 1, 4 and 7.
    callback = kdx.PiecewiseConstantLR([0.5], [0.1, 0.01])
    model = truth.linear_model(sgd(gradient_accumulation_steps=3))
    fit(model, [callback], epochs=1)
    assert callback.history["learning_rate"] == [0.1, 0.01, 0.01]
    fit(model, [callback], epochs=1)
    assert callback.history["learning_rate"] == [0.1, 0.1, 0.01]
    x, _ = truth.data(BATCHES)
    gradients = truth.accumulated(truth.gradients(x) * 2, 3)
    rates = [0.1, 0.01, 0.01, 0.1, 0.1, 0.01]
    assert_same_weights(model, truth.apply_eagerly(sgd(), gradients, rates))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_epochs_of_unknown_length_change_the_rate_where_they_begin(accumulation):
    callback = kdx.PiecewiseConstantLR([1, 2], [0.05, 0.02, 0.08])
    steps = accumulation if accumulation > 1 else None
    model = truth.linear_model(sgd(gradient_accumulation_steps=steps))
    fit(model, [callback], of_unknown_length(), None, batch_size=None, epochs=3)
    rates = [0.05] * 10 + [0.02] * 10 + [0.08] * 10
    assert_updates_had(rates[accumulation - 1 :: accumulation], model, callback, sgd, accumulation, 3)


def of_unknown_length():
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices(truth.data(BATCHES)).batch(2)
    return dataset.filter(lambda x, y: True)


# -- the loss of each batch ------------------------------------------------------------------------------


def batch_losses(rates, x=None, *, batch_size=2, accumulation=1, l2=0.0, weights=None, epochs=EPOCHS):
    """Return the losses of plain SGD, in float64: the output of a linear layer is its own closed form."""
    if x is None:
        x, _ = truth.data(BATCHES)
    weights = np.ones(len(x)) if weights is None else weights
    kernel, bias = (w.astype("float64") for w in truth.initial_weights())
    losses, waiting = [], []
    for start in list(range(0, len(x), batch_size)) * epochs:
        rows = slice(start, start + batch_size)
        mean = np.average(x[rows].astype("float64") * weights[rows, None], axis=0)
        weight = weights[rows].mean()
        loss = mean @ kernel.sum(axis=1) + weight * bias.sum()
        losses.append(loss + l2 * np.square(kernel).sum())
        waiting.append((mean[:, None] + 2 * l2 * kernel, weight))
        if len(waiting) == accumulation:
            rate = rates[len(losses) // accumulation - 1]
            kernel = kernel - rate * np.mean([k for k, _ in waiting], axis=0)
            bias = bias - rate * np.mean([b for _, b in waiting])
            waiting = []
    return losses


def assert_losses(callback, expected):
    assert len(callback.losses) == len(expected)
    assert {type(loss) for loss in callback.losses} == {float}
    # Weights carry up to 30 updates of 3 roundings; the loss sums 8 products of theirs with inputs below 2,
    # in which the largest number is the first loss.
    bound = (30 * 3 + 8) * EPS / 2 * np.max(np.abs(expected))
    np.testing.assert_allclose(callback.losses, expected, rtol=0, atol=bound)


RISING = 0.001 * 1.2 ** np.arange(30.0)


def range_test():
    return kdx.ExponentialLR(1.2, initial_learning_rate=0.001)


def plain_sgd(**arguments):
    return keras.optimizers.SGD(0.5, **arguments)


@pytest.mark.parametrize(("mode", "most_rows"), [*((mode, 4) for mode in HERE), ("default", 4096)])
def test_the_losses_are_those_of_each_batch_itself(mode, most_rows, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", most_rows)
    callback = range_test()
    fit(truth.linear_model(plain_sgd(), **MODES[mode]), [callback])
    assert_losses(callback, batch_losses(RISING))
    np.testing.assert_allclose(callback.rates, RISING[:TOTAL], rtol=1e-12)


@pytest.mark.parametrize(("accumulation", "most_rows"), [(2, 4), (3, 4), (3, 4096)])
def test_each_batch_of_an_update_has_its_loss(accumulation, most_rows, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", most_rows)
    callback = range_test()
    fit(truth.linear_model(plain_sgd(gradient_accumulation_steps=accumulation)), [callback])
    assert_losses(callback, batch_losses(RISING, accumulation=accumulation))
    assert len(callback.rates) == TOTAL // accumulation


def test_an_odd_last_batch_has_its_own_loss():
    callback = range_test()
    x, y = truth.data(BATCHES)
    history = fit(truth.linear_model(plain_sgd()), [callback], x[:-1], y[:-1])
    expected = batch_losses(RISING, x[:-1])
    assert_losses(callback, expected)
    means = np.average(np.reshape(expected, (EPOCHS, -1)), axis=1, weights=[2] * 9 + [1])
    # What Keras logs is a sum in float32 of 10 losses.
    np.testing.assert_allclose(history.history["loss"], means, rtol=0, atol=110 * EPS * expected[0])


def test_data_of_unknown_length_has_as_many_losses_as_batches():
    callback = range_test()
    fit(truth.linear_model(plain_sgd()), [callback], of_unknown_length(), None, batch_size=None)
    assert_losses(callback, batch_losses(RISING))


def test_the_loss_has_the_regularization_in_it():
    callback = range_test()
    layer = truth.dense()
    layer.kernel_regularizer = keras.regularizers.L2(0.125)
    model = keras.Sequential([keras.Input((truth.FEATURES,)), layer])
    model.compile(plain_sgd(), loss=truth.MeanOutput())
    fit(model, [callback])
    assert_losses(callback, batch_losses(RISING, l2=0.125))


def test_the_loss_is_weighted_as_the_samples_are():
    callback = range_test()
    x, y = truth.data(BATCHES)
    weights = np.tile([0.5, 2.0, 0.0, 1.0, 4.0], len(x) // 5)
    fit(truth.linear_model(plain_sgd()), [callback], x, y, sample_weight=weights)
    assert_losses(callback, batch_losses(RISING, weights=weights))


def test_the_loss_is_not_that_of_the_scaled_gradient():
    callback = range_test()
    optimizer = keras.optimizers.LossScaleOptimizer(plain_sgd(), initial_scale=8.0)
    fit(truth.linear_model(optimizer), [callback])
    assert_losses(callback, batch_losses(RISING))


def test_a_batch_that_loss_scaling_skips_has_a_loss():
    callback = range_test()
    optimizer = keras.optimizers.LossScaleOptimizer(plain_sgd(), initial_scale=8.0)
    x, y = truth.data(BATCHES)
    x[8:10] = np.inf
    fit(truth.linear_model(optimizer), [callback], x, y, epochs=1)
    assert callback.losses[4] == np.inf
    del callback.losses[4]
    assert_losses(callback, batch_losses(RISING, np.delete(x, [8, 9], axis=0), epochs=1))


class OwnStep(keras.Model):
    """Trains by a step of its own, that tells its loss in a way that subclasses choose."""

    def __init__(self):
        super().__init__()
        self.linear = truth.dense()

    def call(self, x):
        return self.linear(x)

    def told(self, loss):
        return {"loss": loss}

    def jax_told(self, loss, metrics):
        return {"loss": loss}, metrics

    def train_step(self, *arguments):
        if BACKEND == "jax":
            return self.jax_step(*arguments)
        ((x, y),) = arguments
        weights = self.trainable_weights
        if TORCH:
            self.zero_grad()
            loss = self.compute_loss(x, y, self(x, training=True))
            loss.backward()
            gradients = [v.value.grad for v in weights]
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            gradients = tape.gradient(loss, weights)
        self.optimizer.apply(gradients, weights)
        return self.told(loss)

    def jax_step(self, state, data):
        import jax

        (weights, others, slots, metrics), (x, y) = state, data

        def loss_of(weights):
            outputs, _ = self.stateless_call(weights, others, x)
            return self.compute_loss(x, y, outputs)

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        weights, slots = self.optimizer.stateless_apply(slots, gradients, weights)
        logs, metrics = self.jax_told(loss, metrics)
        return logs, (weights, others, slots, metrics)


class WithOwnMetric(OwnStep):
    called = "loss"

    def __init__(self):
        super().__init__()
        self.mean = keras.metrics.Mean(name=self.called)

    @property
    def metrics(self):
        return [self.mean]

    def told(self, loss):
        self.mean.update_state(loss)
        return {"loss": self.mean.result()}

    def jax_told(self, loss, metrics):
        metrics = self.mean.stateless_update_state(metrics, loss)
        return {"loss": self.mean.stateless_result(metrics)}, metrics


class WithOtherMetric(WithOwnMetric):
    """Returns as `loss` the mean so far of a metric of another name."""

    called = "total_loss"


class WithLossOfEachSample(WithOwnMetric):
    """Tells several losses at a time, with weights: their mean is the loss of the batch."""

    def parts(self, loss):
        return keras.ops.stack([loss * 0.5, loss * 2.5]), np.array([3.0, 1.0], "float32")

    def told(self, loss):
        self.mean.update_state(*self.parts(loss))
        return {"loss": self.mean.result()}

    def jax_told(self, loss, metrics):
        metrics = self.mean.stateless_update_state(metrics, *self.parts(loss))
        return {"loss": self.mean.stateless_result(metrics)}, metrics


class Silent(OwnStep):
    def told(self, loss):
        return {"cost": loss}

    def jax_told(self, loss, metrics):
        return {"cost": loss}, metrics


@pytest.mark.parametrize("kind", [OwnStep, WithOwnMetric, WithOtherMetric, WithLossOfEachSample])
def test_a_train_step_of_the_users_tells_its_loss(kind):
    callback = range_test()
    model = kind()
    model.compile(plain_sgd(), loss=truth.MeanOutput())
    fit(model, [callback])
    assert_losses(callback, batch_losses(RISING))


def test_a_train_step_that_tells_no_loss_is_refused():
    model = Silent()
    model.compile(plain_sgd(), loss=truth.MeanOutput())
    with pytest.raises(RuntimeError, match=r"(?s)tells no loss.*Received: model="):
        fit(model, [range_test()])
    # A new model: on JAX no fit of Keras's own goes on after an exception in the first step.
    model = Silent()
    model.compile(plain_sgd(), loss=truth.MeanOutput())
    fit(model, [kdx.PowerLR(decay_steps=2)])


@pytest.mark.slow
def test_the_loss_that_fit_logs_is_still_the_mean_of_its_batches():
    callback = range_test()
    model = truth.linear_model(plain_sgd())
    history = fit(model, [callback]).history
    means = np.mean(np.reshape(batch_losses(RISING), (EPOCHS, BATCHES)), axis=1)
    np.testing.assert_allclose(history["loss"], means, rtol=0, atol=110 * EPS * callback.losses[0])
    plain = truth.linear_model(plain_sgd())
    constant = fit(plain, []).history
    kept = fit(truth.linear_model(plain_sgd()), [kdx.ExponentialLR(1.0)]).history
    np.testing.assert_allclose(kept["loss"], constant["loss"], rtol=4 * EPS)


def test_the_metrics_have_their_own_methods_again():
    model = truth.linear_model(plain_sgd())
    fit(model, [range_test()])
    assert "update_state" not in vars(model._loss_tracker)
    assert "train_step" not in vars(model)


@pytest.mark.slow
def test_a_second_fit_starts_the_records_again():
    callback = range_test()
    for _ in range(2):
        model = truth.linear_model(plain_sgd())
        fit(model, [callback])
        assert_losses(callback, batch_losses(RISING))
        assert len(callback.rates) == TOTAL
    losses = list(callback.losses)
    model.set_weights(truth.initial_weights())
    fit(model, [callback])
    np.testing.assert_array_equal(callback.losses, losses)


class StopIn(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == 4


def test_a_fit_that_is_stopped_in_mid_epoch_has_records_of_what_it_did():
    callback = range_test()
    fit(truth.linear_model(plain_sgd()), [callback, StopIn()])
    assert_losses(callback, batch_losses(RISING)[:5])
    np.testing.assert_allclose(callback.rates, RISING[:5], rtol=1e-12)


def test_losses_that_are_not_finite_are_recorded_as_they_are():
    callback = kdx.ExponentialLR(1e10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        fit(truth.linear_model(plain_sgd()), [callback], epochs=1)
    assert len(callback.losses) == BATCHES
    assert not np.isfinite(callback.losses[-1])


# -- the rate to begin with, and resuming ----------------------------------------------------------------


def deep_model():
    """A model with what makes resuming hard: slots, BatchNormalization statistics."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((truth.FEATURES,)),
            keras.layers.Dense(4, activation="elu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(truth.UNITS),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), loss="mse")
    return model


def fit_deep(model, callbacks, **arguments):
    x, _ = truth.data(5)
    return fit(model, callbacks, x, x[:, : truth.UNITS] * 2, **{"epochs": 4} | arguments)


def assert_equal_states(model, other):
    pairs = zip(
        [*model.variables, *model.optimizer.variables],
        [*other.variables, *other.optimizer.variables],
        strict=True,
    )
    for variable, expected in pairs:
        values = keras.ops.convert_to_numpy(variable), keras.ops.convert_to_numpy(expected)
        np.testing.assert_array_equal(*values)


class StopAt(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise ArithmeticError("stopped by the test")


RESUMED = {
    "ExponentialLR": lambda: kdx.ExponentialLR(0.9),
    "stairs of epochs": lambda: kdx.ExponentialLR(decay_rate=0.5, decay_epochs=0.6, staircase=True),
    "PowerLR": lambda: kdx.PowerLR(decay_epochs=1.5),
    "PiecewiseConstantLR": lambda: kdx.PiecewiseConstantLR([1, 2.4], [0.05, 0.02, 0.08]),
}


@pytest.fixture(scope="module")
def whole():
    """Return, by name, the models and callbacks of uninterrupted runs, made when first asked for."""
    made = {}

    def run(name):
        if name not in made:
            made[name] = deep_model(), RESUMED[name]()
            fit_deep(made[name][0], [made[name][1]])
        return made[name]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ours_first"),
    [("ExponentialLR", True), ("PowerLR", False), ("PiecewiseConstantLR", True)],
)
def test_a_new_model_that_backup_and_restore_resumes_goes_on_in_the_curve(
    name, ours_first, tmp_path, whole
):
    def callbacks(*others):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        ours = RESUMED[name]()
        return [*others, ours, backup] if ours_first else [*others, backup, ours]

    with pytest.raises(ArithmeticError):
        fit_deep(deep_model(), callbacks(StopAt(2, 3)))
    resumed = deep_model()
    fit_deep(resumed, callbacks())
    assert_equal_states(resumed, whole(name)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("same_callback", "ours_first"), [(True, True), (False, False), (True, False)])
def test_the_same_model_that_backup_and_restore_resumes_goes_on_in_the_curve(
    same_callback, ours_first, tmp_path, whole
):
    def callbacks(ours):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [ours, backup] if ours_first else [backup, ours]

    model, ours = deep_model(), RESUMED["ExponentialLR"]()
    with pytest.raises(ArithmeticError):
        fit_deep(model, [*callbacks(ours), StopAt(2, 3)])
    ours = ours if same_callback else RESUMED["ExponentialLR"]()
    fit_deep(model, callbacks(ours))
    assert_equal_states(model, whole("ExponentialLR")[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stairs of epochs", "PowerLR"])
def test_the_same_callback_goes_on_in_a_fit_from_a_later_epoch(name, whole):
    model, callback = deep_model(), RESUMED[name]()
    fit_deep(model, [callback], epochs=2)
    fit_deep(model, [callback], initial_epoch=2)
    assert_equal_states(model, whole(name)[0])
    assert callback.history["learning_rate"] == whole(name)[1].history["learning_rate"][10:]


@pytest.mark.slow
def test_the_same_callback_goes_on_epoch_by_epoch(whole):
    model, callback = deep_model(), RESUMED["ExponentialLR"]()
    for first, last in ((0, 1), (1, 2), (2, 4)):
        fit_deep(model, [callback], initial_epoch=first, epochs=last)
    assert_equal_states(model, whole("ExponentialLR")[0])


@pytest.mark.slow
def test_a_model_from_a_file_needs_to_be_told_the_rate_that_training_began_with(tmp_path, whole):
    def callback(**arguments):
        return kdx.ExponentialLR(0.9, **arguments)

    cut = deep_model()
    fit_deep(cut, [callback()], epochs=2)
    cut.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    for _ in range(2):  # the first refusal leaves nothing behind that the second would take for an answer
        with pytest.raises(
            ValueError, match=r"(?s)initial_learning_rate.*Received: initial_learning_rate=None"
        ):
            fit_deep(resumed, [callback()], initial_epoch=2)
        assert_equal_states(resumed, cut)
    fit_deep(resumed, [callback(initial_learning_rate=0.05)], initial_epoch=2)
    assert_equal_states(resumed, whole("ExponentialLR")[0])


@pytest.mark.slow
def test_what_needs_no_rate_to_begin_with_goes_on_from_a_file(tmp_path, whole):
    cut = deep_model()
    fit_deep(cut, [RESUMED["PiecewiseConstantLR"]()], epochs=2)
    cut.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    fit_deep(resumed, [RESUMED["PiecewiseConstantLR"]()], initial_epoch=2)
    assert_equal_states(resumed, whole("PiecewiseConstantLR")[0])


@pytest.mark.parametrize("same", [True, False])
def test_a_second_fit_begins_with_the_rate_that_the_first_ended_with(same):
    model = truth.linear_model(sgd())
    first = kdx.ExponentialLR(0.9)
    fit(model, [first])
    last = float(np.float32(first.rates[-1]))
    second = first if same else kdx.ExponentialLR(0.9)
    fit(model, [second])
    # The optimizer's rate is a float32, read back as the decimal number that is nearest to it.
    np.testing.assert_allclose(second.rates, last * 0.9 ** np.arange(TOTAL), rtol=EPS)


@pytest.mark.parametrize("same", [True, False])
def test_a_rate_that_is_set_between_two_fits_is_respected(same):
    model = truth.linear_model(sgd())
    first = kdx.ExponentialLR(0.9)
    fit(model, [first])
    model.optimizer.learning_rate = 0.02
    second = first if same else kdx.ExponentialLR(0.9)
    fit(model, [second])
    np.testing.assert_allclose(second.rates, 0.02 * 0.9 ** np.arange(TOTAL), rtol=1e-12)


def test_a_rate_that_is_set_before_a_fit_goes_on_is_not_overlooked():
    model, callback = truth.linear_model(sgd()), kdx.ExponentialLR(0.9)
    fit(model, [callback], epochs=1)
    model.optimizer.learning_rate = 0.02
    with pytest.raises(ValueError, match="initial_learning_rate"):
        fit(model, [callback], initial_epoch=1)


def test_a_given_rate_to_begin_with_is_that_of_every_fit():
    model = truth.linear_model(sgd())
    for callback in [kdx.PowerLR(decay_steps=4, initial_learning_rate=0.3)] * 2:
        fit(model, [callback])
        rates = 0.3 / (1 + np.arange(TOTAL) / 4)
        np.testing.assert_allclose(callback.history["learning_rate"], rates, rtol=1e-12)


def test_the_rate_to_begin_with_is_the_decimal_number_that_the_optimizer_was_given():
    callback = kdx.ExponentialLR(0.5)
    fit(truth.linear_model(keras.optimizers.SGD(0.1)), [callback], epochs=1)
    assert callback.rates[:2] == [0.1, 0.05]


def pickled(callback):
    return pickle.loads(pickle.dumps(callback))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "copy_of"),
    [
        *(("ExponentialLR", copy.deepcopy), ("PowerLR", pickled)),
        *(("PiecewiseConstantLR", pickled), ("OneCycleScheduler", copy.deepcopy)),
    ],
)
def test_a_copy_of_a_callback_trains_like_it_and_does_not_hold_the_model(name, copy_of):
    callback = OURS[name]() if name not in KINDS else KINDS[name][0]()
    before, again = copy_of(callback), truth.linear_model(sgd())
    fit(again, [callback])
    after = copy_of(callback)  # as Keras Tuner takes them, before or after
    assert after.history == callback.history
    assert after.model is None
    for copied in (before, after):
        assert copied.get_config() == callback.get_config()
        model = truth.linear_model(sgd())
        fit(model, [copied])
        assert copied.history == callback.history
        assert_same_weights(model, again.get_weights())


# -- refusals ------------------------------------------------------------------------------------------

OURS = {
    "OneCycleScheduler": lambda: kdx.OneCycleScheduler(0.1),
    "ExponentialLR": lambda: kdx.ExponentialLR(0.9),
    "PowerLR": lambda: kdx.PowerLR(decay_steps=4),
    "PiecewiseConstantLR": lambda: kdx.PiecewiseConstantLR([1], [0.1, 0.01]),
}
KERAS_OWN = {
    "ReduceLROnPlateau": lambda: keras.callbacks.ReduceLROnPlateau("loss"),
    "LearningRateScheduler": lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.5),
}


def assert_refused(model, callbacks, message, *data, **arguments):
    before = vars(model.optimizer).keys(), json.dumps(model.optimizer.get_config(), default=str)
    with pytest.raises(ValueError, match=message):
        fit(model, callbacks, *data, **arguments)
    assert (vars(model.optimizer).keys(), json.dumps(model.optimizer.get_config(), default=str)) == before
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0
    for weight, value in zip(model.get_weights(), truth.initial_weights(), strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("other", [*OURS, *KERAS_OWN])
@pytest.mark.parametrize("name", OURS)
def test_two_callbacks_that_write_the_rate_are_refused_and_both_named(name, other):
    message = f"(?s)(?=.*`{name}`)(?=.*`{other}`).*Received: callbacks="
    model = truth.linear_model(sgd())
    for order in (1, -1):
        pair = [OURS[name](), (OURS | KERAS_OWN)[other]()]
        assert_refused(model, pair[::order], message)


@pytest.mark.parametrize("name", OURS)
def test_a_schedule_in_the_optimizer_is_refused_and_both_named(name):
    for schedule in (schedules.ExponentialDecay(0.1, 10, 0.9), kdx.PowerDecay(0.1, 10), kdx.Warmup(0.1, 5)):
        model = truth.linear_model(keras.optimizers.SGD(schedule))
        message = f"(?s)`{name}`.*`{type(schedule).__name__}`.*Received: learning_rate="
        assert_refused(model, [OURS[name]()], message)


@pytest.mark.parametrize("name", OURS)
def test_the_same_callback_twice_is_refused(name):
    callback = OURS[name]()
    model = truth.linear_model(sgd())
    assert_refused(model, [callback, callback], f"`{name}` is listed twice")


def endless_batches():
    while True:
        yield truth.data(1)


NEEDS_LENGTH = {
    "ExponentialLR": (lambda: kdx.ExponentialLR(decay_rate=0.5, decay_epochs=1), "decay_steps"),
    "PowerLR": (lambda: kdx.PowerLR(decay_epochs=1), "decay_steps"),
    "PiecewiseConstantLR": (lambda: kdx.PiecewiseConstantLR([1, 1.5], [1, 2, 3]), "whole epochs"),
}


@pytest.mark.parametrize("name", NEEDS_LENGTH)
def test_an_unknown_length_of_an_epoch_is_refused_where_it_is_needed(name):
    make, remedy = NEEDS_LENGTH[name]
    model = truth.linear_model(sgd())
    message = f"(?s)`{name}`.*`steps_per_epoch`.*{remedy}.*Received: steps_per_epoch=None"
    assert_refused(model, [make()], message, endless_batches(), None, batch_size=None)
    fit(model, [make()], endless_batches(), None, batch_size=None, steps_per_epoch=3)


@pytest.mark.parametrize("name", ["ExponentialLR", "PowerLR", "PiecewiseConstantLR"])
def test_a_model_that_is_not_compiled_is_refused(name):
    callback = OURS[name]()
    callback.set_model(keras.Sequential([truth.dense()]))
    with pytest.raises(ValueError, match="optimizer"):
        callback.on_train_begin()


NUMBERS = [
    (0, ValueError),
    (-1.0, ValueError),
    (float("nan"), ValueError),
    ("1", TypeError),
    (True, TypeError),
]
NOT_IN_FLOAT32 = [(1e39, ValueError), (1e-46, ValueError)]
BAD_ARGUMENTS = [
    *((kdx.ExponentialLR, "factor", {}, *bad) for bad in NUMBERS),
    *((kdx.ExponentialLR, "decay_rate", {"decay_steps": 5}, *bad) for bad in NUMBERS),
    *((kdx.ExponentialLR, "decay_steps", {"decay_rate": 0.5}, *bad) for bad in NUMBERS),
    *((kdx.ExponentialLR, "decay_epochs", {"decay_rate": 0.5}, *bad) for bad in NUMBERS),
    *((kdx.ExponentialLR, "initial_learning_rate", {"factor": 0.5}, *bad) for bad in NUMBERS),
    *((kdx.PowerLR, "decay_steps", {}, *bad) for bad in NUMBERS),
    *((kdx.PowerLR, "decay_epochs", {}, *bad) for bad in NUMBERS),
    *((kdx.PowerLR, "power", {"decay_steps": 5}, *bad) for bad in NUMBERS[1:]),
    *((kdx.PowerLR, "initial_learning_rate", {"decay_steps": 5}, *bad) for bad in NUMBERS),
    *((kdx.ExponentialLR, "factor", {}, *bad) for bad in NOT_IN_FLOAT32),
    *((kdx.ExponentialLR, "initial_learning_rate", {"factor": 0.5}, *bad) for bad in NOT_IN_FLOAT32),
    *((kdx.PowerLR, "decay_epochs", {}, *bad) for bad in NOT_IN_FLOAT32),
    (kdx.PiecewiseConstantLR, "values", {"boundaries": [1]}, [0.1, 1e39], ValueError),
    (kdx.ExponentialLR, "staircase", {"decay_rate": 0.5, "decay_steps": 5}, 1, TypeError),
    (kdx.ExponentialLR, "verbose", {"factor": 0.5}, "yes", TypeError),
    (kdx.ExponentialLR, "decay_steps", {"factor": 0.5}, 5, ValueError),
    (kdx.ExponentialLR, "decay_epochs", {"factor": 0.5}, 5, ValueError),
    (kdx.ExponentialLR, "factor", {"decay_rate": 0.5, "decay_steps": 5}, 0.5, ValueError),
    (kdx.ExponentialLR, "factor", {}, None, ValueError),
    (kdx.ExponentialLR, "decay_steps", {"decay_rate": 0.5}, None, ValueError),
    (kdx.ExponentialLR, "decay_steps", {"decay_rate": 0.5, "decay_epochs": 1}, 5, ValueError),
    (kdx.PowerLR, "decay_steps", {}, None, ValueError),
    (kdx.PowerLR, "decay_steps", {"decay_epochs": 1}, 5, ValueError),
    *(
        (kdx.PiecewiseConstantLR, "boundaries", {"values": [0.1, 0.2, 0.3]}, *bad)
        for bad in [
            ([2, 1], ValueError),
            ([1, 1], ValueError),
            ([1], ValueError),
            ([1, 2, 3], ValueError),
            ([-1, 2], ValueError),
            ([1, float("nan")], ValueError),
            ([1, float("inf")], ValueError),
            ([1, "2"], TypeError),
            (1, TypeError),
            ("12", TypeError),
            (None, TypeError),
        ]
    ),
    *(
        (kdx.PiecewiseConstantLR, "values", {"boundaries": [1, 2]}, *bad)
        for bad in [
            ([0.1, 0.2], ValueError),
            ([0.1, 0.2, -0.3], ValueError),
            ([0.1, 0.2, float("nan")], ValueError),
            ([0.1, 0.2, None], TypeError),
            (0.1, TypeError),
        ]
    ),
    (kdx.PiecewiseConstantLR, "unit", {"boundaries": [1], "values": [1, 2]}, "epochs", ValueError),
    (kdx.PiecewiseConstantLR, "unit", {"boundaries": [1], "values": [1, 2]}, None, TypeError),
]


@pytest.mark.parametrize(("kind", "name", "others", "value", "error"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_and_named(kind, name, others, value, error):
    with pytest.raises(error, match=rf"(?s)`?{name}.*Received: .*{name}(\[\d\])?="):
        kind(**others, **{name: value})


# -- logs and warnings -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_epoch_logs_have_plain_floats_of_the_last_update(kind):
    for optimizer, momentum in ((adam(), 0.9), (keras.optimizers.SGD(0.05), None)):
        history = fit(truth.linear_model(optimizer), [KINDS[kind][0]()]).history
        np.testing.assert_allclose(
            history["learning_rate"], rates_of(kind)[BATCHES - 1 :: BATCHES], rtol=1e-12
        )
        assert {type(rate) for rate in history["learning_rate"]} == {float}
        assert history.get("momentum") == (None if momentum is None else [momentum] * EPOCHS)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_end_the_rate_is_the_last_one_used(kind):
    model = truth.linear_model(sgd())
    fit(model, [KINDS[kind][0]()])
    assert np.float32(model.optimizer.get_config()["learning_rate"]) == np.float32(rates_of(kind)[-1])
    assert model.optimizer.get_config()["momentum"] == 0.9


@pytest.mark.parametrize("make", [range_test, lambda: kdx.ExponentialLR(1e-3)])
def test_rows_of_the_table_that_no_update_reaches_give_no_warning(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        callback = make()
        fit(truth.linear_model(plain_sgd()), [callback])
    assert np.isfinite(callback.history["learning_rate"]).all()


def test_verbose_tells_the_rate_after_each_epoch(capsys):
    fit(truth.linear_model(plain_sgd()), [kdx.PiecewiseConstantLR([1], [0.25, 0.125], verbose=1)])
    printed = capsys.readouterr().out
    assert "Epoch 1: PiecewiseConstantLR ended at learning rate 0.25." in printed
    assert "Epoch 2: PiecewiseConstantLR ended at learning rate 0.125." in printed


# -- plots ---------------------------------------------------------------------------------------------


def drawn(ax):
    (line,) = (line for line in ax.lines if line.get_label() == "learning rate")
    return line.get_ydata()


TO_COME = {
    "ExponentialLR": kdx.ExponentialLR(0.5, initial_learning_rate=0.05),
    "by epochs": kdx.ExponentialLR(decay_rate=0.1, decay_epochs=1.5, initial_learning_rate=0.05),
    "stairs": kdx.ExponentialLR(
        decay_rate=0.5, decay_epochs=0.3, staircase=True, initial_learning_rate=0.05
    ),
    "PowerLR": kdx.PowerLR(decay_epochs=0.5, initial_learning_rate=0.05),
    "PiecewiseConstantLR": kdx.PiecewiseConstantLR([0.7, 1.1], [0.05, 0.5, 0.005]),
}


@pytest.mark.parametrize("name", TO_COME)
def test_plot_before_fit_draws_what_a_fit_then_does(name, pyplot):
    callback = TO_COME[name]
    before = callback.plot(epochs=EPOCHS, steps_per_epoch=BATCHES)
    fit(truth.linear_model(plain_sgd()), [callback])
    _, ax = pyplot.subplots()
    assert callback.plot(ax) is ax
    np.testing.assert_allclose(drawn(ax), callback.history["learning_rate"], rtol=1e-15)
    np.testing.assert_allclose(drawn(before), drawn(ax), rtol=1e-12)
    assert before.get_yscale() == ax.get_yscale() == "log"


def test_rates_that_a_logarithm_cannot_show_are_drawn_on_a_linear_axis(pyplot):
    steps = kdx.PiecewiseConstantLR([1], [0.0, 0.1])
    assert steps.plot(epochs=2, steps_per_epoch=3).get_yscale() == "linear"
    assert list(drawn(steps.plot(epochs=2, steps_per_epoch=3))) == [0, 0, 0, 0.1, 0.1, 0.1]


def test_plot_before_fit_needs_the_rate_to_begin_with_and_the_length():
    for callback in (kdx.ExponentialLR(0.5), kdx.PowerLR(decay_epochs=1)):
        with pytest.raises(
            ValueError, match=r"(?s)initial_learning_rate.*Received: initial_learning_rate=None"
        ):
            callback.plot(epochs=2, steps_per_epoch=10)
    for callback in TO_COME.values():
        callback = type(callback).from_config(callback.get_config())
        for arguments in ({}, {"epochs": 2}, {"steps_per_epoch": 10}):
            with pytest.raises(ValueError, match=r"(?s)steps_per_epoch.*Received: epochs="):
                callback.plot(**arguments)
        with pytest.raises(ValueError, match="Received: epochs=0"):
            callback.plot(epochs=0, steps_per_epoch=10)
