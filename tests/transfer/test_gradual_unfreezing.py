"""GradualUnfreezing: against phases with recompiling and separate optimizers, resumed, saved, refused."""

import contextlib
import csv
import functools
import gc
import json
import re
import shutil
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import truth
from transfer_models import MODELS, assert_same, data, fit, layer, nested, path, values

import keras_dnn_extras as kdx
from keras_dnn_extras._training_step import step
from keras_dnn_extras.transfer import gradual_unfreezing, resumption
from keras_dnn_extras.transfer.backups import Backup

L = keras.layers
BACKEND = keras.backend.backend()
# Everything in the updates is float32: a few roundings in each of 16 updates of weights up to 1 and steps
# up to 0.1, 16 * 8 * 2**-24, and as much again for what other weights make of the next gradients.
ROUNDINGS = 2 * 16 * 8 * 2.0**-24


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


class _StopError(Exception):
    pass


def interrupt_at(epoch, batch=None, error=_StopError):
    class Interrupt(keras.callbacks.Callback):
        epoch_now = 0

        def on_epoch_begin(self, now, logs=None):
            self.epoch_now = now
            if error and now == epoch and batch is None:
                raise error

        def on_train_batch_end(self, now, logs=None):
            if error and batch is not None and (self.epoch_now, now) == (epoch, batch):
                raise error

    return Interrupt()


def frozen(optimizer, make=nested, build_optimizer=True, **compile_arguments):
    """Return a model whose head alone trains, always with the same weights.

    Where `fit` builds the optimizer, TensorFlow traces each step twice.
    """
    keras.utils.set_random_seed(1)
    model = make()
    kdx.freeze(model, path(model, "body"))
    model.compile(optimizer, "mse", **compile_arguments)
    if build_optimizer:
        model.optimizer.build(model.trainable_variables)
    return model


def plan(model):
    return {1: path(model, "second"), 2: path(model, "body")}


def phases(model, epochs=4, **arguments):
    """Train as the plan says, with one `fit` for each phase and Keras's own recompiling."""
    stages = plan(model)
    begin = 0
    for end in (*stages, epochs):
        if begin:
            kdx.unfreeze(model, stages[begin])
        fit(model, initial_epoch=begin, epochs=end, **arguments)
        begin = end


SGD = {
    "plain": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "clipped": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.3),
    "decayed": lambda: keras.optimizers.SGD(0.1, weight_decay=0.1),
    "accumulating": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
}
ADAPTIVE = {
    "Adam": lambda: keras.optimizers.Adam(0.02),
    "AdamW": lambda: keras.optimizers.AdamW(0.02, weight_decay=0.1),
    "Adamax": lambda: keras.optimizers.Adamax(0.02),
    "Lamb": lambda: keras.optimizers.Lamb(0.02),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.02, momentum=0.5),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "Lion": lambda: keras.optimizers.Lion(0.002),
}


# -- the weights -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", SGD)
def test_equals_phases_with_recompiling_to_the_last_bit(optimizer):
    model, expected = frozen(SGD[optimizer]()), frozen(SGD[optimizer]())
    fit(model, epochs=4, callbacks=[kdx.GradualUnfreezing(plan(model))])
    phases(expected)
    assert_same(values(model.weights), values(expected.weights))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        *(("flat", {"jit_compile": True}), ("nested", {"steps_per_execution": 3})),
        *(("subclassed", {"run_eagerly": True}), ("subclassed", {"jit_compile": True})),
    ],
)
def test_the_same_in_models_of_every_kind_however_they_are_compiled(kind, arguments):
    if BACKEND == "torch" and "run_eagerly" not in arguments:
        pytest.skip("refused by Keras on torch, or compiles for minutes")
    model, expected = (frozen(SGD["momentum"](), MODELS[kind], **arguments) for _ in range(2))
    fit(model, epochs=4, callbacks=[kdx.GradualUnfreezing(plan(model))])
    phases(expected)
    assert_same(values(model.weights), values(expected.weights))


@pytest.mark.slow
def test_equals_phases_in_a_step_that_torch_compiles():
    if BACKEND != "torch":
        pytest.skip("of torch.compile")
    import torch

    model, expected = (frozen(SGD["momentum"](), jit_compile=True) for _ in range(2))
    # To torch the steps of all models are one function, which is compiled at most 8 times.
    torch.compiler.reset()
    fit(model, epochs=4, callbacks=[kdx.GradualUnfreezing(plan(model))])
    torch.compiler.reset()
    phases(expected)
    assert_same(values(model.weights), values(expected.weights))


