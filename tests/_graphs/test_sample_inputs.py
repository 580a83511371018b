"""sample_inputs: what is drawn for a model looks like what the layers near its inputs were made for."""

import keras
import numpy as np
import pytest

from keras_dnn_extras._graphs import sample_data, sample_inputs

L = keras.layers
rng = np.random.default_rng(0)


def drawn(model, size=6):
    return sample_inputs.like_data(model, model.inputs, size)


def many(model, seeds=60):
    """Return the first input of many draws as one array."""
    return np.concatenate(
        [sample_inputs.like_data(model, model.inputs, 6, seed)[0] for seed in range(seeds)]
    )


def assert_statistics(array, mean, deviation):
    """Each element, over the rows: within 5 standard errors of a mean, and 5 / sqrt(2) of a deviation."""
    rows = len(array)
    assert rows >= 400
    limit = 5 * np.asarray(deviation) / np.sqrt(rows)
    assert np.all(np.abs(array.mean(axis=0) - mean) <= limit + 1e-9)
    assert np.all(np.abs(array.std(axis=0) - deviation) <= limit + 1e-9)


MEAN, VARIANCE = np.array([1.0, -200.0, 3e4]), np.array([4.0, 0.25, 1e6])


def normalization():
    return L.Normalization(mean=MEAN, variance=VARIANCE)


def batch_normalization():
    layer = L.BatchNormalization(epsilon=0.0)
    layer.build((None, 3))
    layer.moving_mean.assign(MEAN)
    layer.moving_variance.assign(VARIANCE)
    return layer


@pytest.mark.parametrize("build", [normalization, batch_normalization])
def test_numbers_have_the_statistics_of_what_normalizes_them(build):
    assert_statistics(many(keras.Sequential([keras.Input((3,)), build()])), MEAN, np.sqrt(VARIANCE))


def test_a_rescaling_before_it_is_turned_back():
    model = keras.Sequential(
        [keras.Input((3,)), L.Dropout(0.5), L.Rescaling(-0.5, offset=1.0), normalization()]
    )
    assert_statistics(many(model), (MEAN - 1) / -0.5, np.sqrt(VARIANCE) / 0.5)


def test_images_of_bytes_fill_their_range():
    model = keras.Sequential([keras.Input((4, 4, 3), dtype="uint8"), L.Rescaling(1 / 127.5, offset=-1.0)])
    [array] = drawn(model)
    assert array.dtype == "uint8"
    assert 60 < array.std() < 130
    assert 100 < array.mean() < 155


def test_statistics_go_through_flatten_reshape_permute_and_nested_models():
    inner = keras.Sequential(
        [keras.Input((3, 2)), L.Flatten(), L.Normalization(mean=np.arange(6.0), variance=np.full(6, 1e-4))]
    )
    inputs = keras.Input((2, 3))
    model = keras.Model(inputs, inner(L.Permute((2, 1))(inputs)))
    [array] = drawn(model)
    # Element (i, j) of the permuted one is 2 i + j in the flat one, and (j, i) of the input.
    np.testing.assert_allclose(array.mean(axis=0), np.arange(6.0).reshape(3, 2).T, atol=0.05)


@pytest.mark.parametrize(
    ("layer", "shape", "mean_over"),
    [
        (L.Resizing(4, 6), (9, 5, 3), (0, 1)),
        (L.Resizing(4, 6), (4, 9, 3), (1,)),
        (L.Resizing(4, 6), (None, None, 3), (0, 1)),
        (L.CenterCrop(4, 6), (8, 8, 3), (0, 1)),
        (L.RandomCrop(4, 6), (8, 6, 3), (0,)),
        (L.Resizing(4, 6), (4, 6, 3), ()),
    ],
)
def test_a_mean_image_behind_another_size_is_averaged_over_the_axes_that_differ(layer, shape, mean_over):
    mean = np.arange(72.0).reshape(4, 6, 3) * 100
    norm = L.Normalization(axis=(1, 2, 3), mean=mean, variance=np.full_like(mean, 1e-4))
    [array] = drawn(keras.Sequential([keras.Input(shape), layer, norm]), size=7)
    assert array.shape[1:] == tuple(7 if length is None else length for length in shape)
    expected = np.broadcast_to(mean.mean(axis=mean_over, keepdims=True), array.shape)
    np.testing.assert_allclose(array, expected, atol=0.1)


