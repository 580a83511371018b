"""Calls of a model that leave no trace in it, in full precision."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def no_trace() -> Iterator[keras.StatelessScope]:
    """Compute without side effects on the model: states of recurrent layers, seeds and gradients stay.

    On PyTorch one thread at a time does so: layers without a seed draw from the one generator of the
    process, which gives the same numbers each time.
    """
    precise: dict[str, Callable] = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}
    scope = keras.StatelessScope()
    with scope, precise.get(keras.backend.backend(), contextlib.nullcontext)():
        yield scope


# On GPUs products of float32 are otherwise of TensorFloat-32, which rounds to 10 bits, and that would hide
# more than it shows.


class _SwitchedOff:
    """A setting of the whole process that is off while any thread wants it so.

    Its lock is held while the setting is changed, not while it is off.

    Args:
        get, put: read and set it.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], Any]):
        self._get, self._put = get, put
        self._lock = threading.Lock()
        self._users: list[object] = []
        self._before: Any = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        user = object()
        try:
            self._enter(user)
            yield
        finally:
            self._leave(user)

    def _enter(self, user: object) -> None:
        with self._lock:
            if not self._users:
                self._before = self._get()
            self._users.append(user)
            self._put(False)

    def _leave(self, user: object) -> None:
        with self._lock:
            if user not in self._users:  # if it was interrupted before
                return
            self._users.remove(user)
            if not self._users:
                self._put(self._before)


def _tensor_float_on_tensorflow() -> Any:
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled()


def _set_tensor_float_on_tensorflow(value: bool) -> None:
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(value)


_on_tensorflow = _SwitchedOff(_tensor_float_on_tensorflow, _set_tensor_float_on_tensorflow)


def _on_jax() -> contextlib.AbstractContextManager:
    import jax

    return jax.default_matmul_precision("highest")  # of this thread


_TORCH_GENERATOR = threading.RLock()


@contextlib.contextmanager
def _on_torch() -> Iterator[None]:
    import torch

    backends: Any = (torch.backends.cudnn, torch.backends.cuda.matmul)
    with _TORCH_GENERATOR, torch.no_grad(), torch.random.fork_rng(range(torch.cuda.device_count())):
        before = [backend.allow_tf32 for backend in backends]
        torch.manual_seed(0)
        try:
            for backend in backends:
                backend.allow_tf32 = False
            yield
        finally:
            for backend, allowed in zip(backends, before, strict=True):
                backend.allow_tf32 = allowed