def separate_optimizers(model, make, batches=(4, 4, 4, 4)):
    """Train in a plain loop, with an optimizer of its own for what is unfrozen in each epoch.

    Args:
        batches: how many each epoch has.
    """
    stages = {0: ["head"], 1: ["second"], 2: ["first"]}
    parts = []
    x, y = data()
    for epoch, count in enumerate(batches):
        if epoch in stages:
            for name in stages[epoch]:
                layer(model, name).trainable = True
            weights = [w for name in stages[epoch] for w in layer(model, name).trainable_weights]
            parts.append((make(), weights))
        for i in range(0, 5 * count, 5):
            found = truth.gradients_by_autodiff(model, x[i : i + 5], y[i : i + 5])
            of_weight = dict(zip(map(id, model.trainable_variables), found, strict=True))
            for optimizer, weights in parts:
                gradients = [keras.ops.convert_to_tensor(of_weight[id(w)]) for w in weights]
                optimizer.apply(gradients, weights)


def unregularized():
    model = nested()
    layer(model, "first").kernel.regularizer = None
    return model


def frozen_within():
    """Return the model of `frozen`, in which containers are not frozen by their own flag."""
    model = frozen("sgd", unregularized)
    for outer in model._flatten_layers():
        if outer._layers:
            with_flags = [(inner, inner.trainable) for inner in outer._flatten_layers(include_self=False)]
            outer.trainable = True
            for inner, flag in with_flags:
                if not inner._layers:
                    inner.trainable = flag
    return model


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ADAPTIVE)
def test_layers_begin_as_with_an_optimizer_of_their_own(optimizer):
    model = frozen(ADAPTIVE[optimizer](), unregularized, build_optimizer=False)
    fit(model, epochs=4, callbacks=[kdx.GradualUnfreezing(plan(model))])
    expected = frozen_within()
    separate_optimizers(expected, ADAPTIVE[optimizer])
    for new, old in zip(values(model.weights), values(expected.weights), strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=ROUNDINGS)


def first_steps(optimizer, epoch):
    """Return the largest change of a weight in the first update after it was unfrozen in `epoch`."""
    model = frozen(optimizer)
    fit(model, epochs=epoch + 1, callbacks=[kdx.GradualUnfreezing({epoch: "body/second"})], batch_size=20)
    keras.utils.set_random_seed(1)
    before = values(layer(nested(), "second").weights)
    changes = [
        abs(a - b).max() for a, b in zip(values(layer(model, "second").weights), before, strict=True)
    ]
    return max(changes)


@pytest.mark.slow
@pytest.mark.parametrize("make", [keras.optimizers.Adam, keras.optimizers.Adamax])
def test_the_first_step_of_new_weights_is_as_large_as_the_very_first(make):
    # As large as the rate, whatever the gradient, but for epsilon. With the corrections of update 13 it
    # would be 0.1 / (1 - 0.9**13) / sqrt(0.001 / (1 - 0.999**13)) = 0.5 times the rate for Adam.
    assert first_steps(make(0.01, epsilon=1e-12), 12) == pytest.approx(0.01, rel=1e-5)


@pytest.mark.slow
def test_there_is_no_jump_with_nadam():
    # One product for all weights corrects its momentum, so new ones begin with less than others did. With
    # the correction of update 60 for the squares alone it would be 1.5 times the rate.
    assert first_steps(keras.optimizers.Nadam(0.01), 60) <= 0.01


@pytest.mark.slow
def test_batch_normalization_stays_frozen_unless_asked_for():
    for batch_norm in (False, True):
        model = frozen("adam")
        before = values(layer(model, "norm").weights)
        fit(model, epochs=3, callbacks=[kdx.GradualUnfreezing({1: None}, batch_norm=batch_norm)])
        moved = [(a != b).any() for a, b in zip(values(layer(model, "norm").weights), before, strict=True)]
        assert moved == [batch_norm] * 4


class _AtEpochEnd(keras.callbacks.Callback):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def on_epoch_end(self, epoch, logs=None):
        self.call(epoch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.5, use_ema=True),
        *(SGD[name] for name in ("momentum", "accumulating", "scaled")),
    ],
)
def test_until_its_epoch_nothing_moves_a_layer(make):
    model = frozen(make())
    seen = []
    look = _AtEpochEnd(lambda epoch: seen.append(values(model.layers[1].weights)))
    fit(model, epochs=3, callbacks=[kdx.GradualUnfreezing({2: "body"}), look])
    keras.utils.set_random_seed(1)
    before = values(nested().layers[1].weights)
    for found in seen[:2]:
        assert_same(found, before)
    assert (seen[2][0] != before[0]).any()


