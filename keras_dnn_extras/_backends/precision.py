"""Calls of a model that leave no trace in it, in full precision."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

# What is switched below is switched for the whole process: threads that overlap would put it back wrongly.
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def no_trace() -> Iterator[keras.StatelessScope]:
    """Compute without a trace in the model: states of recurrent layers, seeds and gradients stay."""
    precise = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}
    scope = keras.StatelessScope()
    with _ONE_AT_A_TIME, scope, precise.get(keras.backend.backend(), contextlib.nullcontext)():
        yield scope


# On GPUs products of float32 are otherwise of TensorFloat-32, which rounds to 10 bits, and that would hide
# more than it shows.


@contextlib.contextmanager
def _on_tensorflow() -> Iterator[None]:
    import tensorflow as tf

    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


def _on_jax() -> contextlib.AbstractContextManager:
    import jax

    return jax.default_matmul_precision("highest")


@contextlib.contextmanager
def _on_torch() -> Iterator[None]:
    import torch

    backends: Any = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    # Layers without a seed draw from the global generator: the same numbers each time.
    with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        try:
            for backend in backends:
                backend.allow_tf32 = False
            yield
        finally:
            for backend, allowed in zip(backends, before, strict=True):
                backend.allow_tf32 = allowed
