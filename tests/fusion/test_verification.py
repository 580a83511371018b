"""fuse_batch_norm: what its comparison sees, on which inputs, and what it tells where it sees nothing."""

import keras
import numpy as np
import pytest
from fusion_models import (
    PATTERNS,
    Forgetful,
    dense_norm_relu,
    fused_pattern,
    norm_relu,
    randomized,
)

import keras_dnn_extras as kdx
from keras_dnn_extras._graphs import equivalence
from keras_dnn_extras.fusion import algebra

L = keras.layers


def test_the_relative_error_is_over_the_largest_number_and_0_where_there_is_none():
    a, b = np.array([1.0, np.nan, 4.0]), np.array([1.5, np.nan, 5.0])
    assert equivalence.relative_errors([a], [b]) == [1 / 5]
    empty, nothing = np.zeros((0, 3)), np.full(2, np.nan)
    assert equivalence.relative_errors([empty], [empty]) == [0.0]
    assert np.isnan(equivalence.relative_errors([nothing], [nothing])).all()


def digits_like(rows=200):
    """Return features of which some never change, as the corners of images."""
    x = np.random.default_rng(0).uniform(0, 16, (rows, 12)).astype("float32")
    x[:, [0, 4, 9]] = 0
    return x


def behind_normalization():
    norm = L.Normalization(name="norm")
    norm.adapt(digits_like())
    stack = [norm, L.Dense(8, use_bias=False, name="dense"), L.BatchNormalization(name="bn"), L.ReLU()]
    return keras.Sequential([keras.Input((12,)), *stack, L.Dense(3, activation="softmax", name="last")])


def wrong_rows(right, rows):
    """Return `right`, which folds, with some rows of the kernel that it makes set to zero."""

    def fold(kernel, bias, affine, *args):
        kernel, bias = right(kernel, bias, affine, *args)
        kernel[rows] = 0
        return kernel, bias

    return fold