@pytest.mark.slow
def test_a_moving_average_does_not_pull_new_weights_to_zero():
    model = frozen(keras.optimizers.SGD(1e-6, use_ema=True, ema_momentum=0.5))
    before = values(layer(model, "second").weights)
    fit(model, epochs=4, callbacks=[kdx.GradualUnfreezing({2: "body"})])  # ends with the average
    for new, old in zip(values(layer(model, "second").weights), before, strict=True):
        np.testing.assert_allclose(new, old, atol=1e-4)


# -- in company ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_goes_with_one_cycle_whose_rates_are_those_of_the_curve(first):
    model = frozen(keras.optimizers.Adam(0.1))
    callbacks = [kdx.GradualUnfreezing(plan(model)), kdx.OneCycleScheduler(0.02)]
    fit(model, epochs=4, callbacks=callbacks if first else callbacks[::-1])
    curve = kdx.OneCycle(0.02, 16).curve(np.arange(16))
    np.testing.assert_allclose(callbacks[1].history["learning_rate"], curve, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_gradient_norms_of_a_layer_begin_when_it_is_unfrozen(first, pyplot):
    model = frozen(keras.optimizers.SGD(0.1))
    monitor = kdx.GradientNormMonitor(on_problem="raise")
    callbacks = [kdx.GradualUnfreezing(plan(model)), monitor]
    history = fit(model, epochs=4, callbacks=callbacks if first else callbacks[::-1]).history
    assert np.isnan(monitor.history["gradient_norm/body/second"][:4]).all()
    expected = frozen(keras.optimizers.SGD(0.1))
    norms = {"head": [], "body/second": [np.nan] * 4, "body/first": [np.nan] * 8}
    x, y = data()
    for epoch in range(4):
        if epoch in plan(expected):
            kdx.unfreeze(expected, plan(expected)[epoch])
        names = ["body/first", "body/second", "head"][-1 - min(epoch, 2) :]
        for i in range(0, 20, 5):
            found = truth.gradients_by_autodiff(expected, x[i : i + 5], y[i : i + 5])
            for name, pair in zip(names, zip(found[::2], found[1::2], strict=True), strict=True):
                norms[name].append(np.sqrt(sum(np.sum(np.square(g, dtype="float64")) for g in pair)))
            expected.train_on_batch(x[i : i + 5], y[i : i + 5])
    for name in ("head", "body/second"):
        found = monitor.history[f"gradient_norm/{name}"]
        np.testing.assert_allclose(found, norms[name], rtol=1e-4)
    assert np.isnan(history["gradient_norm/body/first"]).tolist() == [True, True, False, False]
    ax = monitor.plot()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["body/first", "body/second", "head"]  # and not the normalization, which stays frozen
    mesh = ax.collections[0]
    white = (mesh.to_rgba(mesh.get_array()) == 1).all(axis=-1)
    assert white.sum(axis=1).tolist() == [8, 4, 0]


@pytest.mark.slow
@pytest.mark.parametrize("update_freq", ["epoch", 3])
def test_all_rows_of_a_csv_file_have_the_heading_of_the_first(update_freq, tmp_path):
    def run(*more):
        model = frozen("sgd")
        monitor = kdx.GradientNormMonitor(update_freq, update_ratios=True)
        logger = keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [backup, kdx.GradualUnfreezing({2: "body/second"}), monitor, logger, *more]
        fit(model, epochs=4, callbacks=callbacks)

    with pytest.raises(_StopError):
        run(interrupt_at(3))
    run()
    header, *rows = csv.reader((tmp_path / "log.csv").read_text().splitlines())
    values = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["epoch"] for row in values] == ["0", "1", "2", "3"]
    for kind in ("gradient_norm", "update_ratio"):
        assert [np.isfinite(float(row[f"{kind}/body/second"])) for row in values] == [
            False,
            False,
            True,
            True,
        ]
        assert f"{kind}/body/first" not in header  # no epoch of the plan trains it


@pytest.mark.slow
@pytest.mark.parametrize("error", [None, _StopError, KeyboardInterrupt])
def test_the_step_is_kerass_own_again_after_fit(error):
    model = frozen(keras.optimizers.Adam(0.01))
    optimizer = model.optimizer
    callbacks = [kdx.GradualUnfreezing(plan(model)), interrupt_at(2, 1, error)]
    with pytest.raises(error) if error else contextlib.nullcontext():
        fit(model, epochs=3, callbacks=callbacks)
    assert model.optimizer is optimizer
    assert len(optimizer.variables) == 2 + 2 * 6
    assert not any(name in vars(optimizer) for name in ("update_step", "_backend_apply_gradients"))
    before = {name: values(layer(model, name).weights) for name in ("first", "norm", "second", "head")}
    fit(model)
    after = {name: values(layer(model, name).weights) for name in before}
    moved = {name for name in before if (after[name][0] != before[name][0]).any()}
    assert moved == {"first", "second", "head"}
    assert_same(after["norm"], before["norm"])


