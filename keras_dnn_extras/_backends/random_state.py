"""The random generators of Python, NumPy, Keras and the backend."""

import random
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._backends.host_values import value_on_host
from keras_dnn_extras._keras_internals import global_seed_generator, set_global_seed_generator
from keras_dnn_extras._rollback import Snapshot, together


def random_generators() -> Snapshot:
    """Return a snapshot of the random generators of Python, NumPy, Keras, TensorFlow and PyTorch."""
    snapshots = [
        _state(random.getstate, random.setstate),
        _state(np.random.get_state, np.random.set_state),
        _keras_generator(),
    ]
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        snapshots.append(_state(torch.get_rng_state, torch.set_rng_state))
        if torch.cuda.is_available():
            snapshots.append(_state(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    if keras.backend.backend() == "tensorflow":
        snapshots.append(_tensorflow_seeds())
    return together(*snapshots)


def _state(get: Callable[[], Any], put: Callable[[Any], Any]) -> Snapshot:
    state = get()
    return lambda: put(state)


def _tensorflow_seeds() -> Snapshot:
    """Return a snapshot of what `tf.random.set_seed` made: seeds of eager operations are drawn from it."""
    from tensorflow.python.eager import context

    generator = getattr(context.context(), "_rng", None)
    state = generator.getstate() if generator is not None else None

    def restore() -> None:
        if generator is not None and generator.getstate() != state:
            generator.setstate(state)
            # An operation that gets its seed again would go on where the one before it stopped.
            context.context().clear_kernel_cache()

    return restore


def _keras_generator() -> Snapshot:
    generator = global_seed_generator()
    state = None if generator is None else value_on_host(generator.state)

    def restore() -> None:
        set_global_seed_generator(generator)
        if generator is not None:
            generator.state.assign(state)

    return restore
