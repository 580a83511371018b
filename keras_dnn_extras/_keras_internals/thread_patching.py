"""Methods of objects, replaced in one thread while others go on with the original.

A lock is held while a method is exchanged, and not while it is in use.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

_LOCK = threading.Lock()  # of what follows, and of the methods of all objects
_PATCHES: dict[tuple[int, str], "_Patch"] = {}  # by `id` of the object, and name of the method


class _Patch:
    """A method of one object that calls, in each thread, what this thread asked for.

    Attributes:
        original: the method as it was.
        users: an item for each replacement that is in use, in any thread.
    """

    def __init__(self, instance: Any, name: str):
        self.original = getattr(instance, name)
        self.users: list[object] = []
        self._instance = instance  # kept alive, as the `id` of another one could be the same
        self._name = name
        self._of_instance = {name: vars(instance)[name]} if name in vars(instance) else {}
        self._thread = threading.local()

    def install(self) -> None:
        """Put the method in its place, past the `__setattr__` of its object."""

        @functools.wraps(self.original)
        def dispatched(*args: Any, **kwargs: Any) -> Any:
            return (self.replacement or self.original)(*args, **kwargs)

        vars(self._instance)[self._name] = dispatched

    def remove(self) -> None:
        vars(self._instance).pop(self._name, None)
        vars(self._instance).update(self._of_instance)

    @property
    def replacement(self) -> Callable | None:
        """What this thread calls in the place of the original, or None."""
        return getattr(self._thread, "replacement", None)

    @replacement.setter
    def replacement(self, function: Callable | None) -> None:
        self._thread.replacement = function


@contextlib.contextmanager
def replaced_in_thread(instance: Any, name: str, make: Callable[[Callable], Callable]) -> Iterator[None]:
    """Replace the method `name` of `instance` for a while, in this thread alone.

    Args:
        make: returns what is called, of the original method.
    """
    user = object()
    key = (id(instance), name)
    try:
        patch = _entered(key, instance, user)
        outer = patch.replacement
        try:
            patch.replacement = make(patch.original)
            yield
        finally:
            patch.replacement = outer
    finally:  # an interrupt may have come anywhere in between
        _leave(key, user)


def _entered(key: tuple[int, str], instance: Any, user: object) -> _Patch:
    with _LOCK:
        patch = _PATCHES.get(key)
        if patch is None:
            patch = _PATCHES[key] = _Patch(instance, key[1])
            patch.install()
        patch.users.append(user)
        return patch


def _leave(key: tuple[int, str], user: object) -> None:
    with _LOCK:
        patch = _PATCHES.get(key)
        if patch is None:
            return
        if user in patch.users:
            patch.users.remove(user)
        if not patch.users:
            patch.remove()
            del _PATCHES[key]
