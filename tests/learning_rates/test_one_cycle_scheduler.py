"""OneCycle and OneCycleScheduler: against torch, and against what the weights show."""

import csv
import itertools
import json
import sys
import warnings

import keras
import numpy as np
import pytest
import truth

import keras_dnn_extras as kdx

TORCH = keras.backend.backend() == "torch"
BATCHES, EPOCHS = 13, 2

OPTIMIZERS = {
    "SGD": lambda **k: keras.optimizers.SGD(0.01, momentum=0.9, **k),
    "Nesterov": lambda **k: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, **k),
    "RMSprop": lambda **k: keras.optimizers.RMSprop(0.01, momentum=0.9, **k),
    "centered RMSprop": lambda **k: keras.optimizers.RMSprop(0.01, momentum=0.9, centered=True, **k),
    "Adam": lambda **k: keras.optimizers.Adam(0.01, **k),
    "AMSGrad": lambda **k: keras.optimizers.Adam(0.01, amsgrad=True, **k),
    "AdamW": lambda **k: keras.optimizers.AdamW(0.01, **k),
    "Nadam": lambda **k: keras.optimizers.Nadam(0.01, **k),
    "Adamax": lambda **k: keras.optimizers.Adamax(0.01, **k),
    "Lamb": lambda **k: keras.optimizers.Lamb(0.01, **k),
    "Lion": lambda **k: keras.optimizers.Lion(0.01, **k),
    "Muon": lambda **k: keras.optimizers.Muon(0.01, **k),
}
MODES = {
    "default": {},
    "jit_compile": {"jit_compile": True},
    "run_eagerly": {"run_eagerly": True},
    "steps_per_execution 4": {"steps_per_execution": 4},
    "steps_per_execution 3": {"steps_per_execution": 3},
}
# `torch.compile` takes most of a minute, and Keras refuses to group steps on torch.
HERE = [m for m in MODES if not (TORCH and (m.startswith("steps") or m == "jit_compile"))]
SETTINGS = {
    "accumulation 2": {"gradient_accumulation_steps": 2},
    "accumulation 3, with a rest": {"gradient_accumulation_steps": 3},
    "clipnorm": {"clipnorm": 0.1},
    "clipvalue": {"clipvalue": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "weight decay": {"weight_decay": 0.1},
    "moving average": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
    "loss scale": {"loss_scale_factor": 8.0},
}


def cycle(**arguments):
    """A cycle in which each update has its own learning rate, and all but few a momentum of its own."""
    return kdx.OneCycleScheduler(0.05, **{"warmup_fraction": 0.3, "anneal": "cosine"} | arguments)


def curves(callback, total):
    """Return the learning rates and momenta of `total` updates by the schedule's own definition.

    The momentum is the cycle of a rate between 0 and 1, turned round.
    """
    config = callback.get_config()
    for name in ("update_freq", "verbose", "cycle_momentum", "base_momentum", "max_momentum"):
        config.pop(name)
    config["total_steps"] = total
    rates = kdx.OneCycle(**config).curve(np.arange(total))
    config |= {"max_learning_rate": 1.0, "div_factor": 1e12, "final_div_factor": 1.0}
    share = kdx.OneCycle(**config).curve(np.arange(total))
    return rates, callback.max_momentum + (callback.base_momentum - callback.max_momentum) * share


def fit(model, callbacks, x=None, y=None, **arguments):
    if x is None:
        x, y = truth.data(BATCHES)
    defaults = {"batch_size": 2, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    return model.fit(x, y, callbacks=callbacks, **defaults | arguments)


def expected_weights(optimizer, callback, accumulation=1):
    x, _ = truth.data(BATCHES)
    gradients = truth.accumulated(truth.gradients(x) * EPOCHS, accumulation)
    return truth.apply_eagerly(optimizer, gradients, *curves(callback, len(gradients)))


def assert_same_weights(model, expected, exact=False):
    for weight, value in zip(model.get_weights(), expected, strict=True):
        # Compiled arithmetic may fuse and reorder: 26 updates of about 20 operations, each off by half
        # a unit in the last place of numbers up to the largest that occur, weights and slots.
        bound = 0 if exact else 26 * 20 * np.finfo("float32").eps / 2 * max(2.0, np.max(np.abs(value)))
        np.testing.assert_allclose(weight, value, rtol=0, atol=bound)


# -- the schedule ------------------------------------------------------------------------------------

TOTALS = [1, 2, 3, 5, 20, 101]


@pytest.mark.parametrize("warmup_fraction", [0.0, 0.3, 0.45, 0.6, 1.0])
@pytest.mark.parametrize("anneal", ["linear", "cosine"])
@pytest.mark.parametrize("three_phase", [True, False])
def test_one_cycle_equals_torch_at_every_update(three_phase, anneal, warmup_fraction):
    torch = pytest.importorskip("torch", reason="the reference is torch's OneCycleLR")
    for total in TOTALS:
        if warmup_fraction * total == 1:
            continue  # torch divides by zero: test_curves.py has what we do there
        parameter = torch.nn.Parameter(torch.zeros(()))
        optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
        reference = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=0.7,
            total_steps=total,
            pct_start=warmup_fraction,
            anneal_strategy={"linear": "linear", "cosine": "cos"}[anneal],
            three_phase=three_phase,
            div_factor=10.0,
            final_div_factor=100.0,
        )
        callback = kdx.OneCycleScheduler(
            0.7,
            total,
            warmup_fraction=warmup_fraction,
            three_phase=three_phase,
            anneal=anneal,
            div_factor=10.0,
            final_div_factor=100.0,
        )
        rates, momenta = (curve(np.arange(total)) for curve in callback._curves_for(None, None).values())
        schedule = kdx.OneCycle(**{n: getattr(callback, n) for n in reference_arguments()})
        for i in range(total):
            group = optimizer.param_groups[0]
            # torch rounds relative to the largest value of the phase, at most 0.7 and 0.95.
            np.testing.assert_allclose(rates[i], group["lr"], atol=8 * 2.2e-16, rtol=0)
            np.testing.assert_allclose(momenta[i], group["momentum"], atol=8 * 2.2e-16, rtol=0)
            in_float32 = float(keras.ops.convert_to_numpy(schedule(i)))
            bound = np.finfo("float32").eps * 2 * (8 + total) * 0.7  # derived in test_curves.py
            np.testing.assert_allclose(in_float32, group["lr"], atol=bound, rtol=0)
            optimizer.step()
            if i < total - 1:
                reference.step()


def reference_arguments():
    return kdx.OneCycle(0.1, 10).get_config().keys() - {"name"}


def test_the_schedule_drives_an_optimizer_by_itself():
    schedule = kdx.OneCycle(0.05, BATCHES * EPOCHS)
    model = truth.linear_model(keras.optimizers.SGD(schedule))
    fit(model, [])
    x, _ = truth.data(BATCHES)
    rates = schedule.curve(np.arange(BATCHES * EPOCHS))
    expected = truth.apply_eagerly(keras.optimizers.SGD(), truth.gradients(x) * EPOCHS, rates)
    assert_same_weights(model, expected)


def test_a_model_with_the_schedule_goes_through_a_file(tmp_path):
    schedule = kdx.OneCycle(0.05, 20, anneal="cosine", three_phase=False, name="cycle")
    model = truth.linear_model(keras.optimizers.SGD(schedule))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer._learning_rate
    assert type(loaded) is kdx.OneCycle
    assert loaded.get_config() == schedule.get_config()


# -- what is in force ---------------------------------------------------------------------------------


# Each optimizer as `fit` builds it, and each in one of the other modes; two kinds of slots in all of them.
OTHERS = [mode for mode in HERE if mode != "default"]
PAIRS = [(name, "default") for name in OPTIMIZERS]
PAIRS += [
    pair
    for pair in zip(OPTIMIZERS, itertools.cycle(OTHERS), strict=False)
    if pair[0] not in ("SGD", "Adam")
]
PAIRS += [(name, mode) for name in ("SGD", "Adam") for mode in OTHERS]


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_each_update_has_the_rate_and_the_momentum_of_its_place(name, mode):
    callback = cycle()
    model = truth.linear_model(OPTIMIZERS[name](), build_optimizer=mode != "default", **MODES[mode])
    fit(model, [callback])
    expected = expected_weights(OPTIMIZERS[name](), callback)
    assert_same_weights(model, expected, exact=mode == "run_eagerly")


# The peak lies at update 12 of 26, where the momentum is exactly the lowest.
THROUGH_ZERO = {"warmup_fraction": 0.5, "anneal": "linear", "base_momentum": 0.0}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_momentum_of_exactly_0_is_the_limit_of_small_ones(name):
    callback = cycle(**THROUGH_ZERO)
    model = truth.linear_model(OPTIMIZERS[name]())
    fit(model, [callback])
    assert callback.history["momentum"].count(0.0) == 1
    rates, momenta = curves(callback, BATCHES * EPOCHS)
    momenta[12] = 1e-30
    gradients = truth.gradients(truth.data(BATCHES)[0]) * EPOCHS
    assert_same_weights(model, truth.apply_eagerly(OPTIMIZERS[name](), gradients, rates, momenta))


def sgd_by_hand(w, g, rate, momentum, state, nesterov=False):
    state["v"] = momentum * state.get("v", 0) - rate * g
    return w + (momentum * state["v"] - rate * g if nesterov else state["v"])


def rms_prop_by_hand(w, g, rate, momentum, state):
    state["s"] = 0.9 * state.get("s", 0) + 0.1 * g**2
    state["b"] = momentum * state.get("b", 0) + rate * g / np.sqrt(state["s"] + 1e-7)
    return w - state["b"]


def adam_by_hand(w, g, rate, beta_1, state):
    state["t"] = t = state.get("t", 0) + 1
    state["m"] = beta_1 * state.get("m", 0) + (1 - beta_1) * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g**2
    rate = rate * np.sqrt(1 - 0.999**t) / (1 - beta_1**t)
    return w - rate * state["m"] / (np.sqrt(state["v"]) + 1e-7)


BY_HAND = {
    "SGD": sgd_by_hand,
    "Nesterov": lambda *arguments: sgd_by_hand(*arguments, nesterov=True),
    "RMSprop": rms_prop_by_hand,
    "Adam": adam_by_hand,
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("most", [0.0, 0.95, 0.9999])
def test_momenta_between_0_and_almost_1_are_those_of_the_formulas(name, most):
    callback = cycle(**THROUGH_ZERO | {"max_momentum": most})
    model = truth.linear_model(OPTIMIZERS[name]())
    fit(model, [callback])
    rates, momenta = curves(callback, BATCHES * EPOCHS)
    gradients = truth.gradients(truth.data(BATCHES)[0]) * EPOCHS
    for i, weight in enumerate(model.get_weights()):
        value, state = truth.initial_weights()[i].astype("float64"), {}
        for update, of_update in enumerate(gradients):
            g = of_update[i].astype("float64")
            value = BY_HAND[name](value, g, rates[update], momenta[update], state)
        # Adam divides by 1 - beta**t, off by 6e-8, on a way of at most the sum of the rates.
        smallest = min(1e-3, 1 - most) if name == "Adam" else 1.0
        bound = 1e-5 * np.max(np.abs(value)) + np.sum(rates) * 6e-8 / smallest
        np.testing.assert_allclose(weight, value, rtol=0, atol=bound)


@pytest.mark.slow
@pytest.mark.skipif(not TORCH, reason="other backends compile in a second, and are tested above")
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_each_update_has_the_rate_and_the_momentum_of_its_place_under_torch_compile(name):
    callback = cycle()
    model = truth.linear_model(OPTIMIZERS[name](), jit_compile=True)
    fit(model, [callback])
    assert_same_weights(model, expected_weights(OPTIMIZERS[name](), callback))


# Each setting with one of the two optimizers, two settings with both.
COMPILED = "default" if TORCH else "jit_compile"
OF_SETTINGS = [("SGD", "default", setting) for setting in list(SETTINGS)[::2]]
OF_SETTINGS += [("Adam", COMPILED, setting) for setting in list(SETTINGS)[1::2]]
OF_SETTINGS += [("Adam", "default", setting) for setting in ("accumulation 2", "global_clipnorm")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode", "setting"), OF_SETTINGS)
def test_it_holds_with_every_setting_of_the_optimizer(name, mode, setting):
    callback = cycle()
    make = OPTIMIZERS[name]
    model = truth.linear_model(make(**SETTINGS[setting]), **MODES[mode])
    fit(model, [callback])
    settings = dict(SETTINGS[setting])
    settings.pop("loss_scale_factor", None)
    accumulation = settings.pop("gradient_accumulation_steps", 1)
    expected = expected_weights(make(**settings), callback, accumulation)
    assert_same_weights(model, expected)
    assert len(callback.history["learning_rate"]) == BATCHES * EPOCHS // accumulation


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_it_holds_under_loss_scaling(name):
    callback = cycle()
    optimizer = keras.optimizers.LossScaleOptimizer(OPTIMIZERS[name](), initial_scale=8.0)
    model = truth.linear_model(optimizer)
    fit(model, [callback])
    assert_same_weights(model, expected_weights(OPTIMIZERS[name](), callback))


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_an_update_that_loss_scaling_skips_does_not_count(name):
    callback = cycle(total_steps=BATCHES * EPOCHS)
    optimizer = keras.optimizers.LossScaleOptimizer(OPTIMIZERS[name](), initial_scale=8.0)
    model = truth.linear_model(optimizer)
    x, y = truth.data(BATCHES)
    x[8:10] = np.inf  # batch 4
    fit(model, [callback], x, y, epochs=1)
    rates, momenta = curves(callback, BATCHES * EPOCHS)
    finite = [g for i, g in enumerate(truth.gradients(x)) if i != 4]
    assert_same_weights(model, truth.apply_eagerly(OPTIMIZERS[name](), finite, rates, momenta))
    np.testing.assert_allclose(callback.history["learning_rate"], rates[: BATCHES - 1], rtol=1e-15)


@pytest.mark.slow
def test_it_holds_in_mixed_precision():
    callback = cycle()
    model = keras.Sequential([keras.Input((truth.FEATURES,)), truth.dense()])
    layer = model.layers[0]
    layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    model.compile(OPTIMIZERS["Adam"](), loss=truth.MeanOutput())
    fit(model, [callback])
    # Inputs and gradients are exact in bfloat16 too: at most 8 bits.
    assert_same_weights(model, expected_weights(OPTIMIZERS["Adam"](), callback))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.linear = truth.dense()

    def call(self, x):
        return self.linear(x)


class WithOwnStep(Subclassed):
    def train_step(self, *arguments):
        if keras.backend.backend() == "jax":
            state, (x, y) = arguments
            return self.jax_step(state, x, y)
        (x, y) = arguments[0]
        if TORCH:
            self.zero_grad()
            loss = self.compute_loss(x, y, self(x, training=True))
            loss.backward()
            self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            weights = self.trainable_weights
            self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"own": loss}

    def jax_step(self, state, x, y):
        import jax

        weights, others, slots, metrics = state

        def loss_of(weights):
            outputs, _ = self.stateless_call(weights, others, x)
            return self.compute_loss(x, y, outputs)

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        weights, slots = self.optimizer.stateless_apply(slots, gradients, weights)
        return {"own": loss}, (weights, others, slots, metrics)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Subclassed, WithOwnStep])
