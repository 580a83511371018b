"""folding: the algebra, against the products of matrices that it stands for."""

import numpy as np
import pytest

from keras_dnn_extras.fusion import algebra

rng = np.random.default_rng(0)


def affine(channels):
    return algebra.Affine(rng.normal(size=channels), rng.normal(size=channels))


def test_batch_norm_is_a_scale_and_a_shift():
    gamma, beta, mean, x = rng.normal(size=(4, 3))
    variance = rng.uniform(0.5, 2, 3)
    scale, shift = algebra.batch_norm_affine(gamma, beta, mean, variance, 0.01)
    np.testing.assert_allclose(scale * x + shift, gamma * (x - mean) / np.sqrt(variance + 0.01) + beta)
    scale, shift = algebra.batch_norm_affine(None, None, mean, variance, 0.01)
    np.testing.assert_allclose(scale * x + shift, (x - mean) / np.sqrt(variance + 0.01))


def test_the_statistics_are_taken_to_float64_before_anything_else():
    variance = np.array([1e-3], "float32")
    scale, _ = algebra.batch_norm_affine(None, None, np.zeros(1, "float32"), variance, 1e-3)
    assert scale[0] == 1 / np.sqrt(np.float64(variance[0]) + 1e-3)


@pytest.mark.parametrize("bias", [None, rng.normal(size=4)])
def test_outputs(bias):
    kernel, x, after = rng.normal(size=(3, 4)), rng.normal(size=(5, 3)), affine(4)
    new_kernel, new_bias = algebra.fold_outputs(kernel, bias, after)
    expected = after.scale * (x @ kernel + (0 if bias is None else bias)) + after.shift
    np.testing.assert_allclose(x @ new_kernel + new_bias, expected)


@pytest.mark.parametrize("bias", [None, rng.normal(size=4)])
def test_inputs(bias):
    kernel, x, before = rng.normal(size=(3, 4)), rng.normal(size=(5, 3)), affine(3)
    new_kernel, new_bias = algebra.fold_inputs(kernel, bias, before)
    expected = (before.scale * x + before.shift) @ kernel + (0 if bias is None else bias)
    np.testing.assert_allclose(x @ new_kernel + new_bias, expected)


def test_inputs_of_groups():
    """Two groups of two inputs and three outputs are a matrix of two blocks."""
    kernel, x, before = rng.normal(size=(1, 2, 6)), rng.normal(size=(5, 4)), affine(4)

    def product(x, kernel):
        return np.concatenate([x[:, :2] @ kernel[0, :, :3], x[:, 2:] @ kernel[0, :, 3:]], axis=1)

    new_kernel, new_bias = algebra.fold_inputs(kernel, None, before, groups=2)
    expected = product(before.scale * x + before.shift, kernel)
    np.testing.assert_allclose(product(x, new_kernel) + new_bias, expected)


def test_depthwise_outputs_are_ordered_channel_by_channel():
    kernel, x, after = rng.normal(size=(1, 3, 2)), rng.normal(size=(5, 3)), affine(6)

    def product(kernel):
        return (x[:, :, None] * kernel[0]).reshape(5, 6)

    new_kernel, new_bias = algebra.fold_depthwise_outputs(kernel, None, after)
    np.testing.assert_allclose(product(new_kernel) + new_bias, after.scale * product(kernel) + after.shift)


def test_no_bias_is_made_where_there_is_no_shift():
    scaled = algebra.Affine(np.full(3, 2.0), np.zeros(3))
    assert algebra.fold_outputs(np.ones((3, 3)), None, scaled)[1] is None
    assert algebra.fold_inputs(np.ones((3, 3)), None, scaled)[1] is None
    assert algebra.fold_separable_inputs(np.ones((2, 3, 1)), np.ones((1, 3, 2)), None, scaled)[1] is None


def test_cancellation_is_the_mean_in_deviations_where_something_comes_out():
    one, none = np.ones(2), np.zeros(2)
    cancellation = algebra.batch_norm_cancellation
    assert cancellation(one, none, np.array([1000.0, 0.0]), one, 0.0) == pytest.approx(1000)
    assert cancellation(np.array([0.0, 1.0]), none, np.array([1000.0, 2.0]), one, 0.0) == pytest.approx(2)
    assert cancellation(none, none, one, one, 0.0) == 0


def test_what_is_too_large_for_a_dtype_does_not_fit():
    assert algebra.fits(np.array([65504.0]), "float16")
    assert not algebra.fits(np.array([7e4]), "float16")
    assert not algebra.fits(np.array([1e39]), "bfloat16")
    assert algebra.fits(np.array([1e39]), "float64")
    assert not algebra.fits(np.array([np.nan]), "float64")
