"""fuse_batch_norm: what is folded, to what precision, what stays and why, and what is kept."""

import dataclasses
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys

import keras
import ml_dtypes
import numpy as np
import oracle
import pytest
from fusion_models import (
    BACKWARD,
    PATTERNS,
    Forgetful,
    assert_same,
    dense_norm_relu,
    functional,
    fused_pattern,
    inputs_of,
    norm_relu,
    normalizations,
    predicted,
    randomized,
    relative_error,
    stacked,
    weights_of,
)

import keras_dnn_extras as kdx
from keras_dnn_extras._graphs import copy_model, equivalence
from keras_dnn_extras.fusion import algebra

L = keras.layers
FACTOR = 3.0  # that the code of a layer refers to
BACKEND = keras.backend.backend()


# -- what is folded --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_fused_model_computes_what_the_definitions_of_the_layers_say(pattern):
    model, result = fused_pattern(pattern)
    assert not normalizations(result.model)
    assert [(f.batch_norm, f.direction) for f in result.report.fused] == [("bn", pattern.split()[0])]
    assert not result.report.kept
    inputs = inputs_of(model)
    expected = oracle.outputs_of(model, *inputs)
    assert relative_error(predicted(result.model, inputs)[0], expected) <= 2e-6
    assert result.report.max_relative_error <= 2e-6


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras computes in float32 there")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_models_of_float64_stay_as_precise(pattern):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model = randomized(PATTERNS[pattern]())
    finally:
        keras.config.set_dtype_policy(before)
    inputs = inputs_of(model)
    result = kdx.fuse_batch_norm(model)
    assert not normalizations(result.model)
    # Keras's attention scales by a number of float32: 4e-9 from the definition, in both models.
    attention = "Attention" in pattern
    expected = predicted(model, inputs)[0] if attention else oracle.outputs_of(model, *inputs)
    assert relative_error(predicted(result.model, inputs)[0], expected) <= 1e-13


@pytest.mark.parametrize("pattern", PATTERNS)
def test_fusing_again_changes_nothing(pattern):
    _, once = fused_pattern(pattern)
    twice = kdx.fuse_batch_norm(once.model)
    assert twice.report == kdx.FusionReport([], [], [], 0.0)
    assert json.dumps(twice.model.get_config()) == json.dumps(once.model.get_config())
    for first, second in zip(weights_of(once.model), weights_of(twice.model), strict=True):
        np.testing.assert_array_equal(first, second)


def test_channels_first():
    if BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no such convolutions on CPUs")
    stack = [
        L.Conv2D(4, 3, data_format="channels_first"),
        L.BatchNormalization(axis=1, name="bn"),
        L.ReLU(),
    ]
    stack += [L.BatchNormalization(axis=1), L.Flatten(data_format="channels_first"), L.Dense(2)]
    model = randomized(keras.Sequential([keras.Input((3, 6, 5)), *stack]))
    result = kdx.fuse_batch_norm(model)
    assert not normalizations(result.model)
    assert_same(model, result.model)


@pytest.mark.parametrize("build", [lambda: L.Conv2D(4, 3, padding="same"), lambda: L.Conv2DTranspose(4, 3)])
def test_a_scale_alone_passes_the_zeros_of_padding(build):
    stack = [L.BatchNormalization(name="bn", center=False), L.ZeroPadding2D(), build()]
    model = randomized(keras.Sequential([keras.Input((6, 5, 3)), *stack]))
    model.layers[0].moving_mean.assign(np.zeros(3))
    result = kdx.fuse_batch_norm(model)
    assert not normalizations(result.model)
    expected = oracle.outputs_of(model, *inputs_of(model))
    assert relative_error(predicted(result.model, inputs_of(model))[0], expected) <= 2e-6


def test_chains_are_folded_to_the_last():
    stack = [L.Dense(4, name="a"), *(L.BatchNormalization(name=f"bn{i}") for i in range(2)), L.ReLU()]
    stack += [*(L.BatchNormalization(name=f"bn{i}") for i in range(2, 4)), L.Dense(3, name="b"), L.ReLU()]
    stack += [*(L.BatchNormalization(name=f"bn{i}") for i in range(4, 7)), L.ReLU()]
    model = randomized(keras.Sequential([keras.Input((5,)), *stack]))
    result = kdx.fuse_batch_norm(model)
    assert [layer.name for layer in normalizations(result.model)] == ["bn4"]
    into = [(fusion.batch_norm, fusion.into, fusion.direction) for fusion in result.report.fused]
    assert into[:4] == [
        ("bn0", "a", "backward"),
        ("bn1", "a", "backward"),
        ("bn2", "b", "forward"),
        ("bn3", "b", "forward"),
    ]
    assert into[4:] == [("bn5", "bn4", "backward"), ("bn6", "bn4", "backward")]
    assert_same(model, result.model)


@pytest.mark.parametrize(
    "first",
    [
        lambda: L.Rescaling(1 / 127.5, offset=-1),
        lambda: L.Rescaling([0.5, 0.25, 2.0], offset=[1.0, 0.0, -1.0]),
        lambda: L.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 0.5]),
        lambda: L.Normalization(axis=None, mean=2.0, variance=4.0),
    ],
)
def test_preprocessing_goes_into_the_first_layer(first):
    model = randomized(keras.Sequential([keras.Input((7, 6, 3)), first(), L.Conv2D(4, 3)]))
    result = kdx.fuse_batch_norm(model)
    assert result.report.removed == [model.layers[0].name]
    assert not result.report.fused
    expected = oracle.outputs_of(model, *inputs_of(model))
    assert relative_error(predicted(result.model, inputs_of(model))[0], expected) <= 2e-6


def test_an_adapted_normalization_that_stays_is_adapted_in_the_copy():
    normalization = L.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (100, 5)))
    model = keras.Sequential([keras.Input((5,)), normalization, L.ReLU(), L.Dense(2)])
    result = kdx.fuse_batch_norm(model)
    assert len(result.model.layers) == 3
    assert result.report.max_relative_error == 0


def test_an_adapted_normalization_of_half_precision_is_adapted_in_copies():
    """Its constants are casts of its weights. On PyTorch those of float32 are views, and move with them."""
    normalization = L.Normalization(dtype="mixed_float16", name="norm")
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (100, 5)))
    model = keras.Sequential([keras.Input((5,)), normalization, L.ReLU(), L.Dense(2)])
    x = np.random.default_rng(1).normal(3, 2, (8, 5)).astype("float32")
    expected = keras.ops.convert_to_numpy(normalization(x))
    for copy in (kdx.fuse_batch_norm(model).model, copy_model(model).model):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(copy.get_layer("norm")(x)), expected)