@pytest.mark.parametrize("rows", [range(1, 12), [5], [4]], ids=["most", "one", "one that never changes"])
@pytest.mark.parametrize("inputs", [None, digits_like(20)], ids=["drawn", "given"])
def test_an_error_in_rows_of_a_kernel_behind_a_normalization_is_seen(rows, inputs, monkeypatch):
    model = behind_normalization()
    assert kdx.fuse_batch_norm(model, inputs=inputs).report.removed == ["norm"]
    monkeypatch.setattr(algebra, "fold_inputs", wrong_rows(algebra.fold_inputs, list(rows)))
    result = kdx.fuse_batch_norm(model, inputs=inputs)
    assert result.report.removed == []
    x = digits_like()
    np.testing.assert_allclose(result.model.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


def test_outputs_are_compared_before_they_saturate():
    class Off(L.Dense):
        def get_config(self):  # which makes a copy of other numbers
            return {**super().get_config(), "units": self.units}

        @classmethod
        def from_config(cls, config):
            layer = cls(**config)
            layer.scaled = True
            return layer

        def call(self, x):
            return super().call(x) * (1.5 if hasattr(self, "scaled") else 1.0)

    for last in (
        L.Softmax(),
        L.Activation("sigmoid"),
        L.Activation("hard_sigmoid"),
        L.Dense(3, activation="tanh"),
    ):
        off = Off(3, name="off", bias_initializer=keras.initializers.Constant([100.0, 300.0, 200.0]))
        model = keras.Sequential([keras.Input((5,)), off, last])
        x = np.random.default_rng(0).normal(size=(8, 5))
        if isinstance(last, L.Dense):
            last.kernel.assign(np.eye(3))
        outputs = model.predict(x, verbose=0)
        assert set(np.round(outputs, 6).ravel()) <= {0.0, 1.0}
        with pytest.raises(ValueError, match="copy of 'off' does not compute the same"):
            kdx.fuse_batch_norm(model)


@pytest.mark.parametrize("activation", ["relu", "softmax", "tanh"])
def test_a_fold_is_compared_without_the_activation_that_hides_an_error_in_it(activation, monkeypatch):
    """The bias leaves nothing of a ReLU, and ones and zeros of the others, whatever the inputs are."""
    dense = L.Dense(3, activation=activation, name="dense")
    stack = [L.ReLU(), L.BatchNormalization(name="bn"), dense]
    model = randomized(keras.Sequential([keras.Input((5,)), *stack]))
    dense.bias.assign([-3e8, -1e8, -2e8])
    assert [f.into for f in kdx.fuse_batch_norm(model).report.fused] == ["dense"]
    monkeypatch.setattr(algebra, "fold_inputs", wrong_rows(algebra.fold_inputs, [0]))
    report = kdx.fuse_batch_norm(model).report
    assert not report.fused
    assert "relative error" in report.kept[0].reason


def test_a_fold_in_which_nothing_would_be_seen_is_told():
    """One per cent of what the kernel adds is less than the last digit of what beta adds, at any scale."""
    model = dense_norm_relu(L.Dense(3, name="other"), L.BatchNormalization(name="seen"), L.ReLU())
    model.get_layer("bn").beta.assign(np.full(4, 1e20))
    report = kdx.fuse_batch_norm(model).report
    assert [fusion.batch_norm for fusion in report.fused] == ["bn", "seen"]
    assert report.unverified == ["bn"]
    assert "bn    unverified" in str(report)
    model.get_layer("bn").beta.assign(np.ones(4))
    assert kdx.fuse_batch_norm(model).report.unverified == []


def test_weights_for_inputs_that_are_not_normalized_are_verified_too():
    """The mean of what comes is a million times what standard normal inputs make."""
    model = dense_norm_relu()
    x = np.random.default_rng(0).normal(3e5, 1e5, (100, 5))
    sums = x @ keras.ops.convert_to_numpy(model.get_layer("dense").kernel)
    model.get_layer("bn").moving_mean.assign(sums.mean(axis=0))
    model.get_layer("bn").moving_variance.assign(sums.var(axis=0))
    report = kdx.fuse_batch_norm(model).report
    assert len(report.fused) == 1
    assert report.unverified == []


def test_a_normalization_that_goes_in_with_others_is_told_by_its_path():
    inner = behind_normalization()
    inputs = keras.Input((12,))
    model = keras.Model(inputs, inner(inputs))
    assert kdx.fuse_batch_norm(model).report.unverified == []
    inner.get_layer("bn").beta.assign(np.full(8, 1e20))
    assert kdx.fuse_batch_norm(model).report.unverified == [f"{inner.name}/norm", f"{inner.name}/bn"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_error_in_any_pattern_would_have_been_seen(pattern):
    assert fused_pattern(pattern)[1].report.unverified == []


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_hides_no_large_error(dtype, monkeypatch):
    stack = [L.Dense(8, name="dense"), L.BatchNormalization(name="bn"), L.ReLU()]
    for layer in stack:
        layer.dtype_policy = keras.DTypePolicy(dtype)
    model = randomized(keras.Sequential([keras.Input((5,)), *stack]))
    assert kdx.fuse_batch_norm(model).report.unverified == []
    right = algebra.fold_outputs
    monkeypatch.setattr(
        algebra, "fold_outputs", lambda k, b, a, **axis: (1.5 * right(k, b, a, **axis)[0], b)
    )
    assert not kdx.fuse_batch_norm(model).report.fused


def test_ids_are_compared_over_the_whole_vocabulary():
    class Table(L.Embedding):
        """Whose copy knows the first two words alone."""

        def load_own_variables(self, store):
            super().load_own_variables(store)

        @classmethod
        def from_config(cls, config):
            layer = cls(**config)
            layer.is_copy = True
            return layer

        def call(self, ids):
            words = super().call(ids)
            if getattr(self, "is_copy", False):
                words = words * keras.ops.cast(ids < 2, words.dtype)[..., None]
            return words

    table = Table(50, 4, name="table")
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), table, L.GlobalAveragePooling1D(), L.Dense(2)]
    )
    with pytest.raises(ValueError, match="copy of 'table' does not compute the same"):
        kdx.fuse_batch_norm(model)