# -- interrupted -----------------------------------------------------------------------------------------


RESUMED = {"Adam": ADAPTIVE["Adam"], "momentum": SGD["momentum"], "AdamW": ADAPTIVE["AdamW"]}


@functools.cache
def uninterrupted(optimizer):
    """Return the weights and the optimizer's variables after a whole run."""
    model = frozen(RESUMED[optimizer]())
    fit(model, epochs=4, callbacks=[kdx.GradualUnfreezing(plan(model))])
    return values(model.weights), values(model.optimizer.variables)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "epoch", "backup_first"),
    [
        *(("Adam", 1, True), ("Adam", 2, True), ("Adam", 2, False), ("Adam", 3, False)),
        *(("momentum", 2, True), ("AdamW", 3, True)),
    ],
)
def test_resumed_from_a_backup_it_equals_the_uninterrupted_run(optimizer, epoch, backup_first, tmp_path):
    make = RESUMED[optimizer]

    def callbacks(model):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        both = [backup, kdx.GradualUnfreezing(plan(model))]
        return both if backup_first else both[::-1]

    model = frozen(make())
    with pytest.raises(_StopError):
        fit(model, epochs=4, callbacks=[*callbacks(model), interrupt_at(epoch)])
    resumed = frozen(make())  # as in another process
    fit(resumed, epochs=4, callbacks=callbacks(resumed))
    weights, state = uninterrupted(optimizer)
    assert_same(values(resumed.weights), weights)
    assert_same(values(resumed.optimizer.variables), state)


@pytest.mark.slow
def test_resumed_in_the_same_process_after_an_interrupted_epoch(tmp_path):
    def callbacks(model):
        return [keras.callbacks.BackupAndRestore(tmp_path / "backup"), kdx.GradualUnfreezing(plan(model))]

    model = frozen(ADAPTIVE["Adam"]())
    with pytest.raises(_StopError):
        fit(model, epochs=4, callbacks=[*callbacks(model), interrupt_at(2, batch=1)])
    fit(model, epochs=4, callbacks=callbacks(model))
    assert_same(values(model.weights), uninterrupted("Adam")[0])


def backup_in(folder, model, **arguments):
    backup = keras.callbacks.BackupAndRestore(folder / "backup", **arguments)
    return [backup, kdx.GradualUnfreezing(plan(model))]


def interrupted(folder, interrupt, make=ADAPTIVE["Adam"], make_model=nested, **arguments):
    model = frozen(make(), make_model)
    with pytest.raises(_StopError):
        fit(model, epochs=4, callbacks=[*backup_in(folder, model, **arguments), interrupt])
    return model


def write_epoch(folder, epoch):
    (folder / "backup" / "training_metadata.json").write_text(json.dumps({"epoch": epoch, "batch": 0}))


@pytest.mark.slow
def test_after_a_kill_between_the_two_files_of_a_backup_the_epoch_is_repeated(tmp_path):
    interrupted(tmp_path, interrupt_at(3))
    write_epoch(tmp_path, 2)  # the weights are those of the end of epoch 2, the second file is older
    resumed = frozen(ADAPTIVE["Adam"]())
    fit(resumed, epochs=4, callbacks=backup_in(tmp_path, resumed))
    expected = frozen(ADAPTIVE["Adam"]())
    fit(expected, epochs=5, callbacks=[kdx.GradualUnfreezing(plan(expected))])  # all epochs are the same
    assert_same(values(resumed.weights), values(expected.weights))
    assert_same(values(resumed.optimizer.variables), values(expected.optimizer.variables))


@pytest.mark.slow
def test_after_a_kill_within_the_first_backup_the_first_epoch_is_repeated(tmp_path):
    interrupted(tmp_path, interrupt_at(1))
    (tmp_path / "backup" / "training_metadata.json").unlink()
    resumed = frozen(ADAPTIVE["Adam"]())
    fit(resumed, epochs=4, callbacks=backup_in(tmp_path, resumed))
    expected = frozen(ADAPTIVE["Adam"]())
    later = {epoch + 1: layers for epoch, layers in plan(expected).items()}
    fit(expected, epochs=5, callbacks=[kdx.GradualUnfreezing(later)])
    assert_same(values(resumed.weights), values(expected.weights))


@pytest.mark.slow
def test_resumed_from_a_torn_backup_and_the_one_before_it_equals_the_uninterrupted_run(tmp_path):
    interrupted(tmp_path, interrupt_at(3), double_checkpoint=True)
    latest = tmp_path / "backup" / "latest.weights.h5"
    latest.write_bytes(latest.read_bytes()[:3000])
    resumed = frozen(ADAPTIVE["Adam"]())
    fit(resumed, epochs=4, callbacks=backup_in(tmp_path, resumed, double_checkpoint=True))
    weights, state = uninterrupted("Adam")
    assert_same(values(resumed.weights), weights)
    assert_same(values(resumed.optimizer.variables), state)


