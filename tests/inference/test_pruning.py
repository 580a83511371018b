"""sparsity and zero_small_weights: what counts as a kernel, once, and what is refused."""

import keras
import numpy as np
import pytest

import keras_dnn_extras as kdx

L = keras.layers
KERNEL = np.array([[0.0, 0.001, -0.002], [-0.0, 0.5, -2.0]], "float32")


def dense(kernel=KERNEL, **arguments):
    """Return a model of one dense layer with this kernel."""
    model = keras.Sequential([keras.Input((len(kernel),)), L.Dense(kernel.shape[1], name="d", **arguments)])
    model.layers[0].kernel.assign(kernel)
    return model


def values(model):
    return [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]


@pytest.mark.parametrize(("threshold", "zeros"), [(0.0, 2), (0.001, 2), (0.0011, 3), (0.1, 4), (3, 6)])
def test_a_weight_counts_that_is_zero_or_strictly_below_the_threshold(threshold, zeros):
    found = kdx.sparsity(dense(), threshold)
    assert (found.zeros, found.size, found.threshold) == (zeros, 6, threshold)
    assert found.share == found.kernels[0].share == zeros / 6
    assert found.kernels[0].path == "d/kernel"


@pytest.mark.parametrize("threshold", [0.001, 0.0011, 0.1, 3])
def test_what_was_counted_becomes_zero_and_nothing_else_moves(threshold):
    model = dense()
    model.layers[0].bias.assign([0.0, 1e-5, 1e-5])
    told = kdx.sparsity(model, threshold)
    assert kdx.zero_small_weights(model, threshold) is model
    kernel, bias = values(model)
    np.testing.assert_array_equal(kernel, np.where(np.abs(KERNEL) < threshold, 0, KERNEL))
    np.testing.assert_array_equal(bias, np.float32([0.0, 1e-5, 1e-5]))
    assert kdx.sparsity(model).zeros == told.zeros
    before = values(model)
    kdx.zero_small_weights(model, threshold)  # twice is once
    assert all((a == b).all() for a, b in zip(values(model), before, strict=True))


def test_of_kernels_without_weights_none_is_zero():
    found = kdx.sparsity(keras.Sequential([keras.Input((0,)), L.Dense(2)]))
    assert (found.size, found.zeros, found.share, found.kernels[0].share) == (0, 0, 0.0, 0.0)


def test_counting_changes_nothing():
    model = dense()
    before = values(model)
    kdx.sparsity(model, 0.1)
    assert all((a == b).all() for a, b in zip(values(model), before, strict=True))


def test_the_table_has_a_row_for_each_kernel_and_one_for_all():
    model = keras.Sequential([*dense().layers, L.Dense(2, kernel_initializer="ones", name="out")])
    model.build((None, 2))
    rows = [line.split() for line in str(kdx.sparsity(model)).splitlines()]
    assert rows == [
        ["kernel", "zero", "weights", "share"],
        ["d/kernel", "2", "6", "33.3%"],
        ["out/kernel", "0", "6", "0.0%"],
        ["all", "2", "12", "16.7%"],
    ]
    assert str(kdx.sparsity(model, 0.1)).splitlines()[0].split()[1:3] == ["below", "0.1"]


def test_kernels_of_nested_models_of_wrappers_and_of_all_kinds():
    body = keras.Sequential(
        [
            keras.Input((4, 3)),
            L.Bidirectional(L.GRU(2, name="gru"), name="both"),
            L.BatchNormalization(),
            L.PReLU(),
        ],
        name="body",
    )
    inputs = keras.Input((4,), dtype="int32")
    hidden = L.Embedding(5, 3)(inputs)
    hidden = L.SeparableConv1D(3, 2, padding="same", name="separable")(hidden)
    hidden = L.MultiHeadAttention(1, 2, name="mha")(hidden, hidden)
    model = keras.Model(inputs, L.Dense(1, name="out")(body(hidden)))
    sizes = {kernel.path: kernel.size for kernel in kdx.sparsity(model).kernels}
    assert sizes == {
        "separable/depthwise_kernel": 2 * 3,
        "separable/pointwise_kernel": 3 * 3,
        "mha/query/kernel": 3 * 2,
        "mha/key/kernel": 3 * 2,
        "mha/value/kernel": 3 * 2,
        "mha/attention_output/kernel": 2 * 3,
        "body/both/forward_gru/gru_cell/kernel": 3 * 6,
        "body/both/forward_gru/gru_cell/recurrent_kernel": 2 * 6,
        "body/both/backward_gru/gru_cell/kernel": 3 * 6,
        "body/both/backward_gru/gru_cell/recurrent_kernel": 2 * 6,
        "out/kernel": 4,
    }
    kdx.zero_small_weights(model, 100.0)
    assert kdx.sparsity(model).share == 1.0
    assert np.count_nonzero(keras.ops.convert_to_numpy(model.layers[1].embeddings)) == 5 * 3


