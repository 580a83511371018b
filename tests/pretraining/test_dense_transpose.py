"""DenseTranspose: one kernel for two layers, through files, copies, freezing and mixed precision."""

import copy
import gc
import json
import warnings
import zipfile

import keras
import numpy as np
import pytest
from transfer_models import assert_same, layer, values

import keras_dnn_extras as kdx
from keras_dnn_extras._graphs import copy_model

L = keras.layers
FEATURES, UNITS = 5, 3


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def data(rows=8):
    return np.random.default_rng(0).normal(size=(rows, FEATURES)).astype("float32")


def pair(activation="tanh"):
    dense = L.Dense(UNITS, activation=activation, name="there")
    return dense, kdx.DenseTranspose(dense, name="back")


def functional():
    inputs = keras.Input((FEATURES,))
    there, back = pair()
    return keras.Model(inputs, back(there(inputs)))


def sequential():
    return keras.Sequential([keras.Input((FEATURES,)), *pair()])


def nested_encoder():
    there, back = pair()
    encoder = keras.Sequential([keras.Input((FEATURES,)), there], name="encoder")
    inputs = keras.Input((FEATURES,))
    return keras.Model(inputs, back(encoder(inputs)))


def nested_both():
    there, back = pair()
    encoder = keras.Sequential([keras.Input((FEATURES,)), there], name="encoder")
    decoder = keras.Sequential([keras.Input((UNITS,)), back], name="decoder")
    return keras.Sequential([keras.Input((FEATURES,)), encoder, decoder])


@keras.saving.register_keras_serializable(package="test_dense_transpose")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.there, self.back = pair()

    def call(self, inputs):
        return self.back(self.there(inputs))


def subclassed():
    model = Subclassed()
    model(data())
    return model


FLAT = [functional, sequential, nested_encoder]
MODELS = [*FLAT, nested_both, subclassed]


def assert_tied(model):
    there, back = layer(model, "there"), layer(model, "back")
    assert back.dense is there
    assert back.kernel is there.kernel
    assert [tuple(weight.shape) for weight in model.weights] == [(5, 3), (3,), (5,)]
    assert len({id(weight) for weight in model.trainable_weights}) == 3


# -- what it computes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (2, 6)])
def test_it_multiplies_by_the_transposed_kernel_along_the_last_axis(shape):
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(FEATURES, UNITS)), rng.normal(size=FEATURES)
    x = rng.normal(size=(*shape, UNITS)).astype("float32")
    dense = L.Dense(UNITS)
    dense.build((None, FEATURES))
    dense.kernel.assign(kernel)
    back = kdx.DenseTranspose(dense, "tanh", bias_initializer=keras.initializers.Constant(bias.tolist()))
    found = keras.ops.convert_to_numpy(back(x))
    # Sums of three products in float32: 4 units in the last place of numbers of the order of 5.
    np.testing.assert_allclose(found, np.tanh(x @ kernel.T + bias), atol=3e-6)
    assert back.compute_output_shape(x.shape) == found.shape
    plain = kdx.DenseTranspose(dense, use_bias=False)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(plain(x)), x @ kernel.T, atol=3e-6)
    assert [weight is dense.kernel for weight in plain.weights] == [True]


def test_the_gradient_is_the_sum_of_both_uses():
    there = L.Dense(UNITS, use_bias=False)
    model = keras.Sequential(
        [keras.Input((FEATURES,)), there, kdx.DenseTranspose(there, use_bias=False, name="back")]
    )
    model.compile(keras.optimizers.SGD(1.0), "mse")
    x, kernel = data().astype("float64"), values([there.kernel])[0].astype("float64")
    error = 2 * (x @ kernel @ kernel.T - x) / x.size
    of_there, of_back = x.T @ error @ kernel, error.T @ x @ kernel
    model.fit(x, x, batch_size=len(x), verbose=0)
    assert np.abs(of_back).max() > 0.01
    # Sums of at most 40 products of numbers below 10, in float32.
    np.testing.assert_allclose(kernel - values([there.kernel])[0], of_there + of_back, atol=1e-5)