@pytest.mark.slow
def test_resumed_from_a_backup_within_an_epoch_new_layers_go_on_with_their_corrections(tmp_path):
    interrupted(tmp_path, interrupt_at(2, batch=1), make_model=unregularized, save_freq=2)
    resumed = frozen(ADAPTIVE["Adam"](), unregularized)
    fit(resumed, epochs=4, callbacks=backup_in(tmp_path, resumed, save_freq=2))
    expected = frozen_within()
    separate_optimizers(expected, ADAPTIVE["Adam"], batches=(4, 4, 2, 4, 4))  # Keras repeats the epoch
    assert int(resumed.optimizer.iterations) == 18
    for new, old in zip(values(resumed.weights), values(expected.weights), strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=ROUNDINGS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "epoch", "message"),
    [
        # what Keras writes after a second interruption, with `save_freq` in batches
        (ADAPTIVE["Adam"], 0, r"saved in epoch 2 or later.* go on in epoch 0.*training_metadata.json"),
        (SGD["momentum"], 3, r"fits what is trained in no epoch.*Received: plan="),
    ],
)
def test_a_backup_that_the_plan_cannot_go_on_from_is_refused(make, epoch, message, tmp_path):
    interrupted(tmp_path, interrupt_at(2, batch=1), save_freq=2)
    write_epoch(tmp_path, epoch)
    resumed = frozen(make())
    before = values(resumed.weights), [w.trainable for w in resumed.weights]
    with pytest.raises(ValueError, match=message):
        fit(resumed, epochs=4, callbacks=backup_in(tmp_path, resumed, save_freq=2))
    assert_same(values(resumed.weights), before[0])
    assert [w.trainable for w in resumed.weights] == before[1]
    assert len(resumed.trainable_weights) == 2
    fit(resumed)  # trains as if nothing had been


@pytest.mark.slow
def test_a_refused_resume_in_the_same_process_leaves_the_layers_as_they_are(tmp_path):
    model = interrupted(tmp_path, interrupt_at(2, batch=1), save_freq=2)
    write_epoch(tmp_path, 0)
    with pytest.raises(ValueError, match="saved in epoch 2"):
        fit(model, epochs=4, callbacks=backup_in(tmp_path, model, save_freq=2))
    assert len(model.trainable_weights) == 6
    write_epoch(tmp_path, 2)
    fit(model, epochs=4, callbacks=backup_in(tmp_path, model, save_freq=2))


def trained(model):
    """Return what is trained, in the layers and in the optimizer, and all that the optimizer has."""
    layers = [layer.trainable for layer in model._flatten_layers()]
    known = [id(v) for v in model.optimizer._trainable_variables] if model.optimizer.built else []
    return layers, known, [(id(v), np.array(v.numpy()).tolist()) for v in model.optimizer.variables]


def scaled_adam():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())


def assert_trains(model, names):
    before = {name: values(layer(model, name).weights)[0] for name in ("first", "second", "head")}
    fit(model)
    moved = [name for name in before if (values(layer(model, name).weights)[0] != before[name]).any()]
    assert moved == names


@pytest.mark.slow
@pytest.mark.parametrize("make", [ADAPTIVE["Adam"], scaled_adam])
def test_a_refused_resume_in_the_same_process_leaves_the_optimizer_all_that_it_has(make, tmp_path):
    model = interrupted(tmp_path, interrupt_at(3), make)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    before = [(id(v), v.numpy().tolist()) for v in inner.variables]
    backup, _ = backup_in(tmp_path, model)
    with pytest.raises(ValueError, match="no epoch of the plan"):
        fit(model, epochs=4, callbacks=[backup, kdx.GradualUnfreezing({1: "body/first"})])
    assert [(id(v), v.numpy().tolist()) for v in inner.variables] == before
    assert_trains(model, ["first", "second", "head"])


def interrupting(monkeypatch, module, name):
    """Let the first call of a function of `module` end with Ctrl-C when it is done."""
    function = getattr(module, name)

    def call(*arguments, **named):
        function(*arguments, **named)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, call)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rebuild", "accept_trainable"])