SINCE_314 = "renorm" in inspect.signature(L.BatchNormalization).parameters


def trained_with(**kwargs):
    """Return a trained model with normalizations that go backward, forward, into another one, and stay."""
    stack = [L.Dense(4, name="a"), L.BatchNormalization(name="backward", **kwargs), L.ReLU()]
    stack += [L.BatchNormalization(name="forward", **kwargs), L.Dense(3, name="b"), L.ReLU()]
    stack += [
        L.BatchNormalization(name="stays", **kwargs),
        L.BatchNormalization(name="into", **kwargs),
        L.ReLU(),
    ]
    model = keras.Sequential([keras.Input((5,)), *stack])
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(2, 3, (64, 5)), rng.normal(size=(64, 3)), batch_size=16, verbose=0)
    return model


def assert_folded_to_the_oracle(model):
    result = kdx.fuse_batch_norm(model)
    assert [fusion.batch_norm for fusion in result.report.fused] == ["backward", "forward", "into"]
    x = np.random.default_rng(1).normal(2, 3, (6, 5)).astype("float32")
    expected = oracle.outputs_of(model, x)
    assert relative_error(predicted(result.model, [x])[0], expected) <= 2e-6
    return result.model


@pytest.mark.skipif(not SINCE_314, reason="since Keras 3.14")
@pytest.mark.parametrize("clipping", [None, {"rmax": 1.1, "rmin": 0.9, "dmax": 0.1}])
def test_batch_renormalization_is_folded_by_what_it_does_at_inference(clipping):
    """That is the moving variance, not the deviation which it corrects batches with."""
    model = trained_with(renorm=True, renorm_clipping=clipping, renorm_momentum=0.5)
    layer = model.get_layer("stays")
    deviation = keras.ops.convert_to_numpy(keras.ops.sqrt(layer.moving_variance))
    assert np.all(np.abs(deviation / keras.ops.convert_to_numpy(layer.renorm_stddev) - 1) > 0.01)
    stays = assert_folded_to_the_oracle(model).get_layer("stays")
    assert stays.renorm_clipping == clipping or not stays.renorm_clipping
    for name in ("renorm_mean", "renorm_stddev", "moving_stddev", "moving_variance"):
        np.testing.assert_array_equal(
            *(keras.ops.convert_to_numpy(getattr(each, name)) for each in (stays, layer))
        )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
def test_synchronized_normalizations_are_folded():
    assert_folded_to_the_oracle(trained_with(synchronized=True))


def test_what_does_nothing_at_inference_is_left_out():
    no_ops = [L.Dropout(0.5), L.AlphaDropout(0.1), L.GaussianDropout(0.1), L.GaussianNoise(1.0)]
    no_ops += [L.Identity(), L.ActivityRegularization(0.1), L.Activation("linear")]
    model = dense_norm_relu(*no_ops, L.Dense(2, name="last"))
    result = kdx.fuse_batch_norm(model)
    assert [layer.name for layer in result.model.layers] == ["dense", "relu", "last"]
    assert result.report.removed == [layer.name for layer in no_ops]
    assert_same(model, result.model, 1e-6)


def test_layers_that_draw_at_inference_stay():
    model = dense_norm_relu(
        kdx.MCDropout(0.5, name="mc"), kdx.MCDropout(0.5, seed=3, name="mc2"), L.Dense(2, name="last")
    )
    result = kdx.fuse_batch_norm(model)
    assert [layer.name for layer in result.model.layers][2:4] == ["mc", "mc2"]
    assert result.report.max_relative_error <= 2e-6
    x = np.ones((50, 5))
    assert np.any(result.model.predict(x, verbose=0) != result.model.predict(x, verbose=0))


def test_a_dropout_that_is_active_somewhere_stays():
    dropout = L.Dropout(0.5, seed=1, name="drop")
    model = functional(lambda x: L.Dense(3)(dropout(L.ReLU()(dropout(x, training=True)))))
    result = kdx.fuse_batch_norm(model)
    assert result.report.removed == []
    assert len(result.model.get_layer("drop")._inbound_nodes) == 2


def test_a_dropout_at_the_end_of_a_sequential_model_goes_and_no_model_is_left_empty():
    model = keras.Sequential([keras.Input((5,)), L.ReLU(), L.BatchNormalization(name="bn"), L.Dropout(0.5)])
    result = kdx.fuse_batch_norm(model)
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers[:2]]
    assert "what 'bn' makes is an output of the model" in result.report.kept[0].reason
    model = keras.Sequential([keras.Input((5,)), L.Dropout(0.5), L.Dropout(0.5)])
    assert len(kdx.fuse_batch_norm(model).model.layers) == 1


def test_the_bias_of_one_channel_is_not_along_an_axis_of_unknown_length():
    stack = [L.EinsumDense("abc,cd->adb", (1, None), name="einsum"), L.BatchNormalization(axis=1)]
    model = randomized(keras.Sequential([keras.Input((None, 5)), *stack, L.ReLU()]))
    fused = kdx.fuse_batch_norm(model).model
    assert fused.get_layer("einsum").bias_axes == "d"
    x = np.random.default_rng(0).normal(size=(2, 3, 5))
    assert relative_error(*(predicted(each, [x])[0] for each in (fused, model))) <= 2e-6


def test_the_gate_of_an_attention_is_made_of_the_queries():
    if "use_gate" not in inspect.signature(L.MultiHeadAttention).parameters:
        pytest.skip("this version of Keras has none")
    layer = L.MultiHeadAttention(2, 3, use_gate=True)
    inputs = keras.Input((4, 5))
    query, value = L.BatchNormalization(name="q")(inputs), L.BatchNormalization(name="v")(inputs)
    model = randomized(keras.Model(inputs, layer(query, value)))
    result = kdx.fuse_batch_norm(model)
    assert len(result.report.fused) == 2
    assert_same(model, result.model)


def test_masks_go_on_to_those_that_take_them():
    stack = [L.Embedding(3, 5, mask_zero=True), L.BatchNormalization(), L.LSTM(4, return_sequences=True)]
    stack += [L.Dense(3), L.BatchNormalization(), L.ReLU(), L.Dropout(0.5), L.GRU(2)]
    model = randomized(keras.Sequential([keras.Input((6,), dtype="int32"), *stack]))
    result = kdx.fuse_batch_norm(model)
    assert not normalizations(result.model)
    assert_same(model, result.model, 1e-6)
    x = np.array([[1, 2, 0, 0, 0, 0]])
    changed = weights_of(model)[0][0] + 1  # of what is masked
    result.model.layers[0].embeddings.assign(
        np.concatenate([changed[None], weights_of(result.model)[0][1:]])
    )
    np.testing.assert_allclose(result.model.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)