def test_it_holds_for_a_subclassed_model_that_is_not_built(kind):
    callback = cycle()
    model = kind()
    model.compile(OPTIMIZERS["Adam"](), loss=truth.MeanOutput())
    history = fit(model, [callback])
    assert ("own" in history.history) == (kind is WithOwnStep)
    assert_same_weights(model, expected_weights(OPTIMIZERS["Adam"](), callback))


@pytest.mark.slow
@pytest.mark.parametrize("mode", HERE)
def test_it_holds_for_a_model_whose_step_is_already_traced(mode):
    model = truth.linear_model(OPTIMIZERS["SGD"](), **MODES[mode])
    fit(model, [], epochs=1)
    for slot in model.optimizer.variables[2:]:
        slot.assign(np.zeros(slot.shape))
    model.set_weights(truth.initial_weights())
    callback = cycle()
    fit(model, [callback])
    assert_same_weights(model, expected_weights(OPTIMIZERS["SGD"](), callback))


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_a_second_fit_starts_the_curve_and_the_records_again(same):
    model = truth.linear_model(OPTIMIZERS["SGD"]())
    first = cycle()
    fit(model, [first])
    records = {k: list(v) for k, v in first.history.items()}
    second = first if same else cycle()
    fit(model, [second])
    assert second.history == records
    x, _ = truth.data(BATCHES)
    rates, momenta = curves(first, BATCHES * EPOCHS)
    expected = truth.apply_eagerly(
        OPTIMIZERS["SGD"](), truth.gradients(x) * 2 * EPOCHS, [*rates, *rates], [*momenta, *momenta]
    )
    assert_same_weights(model, expected)


