"""fine_tune: its phases, rates and shares, its table, resumed, and what it refuses."""

import functools
from decimal import Decimal

import keras
import numpy as np
import pytest
import truth
from transfer_models import MODELS, assert_same, data, flat, layer, nested, path, subclassed, values

import keras_dnn_extras as kdx
from keras_dnn_extras.transfer.fine_tune_schedule import FineTuneSchedule

L = keras.layers
BACKEND = keras.backend.backend()
# 16 updates of float32 weights up to 1: a few roundings each, and what they make of later gradients.
ROUNDINGS = 2 * 16 * 8 * 2.0**-24


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def compiled(make=nested, optimizer=None, **arguments):
    keras.utils.set_random_seed(1)
    model = make()
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), "mse", **arguments)
    return model


def tune(model, *, epochs=4, frozen_epochs=2, **arguments):
    x, y = data()
    arguments = {"batch_size": 5, "shuffle": False, "verbose": 0, "learning_rate": 0.1, **arguments}
    return kdx.fine_tune(model, x, y, epochs=epochs, frozen_epochs=frozen_epochs, **arguments)


@functools.cache
def uninterrupted(optimizer=None, **arguments):
    """Return the weights after a whole run of a plain model."""
    model = compiled(optimizer=optimizer)
    tune(model, **arguments)
    return values(model.weights)


class Look(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights = []
        self.begun = 0

    def on_train_begin(self, logs=None):
        self.begun += 1

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append({found.name: values(found.weights) for found in self.model._flatten_layers()})


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_the_head_trains_alone_and_then_everything_but_batch_normalization(kind):
    model, look = compiled(MODELS[kind]), Look()
    before = {found.name: values(found.weights) for found in model._flatten_layers()}
    tune(model, callbacks=[look])
    for i, epoch in enumerate(look.weights):
        for name in ("first", "second", "head"):
            moved = (epoch[name][0] != before[name][0]).any()
            assert moved == (name == "head" or i >= 2)
        assert_same(epoch["norm"], before["norm"])
    assert look.begun == 1


@pytest.mark.slow
def test_each_phase_is_one_cycle_in_one_history():
    model = compiled()
    x, y = data()
    history = tune(model, epochs=5, validation_data=(x, y))
    assert history.epoch == list(range(5))
    assert {len(values) for values in history.history.values()} == {5}
    assert set(history.history) == {"loss", "val_loss", "learning_rate", "momentum"}
    ends = np.arange(1, 6) * 4 - 1
    first, second = kdx.OneCycle(0.1, 8).curve, kdx.OneCycle(0.1 / 100, 12).curve
    expected = [*first(ends[:2]), *second(ends[2:] - 8)]
    np.testing.assert_allclose(history.history["learning_rate"], expected, rtol=1e-12)
    assert isinstance(history, keras.callbacks.History)


def separate_optimizers(make, decay, rates, frozen_updates=8):
    """Train as `fine_tune` should, in a plain loop with an optimizer for each layer."""
    model = compiled(unregularized, "sgd")
    for found in model._flatten_layers():
        found.trainable = True
    layer(model, "norm").trainable = False
    shares = {"head": 1.0, "second": decay, "first": decay**2}
    begin = {"head": 0, "second": frozen_updates, "first": frozen_updates}
    optimizers = {name: make() for name in shares}
    x, y = data()
    for update in range(len(rates)):
        i = update * 5 % 20
        found = truth.gradients_by_autodiff(model, x[i : i + 5], y[i : i + 5])
        of_weight = dict(zip(map(id, model.trainable_variables), found, strict=True))
        for name, optimizer in optimizers.items():
            if update >= begin[name]:
                weights = layer(model, name).trainable_weights
                optimizer.learning_rate = float(np.float32(rates[update])) * shares[name]
                optimizer.apply([keras.ops.convert_to_tensor(of_weight[id(w)]) for w in weights], weights)
    return model


def unregularized():
    model = nested()
    layer(model, "first").kernel.regularizer = None
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1),
        lambda: keras.optimizers.Adam(0.1),
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1),
        lambda: keras.optimizers.RMSprop(0.1),
    ],
)
def test_layer_decay_equals_an_optimizer_for_each_layer_with_its_share_of_the_rate(make, monkeypatch):
    # Momenta that stay: an optimizer of its own has no cycle.
    monkeypatch.setattr(FineTuneSchedule, "_scheduled_momenta", lambda *_: [])
    model = compiled(unregularized, make())
    tune(model, layer_decay=0.5, learning_rate_divisor=2.0)
    rates = np.concatenate([kdx.OneCycle(peak, 8).curve(np.arange(8)) for peak in (0.1, 0.05)])
    expected = separate_optimizers(make, 0.5, rates)
    for new, old in zip(values(model.weights), values(expected.weights), strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=ROUNDINGS)


