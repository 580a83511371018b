"""Every kind of arrays that `fit` takes, into models that have no weights yet, and into `mc_predict`."""

import keras
import numpy as np
import pytest

import keras_dnn_extras as kdx
from keras_dnn_extras._models.building import built
from keras_dnn_extras._models.data_shapes import spec_of

L = keras.layers
ROWS, FEATURES = 24, 3
DENSE = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).round(2)
Y = np.random.default_rng(1).normal(size=(ROWS, 1)).astype("float32")


def frame(x):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(x, columns=list("abc")[: x.shape[1]])


def frame_with_bools(x):
    x = frame(x)
    x["b"] = x["b"] > 0
    return x


def sparse(kind):
    return lambda x: getattr(pytest.importorskip("scipy.sparse"), kind)(x)


def of_tensorflow(x):
    return pytest.importorskip("tensorflow").constant(x, "float32")


def of_torch(x):
    return pytest.importorskip("torch").tensor(x)


def of_jax(x):
    return pytest.importorskip("jax.numpy").asarray(x)


class WithArray:
    """Has `__array__` alone."""

    def __init__(self, x):
        self._x = x

    def __array__(self, dtype=None, copy=None):
        return self._x if dtype is None else self._x.astype(dtype)


# What each makes of a dense array, and the dense array that it stands for.
KINDS = {
    "float64": (lambda x: x, lambda x: x),
    "float16": (lambda x: x.astype("float16"), lambda x: x.astype("float16")),
    "ints": (lambda x: (10 * x).astype("int64"), lambda x: (10 * x).astype("int64")),
    "DataFrame": (frame, lambda x: x),
    "DataFrame of several types": (
        frame_with_bools,
        lambda x: np.column_stack([x[:, 0], x[:, 1] > 0, x[:, 2]]),
    ),
    "Series": (lambda x: frame(x)["a"], lambda x: x[:, :1]),
    "csr_matrix": (sparse("csr_matrix"), lambda x: x),
    "coo_matrix": (sparse("coo_matrix"), lambda x: x),
    "TensorFlow": (of_tensorflow, lambda x: x),
    "PyTorch": (of_torch, lambda x: x),
    "JAX": (of_jax, lambda x: x),
    "__array__": (WithArray, lambda x: x),
}


def made(kind):
    make, dense = KINDS[kind]
    return make(DENSE), dense(DENSE).astype("float32")


@keras.saving.register_keras_serializable(package="tests")
class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = L.Dropout(0.5, seed=1)
        self.hidden, self.dense = L.Dense(4, name="hidden"), L.Dense(1, name="head")

    def call(self, x):
        return self.dense(self.dropout(self.hidden(x)))


def unbuilt(subclassed=True):
    keras.utils.set_random_seed(0)
    layers = [L.Dense(4, name="hidden"), L.Dropout(0.5, seed=1), L.Dense(1, name="head")]
    model = Net() if subclassed else keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def array(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


@pytest.mark.parametrize("kind", KINDS)
def test_what_builds_a_model_is_what_the_array_becomes(kind):
    x, dense = made(kind)
    spec = spec_of(x, rows=5)
    assert spec.shape == (5, dense.shape[1])
    assert (spec.dtype == "int64") is (kind == "ints")
    model, other = unbuilt(), unbuilt(subclassed=False)
    assert built(model, x, 32) is x
    assert built(other, x, 32) is x
    assert model.hidden.kernel.shape == other.layers[0].kernel.shape == (dense.shape[1], 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DataFrame of several types", "Series", "csr_matrix"])
def test_models_without_weights_train_on_it_as_on_the_dense_array(kind):
    x, dense = made(kind)
    models = [unbuilt(), unbuilt()]
    for model, data in zip(models, (x, dense), strict=True):
        keras.utils.set_random_seed(0)
        kdx.fine_tune(model, data, Y, epochs=1, shuffle=False, verbose=0)
    for a, b in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_allclose(array(a), array(b), atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("search", [True, False])
def test_a_data_frame_goes_into_what_else_trains_a_model_without_weights(search):
    x = frame(DENSE)
    if search:
        kdx.find_learning_rate(unbuilt(), x, Y, steps=2, verbose=0)
        return
    encoder = keras.Sequential([L.Dense(2, name="code")])
    weights = np.ones(ROWS)
    kdx.pretrain_autoencoder(encoder, x, epochs=1, verbose=0, sample_weight=weights, validation_data=x)
    assert encoder.weights[0].shape == (FEATURES, 2)
    encoder = keras.Sequential([L.Dense(2, name="code")])
    kdx.pretrain_auxiliary(encoder, L.Dense(1), x, x["a"], loss="mse", epochs=1, verbose=0)
    assert encoder.weights[0].shape == (FEATURES, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_it_are_those_of_the_dense_array(kind):
    x, dense = made(kind)
    model = unbuilt()
    model(dense)
    expected = kdx.mc_predict(model, dense, samples=2, seed=0)
    found = kdx.mc_predict(model, x, samples=2, seed=0)
    np.testing.assert_allclose(found.mean, expected.mean, atol=2e-3)


def test_inputs_in_a_structure_may_be_of_several_kinds():
    x = {"a": frame(DENSE)["a"], "b": DENSE}

    class Both(Net):
        def call(self, x):
            return super().call(keras.ops.concatenate([x["a"], x["b"]], axis=-1))

    model = Both()
    model.compile("sgd", "mse")
    kdx.fine_tune(model, x, Y, epochs=1, verbose=0)
    assert model.hidden.kernel.shape == (1 + FEATURES, 4)


def test_strings_build_a_model_on_tensorflow():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("has no strings")
    words = np.array(["a", "b", "a", "c"], dtype=object)
    lookup = L.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    model = keras.Sequential([lookup, L.Dense(1)])
    model.compile("sgd", "mse")
    kdx.fine_tune(model, words, np.ones((4, 1)), epochs=1, verbose=0)
    assert model.layers[1].kernel.shape == (3, 1)