def test_lengths_for_which_a_mean_image_is_not_made_are_passed_over():
    mean = np.arange(48.0).reshape(4, 4, 3)
    norm = L.Normalization(axis=(1, 2, 3), mean=mean, variance=np.ones_like(mean))
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.Sequential([keras.Input((4, 4, 3)), norm])(inputs))
    arrays, _ = sample_inputs.taken_inputs(model, model.inputs, lambda arrays: arrays)
    assert arrays[0].shape[1:] == (4, 4, 3)


def test_statistics_are_parted_by_a_concatenation():
    a, b = keras.Input((1,)), keras.Input((2,))
    model = keras.Model([a, b], normalization()(L.Concatenate()([a, b])))
    first, second = drawn(model)
    np.testing.assert_allclose(first.mean(), MEAN[0], atol=5)
    np.testing.assert_allclose(second.mean(axis=0), MEAN[1:], rtol=0.1)


def test_features_that_never_change_get_the_least_deviation_that_is_divided_by():
    model = keras.Sequential(
        [keras.Input((3,)), L.Normalization(mean=np.zeros(3), variance=[0.0, 1.0, 0.0])]
    )
    normalized = np.asarray(keras.ops.convert_to_numpy(model(many(model))))
    assert_statistics(normalized, 0.0, 1.0)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Embedding(50, 2),
        lambda: L.CategoryEncoding(50),
        lambda: L.TimeDistributed(L.Embedding(50, 2)),
    ],
)
def test_ids_are_from_all_of_the_vocabulary(layer):
    shape = (5, 4) if isinstance(layer(), L.TimeDistributed) else (5,)
    ids = many(keras.Sequential([keras.Input(shape, dtype="int32"), layer()]))
    assert set(ids.ravel()) == set(range(50))


def test_ids_that_two_layers_take_are_in_the_smaller_vocabulary():
    inputs = keras.Input((5,), dtype="int32")
    shifted = L.Embedding(20, 2)(L.Reshape((5,))(inputs[:, ::-1]))
    model = keras.Model(inputs, [L.Embedding(50, 2)(inputs), shifted])
    assert set(many(model).ravel()) == set(range(20))


def test_ids_for_a_model_of_its_own_call_are_those_of_its_embeddings():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.words, self.places = L.Embedding(30, 2), L.Embedding(12, 2)

        def call(self, x):
            return self.words(x) + self.places(x)

    arrays = [
        sample_inputs.like_data(Own(), [keras.KerasTensor((2, 9), "int64")], 1, seed)[0]
        for seed in range(30)
    ]
    assert arrays[0].shape == (2, 9)
    assert set(np.ravel(arrays)) == set(range(12))


def test_integers_to_look_up_are_from_the_vocabulary_and_one_out_of_it():
    table = L.IntegerLookup(vocabulary=[7, 1000, 33])
    assert set(many(keras.Sequential([keras.Input((4,), dtype="int64"), table])).ravel()) == {
        7,
        1000,
        33,
        1001,
    }
    strict = L.IntegerLookup(vocabulary=[7, 1000, 33], num_oov_indices=0)
    assert set(many(keras.Sequential([keras.Input((4,), dtype="int64"), strict])).ravel()) == {7, 1000, 33}


def test_ids_of_an_axis_without_length_are_none():
    [array] = drawn(keras.Sequential([keras.Input((0,), dtype="int32"), L.Embedding(50, 2)]))
    assert array.shape[1:] == (0,)


