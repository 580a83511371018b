"""Fits that are driven in unusual ways: they work, or are refused. Nothing is left silent."""

import contextlib
import gc
import math
import pickle
import weakref

import keras
import numpy as np
import pytest
import truth

import keras_dnn_extras as kdx
from keras_dnn_extras.learning_rates import curves

BACKEND = keras.backend.backend()
BATCHES, EPOCHS = 7, 2
SGD = keras.optimizers.SGD


def fit(model, callbacks, batches=BATCHES, **arguments):
    defaults = {"batch_size": 2, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    return model.fit(*truth.data(batches), callbacks=callbacks, **defaults | arguments)


def rates_of(total):
    low = 0.25 / 25
    cycle = {"warmup_fraction": 0.45, "three_phase": True, "anneal": "linear"}
    return curves.one_cycle(low, 0.25, low / 1e4, total, **cycle)(np.arange(total))


def assert_weights(model, rates, gradients=None):
    """Check that each gradient moved the weights by its rate: plain gradient descent."""
    if gradients is None:
        gradients = truth.gradients(truth.data(BATCHES)[0]) * EPOCHS
    for i, weight in enumerate(model.get_weights()):
        steps = sum(r * g[i].astype("float64") for r, g in zip(rates, gradients, strict=True))
        # A rounding for each update, of numbers up to the largest on the way.
        bound = len(gradients) * np.finfo("float32").eps * (1 + np.max(np.abs(steps)))
        np.testing.assert_allclose(weight, truth.initial_weights()[i] - steps, rtol=0, atol=bound)


def cycle(**arguments):
    return kdx.OneCycleScheduler(0.25, **arguments)


def hook(**hooks):
    """Return a callback that calls `hooks[name](model)` in those hooks."""

    class Hook(keras.callbacks.Callback):
        pass

    made = Hook()
    for name, function in hooks.items():
        setattr(made, name, lambda *_, function=function, **__: function(made.model))
    return made


# -- works ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_fit_again_after_an_interruption_goes_on_from_the_backup(tmp_path):
    seen = []

    def interrupt(model):
        seen.append(1)
        if len(seen) == BATCHES + 5:
            raise KeyboardInterrupt

    model, one_cycle = truth.linear_model(SGD()), cycle()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    callbacks = [one_cycle, hook(on_train_batch_end=interrupt), backup]
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks)
    fit(model, callbacks)
    assert_weights(model, rates_of(EPOCHS * BATCHES))
    np.testing.assert_allclose(one_cycle.history["learning_rate"], rates_of(14)[BATCHES:], rtol=1e-12)


class TwoUpdates(keras.Sequential):
    """Applies the gradients of each batch twice, as methods that look ahead do."""

    def train_step(self, *arguments):
        if BACKEND == "jax":
            import jax

            (weights, others, slots, metrics), (x, y) = arguments

            def loss_of(weights):
                return self.compute_loss(x, y, self.stateless_call(weights, others, x)[0])

            for _ in range(2):
                loss, gradients = jax.value_and_grad(loss_of)(weights)
                weights, slots = self.optimizer.stateless_apply(slots, gradients, weights)
            return {"loss": loss}, (weights, others, slots, metrics)
        (x, y) = arguments[0]
        for _ in range(2):
            loss = self.update(x, y)
        return {"loss": loss}

    def update(self, x, y):
        weights = self.trainable_weights
        if BACKEND == "torch":
            self.zero_grad()
            loss = self.compute_loss(x, y, self(x))
            loss.backward()
            self.optimizer.apply([v.value.grad for v in weights], weights)
            return loss
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x))
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return loss


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_step_may_apply_several_updates(eagerly):
    model = TwoUpdates([keras.Input((truth.FEATURES,)), truth.dense()])
    model.compile(SGD(), loss=truth.MeanOutput(), run_eagerly=eagerly)
    total = 2 * EPOCHS * BATCHES
    fit(model, [cycle(total_steps=total)])
    gradients = [g for g in truth.gradients(truth.data(BATCHES)[0]) * EPOCHS for _ in range(2)]
    assert_weights(model, rates_of(total), gradients)