# -- what stays ------------------------------------------------------------------------------------------


class OwnNormalization(L.BatchNormalization):
    def call(self, inputs, **kwargs):
        return super().call(inputs, **kwargs) ** 2


class OwnDense(L.Dense):
    def call(self, inputs, **kwargs):
        return super().call(inputs, **kwargs) ** 2


class Plus(L.Layer):
    """Adds what there is."""

    def call(self, x, other=None):
        return x if other is None else x + other

    def compute_output_shape(self, x_shape, other_shape=None):
        return x_shape


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = L.BatchNormalization(name="inside")

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        return self.norm(x)


def _shared_dense(x):
    dense = L.Dense(5, name="shared")
    return L.ReLU()(L.BatchNormalization(name="bn")(dense(L.ReLU()(dense(x)))))


def _shared_norm(x):
    norm = L.BatchNormalization(name="bn")
    return L.ReLU()(norm(L.Dense(5)(norm(L.Dense(5)(x)))))


def _several_consumers(x):
    dense = L.Dense(5, name="dense")(x)
    return L.Add(name="sum")([L.ReLU()(L.BatchNormalization(name="bn")(dense)), dense])


def _several_consumers_after(x):
    norm = L.BatchNormalization(name="bn")(x)
    return L.Add(name="sum")([L.Dense(3, name="dense")(norm), L.Dense(3, name="other")(norm)])


def _output(x):
    dense = L.Dense(5, name="dense")(x)
    return [dense, L.ReLU()(L.BatchNormalization(name="bn")(dense))]


def _lora():
    dense = L.Dense(4, name="dense", lora_rank=2)
    return functional(stacked(dense, *norm_relu()))


def _quantized():
    model = functional(stacked(L.Dense(4, name="dense"), *norm_relu()))
    model.get_layer("dense").quantize("int8")
    return model


def _ill_conditioned():
    model = functional(stacked(L.ReLU(), L.BatchNormalization(name="bn"), L.Dense(3, name="dense")))
    model.get_layer("bn").moving_mean.assign(np.full(5, 1000.0))
    model.get_layer("bn").gamma.assign(np.ones(5))
    return model


def _not_finite():
    model = functional(stacked(L.Dense(4), L.ReLU(), L.Dense(3, name="d"), *norm_relu()))
    kernel = weights_of(model)[0]
    kernel[0] = np.nan
    model.layers[1].kernel.assign(kernel)
    return model


def _twice(join):
    def build(x):
        dense = L.Dense(5)(x)
        return L.ReLU(name="relu")(L.BatchNormalization(name="bn")(join([dense, dense])))

    return lambda: functional(build)


def _negative_variance():
    model = dense_norm_relu()
    model.get_layer("bn").moving_variance.assign(-np.ones(4))
    return model


def _shared_by_a_wrapper(x):
    dense = L.Dense(5, name="dense")
    first = L.ReLU()(L.BatchNormalization(name="bn")(dense(x)))
    return L.Add()([first, L.TimeDistributed(dense, name="each")(x)])


KEPT = {
    "activation inside": (
        lambda: functional(stacked(L.Dense(4, name="d", activation="relu"), *norm_relu())),
        "'d' has the activation 'relu'.*'relu'",
    ),
    "a shared layer": (lambda: functional(_shared_dense), "'shared' is called 2 times"),
    "a layer in a wrapper": (
        lambda: functional(_shared_by_a_wrapper, (3, 5)),
        "'dense' shares its weights with 'each'",
    ),
    "a shared normalization": (lambda: functional(_shared_norm), "'bn' is called 2 times"),
    "several consumers": (
        lambda: functional(_several_consumers),
        "'dense' makes goes to several layers .'bn', 'sum'",
    ),
    "several consumers after": (
        lambda: functional(_several_consumers_after),
        "'bn' makes goes to several layers .'dense'",
    ),
    "an output": (lambda: functional(_output), "'dense' makes is an output"),
    "another axis": (
        lambda: functional(stacked(L.Dense(4, name="d"), *norm_relu(axis=1)), (4, 5)),
        "'d' are axis 2.*axis 1",
    ),
    "training=True": (
        lambda: functional(
            lambda x: L.ReLU()(L.BatchNormalization(name="bn")(L.Dense(4)(x), training=True))
        ),
        "'bn' is called with training=True",
    ),
    "a subclass of it": (
        lambda: functional(stacked(L.Dense(4), OwnNormalization(name="bn"), L.ReLU())),
        "'OwnNormalization' is not",
    ),
    "a subclass of a linear layer": (
        lambda: functional(stacked(OwnDense(4, name="own"), *norm_relu())),
        "'own' .OwnDense. is in the way",
    ),
    "LoRA": (_lora, "'dense' has LoRA"),
    "quantized": (_quantized, "'dense' is quantized"),
    "padding with zeros": (
        lambda: functional(
            stacked(L.BatchNormalization(name="bn"), L.Conv2D(4, 3, padding="same", name="conv")),
            (6, 6, 3),
        ),
        "padding of 'conv' makes zeros",
    ),
    "ZeroPadding": (
        lambda: functional(
            stacked(L.BatchNormalization(name="bn"), L.ZeroPadding2D(name="pad"), L.Conv2D(4, 3)),
            (6, 6, 3),
        ),
        "'pad' pads with zeros",
    ),
    "causal padding": (
        lambda: functional(
            stacked(L.BatchNormalization(name="bn"), L.Conv1D(4, 3, padding="causal", name="conv")), (6, 3)
        ),
        "padding of 'conv' makes zeros",
    ),
    "transposed": (
        lambda: functional(
            stacked(L.BatchNormalization(name="bn"), L.Conv1DTranspose(4, 3, name="conv")), (6, 3)
        ),
        "'conv' makes another number",
    ),
    "negative scales before a maximum": (
        lambda: functional(stacked(L.Conv2D(8, 2), L.MaxPooling2D(name="pool"), *norm_relu()), (6, 6, 3)),
        "'pool' takes maxima",
    ),
    "ill-conditioned": (_ill_conditioned, "'dense' would be ill-conditioned: means of 'bn' are \\d+ times"),
    "a tensor added to itself": (_twice(L.Add(name="join")), "'join' takes the same tensor twice"),
    "a tensor joined to itself": (_twice(L.Concatenate(name="join")), "'join' takes the same tensor twice"),
    "no numbers to compare": (
        _not_finite,
        "'bn' makes of random inputs is not finite.*'d' cannot be checked",
    ),
    "a negative variance": (_negative_variance, "'bn' make scales that are not finite"),
    "an operation": (
        lambda: functional(
            lambda x: L.ReLU()(L.BatchNormalization(name="bn")(keras.ops.exp(L.Dense(4)(x))))
        ),
        "Exp. is in the way",
    ),
    "inside a layer": (lambda: functional(stacked(L.Dense(4), Block(name="block"))), "inside 'block'"),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_cannot_be_folded_stays_and_the_reason_is_told(case):
    build, reason = KEPT[case]
    model = build()
    result = kdx.fuse_batch_norm(model)
    assert not result.report.fused
    [kept] = result.report.kept
    assert kept.layer == ("block/inside" if case == "inside a layer" else "bn")
    assert kept.reason.endswith(".")
    assert re.search(reason, kept.reason), kept.reason
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers]
    inputs = inputs_of(model)
    for found, expected in zip(predicted(result.model, inputs), predicted(model, inputs), strict=True):
        np.testing.assert_array_equal(found, expected)  # a copy, to the bit