@pytest.mark.slow
def test_a_fit_without_the_callback_after_one_with_it_is_plain():
    model = truth.linear_model(OPTIMIZERS["SGD"]())
    callback = cycle()
    fit(model, [callback])
    model.optimizer.learning_rate = 0.125
    fit(model, [])
    x, _ = truth.data(BATCHES)
    rates, momenta = curves(callback, BATCHES * EPOCHS)
    constant = np.ones(BATCHES * EPOCHS)
    expected = truth.apply_eagerly(
        OPTIMIZERS["SGD"](),
        truth.gradients(x) * 2 * EPOCHS,
        [*rates, *(0.125 * constant)],
        [*momenta, *(0.9 * constant)],
    )
    assert_same_weights(model, expected)


class Reader(keras.callbacks.Callback):
    """Touches the model at every batch, which on JAX brings the whole state back each time."""

    def __init__(self):
        super().__init__()
        self.configs, self.counts, self.types = [], set(), set()

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        self.configs.append(optimizer.get_config())
        self.counts.add(len(optimizer.variables))
        self.types.add(type(optimizer))


@pytest.mark.parametrize("reader_first", [True, False])
def test_other_callbacks_see_plain_keras_and_change_nothing(reader_first):
    optimizer = OPTIMIZERS["SGD"]()
    kind = type(optimizer)
    model = truth.linear_model(optimizer)
    callback, reader = cycle(), Reader()
    fit(model, [reader, callback] if reader_first else [callback, reader])
    assert_same_weights(model, expected_weights(OPTIMIZERS["SGD"](), callback))
    assert reader.types == {kind}
    assert len(reader.counts) == 1
    assert {c["momentum"] for c in reader.configs} == {0.9}
    json.dumps(reader.configs)  # plain floats
    rates, _ = curves(callback, BATCHES * EPOCHS)
    in_force = [c["learning_rate"] for c in reader.configs]
    np.testing.assert_array_equal(np.float32(in_force), np.float32(rates))


