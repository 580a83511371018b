"""freeze and unfreeze: what moves in every order of calls, what a recompile keeps, and what is refused."""

import importlib
import inspect
import itertools
import re
import warnings
from decimal import Decimal
from fractions import Fraction

import keras
import numpy as np
import pytest
from transfer_models import (
    FEATURES,
    MODELS,
    OUTPUTS,
    assert_same,
    fit,
    flat,
    layer,
    nested,
    path,
    subclassed,
    values,
)

import keras_dnn_extras as kdx

L = keras.layers
BACKEND = keras.backend.backend()
OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.5),
    "EMA": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    "accumulating": lambda: keras.optimizers.RMSprop(0.01, gradient_accumulation_steps=3),
}


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def compiled(model, optimizer="SGD", **arguments):
    model.compile(OPTIMIZERS[optimizer](), "mse", **arguments)


def freeze_body(model):
    return kdx.freeze(model, path(model, "body"))


def body_weights(model):
    return [w for name in ("first", "norm", "second") for w in layer(model, name).weights]


# -- the six orders --------------------------------------------------------------------------------------


def compile_freeze(model, optimizer):
    compiled(model, optimizer)
    freeze_body(model)


def freeze_compile(model, optimizer):
    freeze_body(model)
    compiled(model, optimizer)


def compile_fit_freeze(model, optimizer):
    compiled(model, optimizer)
    fit(model)
    freeze_body(model)


def freeze_compile_fit_unfreeze_freeze(model, optimizer):
    freeze_compile(model, optimizer)
    fit(model)
    kdx.unfreeze(model)
    freeze_body(model)


def compile_fit_freeze_fit_unfreeze_fit_freeze(model, optimizer):
    compile_fit_freeze(model, optimizer)
    fit(model)
    kdx.unfreeze(model, batch_norm=True)
    fit(model)
    freeze_body(model)


def freeze_fit_freeze_again(model, optimizer):
    freeze_compile(model, optimizer)
    fit(model)
    freeze_body(model)


ORDERS = [
    compile_freeze,
    freeze_compile,
    compile_fit_freeze,
    freeze_compile_fit_unfreeze_freeze,
    compile_fit_freeze_fit_unfreeze_fit_freeze,
    freeze_fit_freeze_again,
]


@pytest.mark.parametrize(
    ("order", "optimizer"),
    # Each order once, and what else an optimizer does beside gradients in one of the orders that differ most.
    list(zip(ORDERS, itertools.cycle(["AdamW", "scaled"]), strict=False))
    + list(zip(itertools.cycle(ORDERS[1:3]), OPTIMIZERS, strict=False)),
)
def test_what_is_frozen_does_not_move_by_a_bit_and_the_rest_trains(order, optimizer):
    if BACKEND == "jax" and optimizer == "EMA" and "fit" in order.__name__:
        pytest.skip("a second fit with use_ema fails in Keras itself on JAX")
    model = nested()
    order(model, optimizer)
    frozen, head = values(body_weights(model)), values(layer(model, "head").weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Keras warns of a `trainable` that it did not see
        # In Keras 3.15.1 `trainer.py` has the call of it behind a `raise`.
        getattr(model, "_warn_if_trainable_state_changed", lambda: None)()
        fit(model)
    assert_same(values(body_weights(model)), frozen)
    assert all((new != old).any() for new, old in zip(values(model.layers[-1].weights), head, strict=True))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        *(("flat", {"jit_compile": True}), ("nested", {"run_eagerly": True})),
        *(("subclassed", {}), ("subclassed", {"jit_compile": True})),
    ],
)
def test_the_same_in_models_of_every_kind_however_they_are_compiled(kind, arguments):
    if BACKEND == "torch" and "jit_compile" in arguments:
        pytest.skip("torch.compile: for minutes")
    model = MODELS[kind]()
    compiled(model, "AdamW", **arguments)
    fit(model)
    freeze_body(model)
    frozen = values(body_weights(model))
    fit(model)
    assert_same(values(body_weights(model)), frozen)
    kdx.unfreeze(model, path(model, "second"))
    fit(model)
    assert_same(values(layer(model, "first").weights), frozen[:2])
    assert (values(layer(model, "second").weights)[0] != frozen[-2]).any()