@pytest.mark.parametrize(
    "table",
    [
        lambda: L.StringLookup(vocabulary=["tea", "milk", "salt"], invert=True),
        lambda: L.IntegerLookup(vocabulary=[7, 1000, 33], invert=True),
    ],
)
def test_a_lookup_from_ids_gets_the_ids_of_its_words(table):
    # One more stands for what is out of the vocabulary.
    ids = many(keras.Sequential([keras.Input((4,), dtype="int64"), table()]))
    assert set(ids.ravel()) == set(range(4))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="has no strings")
def test_strings_are_from_vocabularies_and_texts_made_of_them():
    words = ["tea", "milk", "salt"]
    looked_up = many(
        keras.Sequential([keras.Input((1,), dtype="string"), L.StringLookup(vocabulary=words)])
    )
    assert set(looked_up.ravel()) == {*words, "out-of-vocabulary"}
    texts = many(
        keras.Sequential([keras.Input((1,), dtype="string"), L.TextVectorization(vocabulary=words)])
    )
    assert {word for text in texts.ravel() for word in text.split()} == set(words)


def test_numbers_to_put_in_bins_are_in_and_around_them():
    model = keras.Sequential([keras.Input((1,)), L.Discretization(bin_boundaries=[100.0, 200.0, 300.0])])
    bins = np.asarray(keras.ops.convert_to_numpy(model(many(model))))
    assert set(bins.ravel()) == {0, 1, 2, 3}


def test_nothing_that_tells_leaves_standard_normal_numbers_and_zeros_and_ones():
    a, b = keras.Input((3,)), keras.Input((5,), dtype="int32")
    model = keras.Model([a, b], [L.Dense(2)(a), b + 1])
    assert_statistics(many(model), 0.0, 1.0)
    assert set(drawn(model)[1].ravel()) == {0, 1}


# -- lengths ----------------------------------------------------------------------------------------------


def test_lengths_grow_until_the_model_takes_them_and_makes_something():
    tensor = keras.KerasTensor((None, None, 4))
    model = keras.Sequential([keras.Input((None, 4)), L.Cropping1D(600)])
    arrays, [output] = sample_inputs.taken_inputs(model, [tensor], lambda arrays: [arrays[0][:, 600:-600]])
    assert arrays[0].shape[1] == 2048
    assert output.shape[1] == 2048 - 1200


def test_lengths_are_bounded_by_the_numbers_that_they_make():
    assert max(sample_inputs.sizes([keras.KerasTensor((None, None, None, 3))])) == 1024
    assert sample_inputs.sizes([keras.KerasTensor((None, 5))]) == [32]


def test_a_model_that_takes_nothing_is_told_why():
    def fail(arrays):
        raise ValueError("no such image")

    model = keras.Sequential([keras.Input((3,)), L.ReLU()])
    with pytest.raises(sample_inputs.NoInputsError, match="no such image"):
        sample_inputs.taken_inputs(model, model.inputs, fail)


# -- sample data ------------------------------------------------------------------------------------------


def two_inputs(structure):
    a, b = keras.Input((3,), name="a"), keras.Input((None, 2), name="b")
    inputs = {"list": [a, b], "dict": {"a": a, "b": b}}[structure]
    return keras.Model(inputs, L.Concatenate()([a, L.GlobalAveragePooling1D()(b)]))


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_sample_data_come_in_the_structure_of_the_inputs_or_by_name(structure):
    model, data = two_inputs(structure), {"a": np.ones((50, 3)), "b": np.zeros((50, 7, 2), "int64")}
    a, b = sample_data.checked_inputs(model, data)
    assert (a.shape, b.shape, a.dtype, b.dtype) == ((32, 3), (32, 7, 2), "float32", "float32")
    if structure == "list":
        assert len(sample_data.checked_inputs(model, [data["a"], data["b"]])) == 2