@pytest.mark.parametrize("rows", [5, 4096])
def test_train_on_batch_between_the_steps_moves_the_clock_and_nothing_else(rows, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", rows)
    batch = truth.data(1)
    model = truth.linear_model(SGD())
    total = 2 * EPOCHS * BATCHES
    between = hook(on_train_batch_end=lambda model: model.train_on_batch(*batch))
    fit(model, [cycle(total_steps=total), between])
    of_fit = truth.gradients(truth.data(BATCHES)[0]) * EPOCHS
    gradients = [g for of_batch in of_fit for g in (of_batch, truth.gradients(batch[0])[0])]
    # The batch in between has the rate that was last in force.
    assert_weights(model, np.repeat(rates_of(total)[::2], 2), gradients)


@pytest.mark.parametrize("fitted", [False, True])
def test_a_loop_of_the_users_own_trains_by_train_on_batch(fitted):
    model = truth.linear_model(SGD())
    x, y = truth.data(BATCHES)
    if fitted:
        model.optimizer.learning_rate = 0.0
        fit(model, [], epochs=1)
    callbacks = keras.callbacks.CallbackList([cycle()], model=model, epochs=EPOCHS, steps=BATCHES)

    def train_on_batch(batch):  # named as the method that it calls
        rows = slice(2 * batch, 2 * batch + 2)
        callbacks.on_train_batch_begin(batch)
        model.train_on_batch(x[rows], y[rows])
        callbacks.on_train_batch_end(batch)

    callbacks.on_train_begin()
    for epoch in range(EPOCHS):
        callbacks.on_epoch_begin(epoch)
        for batch in range(BATCHES):
            train_on_batch(batch)
        callbacks.on_epoch_end(epoch)
    callbacks.on_train_end()
    assert_weights(model, rates_of(EPOCHS * BATCHES))


@pytest.mark.parametrize("steps", [0, 1])
def test_a_loop_that_is_left_does_not_harm_a_plain_fit(steps):
    model = truth.linear_model(SGD(0.25))
    x, y = truth.data(1)
    callbacks = keras.callbacks.CallbackList([cycle()], model=model, epochs=1, steps=2)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_train_batch_begin(0)
    for _ in range(steps):
        model.train_on_batch(x, y)
    model.set_weights(truth.initial_weights())
    model.optimizer.learning_rate = 0.25
    fit(model, [], epochs=1)
    assert_weights(model, np.full(BATCHES, 0.25), truth.gradients(truth.data(BATCHES)[0]))


def own_loop(model, callbacks, step):
    """A loop that announces a batch in one function, and trains in another."""
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for batch in range(2):
        callbacks.on_train_batch_begin(batch)
        step(model)
        callbacks.on_train_batch_end(batch)
    callbacks.on_epoch_end(0)


def test_a_loop_that_trains_in_another_function_is_refused_with_the_reason():
    model = truth.linear_model(SGD(0.25))
    callbacks = keras.callbacks.CallbackList([cycle()], model=model, epochs=1, steps=2)
    with pytest.raises(RuntimeError, match="one and the same function"):
        own_loop(model, callbacks, lambda model: model.train_on_batch(*truth.data(1)))


DECAY = keras.optimizers.schedules.ExponentialDecay(0.25, 2, 0.5)
NO_NUMBER = {
    "a schedule": (lambda: SGD(DECAY), DECAY),
    "a schedule of ours": (lambda: SGD(kdx.PowerDecay(0.25, 4)), kdx.PowerDecay(0.25, 4)),
    "a callable": (lambda: SGD(lambda: 0.125), lambda i: 0.125),
    "a scaled schedule": (
        lambda: keras.optimizers.LossScaleOptimizer(SGD(DECAY), initial_scale=8.0),
        DECAY,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", NO_NUMBER)
def test_callbacks_that_set_no_rate_work_with_every_rate(case):
    make, rate = NO_NUMBER[case]
    model = truth.linear_model(make())
    monitor = kdx.GradientNormMonitor(update_ratios=True)
    for _ in range(2):  # the second one asks what the first has left
        model.set_weights(truth.initial_weights())
        before = int(model.optimizer.iterations)
        fit(model, [monitor], epochs=1)
        rates = [float(keras.ops.convert_to_numpy(rate(i + before))) for i in range(BATCHES)]
        assert_weights(model, rates, truth.gradients(truth.data(BATCHES)[0]))
    assert len(monitor.history["gradient_norm"]) == BATCHES


def test_layers_are_unfrozen_under_a_schedule():
    model = truth.linear_model(SGD(DECAY))
    model.add(keras.layers.Dense(truth.UNITS, kernel_initializer=keras.initializers.Identity()))
    kdx.freeze(model, "linear")
    fit(model, [kdx.GradualUnfreezing({1: "linear"})])
    assert all(np.any(w != v) for w, v in zip(model.get_weights(), truth.initial_weights(), strict=False))


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras has none")
@pytest.mark.parametrize(
    "callback", [cycle, kdx.GradientNormMonitor, lambda: kdx.GradualUnfreezing({0: None})]
)
def test_several_optimizers_in_one_are_refused_at_the_start(callback):
    model = truth.linear_model(keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(SGD(0.1))))
    with pytest.raises(ValueError, match=r"one learning rate.*Received: optimizer=.*MultiOptimizer"):
        fit(model, [callback()])
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0


@pytest.mark.parametrize(
    "settings", [{}, {"gradient_accumulation_steps": 2}, {"loss_scale": True}], ids=str
)
def test_an_optimizer_that_is_restored_in_mid_fit_is_no_second_writer(settings, tmp_path):
    # As callbacks do that go back to the last good weights after a loss of NaN.
    scaled = settings.pop("loss_scale", False)
    optimizer = SGD(momentum=0.9, **settings)
    model = truth.linear_model(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer)
    path, calls = tmp_path / "model.weights.h5", []

    def save_and_restore(model):
        calls.append(1)
        if len(calls) == 3:
            model.save_weights(path)
        if len(calls) in (9, BATCHES + 4):
            model.load_weights(path)

    one_cycle = cycle(total_steps=2 * BATCHES)
    fit(model, [one_cycle, hook(on_train_batch_end=save_and_restore)])
    assert len(calls) == EPOCHS * BATCHES


def test_a_callback_that_reads_the_rate_and_writes_it_back_is_no_second_writer():
    def write_back(model):
        optimizer = model.optimizer
        optimizer.learning_rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        optimizer.momentum = float(optimizer.momentum)

    model = truth.linear_model(SGD(momentum=0.9))
    fit(model, [cycle(), hook(on_train_batch_end=write_back, on_epoch_begin=write_back)])
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == EPOCHS * BATCHES


class OwnList(keras.callbacks.CallbackList):
    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch, logs)


@pytest.mark.parametrize("kind", [keras.callbacks.CallbackList, OwnList])
@pytest.mark.parametrize("batches", [1, BATCHES])
def test_a_callback_list_of_the_users_own_works_and_may_be_used_again(kind, batches):
    model = truth.linear_model(SGD())
    callbacks = kind([cycle()], add_history=True, model=model, epochs=EPOCHS, steps=batches)
    gradients = truth.gradients(truth.data(batches)[0]) * EPOCHS
    for _ in range(2):
        fit(model, callbacks, batches)
    assert_weights(model, np.tile(rates_of(EPOCHS * batches), 2), gradients * 2)


def test_a_callback_list_without_parameters_works_with_total_steps():
    model = truth.linear_model(SGD())
    callbacks = keras.callbacks.CallbackList([cycle(total_steps=14)], add_history=True, model=model)
    fit(model, callbacks)
    assert_weights(model, rates_of(14))
    with pytest.raises(ValueError, match="how many batches an epoch has"):
        fit(model, keras.callbacks.CallbackList([cycle()], model=model))


def test_a_callback_list_within_the_list_works():
    model = truth.linear_model(SGD())
    inner = keras.callbacks.CallbackList([cycle()], model=model, epochs=EPOCHS, steps=BATCHES)
    fit(model, [inner])
    assert_weights(model, rates_of(14))


@pytest.mark.slow
def test_a_rebuilt_step_goes_on_in_the_curve():
    model = truth.linear_model(SGD())
    rebuild = hook(on_train_batch_end=lambda model: model.make_train_function(force=True))
    fit(model, [cycle(), rebuild])
    assert_weights(model, rates_of(14))


def test_a_callback_can_be_pickled_after_a_fit():
    one_cycle = cycle()
    fit(truth.linear_model(SGD()), [one_cycle])
    one_cycle.set_model(None)
    again = pickle.loads(pickle.dumps(one_cycle))
    assert again.history == one_cycle.history
    assert again.get_config() == one_cycle.get_config()


def test_after_an_exception_nothing_keeps_the_data_alive():
    def interrupt(model):
        raise RuntimeError("stopped by the test")

    class Data(keras.utils.PyDataset):
        def __len__(self):
            return BATCHES

        def __getitem__(self, index):
            return truth.data(1, seed=index)

    model, plain = truth.linear_model(SGD()), truth.linear_model(SGD())
    kept = []
    for each, callbacks in ((model, [cycle()]), (plain, [])):
        data = Data()
        reference = weakref.ref(data)
        with contextlib.suppress(RuntimeError):
            each.fit(data, verbose=0, callbacks=[*callbacks, hook(on_train_batch_begin=interrupt)])
        del data, callbacks
        gc.collect()
        kept.append(reference() is not None)
    assert kept[0] <= kept[1]  # no more than plain Keras keeps


@pytest.mark.parametrize("batches", [1, BATCHES])
def test_more_updates_in_a_step_than_the_table_has_are_refused(batches, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", 1)
    model = TwoUpdates([keras.Input((truth.FEATURES,)), truth.dense()])
    model.compile(SGD(), loss=truth.MeanOutput())
    with pytest.raises(RuntimeError, match=r"2 updates were applied where at most 1.*Received: model="):
        fit(model, [cycle(total_steps=100)], batches, epochs=1)


# -- refused -------------------------------------------------------------------------------------------


def test_a_callback_that_overrides_a_hook_without_super_is_refused_not_ignored():
    class Deaf(kdx.OneCycleScheduler):
        def on_train_batch_begin(self, batch, logs=None):
            pass

    with pytest.raises(RuntimeError, match=r"super\(\)\.on_train_batch_begin.*Received: model="):
        fit(truth.linear_model(SGD()), [Deaf(0.1)])


@pytest.mark.parametrize("at", [0, 3, BATCHES - 1])
def test_a_step_that_is_replaced_after_it_was_announced_is_refused_not_ignored(at):
    seen = []

    def rebuild(model):
        if len(seen) == at:
            model.make_train_function(force=True)
        seen.append(1)

    with pytest.raises(RuntimeError, match="another callback replaced"):
        fit(truth.linear_model(SGD()), [cycle(), hook(on_train_batch_begin=rebuild)], epochs=1)


def test_a_model_that_is_compiled_in_mid_fit_is_refused():
    def compile_again(model):
        model.compile(SGD(), loss=truth.MeanOutput())

    with pytest.raises(RuntimeError, match="compiled anew during `fit`"):
        fit(truth.linear_model(SGD()), [cycle(), hook(on_epoch_begin=compile_again)])


def test_a_second_writer_within_a_nested_list_is_refused():
    model = truth.linear_model(SGD())
    plateau = keras.callbacks.ReduceLROnPlateau()
    nested = keras.callbacks.CallbackList([plateau], model=model, epochs=EPOCHS, steps=BATCHES)
    with pytest.raises(ValueError, match="ReduceLROnPlateau"):
        fit(model, [cycle(), nested])


WRITES = {
    "learning rate": lambda model: setattr(model.optimizer, "learning_rate", 1e-9),
    "`momentum`": lambda model: setattr(model.optimizer, "momentum", 0.5),
}


@pytest.mark.parametrize("name", ["on_train_batch_begin", "on_train_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("ours_first", [True, False])
def test_a_callback_of_the_users_own_that_writes_beside_ours_is_refused(what, name, ours_first):
    model = truth.linear_model(SGD(momentum=0.9))
    callbacks = [cycle(), hook(**{name: WRITES[what]})]
    expected = rf"`OneCycleScheduler` sets the {what} of each update, and something.*callbacks=\[.*Hook"
    with pytest.raises(ValueError, match=expected):
        fit(model, callbacks if ours_first else callbacks[::-1])


def test_a_write_when_the_only_epoch_begins_is_refused():
    callbacks = [hook(on_epoch_begin=WRITES["learning rate"]), cycle()]
    with pytest.raises(ValueError, match="sets the learning rate of each update, and something else"):
        fit(truth.linear_model(SGD(momentum=0.9)), callbacks, epochs=1)


@pytest.mark.parametrize("batches", [1, BATCHES])
def test_a_single_write_in_the_middle_of_an_epoch_is_refused_when_it_ends(batches):
    calls = []

    def write_once(model):
        calls.append(1)
        if len(calls) == -(-batches // 2):
            model.optimizer.learning_rate = 1e-9

    decay = kdx.ExponentialLR(0.9)
    with pytest.raises(ValueError, match="`ExponentialLR` sets the learning rate of each update"):
        fit(truth.linear_model(SGD(0.1)), [decay, hook(on_train_batch_end=write_once)], batches)
    assert len(calls) == batches


def test_a_writer_is_refused_in_mid_epoch_where_values_are_exchanged(monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", 3)
    calls = []
    count_and_write = hook(
        on_train_batch_begin=lambda model: calls.append(1) or WRITES["learning rate"](model)
    )
    with pytest.raises(ValueError, match="and something else set it in this `fit` too"):
        fit(truth.linear_model(SGD(0.1)), [cycle(), count_and_write])
    assert len(calls) <= 4


@pytest.mark.parametrize("attribute", ["beta_1", "learning_rate"])
def test_a_writer_beside_ours_is_refused_under_loss_scaling_too(attribute):
    inner = keras.optimizers.Adam(0.1)
    model = truth.linear_model(keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0))
    write = hook(on_train_batch_end=lambda model: setattr(model.optimizer.inner_optimizer, attribute, 0.5))
    with pytest.raises(ValueError, match=attribute.replace("_", ".")):
        fit(model, [cycle(), write])


@pytest.mark.skipif(BACKEND != "jax", reason="what plain Keras loses on JAX alone")
def test_a_write_that_jax_loses_changes_nothing_and_is_not_seen():
    model = truth.linear_model(SGD())
    remembered = []  # not `self.model`, by which Keras brings the state of `fit` back
    lost = hook(on_train_begin=lambda model: remembered.append(model.optimizer))

    def write(batch, logs=None):
        if batch:  # when an epoch begins the state is in the variables, and a write counts
            remembered[0].learning_rate = 1e-9

    lost.on_train_batch_begin = write
    fit(model, [cycle(), lost])
    assert_weights(model, rates_of(EPOCHS * BATCHES))


def test_a_momentum_that_is_left_alone_is_the_users_own():
    model = truth.linear_model(SGD(momentum=0.9))
    fit(model, [cycle(cycle_momentum=False), hook(on_train_batch_end=WRITES["`momentum`"])])
    assert model.optimizer.momentum == 0.5


def test_a_callback_that_is_listed_twice_is_refused():
    one_cycle = cycle()
    with pytest.raises(ValueError, match="listed twice"):
        fit(truth.linear_model(SGD()), [one_cycle, one_cycle])


def test_a_fit_that_is_shorter_than_an_update_is_refused():
    model = truth.linear_model(SGD(gradient_accumulation_steps=50))
    with pytest.raises(ValueError, match=r"shorter than an update.*gradient_accumulation_steps=50"):
        fit(model, [cycle()])


def bypassing(optimizer):
    optimizer.apply = lambda grads, trainable_variables=None: optimizer._iterations.assign_add(1)
    return optimizer


@pytest.mark.skipif(BACKEND == "jax", reason="the loss scale of JAX calls `stateless_apply`")
def test_a_step_that_bypasses_a_scaled_optimizer_is_refused_after_an_epoch():
    model = truth.linear_model(SGD())
    model.compile(keras.optimizers.LossScaleOptimizer(bypassing(SGD())), loss=truth.MeanOutput())
    with pytest.raises(RuntimeError, match="did not apply gradients"):
        fit(model, [cycle()])


# -- optimizers of the user's own ------------------------------------------------------------------------


class Own(keras.optimizers.SGD):
    """Plain gradient descent with a rate that `use(momentum)` scales."""

    def __init__(self, use, **arguments):
        super().__init__(0.1, momentum=0.9, **arguments)
        self.use = use

    def update_step(self, gradient, variable, learning_rate):
        scale = keras.ops.cast(self.use(self.momentum), variable.dtype)
        rate = keras.ops.cast(learning_rate, variable.dtype)
        variable.assign(variable - scale * rate * gradient)


USES = {
    "the value": (lambda m: m, lambda m: m),
    "1 - m": (lambda m: 1 - m, lambda m: 1 - m),
    "m - 1": (lambda m: m - 1, lambda m: m - 1),
    "2 - m": (lambda m: 2 - m, lambda m: 2 - m),
    "m - 0.5": (lambda m: m - 0.5, lambda m: m - 0.5),
    "m + 1": (lambda m: m + 1, lambda m: m + 1),
    "1 / m": (lambda m: 1 / m, lambda m: 1 / m),
    "m / 2": (lambda m: m / 2, lambda m: m / 2),
    "-m": (lambda m: -m, lambda m: -m),
    "m ** 2": (lambda m: m**2, lambda m: m**2),
    "2 ** m": (lambda m: 2.0**m, lambda m: 2.0**m),
    "abs(m)": (lambda m: abs(m), lambda m: abs(m)),
    "sqrt(1 - m)": (lambda m: keras.ops.sqrt(1 - m), lambda m: np.sqrt(1 - m)),
    "a condition": (lambda m: (m if m else 0) * (m > 0) * (m >= 0.1) * (m <= 1) * (m < 1), lambda m: m),
}


@pytest.mark.parametrize("use", USES)
def test_an_optimizer_of_the_users_own_may_compute_with_its_momentum(use):
    in_step, in_numpy = USES[use]
    one_cycle = cycle()
    model = truth.linear_model(Own(in_step))
    fit(model, [one_cycle])
    scales = in_numpy(np.array(one_cycle.history["momentum"]))
    assert_weights(model, scales * rates_of(14))


@pytest.mark.skipif(BACKEND == "torch", reason="on torch the momentum is a tensor that becomes a number")
@pytest.mark.parametrize("use", [float, int, lambda m: math.sqrt(1 - m)])
def test_a_momentum_that_is_used_as_a_python_number_is_refused_with_the_way_out(use):
    with pytest.raises(TypeError) as caught:
        fit(truth.linear_model(Own(use)), [cycle()])
    told = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "cycle_momentum=False" in told


@pytest.mark.parametrize("callback", [cycle, kdx.GradientNormMonitor])
def test_a_frozen_model_is_refused_at_the_start(callback):
    model = truth.linear_model(SGD(0.1))
    model.trainable = False
    model.compile(SGD(0.1), "mse")
    with pytest.raises(ValueError, match="no trainable weights"):
        fit(model, [callback()])
    model.trainable = True
    model.compile(SGD(0.1), "mse")
    fit(model, [callback()])
    assert int(model.optimizer.iterations) == BATCHES * EPOCHS