def test_the_data_may_be_of_unknown_length():
    tf = pytest.importorskip("tensorflow")
    x, y = truth.data(BATCHES)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(2).filter(lambda x, y: True)
    callback, reader = cycle(total_steps=BATCHES * EPOCHS), Reader()
    model = truth.linear_model(OPTIMIZERS["SGD"]())
    fit(model, [callback, reader], dataset, None, batch_size=None)
    assert_same_weights(model, expected_weights(OPTIMIZERS["SGD"](), callback))
    # Where the data ends the step starts once more: it must not leave the next update's rate behind.
    assert len(callback.history["learning_rate"]) == BATCHES * EPOCHS
    last = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    assert last == np.float32(callback.history["learning_rate"][-1])


@pytest.mark.slow
def test_an_epoch_may_be_longer_than_the_table(monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", 5)
    for mode in HERE:
        callback = cycle()
        model = truth.linear_model(OPTIMIZERS["SGD"](), **MODES[mode])
        fit(model, [callback])
        assert_same_weights(model, expected_weights(OPTIMIZERS["SGD"](), callback))


# -- logs and records ----------------------------------------------------------------------------------


def test_epoch_logs_have_the_values_of_the_last_update_for_loggers_before_and_after(tmp_path):
    model = truth.linear_model(OPTIMIZERS["Adam"]())
    callback = cycle()
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = fit(model, [logger, callback]).history
    rates, momenta = curves(callback, BATCHES * EPOCHS)
    np.testing.assert_allclose(history["learning_rate"], rates[BATCHES - 1 :: BATCHES], rtol=1e-15)
    np.testing.assert_allclose(history["momentum"], momenta[BATCHES - 1 :: BATCHES], rtol=1e-12)
    assert {type(v) for name in ("learning_rate", "momentum") for v in history[name]} == {float}
    header, *rows = list(csv.reader((tmp_path / "log.csv").open()))
    assert len(rows) == EPOCHS
    for name in ("learning_rate", "momentum"):
        np.testing.assert_allclose([float(row[header.index(name)]) for row in rows], history[name])


def test_the_records_hold_one_value_per_update():
    model = truth.linear_model(OPTIMIZERS["Adam"]())
    callback = cycle()
    fit(model, [callback])
    rates, momenta = curves(callback, BATCHES * EPOCHS)
    np.testing.assert_allclose(callback.history["learning_rate"], rates, rtol=1e-15)
    np.testing.assert_allclose(callback.history["momentum"], momenta, rtol=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "momentum"),
    [
        (lambda: keras.optimizers.SGD(0.1), None),
        (lambda: keras.optimizers.Adagrad(0.1), None),
        (lambda: keras.optimizers.SGD(0.1, momentum=0.7), 0.7),
    ],
)
def test_a_momentum_that_is_left_alone_is_logged_where_there_is_one(optimizer, momentum):
    model = truth.linear_model(optimizer())
    callback = cycle(cycle_momentum=False if momentum else "auto")
    history = fit(model, [callback]).history
    if momentum is None:
        assert "momentum" not in history
        assert "momentum" not in callback.history
    else:
        assert history["momentum"] == [momentum] * EPOCHS
        rates, _ = curves(callback, BATCHES * EPOCHS)
        x, _ = truth.data(BATCHES)
        expected = truth.apply_eagerly(optimizer(), truth.gradients(x) * EPOCHS, rates)
        assert_same_weights(model, expected)