def test_ctrl_c_while_layers_are_unfrozen_leaves_those_trained_that_were(name, monkeypatch):
    model = frozen(ADAPTIVE["Adam"]())
    fit(model)
    before = trained(model)[:2]
    gradual = kdx.GradualUnfreezing({0: "body/second"})
    interrupting(monkeypatch, step, name)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[gradual])
    assert trained(model)[:2] == before
    assert gradual.unfrozen == {}
    assert_trains(model, ["head"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"), [(gradual_unfreezing, "freeze_again"), (resumption, "variables_if_built")]
)
def test_ctrl_c_while_a_backup_is_read_leaves_those_trained_that_were(module, name, monkeypatch, tmp_path):
    model = interrupted(tmp_path, interrupt_at(3))
    before = trained(model)
    interrupting(monkeypatch, module, name)
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=4, callbacks=backup_in(tmp_path, model))
    assert trained(model) == before
    assert_trains(model, ["first", "second", "head"])


@pytest.mark.slow
def test_a_backup_of_layers_of_other_shapes_unfreezes_nothing(tmp_path):
    def wide():
        layers = [L.Dense(9, name="first"), L.BatchNormalization(), L.Dense(5, name="second")]
        body = keras.Sequential([keras.Input((6,)), *layers], name="body")
        inputs = keras.Input((6,))
        return keras.Model(inputs, L.Dense(2, name="head")(body(inputs)))

    interrupted(tmp_path, interrupt_at(3))
    model = frozen(ADAPTIVE["Adam"](), wide)
    model.optimizer.build(model.trainable_variables)
    before = trained(model)
    with pytest.raises(ValueError, match="shape"):
        fit(model, epochs=4, callbacks=backup_in(tmp_path, model))
    assert trained(model) == before
    assert_trains(model, ["head"])


@pytest.mark.slow
def test_a_restore_that_fails_in_the_same_process_leaves_those_trained_that_were(monkeypatch, tmp_path):
    model = interrupted(tmp_path, interrupt_at(2, batch=1))
    assert sum(layer.trainable for layer in model.layers[1].layers) == 2
    before = trained(model)
    interrupting(monkeypatch, keras.Model, "load_weights")
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=4, callbacks=backup_in(tmp_path, model))
    assert trained(model)[:2] == before[:2]
    assert_trains(model, ["first", "second", "head"])


class InDict(keras.optimizers.SGD):  # TensorFlow takes no scope that begins with "_"
    def build(self, variables):
        super().build(variables)
        self.extra = {i: self.add_variable_from_reference(v, "extra") for i, v in enumerate(variables)}


@pytest.mark.parametrize("build", [False, True])
def test_an_optimizer_that_cannot_be_rebuilt_is_refused_before_training(build):
    model = frozen(InDict(0.1), build_optimizer=build)
    flags, weights = trained(model)[0], values(model.weights)
    with pytest.raises(ValueError, match="cannot be told which weight"):
        fit(model, epochs=3, callbacks=[kdx.GradualUnfreezing({2: "body/second"})])
    assert trained(model)[0] == flags
    assert_same(values(model.weights), weights)
    assert_trains(model, ["head"])


@pytest.mark.slow
def test_what_was_unfrozen_after_an_interruption_is_not_frozen_again(tmp_path):
    model = frozen(ADAPTIVE["Adam"]())
    callbacks = [keras.callbacks.BackupAndRestore(tmp_path), kdx.GradualUnfreezing({1: "body/second"})]
    with pytest.raises(_StopError):
        fit(model, epochs=4, callbacks=[*callbacks, interrupt_at(2)])
    kdx.unfreeze(model, ["body/first", "body/norm"], batch_norm=True)
    with pytest.raises(ValueError, match="no epoch of the plan"):  # the backup has no state of them
        fit(model, epochs=4, callbacks=callbacks)
    assert_trains(model, ["first", "second", "head"])


@pytest.mark.slow
def test_an_interrupted_fit_does_not_keep_a_frozen_model():
    def interrupt():
        model = frozen("sgd")
        kdx.freeze(model)
        callbacks = [kdx.GradualUnfreezing({0: "head"}), interrupt_at(1)]
        with contextlib.suppress(_StopError):  # `pytest.raises` keeps the frames, and the model in them
            fit(model, epochs=2, callbacks=callbacks)
        return weakref.ref(model)

    reference = interrupt()
    keras.backend.clear_session()
    gc.collect()
    assert reference() is None


UNREADABLE = ["", "null", "[]", "3", "{}", '{"epoch": "2"}', '{"epoch": 2.5}', "[" * 9999]


@pytest.mark.slow
def test_a_backup_whose_epoch_cannot_be_read_is_refused(tmp_path):
    backup, gradual = keras.callbacks.BackupAndRestore(tmp_path), kdx.GradualUnfreezing({1: "body/second"})
    model = frozen(SGD["momentum"]())
    with pytest.raises(_StopError):
        fit(model, epochs=4, callbacks=[gradual, backup, interrupt_at(2)])
    for text in UNREADABLE:
        (tmp_path / "training_metadata.json").write_text(text)
        with pytest.raises(ValueError, match=r"epoch 1 or later.* or the file cannot be read"):
            fit(model, epochs=4, callbacks=[gradual, backup])