@pytest.mark.slow
def test_each_share_of_the_rate_corrects_nadam_once_an_update(monkeypatch):
    # Nadam multiplies one product for all weights: the layers of another share must not count it again.
    monkeypatch.setattr(FineTuneSchedule, "_scheduled_momenta", lambda *_: [])
    model = compiled(unregularized, keras.optimizers.Nadam(0.1))
    tune(model, epochs=1, frozen_epochs=0, layer_decay=0.5, learning_rate_divisor=1.0)
    rates = kdx.OneCycle(0.1, 4).curve(np.arange(4))
    expected = separate_optimizers(lambda: keras.optimizers.Nadam(0.1), 0.5, rates, frozen_updates=0)
    for new, old in zip(values(model.weights), values(expected.weights), strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=ROUNDINGS)


def test_the_order_of_layers_is_that_of_the_computation():
    inputs = keras.Input((6,))
    last = L.Dense(2, name="last")  # made first
    model = keras.Model(inputs, last(L.Dense(3, name="middle")(L.Dense(4, name="lowest")(inputs))))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = {name: values(layer(model, name).weights) for name in ("lowest", "middle", "last")}
    tune(model, epochs=1, frozen_epochs=0, layer_decay=1e-6, learning_rate_divisor=1.0)
    moved = [
        max(abs(a - b).max() for a, b in zip(values(layer(model, n).weights), before[n], strict=True))
        for n in before
    ]
    assert moved[2] > 1e3 * moved[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 3}]
)
def test_the_weights_are_the_same_however_it_is_compiled(arguments):
    if BACKEND == "torch" and "run_eagerly" not in arguments:
        pytest.skip("refused by Keras on torch, or compiles for minutes")
    model = compiled(**arguments)
    tune(model, layer_decay=0.5)
    for new, old in zip(values(model.weights), uninterrupted(layer_decay=0.5), strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=ROUNDINGS)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, 3])
def test_with_accumulation_the_second_cycle_begins_with_the_second_phase(steps):
    model = compiled(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps))
    history = tune(model, epochs=4, frozen_epochs=3).history["learning_rate"]
    first = 12 // steps
    assert history[-2] == kdx.OneCycle(0.1, first).curve(np.array(first - 1))
    total = 16 // steps
    assert history[-1] == kdx.OneCycle(0.001, total - first).curve(np.array(total - first - 1))


# -- the head --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_head_is_what_is_trainable_beside_a_frozen_body():
    base = flat()
    model = kdx.replace_head(
        base, [L.Dense(4, name="one"), L.BatchNormalization(name="own"), L.Dense(2, name="two")]
    )
    model.compile("sgd", "mse")
    look = Look()
    tune(model, callbacks=[look], epochs=2, frozen_epochs=1)
    first = look.weights[0]
    assert_same(first["first"], values(base.layers[0].weights))
    assert (first["own"][2] != 0).any()  # the head's own BatchNormalization trains
    assert not layer(model, "norm").trainable
    assert layer(model, "own").trainable


@pytest.mark.parametrize("frozen_altogether", [True, False])
def test_the_head_is_the_layers_of_the_outputs_otherwise(frozen_altogether):
    inputs = keras.Input((6,))
    middle = L.Dense(3, name="middle")(inputs)
    outputs = [L.Activation("tanh")(L.Dense(2, name="a")(middle)), L.Dense(2, name="b")(middle)]
    model = keras.Model(inputs, outputs)
    model.trainable = not frozen_altogether
    model.compile("sgd", ["mse", "mse"])
    look = Look()
    before = {name: values(layer(model, name).weights) for name in ("middle", "a", "b")}
    x, y = data()
    kdx.fine_tune(model, x, [y, y], epochs=1, callbacks=look, batch_size=5, verbose=0)
    moved = {name for name in before if (look.weights[0][name][0] != before[name][0]).any()}
    assert moved == {"a", "b"}