@pytest.mark.skipif(BACKEND == "torch", reason="refused by Keras on torch")
def test_the_same_with_several_steps_in_an_execution():
    model = nested()
    compiled(model, "AdamW", steps_per_execution=3)
    fit(model)
    freeze_body(model)
    frozen = values(body_weights(model))
    fit(model)
    assert_same(values(body_weights(model)), frozen)
    assert model.steps_per_execution == 3


def test_batch_normalization_is_in_inference_mode_when_frozen():
    model = keras.Sequential([keras.Input((3,)), L.BatchNormalization(name="norm", epsilon=0.0)])
    kdx.freeze(model)
    x = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], "float32")
    # With the moving mean 0 and variance 1 it changes nothing; by the batch both rows would be +-1.
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(x, training=True)), x)


# -- what a recompile keeps ------------------------------------------------------------------------------


def slots(optimizer, model, name):
    """Return the values of Adam's averages of a layer's weights, found by Keras's own index."""
    found = []
    for weight in layer(model, name).trainable_weights:
        index = optimizer._get_variable_index(weight)
        found += values([optimizer._momentums[index], optimizer._velocities[index]])
    return found


def test_slots_of_surviving_weights_and_the_count_of_updates_are_kept():
    model = nested()
    model.compile("adam", "mse")
    fit(model, epochs=2)
    before = slots(model.optimizer, model, "head")
    old = model.optimizer
    freeze_body(model)
    assert model.optimizer is not old
    assert_same(slots(model.optimizer, model, "head"), before)
    assert int(model.optimizer.iterations) == 8
    assert (
        len(model.optimizer.variables) == 2 + 2 * 2
    )  # iterations, learning rate, two slots of two weights


def test_weights_that_are_new_to_the_optimizer_begin_with_empty_slots():
    model = nested()
    freeze_body(model)
    model.compile("adam", "mse")
    fit(model)
    kept = slots(model.optimizer, model, "head")
    kdx.unfreeze(model, "body/second")
    assert_same(slots(model.optimizer, model, "head"), kept)
    assert all((slot == 0).all() for slot in slots(model.optimizer, model, "second"))


def test_equal_shapes_do_not_mix_up_slots():
    model = keras.Sequential([keras.Input((4,)), *(L.Dense(4, name=f"d{i}") for i in range(4))])
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(8, 4)), rng.normal(size=(8, 4)), verbose=0)
    before = {name: slots(model.optimizer, model, name) for name in ("d1", "d3")}
    kdx.freeze(model, ["d0", "d2"])
    for name, expected in before.items():
        assert_same(slots(model.optimizer, model, name), expected)


def test_a_moving_average_of_a_weight_begins_with_the_weight():
    model = nested()
    freeze_body(model)
    model.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    fit(model)
    kdx.unfreeze(model, "body/second")
    optimizer, weight = model.optimizer, layer(model, "second").kernel
    average = optimizer._model_variables_moving_average[optimizer._get_variable_index(weight)]
    assert_same(values([average]), values([weight]))


def test_the_state_of_loss_scaling_is_kept():
    model = nested()
    model.compile(
        keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(), initial_scale=8.0, dynamic_growth_steps=3
        ),
        "mse",
    )
    fit(model)  # 4 updates: the scale grows once
    freeze_body(model)
    assert float(model.optimizer.dynamic_scale) == 16.0
    assert int(model.optimizer.step_counter) == 1
    assert model.optimizer.dynamic_growth_steps == 3