def test_a_mask_is_passed_on():
    dense = L.Dense(UNITS)
    inputs = keras.Input((None, FEATURES))
    outputs = kdx.DenseTranspose(dense)(dense(L.Masking()(inputs)))
    assert outputs._keras_mask is not None


# -- one kernel ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", MODELS)
def test_the_kernel_is_counted_updated_and_saved_once(make, tmp_path):
    model = make()
    assert_tied(model)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.fit(data(), data(), verbose=0)
    assert len(model.optimizer.variables) == 2 + 3  # iterations, learning rate, and a slot for each weight
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    h5py = pytest.importorskip("h5py")
    found = []
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.append(item) if hasattr(item, "shape") else None)
        assert [item.shape for item in found].count((FEATURES, UNITS)) == 2  # itself, and its slot
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_tied(loaded)
    assert_same(values(loaded.weights), values(model.weights))
    for one in (model, loaded):  # and both train on alike
        one.fit(data(), data(), shuffle=False, epochs=2, verbose=0)
    assert_same(values(loaded.weights), values(model.weights))


@pytest.mark.parametrize("make", FLAT)
def test_copies_of_keras_keep_the_tie(make, tmp_path):
    model = make()
    for copy_of in (
        keras.models.clone_model,
        lambda model: type(model).from_config(model.get_config()),
        lambda model: keras.models.model_from_json(model.to_json()),
        copy.deepcopy,
    ):
        new = copy_of(model)
        assert_tied(new)
        assert not {id(weight) for weight in new.weights} & {id(weight) for weight in model.weights}
        new.set_weights(model.get_weights())
        assert_same(values([new(data())]), values([model(data())]))
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5", compile=False)
    assert_tied(loaded)
    assert_same(values(loaded.weights), values(model.weights))


@pytest.mark.parametrize("make", [*FLAT, nested_both])
def test_copies_of_this_package_keep_the_tie(make):
    model = make()
    new = copy_model(model).model
    assert_tied(new)
    assert_same(values(new.weights), values(model.weights))
    outer = keras.Sequential([keras.Input((FEATURES,)), model, L.Dropout(0.5)])
    assert_tied(kdx.to_mc_dropout(outer))
    headed = kdx.replace_head(outer, L.Activation("tanh", name="new"))
    assert layer(headed, "back").kernel is layer(headed, "there").kernel


def cloned_in_parts(recursive=False):
    """Return a clone whose decoder, a nested model, Keras makes without the Dense in the encoder."""
    with pytest.warns(UserWarning, match="'back' .* a kernel of its own"):
        return keras.models.clone_model(
            nested_both(), clone_function=lambda x: type(x).from_config(x.get_config()), recursive=recursive
        )


@pytest.mark.parametrize("recursive", [False, True])
def test_a_clone_that_lost_the_tie_says_so_and_can_be_tied_again(recursive):
    clone = cloned_in_parts(recursive)
    clone.compile("sgd", "mse")
    for use in (clone, lambda x: clone.fit(x, x, verbose=0)):
        with pytest.raises(ValueError, match="lost its tie"):
            use(data())
    layer(clone, "back").tie(layer(clone, "there"))
    assert_tied(clone)
    clone.compile("sgd", "mse")
    clone.fit(data(), data(), verbose=0)


def test_a_kernel_of_its_own_may_be_meant():
    clone = cloned_in_parts()
    back = layer(clone, "back")
    back.tie(back.dense)
    clone(data())
    assert len(clone.weights) == 4


def test_two_layers_of_the_name_are_an_error():
    there, back = pair()
    twice = [keras.Sequential([keras.Input((n,)), L.Dense(UNITS, name="there")]) for n in (FEATURES, UNITS)]
    there.build((None, FEATURES))
    lost = kdx.DenseTranspose.from_config(back.get_config())
    inputs = keras.Input((FEATURES,))
    with pytest.raises(ValueError, match="2 layers of the name 'there'"):
        lost(twice[1](twice[0](inputs)))