def test_sample_data_for_a_fixed_batch_fill_it():
    model = keras.Sequential([keras.Input(batch_shape=(40, 3)), L.ReLU()])
    assert sample_data.checked_inputs(model, np.ones((100, 3)))[0].shape == (40, 3)
    with pytest.raises(
        ValueError, match=r"of shape .40, 3., with 40 rows. Received: inputs of shape .39, 3"
    ):
        sample_data.checked_inputs(model, np.ones((39, 3)))


def test_as_many_rows_of_a_large_input_and_of_a_small_one_are_looked_at(monkeypatch):
    monkeypatch.setattr(sample_data, "LARGE", 32 * 14)
    model, rows = two_inputs("list"), np.arange(32.0)
    a, b = sample_data.checked_inputs(model, [np.ones((32, 3)) * rows[:, None], np.ones((32, 7, 2))])
    assert (a.shape, b.shape) == ((2, 3), (2, 7, 2))
    np.testing.assert_array_equal(a[:, 0], [0, 1])
    with pytest.raises(ValueError, match=r"as many rows.*shapes \[\(40, 3\), \(50, 7, 2\)\]"):
        sample_data.checked_inputs(model, [np.ones((40, 3)), np.ones((50, 7, 2))])


def test_a_fixed_batch_beside_a_large_input_is_filled(monkeypatch):
    monkeypatch.setattr(sample_data, "LARGE", 1)
    a, b = keras.Input(batch_shape=(5, 3)), keras.Input((3,))
    arrays = sample_data.checked_inputs(keras.Model([a, b], a + b), [np.ones((9, 3))] * 2)
    assert [array.shape for array in arrays] == [(5, 3)] * 2


def test_none_is_taken_for_an_optional_input_alone():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b", optional=True)
    model = keras.Model([a, b], [L.ReLU()(a), L.ReLU()(b)])
    array, missing = sample_data.checked_inputs(model, {"a": np.ones((4, 3)), "b": None})
    assert array.shape == (4, 3)
    assert missing is None
    with pytest.raises(TypeError, match=r"for the input 'a'.*Received: inputs=NoneType"):
        sample_data.checked_inputs(model, [None, np.ones((4, 3))])


def test_one_array_may_be_rows_or_in_a_list_or_of_one_axis_less():
    model = keras.Sequential([keras.Input((3,), name="x"), L.ReLU()])
    for data in ([[1, 2, 3], [4, 5, 6]], [np.ones((2, 3))], {"x": np.ones((2, 3))}, keras.ops.ones((2, 3))):
        assert sample_data.checked_inputs(model, data)[0].shape == (2, 3)
    model = keras.Sequential([keras.Input((1,)), L.ReLU()])
    assert sample_data.checked_inputs(model, [1.0, 2.0])[0].shape == (2, 1)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([np.ones((4, 3))], ValueError, "structure of the model's inputs.*Received: inputs="),
        ({"a": np.ones((4, 3)), "c": np.ones((4, 7, 2))}, ValueError, "structure.*Received: inputs="),
        ([np.ones((4, 4)), np.ones((4, 7, 2))], ValueError, "'a' to be of shape .None, 3.*Received"),
        ([np.ones((4, 3)), np.ones((4, 2))], ValueError, "'b' to be of shape .None, None, 2.*Received"),
        ([np.ones((0, 3)), np.ones((0, 7, 2))], ValueError, "one row at least.*Received"),
        ([np.ones((4, 3)), np.ones((5, 7, 2))], ValueError, "as many rows.*Received"),
        (
            [np.array([["x"] * 3]), np.ones((1, 7, 2))],
            TypeError,
            "to be arrays, a few rows of data of dtype float32 for the input 'a'. Received: inputs=ndarray",
        ),
        (
            [np.ones((1, 3), complex), np.ones((1, 7, 2))],
            TypeError,
            "to be arrays.*'a'. Received: inputs=ndarray of dtype complex128",
        ),
        ([object(), np.ones((1, 7, 2))], TypeError, "to be arrays.*Received: inputs=object"),
    ],
)
def test_sample_data_that_the_model_does_not_take_are_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        sample_data.checked_inputs(two_inputs("list"), inputs)