def test_a_model_that_is_not_built_is_built_first():
    model = keras.Sequential([L.Dense(3, name="body"), L.Dense(2, name="head")])
    model.compile("sgd", "mse")
    tune(model, epochs=2, frozen_epochs=1)
    assert all(found.trainable for found in model.layers)


@pytest.mark.parametrize(("epochs", "frozen_epochs"), [(2, 0), (2, 2), (1, 1)])
def test_a_phase_may_be_missing(epochs, frozen_epochs):
    model = compiled()
    before = values(layer(model, "first").weights)
    history = tune(model, epochs=epochs, frozen_epochs=frozen_epochs)
    assert len(history.history["loss"]) == epochs
    moved = (values(layer(model, "first").weights)[0] != before[0]).any()
    assert moved == (frozen_epochs < epochs)


# -- in company, interrupted -----------------------------------------------------------------------------


class _StopError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resumed_from_a_backup_it_equals_the_uninterrupted_run(epoch, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, now, logs=None):
            if now == epoch:
                raise _StopError

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(_StopError):
        tune(compiled(optimizer="adam"), callbacks=[backup(), Interrupt()])
    resumed = compiled(optimizer="adam")
    history = tune(resumed, callbacks=[backup()])
    assert history.epoch == list(range(epoch, 4))
    assert_same(values(resumed.weights), uninterrupted("adam"))


@pytest.mark.slow
@pytest.mark.parametrize("error", [_StopError, KeyboardInterrupt])
def test_called_again_with_the_same_model_it_finds_the_same_head(error, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 11:  # in the second phase
                raise error

    def large_head():
        head = [L.Dense(4, name="one"), L.BatchNormalization(name="own"), L.Dense(2, name="two")]
        return kdx.replace_head(flat(), head)

    model = compiled(large_head, "adam")
    trainable = [found.trainable for found in model._flatten_layers()]

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(error):
        tune(model, callbacks=[backup(), Interrupt()])
    assert [found.trainable for found in model._flatten_layers()] == trainable
    assert len(model.optimizer.variables) == 2 + 2 * 6
    tune(model, callbacks=[backup()])
    whole = compiled(large_head, "adam")
    tune(whole)
    assert_same(values(model.weights), values(whole.weights))


@pytest.mark.slow
def test_resumed_from_a_saved_model_it_equals_the_uninterrupted_run(tmp_path):
    whole = compiled(optimizer="adam")
    tune(whole, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")])
    for epoch in (1, 2, 3):
        resumed = keras.models.load_model(tmp_path / f"{epoch}.keras")
        tune(resumed, initial_epoch=epoch)
        assert_same(values(resumed.weights), values(whole.weights))


@pytest.mark.slow
def test_other_callbacks_and_the_monitor_go_with_it():
    model = compiled()
    monitor = kdx.GradientNormMonitor(on_problem="raise")
    stopping = keras.callbacks.EarlyStopping("loss", patience=5, restore_best_weights=True)
    tune(model, callbacks=[monitor, stopping])
    assert len(monitor.history["gradient_norm/body/first"]) == 16
    assert np.isnan(monitor.history["gradient_norm/body/first"][:8]).all()


@pytest.mark.slow
def test_the_given_list_of_callbacks_is_not_changed():
    callbacks = [keras.callbacks.TerminateOnNaN()]
    tune(compiled(), callbacks=callbacks)
    assert len(callbacks) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dataset", "generator"])
def test_data_of_other_kinds(kind):
    x, y = data()
    model = compiled()
    if kind == "dataset":
        tf = pytest.importorskip("tensorflow")
        kdx.fine_tune(model, tf.data.Dataset.from_tensor_slices((x, y)).batch(5), epochs=2, verbose=0)
        return

    def batches():
        while True:
            yield x[:5], y[:5]

    with pytest.raises(ValueError, match=r"`fine_tune` needs .* `steps_per_epoch`"):
        kdx.fine_tune(model, batches(), epochs=2, verbose=0)
    kdx.fine_tune(model, batches(), epochs=2, steps_per_epoch=3, verbose=0)


# -- what it says ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_table_tells_which_layers_train_when_and_at_what_rate(capsys):
    tune(compiled(), layer_decay=0.5, verbose=2)
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()[:6]]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0] == ["layers", "weights", "epochs 1-2", "epochs 3-4"]
    assert cells[2:] == [
        ["body/first", "35", "frozen", "0.00025"],
        ["body/second", "30", "frozen", "0.0005"],
        ["head", "12", "0.1", "0.001"],
        ["BatchNormalization (1 of the body)", "inference mode", "inference mode"],
    ]
    tune(compiled(), verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_table_of_a_deep_model_is_short(capsys):
    deep = keras.Sequential([keras.Input((6,)), *(L.Dense(6) for _ in range(30)), L.Dense(2)])
    deep.compile("sgd", "mse")
    tune(deep, epochs=1, frozen_epochs=0, layer_decay=0.9, verbose=2)
    table = capsys.readouterr().out.split("Epoch")[0].splitlines()
    assert len(table) == 4 + 1  # and an empty line
    assert "(30)" in table[2]


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"epochs": 0}, ValueError),
        ({"epochs": 2.0}, TypeError),
        ({"epochs": 2, "frozen_epochs": 3}, ValueError),
        ({"epochs": 2, "frozen_epochs": -1}, ValueError),
        ({"learning_rate": 0}, ValueError),
        ({"learning_rate": "high"}, TypeError),
        ({"learning_rate_divisor": float("nan")}, ValueError),
        ({"layer_decay": 1.5}, ValueError),
        ({"layer_decay": 0}, ValueError),
        ({"layer_decay": [0.5]}, TypeError),
        ({"bathc_size": 3}, TypeError),
    ],
)
def test_wrong_arguments_are_errors_and_change_nothing(arguments, error):
    model = compiled()
    optimizer, flags = model.optimizer, [found.trainable for found in model._flatten_layers()]
    with pytest.raises(error, match=next(name for name in reversed(arguments))):
        tune(model, **arguments)
    assert model.optimizer is optimizer
    assert [found.trainable for found in model._flatten_layers()] == flags