def test_everything_that_the_model_was_compiled_with_is_kept():
    inputs = keras.Input((3,))
    hidden = L.Dense(4, name="hidden")(inputs)
    model = keras.Model(inputs, {n: L.Dense(1, name=n)(hidden) for n in ("a", "b")})
    optimizer = keras.optimizers.AdamW(0.02, beta_1=0.8, weight_decay=0.1, global_clipnorm=2.0, name="own")
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    loss = {"a": keras.losses.Huber(0.7), "b": "mae"}
    model.compile(
        optimizer,
        loss,
        loss_weights={"a": 2.0, "b": 0.5},
        metrics={"a": ["mse"]},
        weighted_metrics={"b": ["mse"]},
        run_eagerly=True,
    )
    x = np.ones((4, 3), "float32")
    y = {"a": np.ones((4, 1)), "b": np.zeros((4, 1))}
    model.fit(x, y, verbose=0)
    model.optimizer.learning_rate = 0.03
    before = model.get_compile_config()
    logs = model.evaluate(x, y, return_dict=True, verbose=0)
    kdx.freeze(model, "hidden")
    after = model.get_compile_config()
    assert model.run_eagerly
    assert model.evaluate(x, y, return_dict=True, verbose=0) == logs
    assert {**after, "optimizer": None} == {**before, "optimizer": None}
    config = model.optimizer.get_config()
    assert config == {**optimizer.get_config(), "learning_rate": float(np.float32(0.03))}
    assert type(model.optimizer) is type(optimizer)
    assert not model.optimizer._use_weight_decay(model.get_layer("a").bias)


def test_a_schedule_goes_on_where_it_was():
    schedule = kdx.PowerDecay(0.1, 10)
    model = nested()
    model.compile(keras.optimizers.SGD(schedule), "mse")
    fit(model)
    freeze_body(model)
    assert model.optimizer._learning_rate is schedule
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1 / 1.4, rel=1e-6)


def test_a_model_with_a_compile_of_its_own_keeps_what_that_set():
    class Own(keras.Sequential):
        def compile(self, optimizer, penalty):
            super().compile(optimizer, loss="mse")
            self.penalty = penalty

    model = Own([keras.Input((6,)), L.Dense(3, name="first"), L.Dense(2)])
    model.compile("sgd", penalty=0.5)
    kdx.freeze(model, "first")
    assert model.penalty == 0.5
    fit(model)


def test_a_learning_rate_is_that_of_the_fresh_optimizer():
    model = nested()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(kdx.PowerDecay(0.1, 10))), "mse")
    kdx.unfreeze(model, learning_rate=0.005)
    assert float(model.optimizer.learning_rate) == np.float32(0.005)
    told = model.get_compile_config()["optimizer"]["config"]["inner_optimizer"]["config"]  # of a file
    assert told["learning_rate"] == np.float32(0.005)


def test_a_mixed_precision_model_is_scaled_once():
    policy = "mixed_float16" if BACKEND != "torch" else "mixed_bfloat16"
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(4, name="first", dtype=policy), L.Dense(2, dtype=policy)]
    )
    model.compile("adam", "mse")
    kind = type(model.optimizer)
    kdx.freeze(model, "first")
    assert type(model.optimizer) is kind
    assert not isinstance(
        getattr(model.optimizer, "inner_optimizer", None), keras.optimizers.LossScaleOptimizer
    )
    fit(model)


# -- what is meant by `layers` ---------------------------------------------------------------------------


def frozen_names(model):
    return [
        found.name
        for found in model._flatten_layers()
        if found.weights and not found._layers and not found.trainable
    ]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, ["first", "norm", "second", "head"]),
        ("body", ["first", "norm", "second"]),
        ("body/norm", ["norm"]),
        (1, ["first", "norm", "second"]),
        (-1, ["head"]),
        (slice(1, None), ["first", "norm", "second", "head"]),
        (re.compile("/(first|norm)$"), ["first", "norm"]),
        (["head", "body/first"], ["first", "head"]),
        (("head", re.compile("norm")), ["norm", "head"]),
    ],
)
def test_layers_by_name_path_index_slice_and_pattern(layers, expected):
    model = nested()
    kdx.freeze(model, layers)
    assert sorted(frozen_names(model)) == sorted(expected)
    kdx.unfreeze(model, layers, batch_norm=True)
    assert frozen_names(model) == []