def test_float64_is_folded_as_far_as_the_backend_computes_with_it():
    stack = [L.BatchNormalization(name="bn", dtype="float64"), L.Dense(3, name="dense", dtype="float64")]
    model = randomized(keras.Sequential([keras.Input((5,), dtype="float64"), *stack]))
    for name, value in [("moving_mean", 50.0), ("gamma", 1.0), ("beta", 0.0)]:
        getattr(model.get_layer("bn"), name).assign(np.full(5, value))
    report = kdx.fuse_batch_norm(model).report
    if BACKEND == "tensorflow":
        assert [fusion.batch_norm for fusion in report.fused] == ["bn"]
    else:  # they would be seen, those of float64 not
        assert "that many roundings of float32 would be seen" in report.kept[0].reason


def test_the_rounding_of_a_dtype_is_half_the_way_from_1_to_the_next_number():
    for dtype, rounding in equivalence.ROUNDING.items():
        assert rounding == float(ml_dtypes.finfo(dtype).eps) / 2


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(dtype):
    stack = [L.Dense(8, name="dense"), L.BatchNormalization(name="bn"), L.ReLU(name="relu")]
    stack += [L.BatchNormalization(name="far"), L.Dense(3, name="last")]
    for layer in stack:
        layer.dtype_policy = keras.DTypePolicy(dtype)
    model = randomized(keras.Sequential([keras.Input((5,)), *stack]))
    model.get_layer("far").moving_mean.assign(np.full(8, 1000.0))
    model.get_layer("far").gamma.assign(np.ones(8))
    result = kdx.fuse_batch_norm(model)
    assert [fusion.batch_norm for fusion in result.report.fused] == ["bn"]
    assert "ill-conditioned" in result.report.kept[0].reason
    assert result.model.get_layer("dense").dtype_policy.name == dtype
    model.get_layer("far").moving_mean.assign(np.zeros(8))
    result = kdx.fuse_batch_norm(model)
    assert len(result.report.fused) == 2
    unit = {"mixed_float16": 2**-11, "mixed_bfloat16": 2**-8}[dtype]
    expected = oracle.outputs_of(model, *inputs_of(model))
    # Two matrices, rounded, of rounded inputs: a few roundings each, of which those of a sum partly cancel.
    assert relative_error(predicted(result.model, inputs_of(model))[0], expected) <= 8 * unit


def test_the_model_itself_keeps_its_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = dense_norm_relu()
    finally:
        keras.config.set_dtype_policy(before)
    assert kdx.fuse_batch_norm(model).model.dtype_policy.name == "mixed_bfloat16"


def test_weights_that_would_overflow_stay_as_they_were():
    model = dense_norm_relu()
    model.get_layer("bn").gamma.assign(np.full(4, 3e38))
    model.get_layer("dense").kernel.assign(np.full((5, 4), 100.0))
    assert "would be too large for float32" in kdx.fuse_batch_norm(model).report.kept[0].reason


def test_a_backward_fold_with_a_far_mean_is_made_as_it_does_no_harm():
    """The bias makes the mean, so the difference is taken in float64: better than the model itself."""
    model = dense_norm_relu()
    model.get_layer("dense").bias.assign(np.full(4, 1e5))
    model.get_layer("bn").moving_mean.assign(np.full(4, 1e5))
    model.get_layer("bn").gamma.assign(np.ones(4))
    result = kdx.fuse_batch_norm(model)
    assert len(result.report.fused) == 1
    x = inputs_of(model)
    expected = oracle.outputs_of(model, *x)
    assert relative_error(predicted(result.model, x)[0], expected) <= 2e-6
    assert relative_error(predicted(model, x)[0], expected) > 1e-4


def test_a_fold_that_fails_the_check_is_undone_and_told(monkeypatch):
    right = algebra.fold_depthwise_outputs

    def wrong(kernel, bias, affine):
        kernel, bias = right(kernel, bias, affine)
        return kernel * 1.001, bias

    monkeypatch.setattr(algebra, "fold_depthwise_outputs", wrong)
    stack = [L.Conv2D(4, 2), L.BatchNormalization(name="first"), L.ReLU()]
    stack += [L.DepthwiseConv2D(2, name="deep"), L.BatchNormalization(name="second"), L.ReLU(), L.Flatten()]
    model = randomized(keras.Sequential([keras.Input((6, 6, 3)), *stack]))
    result = kdx.fuse_batch_norm(model)
    assert [fusion.batch_norm for fusion in result.report.fused] == ["first"]
    [kept] = result.report.kept
    assert kept.layer == "second"
    assert "'deep'" in kept.reason
    assert "relative error" in kept.reason
    assert_same(model, result.model)


class Precision(L.Layer):
    """Notes how products of float32 are computed when it is called."""

    seen = []  # noqa: RUF012

    def call(self, x):
        if not isinstance(x, keras.KerasTensor):
            self.seen.append(float32_precision())
        return x


def float32_precision():
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.tensor_float_32_execution_enabled()
    if BACKEND == "jax":
        import jax

        return jax.config.jax_default_matmul_precision
    import torch

    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_the_check_does_not_compute_with_tensor_float_32():
    before = float32_precision()
    Precision.seen.clear()
    kdx.fuse_batch_norm(functional(stacked(L.Dense(4), *norm_relu(), Precision())))
    full = {"tensorflow": False, "jax": "highest", "torch": (False, False)}[BACKEND]
    assert Precision.seen[-2:] == [full, full]
    assert float32_precision() == before != full


# -- what is kept ----------------------------------------------------------------------------------------


def _node_counts(model):
    return [
        (len(layer._inbound_nodes), len(layer._outbound_nodes))
        for layer in [*model._flatten_layers(), *(getattr(model, "_functional", None) or model).operations]
    ]