def test_a_layer_that_is_called_twice_counts_once_and_twins_of_one_name_each():
    shared = L.Dense(3, name="shared")
    assert kdx.sparsity(keras.Sequential([keras.Input((3,)), shared, shared])).size == 9

    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = L.Dense(3, name="twin"), L.Dense(3, name="twin")

        def call(self, x):
            return self.b(self.a(x))

    twins = Twins()
    twins(np.zeros((1, 3)))
    assert [kernel.path for kernel in kdx.sparsity(twins).kernels] == ["twin/kernel", "twin_2/kernel"]


def test_two_kernels_of_one_layer_and_one_name_count_both():
    class Pair(L.Layer):
        def build(self, shape):
            self.a, self.b = (self.add_weight(shape=(2, n), name="kernel") for n in (3, 4))

        def call(self, x):
            return x

    found = kdx.sparsity(keras.Sequential([keras.Input((2,)), Pair(name="pair")])).kernels
    assert [(kernel.path, kernel.size) for kernel in found] == [("pair/kernel", 6), ("pair/kernel_2", 8)]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float16"])
def test_kernels_of_other_precisions(policy):
    model = dense(dtype=policy)
    kdx.zero_small_weights(model, 0.1)
    found = keras.ops.convert_to_numpy(keras.ops.cast(model.layers[0].kernel, "float32"))
    np.testing.assert_array_equal(found, [[0, 0, 0], [0, 0.5, -2]])
    assert model.layers[0].kernel.dtype == ("float32" if "mixed" in policy else policy)


def test_a_compiled_model_predicts_with_the_zeros_and_trains_on():
    model = dense(use_bias=False)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = np.ones((4, 2), "float32"), np.zeros((4, 3), "float32")
    model.fit(x, y, verbose=0)
    model.layers[0].kernel.assign(KERNEL)
    assert model.predict(x, verbose=0)[0] == pytest.approx([0.0, 0.501, -2.002])
    kdx.zero_small_weights(model, 0.1)
    assert model.predict(x, verbose=0)[0] == pytest.approx([0.0, 0.5, -2.0])
    model.fit(x, y, verbose=0)  # and the zeros move: dL/dw = 2/3 * output
    assert values(model)[0][0, 1:] == pytest.approx([-0.1 * 2 / 3 * 0.5, 0.1 * 2 / 3 * 2.0])


def lora():
    model = dense()
    model.layers[0].enable_lora(1)
    return model


def quantized():
    model = dense()
    model.quantize("int8")
    return model


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lora, "LoRA"),
        (quantized, "quantized"),
        (lambda: keras.Sequential([L.Dense(2)]), "no weights yet"),
        (lambda: keras.Sequential([keras.Input((2,)), L.BatchNormalization()]), "no kernels"),
    ],
)
def test_models_without_kernels_of_their_own_are_refused(make, told):
    model = make()
    before = values(model)
    for function in (kdx.sparsity, kdx.zero_small_weights):
        with pytest.raises(ValueError, match=told):
            function(model, 0.1)
    assert all((a == b).all() for a, b in zip(values(model), before, strict=True))


@pytest.mark.parametrize("threshold", [-0.1, float("inf"), float("nan")])
def test_thresholds_out_of_range_are_errors(threshold):
    for function in (kdx.sparsity, kdx.zero_small_weights):
        with pytest.raises(ValueError, match=r"threshold.*Received: threshold="):
            function(dense(), threshold)


def test_arguments_of_the_wrong_type_are_errors():
    for function in (kdx.sparsity, kdx.zero_small_weights):
        with pytest.raises(TypeError, match="threshold"):
            function(dense(), "0.1")
        with pytest.raises(TypeError, match="Keras model"):
            function(L.Dense(2), 0.1)
    with pytest.raises(ValueError, match="positive"):
        kdx.zero_small_weights(dense(), 0)