def test_layers_by_themselves():
    model = nested()
    kdx.freeze(model, [model.layers[1].layers[0], model.layers[-1]])
    assert sorted(frozen_names(model)) == ["first", "head"]


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ("bodyy", "'body'"),
        ("second", "'body/second'"),
        (7, "3 layers"),
        (slice(9, 12), "3 layers"),
        (slice(None, None, 0), "step of a slice in `layers` not to be 0"),
        (re.compile("nrom"), "'body/norm'|Its layers"),
        ([], "at least one"),
        (["head", "nothing"], "'nothing'"),
    ],
)
def test_nothing_matched_is_an_error_with_near_names_that_changes_nothing(layers, told):
    model = nested()
    model.compile("adam", "mse")
    optimizer = model.optimizer
    for change in (kdx.freeze, kdx.unfreeze):
        with pytest.raises(ValueError, match=told):
            change(model, layers)
    assert frozen_names(model) == []
    assert model.optimizer is optimizer


def test_the_layer_of_another_model_is_an_error():
    with pytest.raises(ValueError, match="none of the model's"):
        kdx.freeze(nested(), L.Dense(2, name="head"))


@pytest.mark.parametrize(
    "layers", [True, 1.5, {"head"}, b"head", slice("body", "head"), slice(0, 1.5), re.compile(b"head")]
)
def test_layers_of_another_type_are_an_error(layers):
    with pytest.raises(TypeError, match="layers"):
        kdx.freeze(nested(), layers)


@pytest.mark.parametrize("model", [None, "model", L.Dense(2)])
def test_no_model_is_an_error(model):
    for change in (kdx.freeze, kdx.unfreeze):
        with pytest.raises(TypeError, match="Keras model"):
            change(model)


def test_one_layer_is_told_in_the_singular():
    model = keras.Sequential([keras.Input((2,)), L.Dense(1)])
    with pytest.raises(ValueError, match="has 1 layer, none"):
        kdx.freeze(model, 3)


# -- layers within layers --------------------------------------------------------------------------------


def wrapped():
    """A model in a wrapper, cells, and layers of a layer."""
    layers = [
        keras.Input((6, 6, 1)),
        L.Conv2D(2, 3, name="conv"),
        L.BatchNormalization(name="bn"),
        L.GlobalAveragePooling2D(),
    ]
    inputs = keras.Input((4, 6, 6, 1))
    x = L.TimeDistributed(keras.Sequential(layers, name="cnn"), name="frames")(inputs)
    x = L.Bidirectional(L.GRU(2, name="gru", return_sequences=True), name="both")(x)
    x = L.MultiHeadAttention(1, 2, name="attention")(x, x)
    return keras.Model(inputs, L.Dense(1, name="head")(L.Flatten(name="flatten")(x)))


@pytest.fixture(scope="module")
def wrapped_model():
    return wrapped()


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("frames/cnn/conv", ["conv"]),
        ("frames/conv", ["conv"]),  # the only one that it can be short for
        ("frames/cnn", ["bn", "conv"]),
        ("both/forward_gru", ["gru_cell"]),
        ("attention/query", ["query"]),
        (re.compile("/(key|value)$"), ["key", "value"]),
        (["head", "frames/cnn/bn"], ["bn", "head"]),
    ],
)
def test_layers_within_wrappers_are_named_by_their_path(wrapped_model, layers, expected):
    kdx.freeze(wrapped_model, layers)
    assert sorted(frozen_names(wrapped_model)) == expected
    kdx.unfreeze(wrapped_model, layers, batch_norm=True)
    assert frozen_names(wrapped_model) == []


def test_a_short_path_that_fits_two_layers_is_an_error_that_names_them():
    blocks = [keras.Sequential([L.Dense(3, name="dense")], name=name) for name in ("one", "two")]
    inner = keras.Sequential([keras.Input((3,)), *blocks], name="blocks")
    model = keras.Sequential([keras.Input((2, 3)), L.TimeDistributed(inner, name="steps")])
    with pytest.raises(ValueError, match="'steps/blocks/one/dense', 'steps/blocks/two/dense'"):
        kdx.freeze(model, "steps/dense")
    kdx.freeze(model, "steps/one/dense")
    assert [v.path.split("/")[-3:] for v in model.trainable_variables] == [
        ["two", "dense", name] for name in ("kernel", "bias")
    ]