def nested():
    inner = keras.Sequential(
        [
            keras.Input((5,)),
            L.Dense(4, name="d1"),
            L.BatchNormalization(name="bn1"),
            L.ReLU(),
            L.Dropout(0.5, name="drop"),
        ],
        name="inner",
    )
    inputs = keras.Input((5,))
    body = inner(inputs)
    body = L.Dense(5, name="d2")(body)
    body = L.ReLU()(L.BatchNormalization(name="bn2")(body))
    backbone = keras.Model(inputs, body, name="backbone")
    inputs = keras.Input((5,))
    twice = backbone(backbone(inputs))
    return randomized(keras.Model(inputs, L.BatchNormalization(name="bn3")(L.Dense(2, name="d3")(twice))))


def test_the_model_stays_as_it_was_and_trains_on():
    model = nested()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x, y = np.ones((4, 5)), np.zeros((4, 2))
    model.fit(x, y, verbose=0)
    before, counts, config = weights_of(model), _node_counts(model), json.dumps(model.get_config())
    fused = kdx.fuse_batch_norm(model).model
    assert _node_counts(model) == counts
    assert json.dumps(model.get_config()) == config
    for first, second in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(first, second)
    predicted_before = fused.predict(x, verbose=0)
    model.fit(x, y, verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, weights_of(model), strict=True))
    np.testing.assert_array_equal(fused.predict(x, verbose=0), predicted_before)


def test_nested_models_are_folded_inside():
    model = nested()
    result = kdx.fuse_batch_norm(model)
    assert [f.batch_norm for f in result.report.fused] == ["backbone/inner/bn1", "backbone/bn2", "bn3"]
    assert [f.into for f in result.report.fused] == ["backbone/inner/d1", "backbone/d2", "d3"]
    assert result.report.removed == ["backbone/inner/drop"]
    backbone = result.model.get_layer("backbone")
    assert type(backbone) is type(model.get_layer("backbone"))
    assert type(backbone.get_layer("inner")) is keras.Sequential
    assert result.model.output_names == model.output_names == ["bn3"]
    assert_same(model, result.model)
    assert result.model.count_params() == sum(w.size for w in weights_of(model)) - 4 * (4 + 5 + 2)


def test_a_nested_model_that_is_called_with_training_true_stays():
    inner = keras.Sequential([keras.Input((5,)), L.Dense(4), L.BatchNormalization(name="bn")], name="inner")
    inputs = keras.Input((5,))
    model = randomized(keras.Model(inputs, inner(inputs, training=True)))
    result = kdx.fuse_batch_norm(model)
    [kept] = result.report.kept
    assert kept.layer == "inner/bn"
    assert kept.reason == "'inner' is called with training=True."
    assert normalizations(result.model)


def test_names_structures_and_inputs_are_kept():
    a = keras.Input((5,), name="a")
    b = keras.Input((5,), name="b", dtype="float64")
    c = keras.Input((4,), name="c", optional=True)
    x = Plus()(L.ReLU(name="u")(L.BatchNormalization(name="bn")(L.Dense(4, name="d")(a))), c)
    y = L.BatchNormalization(name="last")(L.Dense(3, name="e")(b))
    model = randomized(keras.Model({"a": a, "b": b, "c": c}, {"y": [y], "x": x}, name="named"))
    fused = kdx.fuse_batch_norm(model).model
    assert fused.name == "named"
    assert fused.output_names == model.output_names
    assert {k: (v.shape, v.dtype) for k, v in fused.input.items()} == {
        k: (v.shape, v.dtype) for k, v in model.input.items()
    }
    assert [layer.optional for layer in fused.layers if isinstance(layer, L.InputLayer)] == [
        layer.optional for layer in model.layers if isinstance(layer, L.InputLayer)
    ]
    given = {"a": np.ones((2, 5)), "b": np.ones((2, 5)), "c": None}
    found, expected = fused(given), model(given)
    assert found.keys() == expected.keys()
    assert isinstance(found["y"], list)
    for first, second in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (first, second)), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(BACKEND == "torch", reason="has no sparse inputs")
def test_sparse_inputs_stay_sparse():
    inputs = keras.Input((5,), sparse=True)
    model = keras.Model(inputs, L.ReLU()(L.BatchNormalization()(L.Dense(3)(inputs))))
    result = kdx.fuse_batch_norm(model)
    assert result.model.inputs[0].sparse
    assert len(result.report.fused) == 1


def test_a_sequential_model_stays_one():
    fused = kdx.fuse_batch_norm(dense_norm_relu()).model
    assert type(fused) is keras.Sequential
    assert [layer.name for layer in fused.layers] == ["dense", "relu"]


def test_layers_keep_their_settings():
    dense = L.Dense(4, name="dense", kernel_initializer="he_normal", trainable=False, use_bias=False)
    model = functional(stacked(dense, *norm_relu()))
    config, before = (m.get_layer("dense").get_config() for m in (kdx.fuse_batch_norm(model).model, model))
    assert config == {**before, "use_bias": True}


PENALTIES = {"kernel_regularizer": "l2", "bias_regularizer": "l1", "kernel_constraint": "non_neg"}


def set_entries(layer, suffixes=("_regularizer", "_constraint")):
    return {
        name for name, value in layer.get_config().items() if value is not None and name.endswith(suffixes)
    }


def test_folded_layers_have_no_regularizers_and_losses_are_those_of_the_others():
    other = L.Dense(3, kernel_regularizer="l2", name="other")
    norm = L.BatchNormalization(name="bn2", gamma_regularizer="l2", beta_constraint="non_neg")
    model = dense_norm_relu(other, L.ReLU(), L.Dense(2, name="last", **PENALTIES), norm, L.ReLU())
    fused = kdx.fuse_batch_norm(model).model
    assert set_entries(fused.get_layer("last")) == set()
    assert set_entries(fused.get_layer("other")) == {"kernel_regularizer"}
    [loss] = fused.losses
    kernel = keras.ops.convert_to_numpy(other.kernel)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loss), 0.01 * np.sum(kernel**2), rtol=1e-5)


def test_a_recurrent_layer_and_a_normalization_that_take_a_fold_have_none_either():
    lstm = L.LSTM(3, recurrent_regularizer="l2", name="lstm", **PENALTIES)
    stack = [L.ReLU(), L.BatchNormalization(name="first"), lstm]
    fused = kdx.fuse_batch_norm(randomized(keras.Sequential([keras.Input((4, 5)), *stack]))).model
    assert set_entries(fused.get_layer("lstm")) == set()
    taking = L.BatchNormalization(name="taking", gamma_regularizer="l2", beta_constraint="non_neg")
    stack = [L.ReLU(), taking, L.BatchNormalization(name="bn"), L.ReLU()]
    fused = kdx.fuse_batch_norm(randomized(keras.Sequential([keras.Input((5,)), *stack]))).model
    assert set_entries(fused.get_layer("taking")) == set()


