"""PowerDecay and Warmup: against Keras, against torch, and in an optimizer."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
import truth

import keras_dnn_extras as kdx

TORCH = keras.backend.backend() == "torch"
BATCHES, EPOCHS = 10, 2
UPDATES = np.arange(BATCHES * EPOCHS)
EPS = np.finfo("float32").eps
schedules = keras.optimizers.schedules


@keras.saving.register_keras_serializable(package="tests")
class FromTable(schedules.LearningRateSchedule):
    """Looks its rates up, and so needs a step that is an integer."""

    def __init__(self, rates):
        super().__init__()
        self.rates = list(rates)

    def __call__(self, step):
        return keras.ops.take(keras.ops.convert_to_tensor(self.rates, "float32"), step)

    def get_config(self):
        return {"rates": self.rates}


def values_of(schedule, updates=UPDATES):
    values = [schedule(int(i)) for i in updates]
    assert {keras.backend.standardize_dtype(v.dtype) for v in values} == {"float32"}
    assert {tuple(v.shape) for v in values} == {()}
    return np.array([float(keras.ops.convert_to_numpy(v)) for v in values])


def warmed_up(start, begin, following, warmup_steps):
    """Return the rates of `UPDATES`: the warm-up interpolated, then the rates `following`."""
    rising = np.interp(np.arange(warmup_steps), [0, max(warmup_steps, 1)], [start, begin])
    return np.concatenate([rising, following])[: len(UPDATES)]


def power_bound(power, decay_steps):
    # `1 + i / decay_steps` is off by a unit in its last place, which the power multiplies; it itself,
    # `exp(power * log(...))`, rounds relative to its exponent, and a few roundings come after.
    return EPS * (power * (1 + np.log1p(UPDATES.max() / decay_steps)) + 4)


# -- formulas ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2])
def test_power_decay_has_its_formula(power):
    schedule = kdx.PowerDecay(0.1, 4.5, power)
    expected = 0.1 * np.exp(-power * np.log1p(UPDATES / 4.5))
    np.testing.assert_allclose(schedule.curve(UPDATES), expected, rtol=1e-14)
    np.testing.assert_allclose(values_of(schedule), expected, rtol=power_bound(power, 4.5))


def test_power_decay_of_power_1_is_the_inverse_time_decay_of_keras():
    keras_values = values_of(schedules.InverseTimeDecay(0.1, decay_steps=4, decay_rate=1.0))
    values = values_of(kdx.PowerDecay(0.1, 4))
    np.testing.assert_allclose(values, keras_values, rtol=2 * power_bound(1.0, 4))
    np.testing.assert_allclose(values[4], 0.05, rtol=power_bound(1.0, 4))


@pytest.mark.parametrize("warmup_steps", [0, 1, 6])
@pytest.mark.parametrize("start", [0.0, 0.02, 0.1, 0.5])
def test_warmup_rises_linearly_and_then_is_the_schedule_from_its_beginning(start, warmup_steps):
    values = values_of(kdx.Warmup(kdx.PowerDecay(0.1, 4), warmup_steps, start=start))
    following = 0.1 / (1 + UPDATES / 4)
    expected = warmed_up(start, 0.1, following, warmup_steps)
    # Five roundings of numbers up to the larger end, and those of the schedule.
    np.testing.assert_allclose(values, expected, atol=5 * EPS * max(start, 0.1), rtol=power_bound(1.0, 4))
    assert values[warmup_steps] == values_of(kdx.PowerDecay(0.1, 4), [0])[0]


def test_warmup_equals_torch():
    torch = pytest.importorskip("torch", reason="the reference is torch's SequentialLR")
    parts = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.2)
    rising = parts.LinearLR(optimizer, start_factor=0.1, end_factor=1.0, total_iters=6)
    falling = parts.ExponentialLR(optimizer, gamma=0.8)
    reference = parts.SequentialLR(optimizer, [rising, falling], milestones=[6])
    expected = []
    for _ in UPDATES:
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    values = values_of(kdx.Warmup(schedules.ExponentialDecay(0.2, 1, 0.8), 6, start=0.02))
    # 0.8 ** 13 is `exp` of 2.9, rounded relative to that.
    np.testing.assert_allclose(values, expected, rtol=8 * EPS)


def test_warmup_to_a_constant_rate():
    values = values_of(kdx.Warmup(0.1, 5))
    np.testing.assert_allclose(values[:6], [0, 0.02, 0.04, 0.06, 0.08, 0.1], rtol=4 * EPS)
    assert set(values[5:]) == {np.float32(0.1)}


def test_warmup_gives_an_integer_step_to_a_schedule_that_needs_one():
    rates = 0.5 ** np.arange(1, 21)
    values = values_of(kdx.Warmup(FromTable(rates), 4))
    np.testing.assert_array_equal(values, warmed_up(0.0, 0.5, rates, 4))  # powers of two: exact


def test_warmup_around_one_cycle():
    one_cycle = kdx.OneCycle(0.1, 12)
    values = values_of(kdx.Warmup(one_cycle, 8, start=0.001))
    expected = warmed_up(0.001, 0.004, one_cycle.curve(np.arange(12.0)), 8)
    bound = EPS * 2 * (8 + 12) * 0.1  # derived in test_curves.py
    np.testing.assert_allclose(values, expected, atol=bound, rtol=0)


def test_warmup_around_warmup():
    values = values_of(kdx.Warmup(kdx.Warmup(0.1, 4, start=0.05), 5))
    expected = [*np.arange(5) * 0.01, *(0.05 + np.arange(4) * 0.0125), *[0.1] * 11]
    np.testing.assert_allclose(values, expected, rtol=6 * EPS)


def test_a_warmup_does_not_ask_its_schedule_for_steps_before_its_first():
    asked = []

    class Asked(schedules.LearningRateSchedule):
        def __call__(self, step):
            asked.append(int(keras.ops.convert_to_numpy(step)))
            return 0.1

    values_of(kdx.Warmup(Asked(), 4))
    assert set(asked) == set(range(len(UPDATES) - 4))


STEPS = {
    "int": int,
    "NumPy's int": np.int64,
    "array": lambda i: np.array(i, "int32"),
    "int32 tensor": lambda i: keras.ops.convert_to_tensor(i, "int32"),
    "float tensor": lambda i: keras.ops.convert_to_tensor(float(i), "float32"),
    "variable": lambda i: keras.Variable(i, dtype="int32", trainable=False),
}
SCHEDULES = {
    "PowerDecay": lambda: kdx.PowerDecay(0.1, 4, 0.5),
    "Warmup": lambda: kdx.Warmup(kdx.PowerDecay(0.1, 4), 6, start=0.02),
    "Warmup to a float": lambda: kdx.Warmup(0.1, 6),
    "Warmup of no steps": lambda: kdx.Warmup(kdx.PowerDecay(0.1, 4), 0),
    "Warmup around Keras's": lambda: kdx.Warmup(schedules.CosineDecay(0.1, 20), 6),
}


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_may_be_of_any_kind(name, kind):
    schedule, updates = SCHEDULES[name](), [0, 3, 6, 9]
    values = [float(keras.ops.convert_to_numpy(schedule(STEPS[kind](i)))) for i in updates]
    np.testing.assert_array_equal(values, values_of(schedule, updates))


# -- in an optimizer -------------------------------------------------------------------------------------

# What each schedule is, in NumPy.
RATES = {
    "PowerDecay": 0.1 / np.sqrt(1 + UPDATES / 4),
    "Warmup": warmed_up(0.02, 0.1, 0.1 / (1 + UPDATES / 4), 6),
    "Warmup to a float": warmed_up(0.0, 0.1, 0.1 + 0 * UPDATES, 6),
    "Warmup around Keras's": warmed_up(0.0, 0.1, 0.05 + 0.05 * np.cos(np.pi * UPDATES / 20), 6),
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, {}) for name in RATES), ("Warmup", {"run_eagerly": True})]
    + [("Warmup", {"jit_compile": True})] * (not TORCH),
)
def test_a_schedule_drives_an_optimizer_by_itself(name, mode):
    model = truth.linear_model(keras.optimizers.SGD(SCHEDULES[name](), momentum=0.9), **mode)
    x, y = truth.data(BATCHES)
    model.fit(x, y, batch_size=2, epochs=EPOCHS, shuffle=False, verbose=0)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    expected = truth.apply_eagerly(optimizer, truth.gradients(x) * EPOCHS, RATES[name])
    for weight, value in zip(model.get_weights(), expected, strict=True):
        # 20 updates of about 20 roundings, of weights and slots up to 20
        np.testing.assert_allclose(weight, value, rtol=0, atol=20 * 20 * EPS / 2 * 20)


FILED = {
    **SCHEDULES,
    "Warmup with a name, of NumPy's numbers": lambda: kdx.Warmup(
        np.float64(0.1), np.int64(3), start=np.float64(0.01), name="rise"
    ),
    "PowerDecay with a name, of NumPy's numbers": lambda: kdx.PowerDecay(
        np.float64(0.1), np.int64(3), power=np.float64(2), name="fall"
    ),
    "Warmup around a registered one": lambda: kdx.Warmup(FromTable(0.5 ** np.arange(20)), 2),
    "Warmup around Warmup": lambda: kdx.Warmup(kdx.Warmup(0.1, 4, start=0.05), 5),
}


@pytest.mark.parametrize("name", FILED)
def test_an_optimizer_with_a_schedule_goes_through_a_file(name, tmp_path):
    schedule = FILED[name]()
    truth.linear_model(keras.optimizers.SGD(schedule)).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer._learning_rate
    assert type(loaded) is type(schedule)
    assert loaded.get_config() == schedule.get_config()
    np.testing.assert_array_equal(values_of(loaded), values_of(schedule))


@pytest.mark.parametrize("name", FILED)
def test_a_config_is_plain_and_makes_an_equal_schedule(name):
    schedule = FILED[name]()
    config = json.loads(json.dumps(schedule.get_config()))
    again = type(schedule).from_config(config)
    assert again.get_config() == schedule.get_config()
    assert config == schedule.get_config()  # `from_config` has not changed it
    np.testing.assert_array_equal(values_of(again), values_of(schedule))


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda schedule: pickle.loads(pickle.dumps(schedule))])
@pytest.mark.parametrize("name", [*FILED, "OneCycle"])
def test_a_copy_and_a_pickle_are_equal_schedules(name, copy_of):
    schedule = kdx.OneCycle(0.1, 20, anneal="cosine") if name == "OneCycle" else FILED[name]()
    again = copy_of(schedule)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    np.testing.assert_array_equal(values_of(again), values_of(schedule))


def test_the_largest_rates_and_longest_warmups_are_finite():
    for schedule, step, value in (
        (kdx.Warmup(3e38, 100), 50, 1.5e38),
        (kdx.Warmup(0.1, 2**31 - 1), 2**30, 0.05),
        (kdx.PowerDecay(3e38, 1e38, 1e300), 0, 3e38),
        (kdx.OneCycle(3e38, 101, anneal="cosine", warmup_fraction=0.5, div_factor=1.0), 50, 3e38),
    ):
        np.testing.assert_allclose(values_of(schedule, [step]), [value], rtol=1e-6)


# -- refusals ------------------------------------------------------------------------------------------

BAD_ARGUMENTS = [
    (kdx.PowerDecay, {"initial_learning_rate": 0.0}, ValueError),
    (kdx.PowerDecay, {"initial_learning_rate": -0.1}, ValueError),
    (kdx.PowerDecay, {"initial_learning_rate": float("nan")}, ValueError),
    (kdx.PowerDecay, {"initial_learning_rate": float("inf")}, ValueError),
    (kdx.PowerDecay, {"initial_learning_rate": 1e39}, ValueError),
    (kdx.PowerDecay, {"initial_learning_rate": 1e-46}, ValueError),
    (kdx.PowerDecay, {"initial_learning_rate": "0.1"}, TypeError),
    (kdx.PowerDecay, {"initial_learning_rate": None}, TypeError),
    (kdx.PowerDecay, {"initial_learning_rate": True}, TypeError),
    (kdx.PowerDecay, {"decay_steps": 0}, ValueError),
    (kdx.PowerDecay, {"decay_steps": float("inf")}, ValueError),
    (kdx.PowerDecay, {"decay_steps": 1e-46}, ValueError),  # 0 / 0 in float32
    (kdx.PowerDecay, {"decay_steps": [1]}, TypeError),
    (kdx.PowerDecay, {"power": -1.0}, ValueError),
    (kdx.PowerDecay, {"power": float("nan")}, ValueError),
    (kdx.PowerDecay, {"power": None}, TypeError),
    (kdx.Warmup, {"schedule": 0.0}, ValueError),
    (kdx.Warmup, {"schedule": float("nan")}, ValueError),
    (kdx.Warmup, {"schedule": 1e39}, ValueError),
    (kdx.Warmup, {"schedule": "0.1"}, TypeError),
    (kdx.Warmup, {"schedule": None}, TypeError),
    (kdx.Warmup, {"schedule": True}, TypeError),
    (kdx.Warmup, {"schedule": lambda step: 0.1}, TypeError),
    (kdx.Warmup, {"warmup_steps": -1}, ValueError),
    (kdx.Warmup, {"warmup_steps": 2**31}, ValueError),
    (kdx.Warmup, {"warmup_steps": 2.5}, TypeError),
    (kdx.Warmup, {"warmup_steps": None}, TypeError),
    (kdx.Warmup, {"warmup_steps": True}, TypeError),
    (kdx.Warmup, {"start": -0.1}, ValueError),
    (kdx.Warmup, {"start": float("inf")}, ValueError),
    (kdx.Warmup, {"start": 1e39}, ValueError),
    (kdx.Warmup, {"start": "0"}, TypeError),
]
GOOD_ARGUMENTS = {
    kdx.PowerDecay: {"initial_learning_rate": 0.1, "decay_steps": 10},
    kdx.Warmup: {"schedule": 0.1, "warmup_steps": 5},
}


@pytest.mark.parametrize(("kind", "arguments", "error"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_and_named(kind, arguments, error):
    (name,) = arguments
    with pytest.raises(error, match=f"(?s){name}.*Received: {name}="):
        kind(**GOOD_ARGUMENTS[kind] | arguments)
