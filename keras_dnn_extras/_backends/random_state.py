"""The random generators of Python, NumPy, Keras and the backend."""

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state  # private, as is the global generator of Keras

from keras_dnn_extras._backends.host_values import value_on_host


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the random generators of Python, NumPy, Keras, TensorFlow and PyTorch afterwards."""
    restore = [_kept(random.getstate, random.setstate), _kept(np.random.get_state, np.random.set_state)]
    restore.append(_keras_generator_kept())
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        restore.append(_kept(torch.get_rng_state, torch.set_rng_state))
        if torch.cuda.is_available():
            restore.append(_kept(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    if keras.backend.backend() == "tensorflow":
        restore.append(_tensorflow_seeds_kept())
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


def _kept(get: Callable[[], Any], put: Callable[[Any], Any]) -> Callable[[], Any]:
    state = get()
    return lambda: put(state)


def _tensorflow_seeds_kept() -> Callable[[], Any]:
    """Keep what `tf.random.set_seed` made: seeds of eager operations are drawn from it."""
    from tensorflow.python.eager import context

    generator = getattr(context.context(), "_rng", None)
    state = generator.getstate() if generator is not None else None

    def put_back() -> None:
        if generator is not None and generator.getstate() != state:
            generator.setstate(state)
            # An operation that gets its seed again would go on where the one before it stopped.
            context.context().clear_kernel_cache()

    return put_back


def _keras_generator_kept() -> Callable[[], Any]:
    name = "global_seed_generator"
    generator = global_state.get_global_attribute(name)
    state = None if generator is None else value_on_host(generator.state)

    def put_back() -> None:
        global_state.set_global_attribute(name, generator)
        if generator is not None:
            generator.state.assign(state)

    return put_back