def test_activity_regularizers_stay_where_they_see_the_same():
    before = L.Conv2D(3, 2, activity_regularizer="l2", name="before")
    between = L.AveragePooling2D(2, activity_regularizer="l1", name="between")
    stack = [
        before,
        between,
        L.BatchNormalization(name="first"),
        L.ReLU(activity_regularizer="l2", name="relu"),
    ]
    after = L.Conv2D(2, 2, activity_regularizer="l1", kernel_regularizer="l2", name="after")
    stack += [L.BatchNormalization(name="second"), after]
    model = randomized(keras.Sequential([keras.Input((7, 7, 2)), *stack]))
    fused = kdx.fuse_batch_norm(model).model
    regularized = {layer.name for layer in fused.layers if layer.activity_regularizer is not None}
    assert regularized == {"relu", "after"}
    assert set_entries(fused.get_layer("after")) == {"activity_regularizer"}


def test_shared_layers_stay_shared():
    model = functional(_shared_dense)
    fused = kdx.fuse_batch_norm(model).model
    assert fused.count_params() == model.count_params()
    assert len(fused.get_layer("shared")._inbound_nodes) == 2


def test_a_function_in_a_layer_still_finds_what_it_refers_to():
    stack = [L.Lambda(lambda x: x * FACTOR, output_shape=(5,)), L.Dense(4), *norm_relu()]
    assert len(kdx.fuse_batch_norm(functional(stacked(*stack))).report.fused) == 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="has no strings")
def test_a_vocabulary_is_copied():
    import tensorflow as tf

    table = L.StringLookup(output_mode="one_hot")
    table.adapt(["a", "b", "b"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), table, L.Dense(3), *norm_relu()])
    result = kdx.fuse_batch_norm(randomized(model))
    assert len(result.report.fused) == 1
    x = tf.constant([["a"], ["b"], ["c"]])
    np.testing.assert_allclose(result.model(x), model(x), rtol=1e-5, atol=1e-6)


def test_statistics_of_a_normalization_that_are_no_views_of_its_weights_are_copied():
    inputs = keras.Input((4,))
    scaled = L.Normalization(dtype="mixed_bfloat16")  # of float32 PyTorch makes views
    hidden = L.Dense(3)(L.Activation("tanh")(scaled(inputs)))
    model = randomized(keras.Model(inputs, L.ReLU()(L.BatchNormalization()(hidden))))
    scaled.finalize_state()  # as `adapt` does
    result, x = kdx.fuse_batch_norm(model), np.ones((3, 4))
    assert len(result.report.fused) == 1
    np.testing.assert_allclose(predicted(result.model, [x])[0], predicted(model, [x])[0], atol=1e-5)


def test_outputs_that_are_never_numbers_are_told_and_make_no_error():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.log(-1 - keras.ops.abs(L.Dense(3)(inputs))))
    report = kdx.fuse_batch_norm(model).report
    assert report.max_relative_error == 0  # of what the logarithm is given
    assert report.remarks == [
        "1 of 1 outputs of the model were not compared, as nothing in them is finite on random inputs. "
        "Pass as `inputs` a few rows of data of which the model makes numbers."
    ]


def test_the_error_is_not_known_where_nothing_was_finite():
    model = dense_norm_relu()
    report = kdx.fuse_batch_norm(model, inputs=np.full((4, 5), np.nan)).report
    assert np.isnan(report.max_relative_error)
    assert "largest relative error not known" in str(report)
    assert "1 of 1 outputs" in report.remarks[0]


def test_an_error_of_one_output_is_known_where_the_other_is_never_a_number():
    inputs = keras.Input((4,))
    x = L.ReLU()(L.BatchNormalization()(L.Dense(3)(inputs)))
    report = kdx.fuse_batch_norm(randomized(keras.Model(inputs, [x, keras.ops.log(-1 - x)]))).report
    assert 0 <= report.max_relative_error <= 2e-6
    assert "1 of 2 outputs" in report.remarks[0]


def test_sample_data_may_leave_out_an_optional_input():
    class Optional(L.Layer):
        def call(self, x, other=None):
            return x if other is None else x + other

    a, b = keras.Input((4,)), keras.Input((4,), name="b", optional=True)
    x = L.Dense(3)(Optional()(a, other=b))
    model = randomized(keras.Model([a, b], L.ReLU()(L.BatchNormalization(name="bn")(x))))
    report = kdx.fuse_batch_norm(model, inputs=[np.random.default_rng(0).normal(size=(6, 4)), None]).report
    assert [fusion.batch_norm for fusion in report.fused] == ["bn"]
    assert 0 < report.max_relative_error <= 2e-6
    with pytest.raises(ValueError, match="an array for each input, also for an optional one"):
        kdx.compile_for_inference(model, inputs=[np.ones((6, 4)), None])


def test_a_mean_image_behind_a_resizing_is_drawn_for():
    mean = np.random.default_rng(0).uniform(0, 255, (6, 6, 3))
    norm = L.Normalization(axis=(1, 2, 3), mean=mean, variance=np.ones_like(mean))
    stack = [L.Resizing(6, 6), norm, L.Conv2D(2, 3), L.BatchNormalization(name="bn")]
    report = kdx.fuse_batch_norm(randomized(keras.Sequential([keras.Input((9, 9, 3)), *stack]))).report
    assert [fusion.batch_norm for fusion in report.fused] == ["bn"]
    assert report.unverified == report.remarks == []


# -- random graphs ---------------------------------------------------------------------------------------