def test_every_name_that_a_report_prints_is_one_that_freeze_takes():
    layers = [keras.Input((3,)), L.Dense(2, name="dense"), L.BatchNormalization(name="bn")]
    steps = L.TimeDistributed(keras.Sequential(layers, name="step"), name="steps")
    model = keras.Sequential([keras.Input((4, 3)), steps, L.Flatten(), L.Dense(1, name="head")])
    (kept,) = kdx.fuse_batch_norm(model).report.kept
    assert kept.layer == "steps/step/bn"
    kdx.freeze(model, "steps/step/bn")
    model.compile("sgd", "mse")
    monitor, unfreezing = kdx.GradientNormMonitor(), kdx.GradualUnfreezing({1: "steps/step/dense"})
    kdx.freeze(model, "steps/dense")
    x, y = np.ones((2, 4, 3), "float32"), np.ones((2, 1), "float32")
    model.fit(x, y, epochs=2, callbacks=[monitor, unfreezing], verbose=0)
    prefix = "gradient_norm/"
    names = [name.removeprefix(prefix) for name in monitor.history if name.startswith(prefix)]
    assert names == ["steps", "head"]
    names += [kernel.path.rsplit("/", 1)[0] for kernel in kdx.sparsity(model).kernels]
    for name in [kept.layer, *names, *unfreezing.unfrozen[1]]:
        kdx.freeze(model, name)


# -- BatchNormalization, and what is within and around ---------------------------------------------------


def test_unfreeze_leaves_batch_normalization_frozen():
    model = kdx.unfreeze(kdx.freeze(nested()))
    assert frozen_names(model) == ["norm"]
    assert kdx.unfreeze(model, batch_norm=True) is model
    assert frozen_names(model) == []


def test_unfreeze_does_not_freeze_batch_normalization_that_trains():
    assert frozen_names(kdx.unfreeze(nested())) == []


def test_batch_normalization_alone_is_an_error_without_its_argument():
    model = kdx.freeze(nested())
    with pytest.raises(ValueError, match="batch_norm=True"):
        kdx.unfreeze(model, "body/norm")
    kdx.unfreeze(model, "body/norm", batch_norm=True)
    assert layer(model, "norm").trainable


@pytest.mark.parametrize("make", [nested, subclassed])
def test_freezing_and_unfreezing_is_the_identity(make):
    model = make()
    before = [found.trainable for found in model._flatten_layers()]
    kdx.unfreeze(kdx.freeze(model), batch_norm=True)
    assert [found.trainable for found in model._flatten_layers()] == before
    assert len(model.trainable_variables) == 8


def test_a_layer_within_a_frozen_model_trains_and_its_siblings_do_not():
    model = nested()
    model.layers[1].trainable = False
    kdx.unfreeze(model, "body/second")
    assert [v.path.split("/")[-2] for v in model.trainable_variables] == [
        "second",
        "second",
        "head",
        "head",
    ]
    assert model.layers[1].trainable  # else Keras would freeze it when the file is loaded


def test_layers_that_were_set_apart_in_a_frozen_model_stay_frozen():
    model = nested()
    model.trainable = False
    layer(model, "first").trainable = True  # of no effect, as the model is frozen
    kdx.unfreeze(model, "head")
    assert [v.path.split("/")[-2] for v in model.trainable_variables] == ["head", "head"]


def test_weights_that_lora_trains_its_own_in_the_place_of_stay_frozen():
    model = flat()
    layer(model, "second").enable_lora(2)
    names = [v.name for v in model.trainable_variables]
    assert "kernel" not in [v.name for v in layer(model, "second").trainable_variables]
    kdx.unfreeze(kdx.freeze(model), batch_norm=True)
    assert [v.name for v in model.trainable_variables] == names


