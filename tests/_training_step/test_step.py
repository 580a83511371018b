"""The mechanism: shared, restored, hidden, resumed, and silent between the steps."""

import functools
import subprocess
import sys
import textwrap
import warnings

import keras
import numpy as np
import pytest
import truth

import keras_dnn_extras as kdx
from keras_dnn_extras._backends import depending_on
from keras_dnn_extras._keras_internals import patching, wrapped_methods
from keras_dnn_extras._models.optimizer_state import rebuild
from keras_dnn_extras._training_step.gradient_probe import GradientProbe
from keras_dnn_extras._training_step.hyperparameters import ScheduledHyperparameters
from keras_dnn_extras._training_step.step import TrainingStep
from keras_dnn_extras._training_step.step_callback import StepCallback
from keras_dnn_extras._training_step.step_part import StepPart, step_variable
from keras_dnn_extras._training_step.timeline import Clock

BACKEND = keras.backend.backend()
BATCHES, EPOCHS = 7, 3


def make_model(**compile_arguments):
    """A model with what makes resuming hard: slots, BatchNormalization statistics, a metric."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((truth.FEATURES,)),
            keras.layers.Dense(4, activation="elu", name="hidden"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(truth.UNITS, name="linear"),
        ]
    )
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, loss=keras.losses.MeanSquaredError(), **compile_arguments)
    return model


def one_cycle():
    return kdx.OneCycleScheduler(0.05, anneal="cosine")


def fit(model, callbacks, **arguments):
    x, _ = truth.data(BATCHES)
    y = x[:, : truth.UNITS] * 2
    defaults = {"batch_size": 2, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    return model.fit(x, y, callbacks=callbacks, **defaults | arguments)


def state_of(model):
    return [keras.ops.convert_to_numpy(v) for v in [*model.variables, *model.optimizer.variables]]


def assert_equal_states(model, other):
    for value, expected in zip(state_of(model), state_of(other), strict=True):
        np.testing.assert_array_equal(value, expected)


class StopAt(keras.callbacks.Callback):
    """Raises in mid-fit, before batch `batch` of epoch `epoch`, or at another hook."""

    def __init__(self, epoch, batch, error=RuntimeError, hook="on_train_batch_begin"):
        super().__init__()
        self.at, self.error = (epoch, batch), error
        setattr(self, hook, self.look)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def look(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise self.error("stopped by the test")


# -- the clock -----------------------------------------------------------------------------------------

CLOCKS = {
    "a first fit": (dict(before=0, now=0, first_epoch=0), (0, 40)),
    "a second fit": (dict(before=40, now=40, first_epoch=0), (40, 40)),
    "restored by a callback": (dict(before=0, now=20, first_epoch=2), (0, 40)),
    "restored by a callback in a second fit": (dict(before=40, now=60, first_epoch=2), (40, 40)),
    "interrupted, then restored in the same process": (
        dict(before=53, now=47, first_epoch=1, interrupted=33),
        (33, 40),
    ),
    "the same in an optimizer of unknown past": (dict(before=53, now=47, first_epoch=1), (37, 40)),
    "restored before fit": (dict(before=20, now=20, first_epoch=2), (0, 40)),
    "trained before, then restored before fit": (dict(before=60, now=60, first_epoch=2), (40, 40)),
    "restored before fit, with skipped updates": (dict(before=17, now=17, first_epoch=2), (0, 40)),
    "weights alone restored before fit": (dict(before=0, now=0, first_epoch=2), (-20, 40)),
    "length of an epoch unknown": (dict(before=5, now=5, first_epoch=0, steps=None), (5, None)),
    "the same, restored": (dict(before=20, now=20, first_epoch=2, steps=None), (0, None)),
    "accumulating, with a rest": (dict(before=0, now=0, first_epoch=0, accumulation=3), (0, 13)),
    "the next fit has the rest": (dict(before=40, now=40, first_epoch=0, accumulation=3), (13, 13)),
    "and the one after it a whole": (dict(before=80, now=80, first_epoch=0, accumulation=3), (26, 14)),
    "weights alone, accumulating": (dict(before=0, now=0, first_epoch=1, accumulation=3), (-3, 13)),
}


@pytest.mark.parametrize("case", CLOCKS)
def test_the_clock_tells_where_a_fit_stands(case):
    arguments, expected = CLOCKS[case]
    defaults = {"epochs": 4, "steps": 10, "accumulation": 1}
    clock = Clock.of_fit(**defaults | arguments)
    assert (clock.origin, clock.total) == expected
    assert clock.accumulation == arguments.get("accumulation", 1)


# -- exceptions ----------------------------------------------------------------------------------------


@functools.cache
def variables_after_a_plain_fit():
    plain = make_model()
    fit(plain, [])
    return len(plain.optimizer.variables)


@pytest.mark.parametrize(
    ("error", "hook", "ours_first"),  # each pair of settings once
    [
        *((RuntimeError, "on_train_batch_begin", True), (RuntimeError, "on_train_batch_end", False)),
        *(
            (KeyboardInterrupt, "on_train_batch_begin", False),
            (KeyboardInterrupt, "on_train_batch_end", True),
        ),
    ],
)
def test_an_exception_in_mid_fit_leaves_plain_keras(error, hook, ours_first):
    model = make_model()
    optimizer = model.optimizer
    kind, attributes = type(optimizer), set(vars(optimizer))
    count = len(optimizer.variables)
    callbacks = [one_cycle(), StopAt(1, 3, error, hook)]
    with pytest.raises(error):
        fit(model, callbacks if ours_first else callbacks[::-1])
    assert model.optimizer is optimizer
    assert type(optimizer) is kind
    assert {a for a in set(vars(optimizer)) - attributes if not a.startswith("_")} == set()
    assert not any(name.startswith("_backend") for name in vars(optimizer))
    assert type(optimizer.beta_1) is float
    assert optimizer.get_config()["beta_1"] == 0.9
    assert len(optimizer.variables) == variables_after_a_plain_fit() >= count


def test_an_exception_inside_the_step_leaves_plain_keras():
    class Failing(keras.losses.Loss):
        def call(self, y_true, y_pred):
            raise ArithmeticError("stopped by the test")

    model = truth.linear_model(keras.optimizers.SGD(0.1, momentum=0.9))
    model.compile(model.optimizer, loss=Failing(), run_eagerly=True)
    with pytest.raises(ArithmeticError):
        fit(model, [one_cycle()])
    assert "_backend_apply_gradients" not in vars(model.optimizer)
    assert model.optimizer.momentum == 0.9


@pytest.mark.parametrize("with_callback", [True, False])
def test_the_fit_after_an_exception_is_as_if_there_had_been_none(with_callback):
    interrupted, other = make_model(), make_model()
    with pytest.raises(RuntimeError, match="stopped by the test"):
        fit(interrupted, [one_cycle(), StopAt(1, 3)])
    other.optimizer.build(other.trainable_variables)
    for model in (interrupted, other):  # the same state, one from a fit that failed
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape))
        model.optimizer.learning_rate = 0.01
    other.set_weights(interrupted.get_weights())
    for model in (interrupted, other):
        fit(model, [one_cycle()] if with_callback else [])
    assert_equal_states(interrupted, other)
    if with_callback:
        assert not isinstance(interrupted.train_function, TrainingStep)


def test_a_compiled_step_of_an_earlier_fit_that_is_still_alive_is_not_taken_for_this_ones():
    # As a notebook keeps one alive with the traceback of an exception.
    alive = []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            alive.append(vars(self.model.train_function)["_traced"])

    model = truth.linear_model(keras.optimizers.SGD(0.1))
    first, second = Norms(), Norms(changes=True)
    fit(model, [first, Keep()])
    fit(model, [second])
    assert alive
    assert [m.change_norms for m in first.found] == [None] * EPOCHS
    changes = np.concatenate([m.change_norms for m in second.found])
    gradients = np.concatenate([m.gradient_norms for m in second.found])
    np.testing.assert_allclose(
        changes, 0.1 * gradients, rtol=1e-5
    )  # of weights that are 10 to 100 times more


def test_train_on_batch_after_an_exception_and_within_a_fit_is_plain():
    class InBetween(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.train_on_batch(*batch)

    batch = truth.data(1)
    model = truth.linear_model(keras.optimizers.SGD(0.25))
    one_cycle = kdx.OneCycleScheduler(0.5, total_steps=100)
    fit(model, [one_cycle, InBetween()], epochs=2)
    x, _ = truth.data(BATCHES)
    rates = kdx.OneCycle(0.5, 100).curve(np.arange(2 * BATCHES + 1))
    # The batch in between is an update: the clock counts it. It had the rate last in force.
    at_batch = [*rates[:BATCHES], rates[BATCHES - 1], *rates[BATCHES + 1 :]]
    gradients = [*truth.gradients(x), *truth.gradients(batch[0]), *truth.gradients(x)]
    expected = truth.apply_eagerly(keras.optimizers.SGD(), gradients, at_batch)
    for weight, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-5)  # 15 updates, a few roundings each

    with pytest.raises(RuntimeError, match="stopped by the test"):
        fit(model, [one_cycle, StopAt(0, 3)])
    model.set_weights(truth.initial_weights())
    model.optimizer.learning_rate = 0.125
    model.train_on_batch(*batch)
    kernel = truth.initial_weights()[0] - 0.125 * truth.gradients(batch[0])[0][0]
    np.testing.assert_array_equal(model.get_weights()[0], kernel)  # all exact in float32


class InterruptAt:
    """Counts calls, and raises in the one numbered `at`."""

    def __init__(self, at, function):
        self.left, self.function = at, function

    def __call__(self, *arguments, **others):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.function(*arguments, **others)


REBUILT = {
    "Adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "an average and accumulation": lambda: keras.optimizers.SGD(
        0.01, momentum=0.9, use_ema=True, gradient_accumulation_steps=2
    ),
    "Nadam, with a scalar of its own": lambda: keras.optimizers.Nadam(0.01),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.RMSprop(0.01, momentum=0.9)),
}


@pytest.mark.parametrize("kind", REBUILT)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupt_while_an_optimizer_is_rebuilt_leaves_it_as_it_was(at, kind):
    optimizer = REBUILT[kind]()
    weights = [keras.Variable(np.ones(shape), name=f"w{i}") for i, shape in enumerate([(2,), (3,), (4,)])]
    optimizer.build(weights[:2])
    for i, variable in enumerate(optimizer.variables):
        variable.assign(np.full(variable.shape, i + 1))
    levels = [optimizer, getattr(optimizer, "inner_optimizer", optimizer)]
    innermost = levels[-1]
    before = [(dict(vars(o)), list(o.variables)) for o in levels]
    values = [keras.ops.convert_to_numpy(v).copy() for v in optimizer.variables]
    slot = innermost.add_variable_from_reference
    innermost.add_variable_from_reference = InterruptAt(at, slot)
    with pytest.raises(KeyboardInterrupt):
        rebuild(optimizer, weights)
    del innermost.add_variable_from_reference
    for level, (contents, variables) in zip(levels, before, strict=True):
        assert vars(level).keys() == contents.keys()
        assert all(vars(level)[name] is value for name, value in contents.items())
        assert list(map(id, level.variables)) == list(map(id, variables))
    for variable, value in zip(optimizer.variables, values, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    rebuild(optimizer, weights)  # and it can be done again
    assert len(optimizer.variables) > len(values)
    again = [float(keras.ops.convert_to_numpy(v).ravel()[0]) for v in optimizer.variables]
    assert set(again) >= {float(value.ravel()[0]) for value in values}


def test_an_interrupt_between_entering_and_replacing_leaves_nothing_replaced():
    class Thing:
        pass

    for line in range(20):  # as a signal may come after each line
        thing, lines = Thing(), [line]
        thing.method, unused = "own", "another"

        def interrupt(frame, event, argument, lines=lines):
            if frame.f_code.co_filename != patching.__file__:
                return None
            if event == "line":
                lines[0] -= 1
                if lines[0] < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return interrupt

        manager = patching.replaced(thing, method=unused, added=1)
        previous = sys.gettrace()
        sys.settrace(interrupt)
        try:
            manager.__enter__()
        except KeyboardInterrupt:
            assert vars(thing) == {"method": "own"}
        else:
            break
        finally:
            sys.settrace(previous)
    else:
        pytest.fail("the interrupts had no end")
    assert line > 3
    assert vars(thing) == {"method": "another", "added": 1}
    manager.__exit__(None, None, None)
    assert vars(thing) == {"method": "own"}


# -- saving and resuming -------------------------------------------------------------------------------


@pytest.mark.parametrize("ours_first", [True, False])
def test_resuming_after_an_interruption_gives_the_weights_of_an_uninterrupted_run(tmp_path, ours_first):
    def callbacks(*others):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [*others, one_cycle(), backup] if ours_first else [*others, backup, one_cycle()]

    interrupted, resumed, whole = make_model(), make_model(), make_model()
    fit(whole, [one_cycle()])
    epoch, batch = divmod(int(np.random.default_rng(3).integers(BATCHES, EPOCHS * BATCHES)), BATCHES)
    with pytest.raises(RuntimeError, match="stopped by the test"):
        fit(interrupted, callbacks(StopAt(epoch, batch)))
    fit(resumed, callbacks())
    assert_equal_states(resumed, whole)


@pytest.mark.parametrize("trained_before", [False, True])
def test_initial_epoch_with_a_restored_model_goes_on_in_the_curve(tmp_path, trained_before):
    path = tmp_path / "model.keras"
    saving = keras.callbacks.ModelCheckpoint(path, save_freq="epoch")

    class OnlyEpoch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    cut, whole = make_model(), make_model()
    if trained_before:
        for model in (cut, whole):
            fit(model, [], epochs=2)
    fit(whole, [one_cycle()])
    fit(cut, [saving, one_cycle(), OnlyEpoch()])
    resumed = keras.models.load_model(path)
    callback = one_cycle()
    fit(resumed, [callback], initial_epoch=2)
    assert_equal_states(resumed, whole)
    assert len(callback.history["learning_rate"]) == BATCHES


SAVERS = {
    "keras": lambda model, folder: model.save(folder / "model.keras"),
    "h5": lambda model, folder: model.save(folder / "model.h5"),
    "weights": lambda model, folder: model.save_weights(folder / "model.weights.h5"),
}


class SaveInMidFit(keras.callbacks.Callback):
    """Saves in every format after a batch in the middle of the last epoch, and keeps the state."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 3):
            model = self.model
            for save in SAVERS.values():
                save(model, self.folder)
            self.state = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]
            self.tree = len(model.get_state_tree(value_format="numpy_array")["optimizer_variables"])