def test_at_the_end_the_rate_is_the_last_one_used_and_the_momentum_as_compiled():
    model = truth.linear_model(OPTIMIZERS["SGD"]())
    before = len(model.optimizer.variables), set(vars(model.optimizer))
    callback = cycle()
    fit(model, [callback])
    config = model.optimizer.get_config()
    assert np.float32(config["learning_rate"]) == np.float32(0.05 / 25 / 1e4)
    assert config["momentum"] == 0.9
    assert type(config["momentum"]) is float
    assert before[1] <= set(vars(model.optimizer))
    plain = truth.linear_model(OPTIMIZERS["SGD"]())
    fit(plain, [])
    assert len(model.optimizer.variables) == len(plain.optimizer.variables)
    assert set(vars(model.optimizer)) == set(vars(plain.optimizer))


def test_verbose_tells_the_rate_after_each_epoch(capsys):
    fit(truth.linear_model(OPTIMIZERS["SGD"]()), [cycle(verbose=1)])
    printed = capsys.readouterr().out
    assert "Epoch 2: OneCycleScheduler ended at learning rate 2e-07, momentum 0.95." in printed


# -- refusals ------------------------------------------------------------------------------------------

BAD_ARGUMENTS = [
    ({"max_learning_rate": 0.0}, ValueError),
    ({"max_learning_rate": -1}, ValueError),
    ({"max_learning_rate": float("nan")}, ValueError),
    ({"max_learning_rate": float("inf")}, ValueError),
    ({"max_learning_rate": 1e39}, ValueError),
    ({"max_learning_rate": 1e-46}, ValueError),
    ({"max_learning_rate": "0.1"}, TypeError),
    ({"max_learning_rate": True}, TypeError),
    ({"total_steps": 0}, ValueError),
    ({"total_steps": -5}, ValueError),
    ({"total_steps": 10**400}, ValueError),
    ({"total_steps": 2.5}, TypeError),
    ({"total_steps": True}, TypeError),
    ({"warmup_fraction": -0.1}, ValueError),
    ({"warmup_fraction": 1.1}, ValueError),
    ({"warmup_fraction": None}, TypeError),
    ({"three_phase": "yes"}, TypeError),
    ({"anneal": "cos"}, ValueError),
    ({"div_factor": 0}, ValueError),
    ({"div_factor": 1e-41}, ValueError),
    ({"final_div_factor": -1.0}, ValueError),
    ({"final_div_factor": 1e-300}, ValueError),
]
BAD_MOMENTA = [
    ({"cycle_momentum": "always"}, ValueError),
    ({"base_momentum": 1.0}, ValueError),
    ({"max_momentum": -0.1}, ValueError),
    ({"max_momentum": 1 - 1e-9}, ValueError),  # 1 in float32
    ({"base_momentum": 0.9, "max_momentum": 0.8}, ValueError),
    ({"max_momentum": "high"}, TypeError),
    ({"verbose": "yes"}, TypeError),
]