@pytest.mark.slow
def test_a_fit_that_fails_at_the_start_leaves_the_model_as_it_was():
    model = compiled()
    optimizer, flags = model.optimizer, [found.trainable for found in model._flatten_layers()]
    with pytest.raises(ValueError, match="`fine_tune` and `ReduceLROnPlateau`"):
        tune(model, callbacks=[keras.callbacks.ReduceLROnPlateau()])
    assert model.optimizer is optimizer
    assert [found.trainable for found in model._flatten_layers()] == flags
    tune(model)


def test_a_model_that_is_not_compiled_or_has_a_schedule_or_no_weights_is_an_error():
    with pytest.raises(ValueError, match="compiled"):
        tune(nested())
    with pytest.raises(ValueError, match="schedule"):
        tune(compiled(optimizer=keras.optimizers.SGD(kdx.PowerDecay(0.1, 5))))
    empty = keras.Sequential([keras.Input((6,)), L.Dropout(0.1)])
    empty.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no layer with weights"):
        tune(empty)
    assert path(subclassed(), "first") == "body/first"


# -- validation data is tried before anything is trained -------------------------------------------------


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return tuple(array[10 * index : 10 * index + 10] for array in self.arrays)


X, Y = data()


@pytest.mark.parametrize(
    ("validation", "error", "told"),
    [
        ((X[:, :5], Y), ValueError, "does not fit the model.*5"),
        ((X, Y[:, :1].repeat(5, 1)), ValueError, "does not fit the model"),
        ((X, Y[:7]), ValueError, "same number of rows.*20.*7"),
        ((X, Y, np.ones(3)), ValueError, "same number of rows"),
        ((X[:0], Y[:0]), ValueError, "at least one"),
        (({"a": X, "b": X}, Y), ValueError, "does not fit the model"),
        ((3, Y), TypeError, "to be data"),
        ("data.csv", TypeError, "to be data"),
        (Batches(X[:, :4], Y), ValueError, "does not fit the model.*4"),
        ((X, Y, Y, Y), ValueError, "format"),
    ],
)
@pytest.mark.parametrize("make", [nested, subclassed])
def test_validation_data_that_fit_cannot_use_is_told_before_training(make, validation, error, told):
    model = make()
    model.compile("adam", "mse")
    optimizer, before = model.optimizer, values(model.variables)
    flags = [found.trainable for found in model._flatten_layers()]
    with pytest.raises(error, match=f"(?s){told}"):
        tune(model, validation_data=validation)
    assert_same(values(model.variables), before)
    assert model.optimizer is optimizer
    assert [found.trainable for found in model._flatten_layers()] == flags