LOADER = """
import importlib.abc, sys, warnings
import numpy as np

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_dnn_extras":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import keras

with warnings.catch_warnings():
    warnings.filterwarnings("error", message=".*optimizer.*")
    model = keras.models.load_model(sys.argv[1] + "/model.keras")
values = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]
config = model.optimizer.get_config()
assert config["beta_1"] == 0.9 and type(model.optimizer).__name__ == "Adam", config
np.savez(sys.argv[1] + "/loaded.npz", *values)
assert "keras_dnn_extras" not in sys.modules
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    saving = SaveInMidFit(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that .h5 is a legacy format
        fit(make_model(), [saving, one_cycle()])
    return saving


def test_a_file_saved_in_mid_fit_loads_without_the_package_with_all_optimizer_state(saved):
    arguments = [sys.executable, "-c", textwrap.dedent(LOADER), str(saved.folder)]
    subprocess.run(arguments, check=True, timeout=120)
    loaded = np.load(saved.folder / "loaded.npz")
    assert len(loaded.files) == len(saved.state)
    for name, value in zip(loaded.files, saved.state, strict=True):
        np.testing.assert_array_equal(loaded[name], value)


def test_a_legacy_file_saved_in_mid_fit_holds_the_optimizer_state_and_no_more(saved):
    # Keras restores this format's slots on no backend when the layers are nested: read the file.
    h5py = pytest.importorskip("h5py")
    values = []
    with h5py.File(saved.folder / "model.h5") as file:
        names = file["optimizer_weights"].attrs["weight_names"]
        values = [np.array(file["optimizer_weights"][name]) for name in names]
    assert len(values) == len(saved.state)
    for value, expected in zip(values, saved.state, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_weights_and_state_trees_taken_in_mid_fit_hold_nothing_of_ours(saved):
    plain = make_model()
    fit(plain, [], epochs=1)
    tree = plain.get_state_tree(value_format="numpy_array")["optimizer_variables"]
    assert saved.tree == len(tree)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain.load_weights(saved.folder / "model.weights.h5")
    for variable, value in zip(plain.optimizer.variables, saved.state, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


def test_a_file_saved_in_mid_fit_has_the_rate_in_force_and_the_compiled_momentum(saved):
    model = keras.models.load_model(saved.folder / "model.keras")
    rate = kdx.OneCycle(0.05, EPOCHS * BATCHES, anneal="cosine").curve(np.array([BATCHES + 3.0]))[0]
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == np.float32(rate)
    assert model.optimizer.beta_1 == 0.9


# -- several callbacks on one optimizer, and measurements ------------------------------------------------


class Norms(StepCallback):
    """Measures gradients, and the changes of the weights maybe."""

    def __init__(self, **arguments):
        super().__init__()
        self.arguments, self.found = arguments, []

    def _join_step(self, step):
        step.part(GradientProbe).record_for(self, **self.arguments)

    def _update_logs(self, epoch, logs):
        self.found.append(self._step.part(GradientProbe).measurements(self))

    def __getitem__(self, name):
        return np.concatenate([getattr(measured, name) for measured in self.found])


STEPS = {"default": {}, "jit_compile": {"jit_compile": True}, "run_eagerly": {"run_eagerly": True}}
STEPS |= {"steps_per_execution": {"steps_per_execution": 3}}
if BACKEND == "torch":
    STEPS = {name: STEPS[name] for name in ("default", "run_eagerly")}


@pytest.mark.parametrize(("accumulation", "most_rows"), [(None, 4), (2, 4), (2, 4096)])
@pytest.mark.parametrize("mode", STEPS)
def test_measurements_come_out_once_per_update(mode, accumulation, most_rows, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", most_rows)
    optimizer = keras.optimizers.SGD(
        0.1, momentum=0.9, clipnorm=0.5, gradient_accumulation_steps=accumulation
    )
    model = truth.linear_model(optimizer, **STEPS[mode])
    cycle, norms, changes = one_cycle(), Norms(), Norms(changes=True)
    fit(model, [norms, cycle, changes])
    x, _ = truth.data(BATCHES)
    gradients = truth.accumulated(truth.gradients(x) * EPOCHS, accumulation or 1)
    squares = [[np.sum(np.square(g, dtype="float64")) for g in gs] for gs in gradients]
    clipped = [np.sqrt(sum(min(s, 0.25) for s in ss)) for ss in squares]
    for found in (norms, changes):
        # about 10 roundings
        np.testing.assert_allclose(found["gradient_norms"][:, :2], np.sqrt(squares), rtol=1e-6)
        np.testing.assert_array_equal(found["gradient_norms"][:, 2], 0)
        np.testing.assert_allclose(found["clipped_norm"], clipped, rtol=1e-6)
        np.testing.assert_array_equal(found["updates"], np.arange(len(gradients)))
    assert len(cycle.history["learning_rate"]) == len(gradients)


@pytest.mark.parametrize("cycle_first", [True, False])
def test_callbacks_that_share_an_optimizer_do_not_disturb_each_other(cycle_first):
    alone, together = make_model(), make_model()
    fit(alone, [one_cycle()])
    fit(together, [one_cycle(), Norms()] if cycle_first else [Norms(), one_cycle()])
    # On JAX the step is another program, whose sums XLA may order otherwise.
    bound = 1e-5 if BACKEND == "jax" else 0
    for value, expected in zip(state_of(together), state_of(alone), strict=True):
        np.testing.assert_allclose(value, expected, rtol=bound, atol=bound)


def test_one_hyperparameter_cannot_follow_two_curves():
    class Driver(StepCallback):
        def _join_step(self, step):
            step.part(ScheduledHyperparameters).add("beta_1", lambda i: 0.5 + 0 * i, lambda name: None)

    with pytest.raises(ValueError, match="`beta_1` follows the curve of another callback"):
        fit(make_model(), [Driver(), Driver()])


class Batches(StepPart):
    """A part that a file of its own could add: it counts the updates in the step."""

    def __init__(self, *context):
        super().__init__(*context)
        self.count, self.uploads, self.read = None, [], []

    @property
    def variables(self):
        return [] if self.count is None else [self.count]

    def upload(self, updates):
        self.uploads.append(updates.tolist())
        if self.count is None:
            self.count = step_variable(self._model, (), "int32")

    def download(self):
        if self.count is not None:
            self.read.append(int(keras.ops.convert_to_numpy(self.count)))

    def in_place(self):
        def counting(apply):
            def apply_and_count(gradients, variables):
                with depending_on(gradients):
                    self.count.assign(self.count.value + 1)
                return apply(gradients, variables)

            return apply_and_count

        return wrapped_methods(self._optimizer, apply_gradients=counting)


@pytest.mark.parametrize("mode", STEPS)
def test_a_new_part_needs_no_other_line_in_the_step(mode, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", 5)

    class Counter(StepCallback):
        def _join_step(self, step):
            self.part = step.part(Batches)

    counter, same = Counter(), Counter()
    model = truth.linear_model(keras.optimizers.SGD(0.1), **STEPS[mode])
    fit(model, [counter, one_cycle(), same])
    assert same.part is counter.part
    part = counter.part
    assert part.read[-1] == EPOCHS * BATCHES
    assert part.read == sorted(part.read)
    # Each upload is in time: it begins before the rows of the one before are over.
    firsts = [updates[0] for updates in part.uploads]
    assert firsts[0] == 0
    assert max(np.diff([*firsts, EPOCHS * BATCHES])) <= 5
    assert all(updates == list(range(updates[0], updates[0] + 5)) for updates in part.uploads)


# -- refusals ------------------------------------------------------------------------------------------


def test_a_step_that_does_not_use_the_optimizer_is_refused_not_ignored():
    model = truth.linear_model(keras.optimizers.SGD(0.1))
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.apply = lambda grads, trainable_variables=None: None
    model.compile(optimizer, loss=truth.MeanOutput())
    with pytest.raises(RuntimeError, match=r"did not apply gradients.*Received: model="):
        fit(model, [one_cycle()])


def test_a_keras_without_an_internal_is_refused_by_the_fit_that_needs_it_and_by_nothing_else():
    script = """
        import keras, numpy as np
        for kind in keras.optimizers.Optimizer.__mro__:
            if "_use_weight_decay" in vars(kind):
                del kind._use_weight_decay
        import keras_dnn_extras as kdx
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])
        model.compile("sgd", "mse")
        kdx.freeze(model)
        kdx.unfreeze(model, "head")
        assert kdx.fuse_batch_norm(model).model.count_params() == 8
        for callback in (kdx.OneCycleScheduler(0.1), kdx.GradientNormMonitor()):
            try:
                model.fit(np.ones((4, 3)), np.ones((4, 2)), callbacks=[callback], verbose=0)
            except RuntimeError as error:
                print(error)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script)]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    for feature in ("OneCycleScheduler", "GradientNormMonitor"):
        assert f"`{feature}` needs `Optimizer._use_weight_decay`, which this version" in result.stdout
    assert result.stdout.count(f"Received: keras=={keras.__version__}") == 2


