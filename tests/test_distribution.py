"""Two devices: MirroredStrategy on TensorFlow, DataParallel on JAX, each in a process of its own."""

import os
import pathlib
import subprocess
import sys

import distributed
import keras
import numpy as np
import pytest
import truth

HERE = pathlib.Path(__file__).parent
pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras distributes a fit on TensorFlow and JAX only"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("distributed") / "results.npz"
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(HERE / "distributed.py"), str(path)]
    subprocess.run(command, check=True, env=environment, timeout=300)
    return np.load(path)


@pytest.mark.parametrize("name", distributed.OPTIMIZERS)
def test_all_replicas_have_the_rate_and_the_momentum_of_the_update(name, results):
    x, _ = truth.data(distributed.BATCHES)
    gradients = truth.gradients(x) * distributed.EPOCHS
    rates, momenta = results[f"{name}/learning_rate"], results[f"{name}/momentum"]
    assert len(rates) == len(momenta) == len(gradients)
    optimizer = distributed.OPTIMIZERS[name]()
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    expected = truth.apply_eagerly(optimizer, gradients, rates, momenta)
    for i, value in enumerate(expected):
        # 12 updates of about 20 roundings, of numbers up to 2
        bound = 12 * 20 * np.finfo("float32").eps / 2 * 2
        np.testing.assert_allclose(results[f"{name}/{i}"], value, rtol=0, atol=bound)


@pytest.mark.parametrize("name", distributed.OPTIMIZERS)
def test_the_optimizer_has_its_own_variables_only(name, results):
    model = truth.linear_model(distributed.OPTIMIZERS[name]())
    assert results[f"{name}/variables"] == len(model.optimizer.variables)


def test_the_loss_of_a_batch_is_that_of_all_its_samples(results):
    x, _ = distributed.loss_data()
    rates = 0.01 * 1.2 ** np.arange(distributed.BATCHES)
    np.testing.assert_allclose(results["rates"], rates, rtol=1e-12)
    kernel, bias = truth.initial_weights()
    expected = []
    for rate, start in zip(rates, range(0, len(x), 4), strict=True):
        mean = x[start : start + 4].mean(axis=0)
        expected.append(mean @ kernel.sum(axis=1) + bias.sum())
        # No update comes after the odd batch, of which the replicas' gradients weigh alike.
        kernel, bias = kernel - rate * mean[:, None], bias - rate
    # 6 updates of 3 roundings, sums of 8 products, and of the replicas
    np.testing.assert_allclose(results["losses"], expected, rtol=(6 * 3 + 8 + 4) * np.finfo("float32").eps)


def test_a_search_sees_all_samples_and_leaves_no_trace(results):
    x, _ = truth.data(1)
    optimizer = keras.optimizers.Adam(0.01)
    rates = np.geomspace(1e-3, 0.1, 8)
    expected = []
    for updates in range(8):
        weights = truth.apply_eagerly(optimizer, truth.gradients(x) * updates, rates)
        optimizer = keras.optimizers.Adam(0.01)
        expected.append(np.mean(x @ weights[0] + weights[1]) * truth.UNITS)
    # 8 updates of about 20 roundings, of numbers up to 2, in sums of 8
    np.testing.assert_allclose(results["searched/losses"], expected, rtol=0, atol=8 * 20 * 6e-8 * 2 * 8)
    np.testing.assert_array_equal(results["searched/kernel"], results["plain/kernel"])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["plain", "clipped"])
def test_gradient_norms_are_those_of_the_aggregated_gradient(name, scaled, results):
    x, _ = truth.data(distributed.BATCHES, batch_size=4)
    halves = x.reshape(-1, 2, 2, truth.FEATURES).mean(axis=2)  # of the two devices
    whole = halves.mean(axis=1)
    norms = np.sqrt(truth.UNITS * (np.square(whole).sum(axis=1) + 1))
    found = {key: results[f"{name}, scaled {scaled}: {key}"] for key in MONITORED}
    # about 20 roundings
    np.testing.assert_allclose(found["gradient_norm"], norms, rtol=1e-6)
    np.testing.assert_allclose(found["gradient_norm/linear"], norms, rtol=1e-6)
    clipped = norms
    if name == "clipped":
        # On TensorFlow, Keras clips on each replica its share of the gradient, a half.
        shares = halves / 2 if keras.backend.backend() == "tensorflow" else whole[:, None]
        factors = np.sqrt(truth.UNITS * np.square(shares).sum(axis=2)) / distributed.CLIPNORM
        kernels = (shares / np.maximum(factors, 1)[..., None]).sum(axis=1)
        bias = np.sqrt(truth.UNITS)
        clipped = np.hypot(np.sqrt(truth.UNITS * np.square(kernels).sum(axis=1)), bias)
        assert (clipped < norms).any()
    np.testing.assert_allclose(found["clipped_gradient_norm"], clipped, rtol=1e-6)
    kernel, bias = truth.initial_weights()
    weights = np.sqrt(np.sum(kernel**2) + np.sum(bias**2))
    np.testing.assert_allclose(found["update_ratio/linear"][0], 0.01 * clipped[0] / weights, rtol=1e-4)


@pytest.mark.slow
def test_fine_tuning_is_that_of_one_device(results):
    for name, value in distributed.tuned().items():
        # 15 updates of about 20 roundings, of numbers up to 1, and what they make of later gradients
        np.testing.assert_allclose(results[name], value, rtol=0, atol=2 * 15 * 20 * 6e-8)


MONITORED = ("gradient_norm", "gradient_norm/linear", "clipped_gradient_norm", "update_ratio/linear")