def trained_at_once(make):
    model = compiled(make)
    tune(model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("make", [nested, subclassed])
def test_after_validation_data_that_was_tried_in_vain_the_model_trains(make):
    model = compiled(make)
    with pytest.raises(ValueError, match="does not fit the model"):
        tune(model, validation_data=(X[:, :5], Y))
    tune(model)
    assert_same(values(model.weights), values(trained_at_once(make).weights))


def loader():
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(rows, batch_size=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "validation",
    [
        lambda: [X, Y],
        lambda: Batches(X, Y),
        lambda: Batches(X, Y, np.ones(20, "float32")),
        lambda: (batch for batch in [(X[:10], Y[:10]), (X[10:], Y[10:])]),
        loader,
        lambda: (X, Y, np.ones(20)),
    ],
)
def test_validation_data_that_was_tried_is_still_whole(validation):
    given = validation()
    steps = {"validation_steps": 2} if hasattr(given, "send") else {}
    model = compiled()
    history = tune(
        model, epochs=1, frozen_epochs=1, validation_data=given, validation_batch_size=10, **steps
    )
    assert history.history["val_loss"] == pytest.approx([model.evaluate(X, Y, verbose=0)], rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "jax", reason="Keras builds metrics on shapes alone there")
def test_validation_data_of_a_model_that_only_runs_eagerly_is_left_to_fit():
    class Eager(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x):
            return self.dense(x) * float(keras.ops.max(x) > -1e9)

    model = Eager()
    model(X)
    model.compile("sgd", "mse", run_eagerly=True)
    assert "val_loss" in tune(model, validation_data=(X, Y)).history


class Doubled(L.Layer):
    """Tells its shape without the size of the batch."""

    def call(self, x):
        return 2.0 * x

    def compute_output_shape(self, shape):
        return (None, *shape[1:])


class Masked(L.Layer):
    """Computes with one of two inputs, or both."""

    def call(self, x):
        return x[0] if x[1] is None else x[0] * x[1]

    def compute_output_spec(self, x):
        return keras.KerasTensor(x[0].shape)


class ByKey(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x["features"])


class WithPreparation(ByKey):
    """Takes lists in `fit`, as the tasks of KerasHub take strings."""

    def fit(self, x, y, validation_data=None, **arguments):
        validation_data = {"features": np.array(validation_data[0])}, validation_data[1]
        return super().fit({"features": np.array(x)}, y, validation_data=validation_data, **arguments)


class WithEvaluation(ByKey):
    def evaluate(self, x, y, **arguments):
        del arguments["_use_cached_eval_dataset"]
        return super().evaluate({"features": x}, y, **arguments)


def doubled():
    return keras.Sequential([keras.Input((6,)), Doubled(), L.Dense(2), Doubled()])


def of_two(struct=list, **options):
    x, mask = keras.Input((6,), name="x"), keras.Input((6,), name="mask", **options)
    inputs = [x, mask] if struct is list else {"x": x, "mask": mask}
    return keras.Model(inputs, L.Dense(2)(Masked()([x, mask])))


def of_keys(kind=ByKey):
    model = kind()
    model({"features": X})
    return model


def trained(model, x, validation, **arguments):
    model.compile("sgd", "mse")
    arguments = {"epochs": 1, "frozen_epochs": 1, "verbose": 0, **arguments}
    return kdx.fine_tune(model, x, Y, validation_data=validation, **arguments).history


KEYS = {"x": X, "mask": X}


@pytest.mark.parametrize(
    ("make", "x", "validation"),
    [
        pytest.param(doubled, X, (X, Y), id="a layer that does not tell the size of the batch"),
        pytest.param(of_keys, {"features": X}, ({"features": X, "more": X}, Y), id="a key too many"),
        pytest.param(of_two, KEYS, ({**KEYS, "a": X[:, :2]}, Y), id="a key too many for a list"),
        pytest.param(lambda: of_keys(WithPreparation), X.tolist(), (X.tolist(), Y), id="fit of its own"),
        pytest.param(lambda: of_keys(WithEvaluation), {"features": X}, (X, Y), id="evaluate of its own"),
        pytest.param(lambda: of_two(optional=True), [X, X], ([X, None], Y), id="an optional input"),
        pytest.param(
            lambda: of_two(dict, optional=True), KEYS, ({"x": X, "mask": None}, Y), id="one of a dict"
        ),
    ],
)
def test_validation_data_that_fit_takes_is_not_refused(make, x, validation):
    assert len(trained(make(), x, validation)["val_loss"]) == 1


def test_a_model_is_built_without_its_optional_input():
    class Either(keras.Model):
        def __init__(self):
            super().__init__()
            self.masked, self.dense = Masked(), L.Dense(2)

        def call(self, x):
            return self.dense(self.masked(x))

    assert len(trained(Either(), [X, None], ([X, None], Y))["val_loss"]) == 1


@pytest.mark.parametrize(
    ("make", "x", "validation", "told"),
    [
        pytest.param(doubled, X, (X, Y[:, :1].repeat(5, 1)), "20, 5", id="targets after such a layer"),
        pytest.param(
            lambda: of_two(dict), KEYS, ({**KEYS, "a": X[:, :2]}, Y), "20, 2", id="a first key too many"
        ),
        pytest.param(of_keys, {"features": X}, ({"x": X}, Y), "KeyError: features", id="another key"),
        pytest.param(of_keys, {"features": X}, ({"features": X}, {"y": Y}), "'y'", id="keys of targets"),
    ],
)
def test_validation_data_that_only_fails_in_code_of_the_user_is_told_before(make, x, validation, told):
    model = make()
    before = values(model.weights)
    with pytest.raises(ValueError, match=f"does not fit the model .*{told}") as error:
        trained(model, x, validation)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert_same(values(model.weights), before)


@pytest.mark.skipif(BACKEND != "torch", reason="the others trace steps, so that code is without values")
@pytest.mark.parametrize("kind", [ValueError, KeyError])
def test_a_trial_that_fails_on_the_training_data_too_is_no_reason_to_refuse(kind):
    class OfValues(L.Layer):
        def call(self, x):
            if is_strict and float(keras.ops.min(x)) == 1:
                raise kind("no data of a real kind")
            return x

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape)

    model = keras.Sequential([keras.Input((6,)), OfValues(), L.Dense(2)])
    batches = [(X[:10], Y[:10]), (X[10:], Y[10:])]
    model.compile("sgd", "mse")
    is_strict = False
    model.fit(X, Y, verbose=0)  # a first one tries shapes alone, too
    is_strict = True
    seen = Counts()
    history = kdx.fine_tune(
        model,
        (batch for batch in batches),
        epochs=1,
        steps_per_epoch=2,
        verbose=0,
        validation_data=(X, Y),
        callbacks=[seen],
    )
    assert len(history.history["val_loss"]) == 1
    assert seen.batches == 2  # the first one is not lost to the trial