def test_methods_that_a_user_put_on_the_instances_work_and_stay():
    model = truth.linear_model(keras.optimizers.SGD(0.1))
    steps, clips = [], []
    train_step, clip = model.train_step, model.optimizer._clip_gradients
    model.train_step = lambda *arguments: steps.append(1) or train_step(*arguments)
    model.optimizer._clip_gradients = lambda gradients: clips.append(1) or clip(gradients)
    own_step, own_clip = model.train_step, model.optimizer._clip_gradients
    fit(model, [one_cycle(), Norms()])
    assert steps
    assert clips
    assert model.train_step is own_step
    assert model.optimizer._clip_gradients is own_clip


# -- nothing between the steps -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", STEPS)
def test_between_the_steps_of_an_epoch_no_device_is_asked_and_no_model_touched(mode, monkeypatch):
    reads, accesses = [], []
    convert = keras.ops.convert_to_numpy
    monkeypatch.setattr("keras.ops.convert_to_numpy", lambda x: reads.append(1) or convert(x))
    model_of = keras.callbacks.Callback.model.fget

    class Counted(kdx.OneCycleScheduler):
        @property
        def model(self):
            accesses.append(1)
            return model_of(self)

    counts = {}
    for batches in (5, 50):
        reads.clear()
        accesses.clear()
        x, y = truth.data(batches)
        model = truth.linear_model(keras.optimizers.SGD(0.1, momentum=0.9), **STEPS[mode])
        model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[Counted(0.1)])
        counts[batches] = len(reads), len(accesses)
    assert counts[5] == counts[50]
    assert 0 < counts[50][0] <= 24
    assert 0 < counts[50][1] <= 20


def test_batches_are_announced_without_anything_that_ends_asynchronous_dispatch():
    for hook in ("on_train_batch_end", "on_batch_end"):
        assert getattr(StepCallback, hook) is getattr(keras.callbacks.Callback, hook)


def test_the_model_has_its_own_train_function_again():
    model = make_model()
    fit(model, [])
    before = model.train_function
    fit(model, [one_cycle()])
    assert model.train_function is before
    assert not isinstance(model.train_function, TrainingStep)