def test_layers_of_wrappers_and_cells_follow_them():
    model = keras.Sequential([keras.Input((3, 2)), L.Bidirectional(L.LSTM(2), name="both"), L.Dense(1)])
    kdx.freeze(model, "both")
    assert len(model.trainable_variables) == 2
    kdx.unfreeze(model, "both")
    assert len(model.trainable_variables) == 2 * 3 + 2


@pytest.mark.parametrize("make", [flat, nested])
def test_a_saved_model_is_frozen_where_it_was(make, tmp_path):
    model = make()
    model.compile("adam", "mse")
    freeze_body(model)
    kdx.unfreeze(model, path(model, "second"))
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert frozen_names(loaded) == frozen_names(model)
    assert [v.shape for v in loaded.trainable_variables] == [v.shape for v in model.trainable_variables]
    assert_same(values(loaded.optimizer.variables), values(model.optimizer.variables))
    frozen = values(body_weights(loaded))
    fit(loaded)
    assert_same(values(layer(loaded, "first").weights), frozen[:2])


def test_a_model_that_is_built_after_it_was_frozen_is_frozen():
    model = keras.Sequential([L.Dense(3, name="first"), L.Dense(2, name="head")])
    kdx.freeze(model, "first")
    model.compile("sgd", "mse")
    fit(model)
    assert [v.path.split("/")[-2] for v in model.trainable_variables] == ["head", "head"]


# -- refusals --------------------------------------------------------------------------------------------


def test_a_callback_is_refused_with_the_name_of_the_one_to_use():
    model = nested()
    model.compile("sgd", "mse")
    callback = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: kdx.freeze(model, "body"))
    with pytest.raises(RuntimeError, match="GradualUnfreezing"):
        fit(model, callbacks=[callback])
    assert frozen_names(model) == []


def test_after_training_a_callback_may_freeze():
    model = nested()
    model.compile("sgd", "mse")
    fit(
        model,
        callbacks=[keras.callbacks.LambdaCallback(on_train_end=lambda logs: kdx.freeze(model, "body"))],
    )
    assert sorted(frozen_names(model)) == ["first", "norm", "second"]


def test_a_learning_rate_for_a_model_that_is_not_compiled_is_an_error():
    with pytest.raises(ValueError, match="not compiled"):
        kdx.unfreeze(nested(), learning_rate=0.1)
    with pytest.raises(ValueError, match="positive"):
        kdx.unfreeze(nested(), learning_rate=-0.1)
    with pytest.raises(ValueError, match="range of float32"):  # it would be infinite
        kdx.unfreeze(nested(), learning_rate=1e39)
    with pytest.raises(TypeError, match="batch_norm"):
        kdx.unfreeze(nested(), batch_norm="yes")


def test_a_second_optimizer_that_is_built_is_an_error():
    model = nested()
    model.compile("sgd", "mse")
    model.other = keras.optimizers.SGD()
    model.other.build(model.trainable_variables)
    with pytest.raises(ValueError, match="more than one optimizer"):
        kdx.freeze(model, "body")
    assert frozen_names(model) == []


def test_an_optimizer_that_hides_its_config_is_an_error_and_nothing_is_frozen():
    class Hiding(keras.optimizers.SGD):
        def __init__(self, secret, **kwargs):
            super().__init__(**kwargs)

    model = nested()
    model.compile(Hiding(3), "mse")
    with pytest.raises(ValueError, match="get_config"):
        kdx.freeze(model, "body")
    assert frozen_names(model) == []


def test_a_layer_that_would_not_stand_still_is_an_error():
    spectral = L.SpectralNormalization(L.Dense(3), name="spectral")
    model = keras.Sequential([keras.Input((6,)), spectral, L.Dense(2)])
    model.trainable = False  # as Keras does it
    before = values(spectral.weights)
    model(np.ones((1, 6), "float32"), training=True)
    assert any((a != b).any() for a, b in zip(values(spectral.weights), before, strict=True))
    with pytest.raises(ValueError, match="SpectralNormalization"):
        kdx.freeze(model)


# -- numbers, and calls that fail ------------------------------------------------------------------------


def frozen_head():
    model = flat()
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return kdx.freeze(model, "head")