def random_graph(seed, depth=2):
    """Return a model of layers that were drawn, with branches, shared layers and models in it."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((4, 6))
    pool, shared = [inputs], []
    for _ in range(rng.integers(6, 14)):
        x = pool[rng.integers(max(0, len(pool) - 3), len(pool))]
        kind = rng.choice(
            ["dense", "norm", "relu", "drop", "conv", "join", "add", "shared", "model", "each"]
        )
        if kind == "dense":
            x = L.Dense(6, use_bias=bool(rng.integers(2)), activation=["linear", "tanh"][rng.integers(2)])(
                x
            )
        elif kind == "norm":
            x = L.BatchNormalization(axis=int(rng.choice([-1, -1, -1, 1])), center=bool(rng.integers(2)))(x)
        elif kind == "relu":
            x = L.ReLU()(x)
        elif kind == "drop":
            x = L.Dropout(0.5)(x)
        elif kind == "conv":
            x = L.Conv1D(6, int(rng.integers(1, 4)), padding="same", groups=int(rng.choice([1, 2, 3])))(x)
        elif kind == "join":
            x = L.Dense(6)(L.Concatenate()([x, pool[rng.integers(len(pool))]]))
        elif kind == "add":
            x = L.Add()([x, pool[rng.integers(len(pool))]])
        elif kind == "shared":
            shared = shared or [L.Dense(6), L.BatchNormalization()]
            x = shared[rng.integers(2)](x)
        elif kind == "model" and depth > 0:
            x = random_graph(int(rng.integers(1000)), depth - 1)(x)
        elif kind == "each":
            x = L.BatchNormalization()(L.DepthwiseConv1D(2, padding="same")(x))
        pool.append(x)
    if depth == 2 and rng.integers(2):
        return keras.Model(inputs, [pool[-1], pool[rng.integers(1, len(pool))]])
    return keras.Model(inputs, pool[-1])


# Which can be folded is the same on all backends: each backend has graphs of its own.
SEEDS = {"tensorflow": range(8), "jax": range(8, 16), "torch": range(16, 32)}


@pytest.mark.parametrize("seed", SEEDS[BACKEND])
def test_random_graphs_compute_the_same(seed):
    model = randomized(random_graph(seed), seed)
    result = kdx.fuse_batch_norm(model)
    report = result.report
    assert len(report.fused) + len(report.kept) == len(normalizations(model))
    inputs = inputs_of(model)
    for found, expected in zip(predicted(result.model, inputs), predicted(model, inputs), strict=True):
        assert relative_error(found, expected) <= 1e-5  # of some twenty layers in float32 on either side
    assert not any("relative error" in kept.reason for kept in report.kept)
    again = kdx.fuse_batch_norm(result.model).report
    assert not again.fused
    assert not again.removed
    assert len(again.kept) == len(report.kept)


# -- networks --------------------------------------------------------------------------------------------

# Which can be folded lies in the graph, and that is the same on all backends: each network on one of them.
NETWORKS = {
    "MobileNet": (27, 27, "tensorflow"),
    "EfficientNetB0": (49, 49, "tensorflow"),
    "Xception": (40, 40, "tensorflow"),
    "ResNet50V2": (32, 49, "tensorflow"),
    "ResNet50": (53, 53, "jax"),
    "MobileNetV2": (52, 52, "jax"),
    "EfficientNetV2B0": (59, 59, "jax"),
    "NASNetMobile": (192, 192, "jax"),
    "MobileNetV3Small": (34, 34, "torch"),
    "InceptionV3": (94, 94, "torch"),
    "InceptionResNetV2": (204, 204, "torch"),
    "DenseNet121": (59, 121, "torch"),
}


def _zeros(initializer, shape, dtype=None):
    return keras.ops.convert_to_tensor(np.zeros(shape), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (*_, backend) in NETWORKS.items() if backend == BACKEND])
def test_networks(name, monkeypatch):
    # Weights that `randomized` replaces: to draw them first takes most of the time on JAX.
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", _zeros)
    model = randomized(getattr(keras.applications, name)(weights=None))
    folded, total, _ = NETWORKS[name]
    assert len(normalizations(model)) == total
    result = kdx.fuse_batch_norm(model)
    report = result.report
    assert (len(report.fused), len(report.kept)) == (folded, total - folded)
    assert len(normalizations(result.model)) == total - folded
    assert all("relative error" not in kept.reason and "'" in kept.reason for kept in report.kept)
    assert report.max_relative_error <= 1e-5


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's graphs")
def test_no_square_root_is_left_in_the_graph():
    import tensorflow as tf

    stack = [L.Conv2D(4, 3, use_bias=False), *norm_relu(), L.DepthwiseConv2D(3), L.BatchNormalization()]
    stack += [L.ReLU(), L.GlobalAveragePooling2D(), L.BatchNormalization(), L.Dense(2)]
    model = randomized(keras.Sequential([keras.Input((8, 8, 3)), *stack]))

    def operations(model):
        function = tf.function(lambda x: model(x, training=False))
        graph = function.get_concrete_function(tf.TensorSpec((1, 8, 8, 3))).graph
        return [operation.type for operation in graph.get_operations()]

    assert operations(model).count("Rsqrt") == 3
    found = operations(kdx.fuse_batch_norm(model).model)
    assert "Rsqrt" not in found
    kinds = ("Conv2D", "DepthwiseConv2dNative")
    assert sum(map(found.count, kinds)) == sum(map(operations(model).count, kinds))


def test_a_large_model_is_compared_in_one_piece_and_to_the_same_end(monkeypatch):
    model = nested()
    expected = kdx.fuse_batch_norm(model).report
    monkeypatch.setattr(equivalence, "MANY", 1)
    assert dataclasses.replace(kdx.fuse_batch_norm(model).report, max_relative_error=0.0) == (
        dataclasses.replace(expected, max_relative_error=0.0)
    )


# -- files and errors ------------------------------------------------------------------------------------


def test_a_file_loads_without_this_package_and_under_another_backend(tmp_path):
    backends = ["tensorflow", "jax", "torch"]
    turn = backends.index(BACKEND) + 1
    backend = next(each for each in backends[turn:] + backends[:turn] if importlib.util.find_spec(each))
    model = randomized(BACKWARD["through Concatenate"]())
    fused = kdx.fuse_batch_norm(model).model
    x = inputs_of(model)[0]
    fused.save(tmp_path / "fused.keras")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", fused.predict(x, verbose=0))
    script = (
        "import sys, keras, numpy as np; sys.modules['keras_dnn_extras'] = None\n"
        "x, y = np.load('x.npy'), np.load('y.npy')\n"
        "loaded = keras.saving.load_model('fused.keras')\n"
        "np.testing.assert_allclose(loaded.predict(x), y, rtol=1e-5, atol=1e-6)"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, timeout=300)


def test_the_report_is_a_table():
    report = kdx.fuse_batch_norm(
        dense_norm_relu(L.Dropout(0.5, name="drop"), *(L.ReLU(), L.Dense(2, name="last")))
    ).report
    lines = str(report).splitlines()
    assert lines[0].split() == ["bn", "backward", "into", "dense"]
    assert lines[1].split() == ["drop", "removed"]
    assert lines[2].startswith("1 of 1 batch normalizations folded, 1 other layer removed")
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.fused = []


def test_other_models_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match=r"Received: model=3"):
        kdx.fuse_batch_norm(3)
    with pytest.raises(ValueError, match=r"functional or sequential.*Received: model="):
        kdx.fuse_batch_norm(Own())
    with pytest.raises(ValueError, match=r"not built.*Received: model="):
        kdx.fuse_batch_norm(keras.Sequential([L.Dense(3), L.BatchNormalization()]))


def test_a_layer_whose_config_does_not_make_it_anew_is_refused_by_name():
    model = dense_norm_relu(Forgetful(3.0, name="forgetful"), L.Dense(2))
    with pytest.raises(
        ValueError, match=r"copy of 'forgetful' does not compute the same.*Received: layer="
    ):
        kdx.fuse_batch_norm(model)


class Late(L.Layer):
    """Makes weights when it is first called with numbers."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense = units, None

    def build(self, shape):
        self.dense = L.Dense(self.units)

    def call(self, x):
        return self.dense(x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Talkative(Late):
    """Has more in its config than it takes."""

    def get_config(self):
        return {**super().get_config(), "places": 17}


@pytest.mark.parametrize("kind", [Late, Talkative])
def test_layers_that_make_weights_late_or_tell_too_much_are_copied(kind):
    model = keras.Sequential(
        [keras.Input((4, 3)), kind(units=5, name="own", dtype="float32"), L.Dense(4), *norm_relu()]
    )
    model(np.ones((1, 4, 3)))
    result = kdx.fuse_batch_norm(randomized(model))
    assert len(result.report.fused) == 1
    assert result.model.get_layer("own") is not model.get_layer("own")
    assert_same(model, result.model)


def test_a_layer_that_cannot_be_made_anew_is_refused_by_name():
    class Demanding(Late):
        def __init__(self, units, table, **kwargs):
            super().__init__(units, **kwargs)

    model = keras.Sequential([keras.Input((3,)), Demanding(5, np.ones(3), name="demanding"), L.ReLU()])
    with pytest.raises(
        ValueError, match=r"'demanding' cannot be made anew from its config.*Received: layer="
    ):
        kdx.fuse_batch_norm(model)


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
def test_a_module_of_torch_is_copied_or_named():
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU())
    module[1].running_mean += 1.5
    wrapped = L.TorchModuleWrapper(module, name="body", output_shape=(None, 6))
    inputs = keras.Input((3,))
    model = randomized(keras.Model(inputs, L.ReLU()(L.BatchNormalization()(L.Dense(4)(wrapped(inputs))))))
    result = kdx.fuse_batch_norm(model)
    assert len(result.report.fused) == 1
    assert result.model.get_layer("body").module is not module
    assert_same(model, result.model)
    followed = keras.Sequential([keras.Input((3,)), L.TorchModuleWrapper(module, name="body"), L.Dense(2)])
    followed(np.ones((2, 3)))
    with pytest.raises(
        ValueError, match=r"'body' does not tell the shape.*`output_shape`.*Received: model="
    ):
        kdx.fuse_batch_norm(followed)


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
def test_a_module_of_torch_that_pickle_does_not_find_is_named():
    import torch

    class Local(torch.nn.Linear):
        pass

    wrapped = L.TorchModuleWrapper(Local(3, 6), name="body", output_shape=(None, 6))
    inputs = keras.Input((3,))
    model = keras.Model(inputs, L.Dense(2)(wrapped(inputs)))
    with pytest.raises(ValueError, match=r"'body' cannot be made anew from its config.*Received: layer="):
        kdx.fuse_batch_norm(model)
    with pytest.raises(ValueError, match=r"cannot be rebuilt from its config.*Received: model="):
        copy_model(model)


