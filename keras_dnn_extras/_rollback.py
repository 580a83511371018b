"""Undo what a block of code changes: at its end, or only if it fails."""

import contextlib
from collections.abc import Callable, Iterator

Snapshot = Callable[[], object]  # knows one piece of state as it was, and puts it back when it is called


@contextlib.contextmanager
def rolled_back(*snapshots: Snapshot, only_on_error: bool = False) -> Iterator[None]:
    """Put back what `snapshots` know, the last one first, each of them also if another one fails.

    Args:
        snapshots: the pieces of state to put back, as `trainable_flags(model)` or `random_generators()`
            return them. They are taken before the block begins.
        only_on_error: whether to keep the changes of a block that ends well, and to put back what was
            before only after an exception, or an interrupt.
    """
    with contextlib.ExitStack() as restores:
        for snapshot in snapshots:
            restores.callback(snapshot)
        yield
        if only_on_error:
            restores.pop_all()


def together(*snapshots: Snapshot) -> Snapshot:
    """Return `snapshots` as one."""

    def restore() -> None:
        with rolled_back(*snapshots):
            pass

    return restore