def test_a_damaged_weights_file_is_no_backup(tmp_path):
    interrupted(tmp_path, interrupt_at(1))
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    file = tmp_path / "backup" / "latest.weights.h5"
    (tmp_path / "backup" / "training_metadata.json").unlink()
    whole = file.read_bytes()
    found = set()
    for place in re.finditer(b"TREE|SNOD|HEAP", whole):  # by which HDF5 knows its parts
        file.write_bytes(whole[: place.start()] + b"XXXX" + whole[place.end() :])
        found.add(type(Backup.of(backup)))
    assert found == {Backup, type(None)}


def test_a_backup_in_a_remote_folder_is_refused(tmp_path):
    model = frozen("sgd")
    backup, gradual = backup_in(tmp_path, model)
    backup._weights_path = "gs://bucket/run/latest.weights.h5"  # Keras needs TensorFlow to join it
    with pytest.raises(ValueError, match="remote folder"):
        fit(model, callbacks=[gradual, backup])
    assert len(model.trainable_weights) == 2


def test_a_keras_that_keeps_its_backups_elsewhere_is_told(tmp_path):
    model = frozen("sgd")
    backup, gradual = backup_in(tmp_path, model)
    backup._metadata_path = vars(backup).pop("_training_metadata_path")
    with pytest.raises(RuntimeError, match=r"needs `BackupAndRestore._training_metadata_path`.*keras=="):
        fit(model, callbacks=[backup, gradual])
    assert len(model.trainable_weights) == 2


@pytest.mark.skipif(not hasattr(keras.callbacks, "OrbaxCheckpoint"), reason="this Keras has none")
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resumed_from_an_orbax_checkpoint_it_equals_the_uninterrupted_run(epoch, tmp_path):
    pytest.importorskip("orbax.checkpoint")

    def callbacks():
        return [kdx.GradualUnfreezing({1: "second", 2: "first"}), kdx.OneCycleScheduler(0.02)]

    def functional():  # of others Keras 3.15 loses weights here: their paths change in a loaded model
        inputs = keras.Input((6,))
        x = L.Dense(5, name="second")(L.Dense(5, name="first")(inputs))
        return keras.Model(inputs, L.Dense(2, name="head")(x))

    whole = functional()
    kdx.freeze(whole, ["first", "second"])
    whole.compile(keras.optimizers.Adam(), "mse")
    folder = tmp_path / "orbax"
    checkpoint = keras.callbacks.OrbaxCheckpoint(str(folder), max_to_keep=None, save_on_background=False)
    fit(whole, epochs=4, callbacks=[*callbacks(), checkpoint])
    for later in range(epoch, 4):  # Keras loads the latest, which has the index of its last epoch
        shutil.rmtree(folder / str(later))
    resumed = keras.models.load_model(folder)
    fit(resumed, epochs=4, initial_epoch=epoch, callbacks=callbacks())
    assert_same(values(resumed.weights), values(whole.weights))
    assert_same(values(resumed.optimizer.variables), values(whole.optimizer.variables))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "epochs"), [("Adam", (1, 2, 3)), ("momentum", (2,)), ("AdamW", (3,))]
)
def test_resumed_from_a_saved_model_it_equals_the_uninterrupted_run(optimizer, epochs, tmp_path):
    make = RESUMED[optimizer]
    whole = frozen(make())
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    fit(whole, epochs=4, callbacks=[kdx.GradualUnfreezing(plan(whole)), checkpoint])
    for epoch in epochs:
        resumed = keras.models.load_model(tmp_path / f"{epoch}.keras")
        fit(resumed, epochs=4, initial_epoch=epoch, callbacks=[kdx.GradualUnfreezing(plan(resumed))])
        assert_same(values(resumed.weights), values(whole.weights))


