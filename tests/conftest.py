"""What several test files use."""

import os
import shutil
import tempfile

import pytest

# Fits of equal models are compiled once for all tests: half of the time on JAX.
_CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def pytest_configure(config):
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores: threads that wait spin
    if os.environ.get("KERAS_BACKEND") != "jax" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return  # in a worker it is that of the process that started it
    folder = tempfile.mkdtemp()
    os.environ.update(_CACHE, JAX_COMPILATION_CACHE_DIR=folder)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_runtest_setup():
    import keras

    keras.utils.set_random_seed(0)  # before the fixtures too: a test gives the same in any run


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")