@pytest.mark.parametrize(
    "number",
    [2, np.float32(0.5), np.int64(2), np.array(0.25), Fraction(1, 4), Decimal("0.5"), 1e-3],
    ids=lambda number: type(number).__name__,
)
def test_numbers_of_any_kind_are_learning_rates(number):
    model = kdx.unfreeze(frozen_head(), "head", learning_rate=number)
    assert float(model.optimizer.learning_rate) == pytest.approx(float(number))
    assert type(model.optimizer.get_config()["learning_rate"]) is float
    fit(model)


def test_the_rate_of_an_optimizer_and_a_tensor_are_numbers():
    model = frozen_head()
    rate = keras.Variable(0.5)
    assert float(kdx.unfreeze(model, learning_rate=rate).optimizer.learning_rate) == 0.5
    assert float(kdx.unfreeze(model, learning_rate=rate / 2).optimizer.learning_rate) == 0.25


@pytest.mark.parametrize("number", ["0.1", True, np.array([0.1]), 1j])
def test_what_is_no_number_is_no_learning_rate(number):
    model = frozen_head()
    optimizer = model.optimizer
    with pytest.raises(TypeError, match="learning_rate"):
        kdx.unfreeze(model, learning_rate=number)
    assert model.optimizer is optimizer
    assert frozen_names(model) == ["head"]


class Interrupted(keras.optimizers.SGD):
    """Stops where Ctrl-C can come: while it is built for other weights."""

    builds = 0
    stops_at = None

    def build(self, variables):
        Interrupted.builds += 1
        if Interrupted.builds == Interrupted.stops_at:
            raise KeyboardInterrupt
        super().build(variables)


@pytest.mark.parametrize("change", [kdx.freeze, kdx.unfreeze])
@pytest.mark.parametrize("place", ["optimizer", "flags", "compiled"])
def test_an_interrupt_leaves_what_is_frozen_and_the_optimizer(change, place, monkeypatch):
    model = nested()
    model.compile(Interrupted(0.1, momentum=0.9), "mse")
    kdx.freeze(model, "body/first")
    fit(model)
    before, optimizer = frozen_names(model), model.optimizer
    flags = [variable.trainable for variable in model.variables]
    slots = values(optimizer.variables)
    layers = {kdx.freeze: "head", kdx.unfreeze: "body"}[change]
    with monkeypatch.context() as patch:
        if place == "optimizer":
            patch.setattr(Interrupted, "stops_at", Interrupted.builds + 1)
        else:
            module, name = {
                "flags": ("_models.trainable", "has_lora"),
                "compiled": ("_models.recompiling", "accept_trainable"),
            }[place]
            calls = itertools.count()
            real = getattr(importlib.import_module(f"keras_dnn_extras.{module}"), name)

            def interrupt(*arguments):
                if next(calls) == 0:
                    raise KeyboardInterrupt
                return real(*arguments)

            patch.setattr(f"keras_dnn_extras.{module}.{name}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            change(model, layers)
    assert frozen_names(model) == before
    assert [variable.trainable for variable in model.variables] == flags
    assert model.optimizer is optimizer
    assert_same(values(optimizer.variables), slots)
    fit(model)


@pytest.mark.skipif(
    "renorm" not in inspect.signature(L.BatchNormalization).parameters, reason="comes with Keras 3.15"
)
def test_statistics_of_batch_renormalization_do_not_move_while_it_is_frozen():
    layers = [L.Dense(5), L.BatchNormalization(renorm=True, name="norm"), L.Dense(OUTPUTS)]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    model.compile("sgd", "mse")
    fit(model)
    names = [variable.name for variable in layers[1].weights]
    assert {"renorm_mean", "renorm_stddev"} < set(names)
    for change, expected in [
        (lambda: kdx.freeze(model, "norm"), []),
        (lambda: kdx.unfreeze(model), []),
        (lambda: kdx.unfreeze(model, batch_norm=True), names),
    ]:
        change()
        before = values(layers[1].weights)
        fit(model)
        pairs = zip(names, before, values(layers[1].weights), strict=True)
        assert [name for name, a, b in pairs if (a != b).any()] == expected