@pytest.mark.parametrize("kind", [kdx.OneCycle, kdx.OneCycleScheduler])
@pytest.mark.parametrize(("arguments", "error"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_and_named(kind, arguments, error):
    name = next(iter(arguments))
    with pytest.raises(error, match=f"(?s){name}.*Received: {name}="):
        kind(**{"max_learning_rate": 0.1, "total_steps": 10} | arguments)


@pytest.mark.parametrize(("arguments", "error"), BAD_MOMENTA)
def test_bad_momenta_are_refused_and_named(arguments, error):
    with pytest.raises(error, match=f"(?s){next(iter(arguments))}.*Received: "):
        kdx.OneCycleScheduler(0.1, **arguments)


def test_a_cycle_may_be_longer_than_an_int32():
    for step in (0, 2**20):
        value = float(keras.ops.convert_to_numpy(kdx.OneCycle(0.1, 2**62)(step)))
        np.testing.assert_allclose(value, 0.1 / 25, rtol=1e-6)


def test_the_schedule_needs_a_number_of_updates():
    with pytest.raises(TypeError, match="total_steps"):
        kdx.OneCycle(0.1, None)


def scheduled():
    return keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))


REFUSED_FITS = {
    "an optimizer with a schedule": (scheduled, [], {}, "OneCycleScheduler.*ExponentialDecay"),
    "an optimizer with a function": (
        lambda: keras.optimizers.SGD(lambda: 0.1),
        [],
        {},
        "OneCycleScheduler.*<lambda>",
    ),
    "ReduceLROnPlateau": (
        OPTIMIZERS["SGD"],
        [keras.callbacks.ReduceLROnPlateau()],
        {},
        "OneCycleScheduler.*ReduceLROnPlateau",
    ),
    "LearningRateScheduler": (
        OPTIMIZERS["SGD"],
        [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)],
        {},
        "OneCycleScheduler.*LearningRateScheduler",
    ),
    "another of ours": (
        OPTIMIZERS["SGD"],
        [kdx.OneCycleScheduler(0.2)],
        {},
        "OneCycleScheduler.*OneCycleScheduler",
    ),
    "SGD without momentum": (
        lambda: keras.optimizers.SGD(0.1),
        [],
        {"cycle_momentum": True},
        "cycle_momentum.*SGD.*momentum",
    ),
    "RMSprop without momentum": (
        lambda: keras.optimizers.RMSprop(0.1),
        [],
        {"cycle_momentum": True},
        "cycle_momentum.*RMSprop.*momentum",
    ),
    "Adagrad": (
        lambda: keras.optimizers.Adagrad(0.1),
        [],
        {"cycle_momentum": True},
        "cycle_momentum.*Adagrad.*momentum",
    ),
    "ScheduleFreeAdamW": (
        lambda: keras.optimizers.ScheduleFreeAdamW(0.1),
        [],
        {"cycle_momentum": True},
        "cycle_momentum.*ScheduleFreeAdamW.*beta_1",
    ),
    "MultiOptimizer": (
        lambda: keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD())),
        [],
        {},
        "one learning rate",
    ),
}
REFUSED_FITS = {
    name: case
    for name, case in REFUSED_FITS.items()
    if hasattr(keras.optimizers, name) or not name.endswith(("FreeAdamW", "MultiOptimizer"))
}


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("case", REFUSED_FITS)
def test_a_fit_that_cannot_work_is_refused_before_it_begins(case, ours_first):
    optimizer, others, arguments, message = REFUSED_FITS[case]
    model = truth.linear_model(optimizer())
    callbacks = [cycle(**arguments), *others] if ours_first else [*others, cycle(**arguments)]
    before = model.optimizer.get_config(), type(model.optimizer)
    with pytest.raises(ValueError, match=f"(?s){message}.*Received: "):
        fit(model, callbacks)
    assert (model.optimizer.get_config(), type(model.optimizer)) == before
    for weight, value in zip(model.get_weights(), truth.initial_weights(), strict=True):
        np.testing.assert_array_equal(weight, value)


