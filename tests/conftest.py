"""What several test files use."""

import gc
import itertools
import os
import shutil
import sys
import tempfile

import pytest

# Fits of equal models are compiled once for all tests: half of the time on JAX.
_CACHE = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

_TESTS_BETWEEN_COLLECTIONS = 25
_tests_done = itertools.count(1)


def pytest_configure(config):
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores: threads that wait spin
    if os.environ.get("KERAS_BACKEND") != "jax" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return  # in a worker it is that of the process that started it
    folder = tempfile.mkdtemp()
    os.environ.update(_CACHE, JAX_COMPILATION_CACHE_DIR=folder)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what is imported stays: collections look at what the tests make alone


def pytest_runtest_setup():
    import keras

    keras.utils.set_random_seed(0)  # before the fixtures too: a test gives the same in any run


def pytest_runtest_teardown():
    """Free what tests have compiled: kept, it is gigabytes at the end, and ever slower to look through."""
    if next(_tests_done) % _TESTS_BETWEEN_COLLECTIONS:
        return
    if "jax" in sys.modules:
        import jax

        jax.clear_caches()
    if "tensorflow" in sys.modules:  # which keeps each graph with a custom gradient, and all that is in it
        from tensorflow.python.framework import ops

        gradients = ops.gradient_registry._registry
        for name in [name for name in gradients if name.startswith("CustomGradient-")]:
            del gradients[name]
    gc.collect()


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")  # what other tests have left open
    yield pyplot
    pyplot.close("all")