class Counts(keras.callbacks.Callback):
    batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1


@pytest.mark.parametrize("validation", [(X.tolist(), Y), (X, Y, Y, Y)])
def test_errors_tell_types_and_shapes_of_validation_data_and_no_values(validation):
    with pytest.raises((TypeError, ValueError), match=r"ndarray of shape \(20, 2\)") as error:
        tune(compiled(), validation_data=validation)
    assert "0." not in str(error.value)


# -- numbers, and interrupts -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [int, np.float32, np.int64, np.array, Decimal])
def test_numbers_of_any_kind_give_the_same_weights(kind):
    model, decay = compiled(), {"layer_decay": np.float32(0.5)}
    tune(model, learning_rate=kind(1), learning_rate_divisor=kind(16), **decay)
    expected = uninterrupted(learning_rate=1.0, learning_rate_divisor=16.0, **decay)
    assert_same(values(model.weights), expected)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["recompile", "training_plan"])
def test_an_interrupt_before_the_fit_leaves_the_model_as_it_was(place, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    model = compiled()
    optimizer, flags = model.optimizer, [found.trainable for found in model._flatten_layers()]
    with monkeypatch.context() as patch:
        patch.setattr(f"keras_dnn_extras.transfer.fine_tuning.{place}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tune(model, verbose=2)
    assert model.optimizer is optimizer
    assert [found.trainable for found in model._flatten_layers()] == flags
    tune(model)
