"""Learning rate and momentum in the logs of batches, where they are asked for."""

import contextlib

import keras
import numpy as np
import pytest
import truth

import keras_dnn_extras as kdx

BACKEND = keras.backend.backend()
BATCHES = 4


class Seen(keras.callbacks.Callback):
    """Records what later callbacks, such as TensorBoard, see in the logs of batches."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(logs)

    def values(self, name):
        return [logs.get(name) for logs in self.logs]


def seen_in_fit(scheduler, optimizer, *, x=None, epochs=2, **compile_arguments):
    model, seen = truth.linear_model(optimizer, **compile_arguments), Seen()
    inputs, targets = truth.data(BATCHES)
    arguments = {"batch_size": 2, "shuffle": False, "verbose": 0, "callbacks": [seen, scheduler]}
    model.fit(inputs if x is None else x, targets, epochs=epochs, **arguments)
    return seen


def rates(updates, total):
    return [float(rate) for rate in kdx.OneCycle(0.25, total).curve(np.array(updates))]


def test_each_batch_has_the_values_of_its_update():
    scheduler = kdx.OneCycleScheduler(0.25, update_freq="batch")
    seen = seen_in_fit(scheduler, keras.optimizers.SGD(0.1, momentum=0.9))
    assert seen.values("learning_rate") == rates(range(8), 8) == scheduler.history["learning_rate"]
    assert seen.values("momentum") == scheduler.history["momentum"]
    assert seen.values("momentum")[0] == 0.95
    assert all(type(value) is float for value in seen.values("momentum"))


def test_with_an_int_values_are_read_after_so_many_batches():
    scheduler = kdx.ExponentialLR(0.5, initial_learning_rate=1.0, update_freq=3)
    seen = seen_in_fit(scheduler, keras.optimizers.SGD(0.1, momentum=0.9))
    assert seen.values("learning_rate") == [None, None, 0.25, 0.25, None, None, 2.0**-6, 2.0**-6]
    assert seen.values("momentum")[2:4] == [0.9, 0.9]  # which is constant


def test_a_batch_whose_gradient_accumulates_has_the_value_of_the_update_before():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    scheduler = kdx.PowerLR(decay_steps=1, initial_learning_rate=1.0, update_freq="batch")
    seen = seen_in_fit(scheduler, optimizer)
    # Updates end with batches 1 and 3 of each epoch. Before the first there is the value to come.
    expected = [1, 1, 1, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 1 / 4]
    np.testing.assert_allclose(seen.values("learning_rate"), expected, rtol=1e-15)


def test_a_step_that_loss_scaling_skips_is_no_update():
    x = truth.data(BATCHES)[0]
    x[:2] = np.inf
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    scheduler = kdx.ExponentialLR(0.5, initial_learning_rate=1.0, update_freq="batch")
    seen = seen_in_fit(scheduler, optimizer, x=x, epochs=1)
    assert seen.values("learning_rate") == [1.0, 1.0, 0.5, 0.25]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses several steps per execution there")
def test_a_group_of_steps_has_the_value_of_its_last_update():
    scheduler = kdx.ExponentialLR(0.5, initial_learning_rate=1.0, update_freq="batch")
    seen = seen_in_fit(scheduler, keras.optimizers.SGD(0.1), epochs=1, steps_per_execution=3)
    assert seen.values("learning_rate") == [0.25, 0.125]  # of three steps, and of the one that is left


def test_a_resumed_fit_logs_the_rest_of_the_curve(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def fit(*further):
        seen = Seen()
        scheduler = kdx.OneCycleScheduler(0.25, update_freq="batch")
        model = truth.linear_model(keras.optimizers.SGD(0.1))
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [backup, scheduler, seen, *further]
        arguments = {"batch_size": 2, "epochs": 3, "shuffle": False, "verbose": 0}
        with contextlib.suppress(KeyboardInterrupt):
            model.fit(*truth.data(BATCHES), callbacks=callbacks, **arguments)
        return seen

    assert fit(Stop()).values("learning_rate") == rates(range(4), 12)
    assert fit().values("learning_rate") == rates(range(4, 12), 12)


def test_values_are_found_beyond_the_rows_of_a_table(monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._training_step.exchange._ROWS", 3)
    scheduler = kdx.OneCycleScheduler(0.25, update_freq="batch")
    assert seen_in_fit(scheduler, keras.optimizers.SGD(0.1)).values("learning_rate") == rates(range(8), 8)


def test_by_default_no_batch_waits_for_it():
    default, per_batch = kdx.OneCycleScheduler(0.1), kdx.OneCycleScheduler(0.1, update_freq="batch")
    is_default = keras.callbacks.CallbackList([default])._async_train
    assert is_default is keras.callbacks.CallbackList([])._async_train
    assert keras.callbacks.CallbackList([per_batch])._async_train is False


def test_an_optimizer_that_is_set_back_in_a_fit_logs_the_value_of_its_last_update():
    class SetBack(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.values = [keras.ops.convert_to_numpy(v) for v in self.model.optimizer.variables]

        def on_epoch_end(self, epoch, logs=None):
            for variable, value in zip(self.model.optimizer.variables, self.values, strict=True):
                variable.assign(value)

    model, seen = truth.linear_model(keras.optimizers.SGD(0.1)), Seen()
    scheduler = kdx.OneCycleScheduler(0.25, total_steps=8, update_freq="batch")
    callbacks = [SetBack(), scheduler, seen]
    model.fit(*truth.data(BATCHES), batch_size=2, epochs=2, callbacks=callbacks, verbose=0)
    assert seen.values("learning_rate") == 2 * rates(range(4), 8)


@pytest.mark.parametrize("update_freq", ["epoch", "batch"])
def test_a_subclass_may_override_both_methods_for_the_end_of_a_batch(update_freq):
    class Subclass(kdx.OneCycleScheduler):
        calls = ()

        def on_batch_end(self, batch, logs=None):
            self.calls += (batch,)

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            self.calls += ("learning_rate" in logs,)

    scheduler = Subclass(0.1, update_freq=update_freq)
    seen_in_fit(scheduler, keras.optimizers.SGD(0.1), epochs=1)
    logged = update_freq == "batch"
    assert scheduler.calls == (0, logged, 1, logged, 2, logged, 3, logged)


@pytest.mark.parametrize("make", [kdx.OneCycleScheduler, kdx.ExponentialLR])
def test_what_is_no_frequency_is_refused(make):
    wrong = {"sometimes": ValueError, 0: ValueError, 1.5: TypeError, True: TypeError, None: TypeError}
    for update_freq, error in wrong.items():
        with pytest.raises(error, match=r'"epoch", "batch" or a positive int. Received: update_freq='):
            make(0.1, update_freq=update_freq)