def test_an_unknown_number_of_updates_is_refused_before_the_fit_begins():
    def batches():
        while True:
            yield truth.data(1)

    model = truth.linear_model(OPTIMIZERS["SGD"]())
    with pytest.raises(ValueError, match=r"(?s)total_steps.*Received: steps_per_epoch=None"):
        fit(model, [cycle()], batches(), None, batch_size=None)
    fit(model, [cycle()], batches(), None, batch_size=None, steps_per_epoch=3)
    fit(model, [cycle(total_steps=7)], batches(), None, batch_size=None, steps_per_epoch=3)


def test_auto_leaves_alone_what_has_no_momentum_to_cycle():
    for optimizer in (keras.optimizers.SGD(0.1), keras.optimizers.Adagrad(0.1)):
        callback = cycle()
        fit(truth.linear_model(optimizer), [callback])
        assert list(callback.history) == ["learning_rate"]


# -- plots ---------------------------------------------------------------------------------------------


def lines_of(ax):
    """Return the y-data by label of the lines in all axes of the figure of `ax`."""
    return {line.get_label(): line.get_ydata() for a in ax.figure.axes for line in a.lines}


def test_plot_before_fit_draws_what_will_be(pyplot):
    callback = kdx.OneCycleScheduler(0.1, 30)
    rates, momenta = curves(callback, 30)
    lines = lines_of(callback.plot())
    np.testing.assert_allclose(lines["learning rate"], rates, rtol=1e-15)
    np.testing.assert_allclose(lines["momentum"], momenta, rtol=1e-12)