@pytest.mark.slow
def test_saved_in_mid_fit_it_loads_and_trains_without_the_package(tmp_path):
    model = frozen(keras.optimizers.Adam(0.01))
    save = _AtEpochEnd(lambda epoch: model.save(tmp_path / f"{epoch}.keras"))
    fit(model, epochs=2, callbacks=[kdx.GradualUnfreezing({1: "body/second"}), save])
    script = (
        "import sys, json, warnings, numpy as np, keras; warnings.simplefilter('error')\n"
        f"model = keras.models.load_model({str(tmp_path / '1.keras')!r})\n"
        "assert 'keras_dnn_extras' not in sys.modules\n"
        "layers = [l for l in model._flatten_layers() if l.weights and not l._layers]\n"
        "frozen = [l.name for l in layers if not l.trainable]\n"
        "found = [len(model.optimizer.variables), int(model.optimizer.iterations), frozen]\n"
        "model.fit(np.ones((8, 6)), np.ones((8, 2)), verbose=0)\n"
        "print(json.dumps(found))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    variables, updates, names = json.loads(run.stdout.splitlines()[-1])
    assert (variables, updates) == (2 + 2 * 4, 8)
    assert sorted(names) == ["first", "norm"]


# -- the callback itself ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_tells_what_it_unfroze(capsys):
    model = frozen("sgd")
    gradual = kdx.GradualUnfreezing(plan(model), verbose=1)
    fit(model, epochs=3, callbacks=[gradual])
    assert gradual.unfrozen == {1: ["body/second"], 2: ["body/first", "body/second"]}
    assert "Epoch 2: GradualUnfreezing unfroze body/second (30 weights)." in capsys.readouterr().out


def test_tells_of_one_weight_in_the_singular_and_of_layers_without_any(capsys):
    layers = [L.Dense(1, use_bias=False, name="one"), L.ReLU(name="none"), L.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((1,)), *layers])
    kdx.freeze(model, ["one", "none"])
    model.compile("sgd", "mse")
    gradual = kdx.GradualUnfreezing({0: "one", 1: "none"}, verbose=1)
    model.fit(np.ones((4, 1)), np.ones((4, 2)), epochs=2, verbose=0, callbacks=[gradual])
    told = capsys.readouterr().out
    assert "unfroze one (1 weight)." in told
    assert "unfroze no layer with weights (0 weights)." in told


@pytest.mark.parametrize(
    "layers", [None, "body", ["a", 1], slice(0, 2), re.compile("x", re.I), [slice(1), re.compile("y")]]
)
def test_config_round_trip_through_json(layers):
    gradual = kdx.GradualUnfreezing({np.int64(3): layers, 1: 0}, batch_norm=True, verbose=1)
    config = json.loads(json.dumps(gradual.get_config()))
    again = kdx.GradualUnfreezing.from_config(config)
    assert again.plan == {1: 0, 3: layers}
    assert again.get_config() == gradual.get_config()
    assert (again.batch_norm, again.verbose) == (True, 1)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        *(({}, ValueError), ({-1: None}, ValueError)),
        *(([1], TypeError), ({1.5: None}, TypeError), ({True: None}, TypeError)),
        *(({1: 2.5}, TypeError), ({1: True}, TypeError)),
    ],
)
def test_a_wrong_plan_is_an_error(wrong, error):
    with pytest.raises(error, match="plan"):
        kdx.GradualUnfreezing(wrong)


def test_layers_that_are_not_frozen_or_not_there_are_errors_before_training():
    model = frozen("sgd")
    kdx.unfreeze(model, "body/second")
    before = values(model.weights)
    with pytest.raises(ValueError, match=r"'body/second' is to be unfrozen in epoch 1.*freeze\(model"):
        fit(model, epochs=2, callbacks=[kdx.GradualUnfreezing({1: "body"})])
    with pytest.raises(ValueError, match="'body/second'"):
        fit(model, epochs=2, callbacks=[kdx.GradualUnfreezing({1: "second"})])
    with pytest.raises(ValueError, match="two `GradualUnfreezing`"):
        fit(
            model,
            callbacks=[kdx.GradualUnfreezing({1: "body/first"}), kdx.GradualUnfreezing({2: "body/first"})],
        )
    assert_same(values(model.weights), before)


@pytest.mark.slow
def test_a_second_fit_of_an_unfrozen_model_tells_to_freeze_it():
    model = frozen("sgd")
    gradual = kdx.GradualUnfreezing({1: "body/second"})
    fit(model, epochs=2, callbacks=[gradual])
    with pytest.raises(ValueError, match="is not frozen"):
        fit(model, epochs=2, callbacks=[gradual])
    kdx.freeze(model, "body")
    fit(model, epochs=2, callbacks=[gradual])
    assert gradual.unfrozen == {1: ["body/second"]}


def test_a_model_that_is_frozen_altogether_may_begin_with_its_first_layers():
    model = frozen("sgd")
    kdx.freeze(model)
    fit(model, epochs=2, callbacks=[kdx.GradualUnfreezing({0: "head", 1: "body/second"})])
    assert [v.name for v in model.trainable_variables] == ["kernel", "bias"] * 2


@pytest.mark.slow
def test_an_epoch_that_is_not_reached_changes_nothing():
    model, expected = frozen("adam"), frozen("adam")
    fit(model, epochs=2, callbacks=[kdx.GradualUnfreezing({5: "body"})])
    fit(expected, epochs=2)
    for new, old in zip(values(model.weights), values(expected.weights), strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=2 * ROUNDINGS)