def test_a_layer_that_does_not_tell_a_shape_is_named():
    class Hidden(L.Layer):
        def compute_output_spec(self, *args, **kwargs):
            raise NotImplementedError

        def call(self, x):
            return x

    model = keras.Sequential([keras.Input((3,)), L.Dense(4), Hidden(name="hidden"), L.Dense(2)])
    model(np.ones((2, 3)))
    with pytest.raises(ValueError, match="'hidden' does not tell the shape"):
        kdx.fuse_batch_norm(model)


# -- exports -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported():
    """A model, fused, that has been called once, as Keras asks of it on torch, with inputs and outputs."""
    stack = [L.Conv2D(4, 3, use_bias=False), *norm_relu(), L.DepthwiseConv2D(3), L.BatchNormalization()]
    stack += [L.ReLU(), L.GlobalAveragePooling2D(), L.BatchNormalization(), L.Dropout(0.5), L.Dense(2)]
    model = randomized(keras.Sequential([keras.Input((8, 8, 3)), *stack]))
    fused = kdx.fuse_batch_norm(model).model
    assert not normalizations(fused)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    fused.predict(x, verbose=0)
    return fused, x, predicted(model, [x])[0]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras 3.15 exports no such model from torch, fused or not")
def test_a_saved_model_computes_the_same(exported, tmp_path):
    import tensorflow as tf

    fused, x, expected = exported
    fused.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    assert relative_error(loaded.serve(tf.constant(x)).numpy(), expected) <= 2e-6


def test_an_onnx_file_computes_the_same(exported, tmp_path):
    for needed in {"tensorflow": ["tf2onnx"], "jax": ["jax2onnx"], "torch": ["onnx"]}[BACKEND]:
        pytest.importorskip(needed)
    runtime = pytest.importorskip("onnxruntime")
    fused, x, expected = exported
    fused.export(tmp_path / "fused.onnx", format="onnx", verbose=False)
    session = runtime.InferenceSession(tmp_path / "fused.onnx", providers=["CPUExecutionProvider"])
    [found] = session.run(None, {session.get_inputs()[0].name: x})
    assert relative_error(found, expected) <= 2e-6


@pytest.mark.skipif(BACKEND == "jax", reason="OpenVINO does not convert what Keras gives it from JAX")
def test_an_openvino_model_computes_the_same(exported, tmp_path):
    openvino = pytest.importorskip("openvino")
    fused, x, expected = exported
    path = str(tmp_path / "fused.xml")  # Keras 3.15 takes no `Path` here
    fused.export(path, format="openvino", verbose=False)
    # It takes bfloat16 otherwise where the processor has it.
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert relative_error(compiled(x)[0], expected) <= 2e-6


@pytest.mark.skipif(BACKEND != "tensorflow", reason="not from JAX; from torch with `litert-torch`")
def test_a_litert_file_computes_the_same(exported, tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    fused, x, expected = exported
    fused.export(tmp_path / "fused.tflite", format="litert", verbose=False)
    model = interpreter.Interpreter(str(tmp_path / "fused.tflite"))
    model.allocate_tensors()
    model.set_tensor(model.get_input_details()[0]["index"], x)
    model.invoke()
    assert relative_error(model.get_tensor(model.get_output_details()[0]["index"]), expected) <= 2e-6