def test_a_decoder_by_itself_keeps_a_kernel_of_its_own(tmp_path):
    model = nested_both()
    decoder = model.get_layer("decoder")
    assert [tuple(weight.shape) for weight in decoder.weights] == [(5,), (5, 3)]
    decoder.save(tmp_path / "decoder.keras")
    model.get_layer("encoder").save(tmp_path / "encoder.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = keras.models.load_model(tmp_path / "decoder.keras")
    assert_same(values(alone.weights), values(decoder.weights))
    code = data()[:, :UNITS]
    assert_same(values([alone(code)]), values([decoder(code)]))
    alone.compile(keras.optimizers.SGD(0.1), "mse")
    alone.fit(code, data(), verbose=0)
    assert (values(alone.weights)[1] != values(decoder.weights)[1]).any()
    # Put together again from two files, they are not tied, which is told.
    encoder = keras.models.load_model(tmp_path / "encoder.keras")
    again = keras.Sequential([keras.Input((FEATURES,)), encoder, alone])
    with pytest.raises(ValueError, match="lost its tie"):
        again(data())


def test_nothing_is_left_on_the_dense_layer_of_the_user(tmp_path):
    dense = L.Dense(UNITS, name="there")
    dense.build((None, FEATURES))
    attributes = set(vars(dense))
    back = kdx.DenseTranspose(dense, name="back")
    back.build((None, UNITS))
    keras.Sequential([dense, back]).save(tmp_path / "model.keras")
    assert set(vars(dense)) == attributes
    assert type(dense) is L.Dense


def test_a_dense_layer_counts_as_shared_while_the_layer_tied_to_it_exists(tmp_path):
    dense = L.Dense(UNITS, name="there")
    encoder = keras.Sequential([keras.Input((FEATURES,)), dense])
    back = kdx.DenseTranspose(dense)
    is_shared = []
    for _ in range(2):
        encoder.save(tmp_path / "encoder.keras")
        with zipfile.ZipFile(tmp_path / "encoder.keras") as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        is_shared.append("shared_object_id" in layers[-1])
        back = None
        gc.collect()
    assert (back, is_shared) == (None, [True, False])


def test_a_version_of_keras_that_begins_files_otherwise_is_an_error_of_this_layer_alone(monkeypatch):
    monkeypatch.delattr("keras.src.saving.serialization_lib.ObjectSharingScope")
    with pytest.raises(RuntimeError, match=r"`DenseTranspose` needs `[\w.]+\.ObjectSharingScope`"):
        kdx.DenseTranspose(L.Dense(UNITS))


# -- other features --------------------------------------------------------------------------------------


def test_a_batch_normalization_is_not_folded_into_a_tied_kernel():
    dense = L.Dense(UNITS, name="there")
    norm = L.BatchNormalization(name="norm")
    inputs = keras.Input((FEATURES,))
    model = keras.Model(inputs, kdx.DenseTranspose(dense, name="back")(norm(dense(inputs))))
    norm.moving_variance.assign([0.5, 2.0, 3.0])
    fused = kdx.fuse_batch_norm(model)
    (kept,) = fused.report.kept
    assert (kept.layer, fused.report.fused) == ("norm", [])
    assert "'back'" in kept.reason
    assert layer(fused.model, "back").kernel is layer(fused.model, "there").kernel
    np.testing.assert_array_equal(fused.model.predict(data(), verbose=0), model.predict(data(), verbose=0))


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize(("side", "moving"), [("there", "back"), ("back", "there")])
def test_freezing_either_side_freezes_the_kernel_and_its_own_bias_alone(make, side, moving, tmp_path):
    model = make()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    kdx.freeze(model, layer(model, side))
    other = layer(model, moving)
    assert [weight is other.bias for weight in model.trainable_weights] == [True]
    before = values([layer(model, side).kernel, layer(model, side).bias, other.bias])
    model.fit(data(), data(), verbose=0)
    after = values([layer(model, side).kernel, layer(model, side).bias, other.bias])
    assert_same(after[:2], before[:2])
    assert (after[2] != before[2]).any()
    if make is not subclassed:  # whose config Keras does not keep
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert [weight is layer(loaded, moving).bias for weight in loaded.trainable_weights] == [True]
    kdx.unfreeze(model, layer(model, side))
    assert_tied(model)


def test_a_kernel_that_was_frozen_before_is_frozen_with_the_layer_later():
    there, back = pair()
    there.build((None, FEATURES))
    there.trainable = False
    back.build((None, UNITS))
    there.trainable, back.trainable = True, False
    assert [weight.trainable for weight in (there.kernel, there.bias, back.bias)] == [False, True, False]


def test_mixed_precision_computes_in_halves_and_keeps_the_kernel_whole():
    dense = L.Dense(UNITS, dtype="mixed_bfloat16", name="there")
    back = kdx.DenseTranspose(dense, dtype="mixed_bfloat16", name="back")
    model = keras.Sequential([keras.Input((FEATURES,)), dense, back])
    assert (keras.backend.standardize_dtype(model(data()).dtype), back.kernel.dtype) == (
        "bfloat16",
        "float32",
    )
    found = keras.ops.convert_to_numpy(keras.ops.cast(model(data()), "float32"))
    expected = data() @ values([dense.kernel])[0] @ values([dense.kernel])[0].T
    np.testing.assert_allclose(found, expected, atol=0.1)  # 8 bits of numbers below 5, a few roundings
    model.compile("sgd", "mse")
    before = values([dense.kernel])
    model.fit(data(), data(), verbose=0)
    assert (values([dense.kernel])[0] != before[0]).any()


def test_regularization_of_the_kernel_counts_once():
    dense = L.Dense(UNITS, kernel_regularizer=keras.regularizers.L2(0.5), name="there")
    model = keras.Sequential([keras.Input((FEATURES,)), dense, kdx.DenseTranspose(dense)])
    (loss,) = model.losses
    expected = 0.5 * (values([dense.kernel])[0] ** 2).sum()
    assert float(loss) == pytest.approx(expected, rel=1e-6)


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dense", [None, "dense", L.Conv1D(2, 3), L.EinsumDense("ab,bc->ac", 3)])
def test_what_is_no_dense_layer_is_an_error(dense):
    with pytest.raises(TypeError, match=r"keras\.layers\.Dense"):
        kdx.DenseTranspose(dense)


def test_a_dense_layer_without_a_kernel_yet_is_an_error_when_it_is_needed():
    dense = L.Dense(UNITS)
    back = kdx.DenseTranspose(dense)
    with pytest.raises(ValueError, match="no kernel yet"):
        back(np.ones((2, UNITS), "float32"))
    dense.build((None, FEATURES))
    assert back(np.ones((2, UNITS), "float32")).shape == (2, FEATURES)


def test_inputs_of_another_size_are_an_error():
    there, back = pair()
    there.build((None, FEATURES))
    with pytest.raises(ValueError, match="to have 3 features"):
        back(np.ones((2, 4), "float32"))
    other = L.Dense(UNITS)
    other.build((None, 7))
    back(np.ones((2, UNITS), "float32"))
    with pytest.raises(ValueError, match="kernel of shape"):
        back.tie(other)
    assert back.dense is there


@pytest.mark.parametrize("change", ["enable_lora", "quantize"])
def test_lora_and_quantization_are_errors_before_and_after(change):
    model = sequential()
    there, back = model.layers
    getattr(there, change)({"enable_lora": 2, "quantize": "int8"}[change])
    with pytest.raises(ValueError, match="no other layer can share"):
        back(np.ones((2, UNITS), "float32"))
    with pytest.raises(ValueError, match="no other layer can share"):
        kdx.DenseTranspose(there)


def test_use_bias_is_a_bool():
    with pytest.raises(TypeError, match="use_bias"):
        kdx.DenseTranspose(L.Dense(2), use_bias="no")