def test_plot_of_very_many_updates_draws_as_many_points_as_can_be_seen(pyplot):
    total = 2**31  # 17 GB, were there a value for each
    updates, rates = kdx.OneCycleScheduler(0.1, total).plot().lines[0].get_data()
    assert len(updates) <= 10_000
    assert (updates[0], updates[-1]) == (0, total - 1)
    # 0.1 / 25 at first, 0.1 after 45% of the updates, as low again after 90%
    np.testing.assert_allclose(
        np.interp([0, 0.225 * total, 0.45 * total, 0.9 * total], updates, rates),
        [0.004, 0.052, 0.1, 0.004],
        rtol=2e-3,
    )


@pytest.mark.parametrize("ax", ["figure", np.array([None, None]), 3])
def test_plot_refuses_what_are_no_axes(ax, pyplot):
    ax = pyplot.figure() if isinstance(ax, str) else ax
    with pytest.raises(TypeError, match=r"(?s)one matplotlib `Axes`.*Received: ax="):
        kdx.OneCycleScheduler(0.1, 10).plot(ax)


def test_plot_after_fit_draws_what_was_in_the_axes_given(pyplot):
    callback = cycle()
    fit(truth.linear_model(keras.optimizers.SGD(0.1)), [callback])
    _, ax = pyplot.subplots()
    assert callback.plot(ax) is ax
    assert list(lines_of(ax)) == ["learning rate"]
    np.testing.assert_allclose(lines_of(ax)["learning rate"], callback.history["learning_rate"])


def test_plot_needs_the_number_of_updates():
    with pytest.raises(ValueError, match="steps_per_epoch"):
        kdx.OneCycleScheduler(0.1).plot()


def test_plot_tells_how_to_install_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="`python -m pip install matplotlib`"):
        kdx.OneCycleScheduler(0.1, 10).plot()


@pytest.mark.parametrize("nested", [False, True])
def test_it_warns_of_early_stopping_once_a_fit(nested):
    scheduler, stopping = kdx.OneCycleScheduler(0.1), keras.callbacks.EarlyStopping("loss")
    callbacks = [scheduler, keras.callbacks.CallbackList([stopping]) if nested else stopping]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        truth.linear_model(keras.optimizers.SGD(0.1)).fit(
            *truth.data(2), epochs=2, callbacks=callbacks, verbose=0
        )
    messages = [str(w.message) for w in caught if "EarlyStopping" in str(w.message)]
    assert len(messages) == 1
    assert "Remove `EarlyStopping`" in messages[0]


def test_it_does_not_warn_where_nothing_stops_early():
    keeps_the_best = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        truth.linear_model(keras.optimizers.SGD(0.1)).fit(
            *truth.data(2), epochs=2, callbacks=[kdx.OneCycleScheduler(0.1), keeps_the_best], verbose=0
        )