def test_nested_models_are_compared_on_what_reaches_them():
    class Seen(L.Layer):
        arrays = []  # noqa: RUF012

        def call(self, x):
            if not isinstance(x, keras.KerasTensor):
                self.arrays.append(x)
            return x

        def compute_output_shape(self, shape):
            return shape

    inner = keras.Sequential([keras.Input((3,)), Seen(), L.Dense(4), *norm_relu()], name="inner")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, inner(L.Rescaling(1.0, offset=[100.0, 200.0, 300.0])(inputs)))
    Seen.arrays.clear()
    data = np.ones((4, 3), "float32")
    kdx.fuse_batch_norm(randomized(model), inputs=data)
    seen = [np.asarray(keras.ops.convert_to_numpy(array)) for array in Seen.arrays]
    assert len(seen) >= 3  # the outer model, and both inner ones
    for array in seen:
        np.testing.assert_allclose(array, data + np.array([100, 200, 300]))


# -- inputs that are hard to guess -------------------------------------------------------------------------


class Picky(L.Layer):
    """Takes nothing except rows that begin with 7."""

    def call(self, x):
        if not isinstance(x, keras.KerasTensor) and not np.all(keras.ops.convert_to_numpy(x)[:, 0] == 7):
            raise ValueError("no such row")
        return x

    def compute_output_shape(self, shape):
        return shape


def test_models_that_need_long_inputs_get_them():
    stack = [L.Conv1D(4, 3), *norm_relu(), L.Cropping1D(600), L.GlobalAveragePooling1D(), L.Dense(2)]
    report = kdx.fuse_batch_norm(randomized(keras.Sequential([keras.Input((None, 4)), *stack]))).report
    assert len(report.fused) == 1
    assert 0 < report.max_relative_error <= 2e-6
    assert report.remarks == []


def test_folds_are_checked_alone_where_a_model_takes_no_inputs_and_that_is_told(monkeypatch):
    model = randomized(keras.Sequential([keras.Input((5,)), Picky(name="picky"), L.Dense(4), *norm_relu()]))
    report = kdx.fuse_batch_norm(model).report
    assert [fusion.batch_norm for fusion in report.fused] == ["bn"]
    assert np.isnan(report.max_relative_error)
    assert report.unverified == []
    [remark] = report.remarks
    assert "`inputs`" in remark
    assert "Each fold was checked by itself; 'picky' was not checked at all." in remark
    assert str(report).endswith("largest relative error not known\n" + remark)
    right = algebra.fold_outputs
    monkeypatch.setattr(
        algebra, "fold_outputs", lambda k, b, a, **axis: (1.01 * right(k, b, a, **axis)[0], b)
    )
    assert not kdx.fuse_batch_norm(model).report.fused


def test_sample_data_are_compared_on():
    model = randomized(keras.Sequential([keras.Input((5,)), Picky(name="picky"), L.Dense(4), *norm_relu()]))
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    x[:, 0] = 7
    report = kdx.fuse_batch_norm(model, inputs=x).report
    assert 0 < report.max_relative_error <= 2e-6
    assert report.remarks == []
    with pytest.raises(
        ValueError, match=r"(?s)does not take `inputs`: .*no such row.*Received: inputs of shapes"
    ):
        kdx.fuse_batch_norm(model, inputs=x + 1)
    with pytest.raises(ValueError, match=r"shape .None, 5.*Received: inputs of shape .6, 4"):
        kdx.fuse_batch_norm(model, inputs=x[:, :4])


def test_a_layer_that_its_config_does_not_make_anew_is_refused_without_a_comparison_of_outputs_too():
    stack = [Picky(), Forgetful(3.0, name="forgetful"), L.Dense(4), *norm_relu()]
    with pytest.raises(ValueError, match="copy of 'forgetful' does not compute the same"):
        kdx.fuse_batch_norm(randomized(keras.Sequential([keras.Input((5,)), *stack])))
