"""What a backup of `BackupAndRestore` holds, read before Keras restores it."""

import json
from dataclasses import dataclass
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import keras

from keras_dnn_extras._keras_internals import metadata_file, weights_file
from keras_dnn_extras._models import variable_values
from keras_dnn_extras._rollback import rolled_back

_KIND = keras.callbacks.BackupAndRestore


@dataclass(frozen=True)
class Backup:
    """What is about to be restored. Keras writes it as two files, one after the other.

    Attributes:
        epoch: the one that training goes on in.
        saved_in: the epoch in which the weights were saved, if both files are of the same backup.
        optimizer_variables: how many the weights file has, or None where it has none.
        epoch_file: the path of the file that has the epoch.
    """

    epoch: int
    saved_in: int
    optimizer_variables: int | None
    epoch_file: Path

    @classmethod
    def latest(cls, callbacks: list[keras.callbacks.Callback]) -> "Backup | None":
        """Return what `BackupAndRestore` is about to restore, the latest where there are several of it."""
        backups = [cls.of(callback) for callback in callbacks if isinstance(callback, _KIND)]
        return max((backup for backup in backups if backup), key=lambda backup: backup.epoch, default=None)

    @classmethod
    def of(cls, callback: keras.callbacks.BackupAndRestore) -> "Backup | None":
        """Return what `callback` is about to restore, or None.

        Raises:
            ValueError: its folder is a remote one.
            RuntimeError: this version of Keras keeps its backups elsewhere.
        """
        weights, metadata = weights_file(callback), metadata_file(callback)
        previous = weights_file(callback, previous=True), metadata_file(callback, previous=True)
        try:
            variables = _optimizer_variables(weights)
        except _UnreadableError:  # torn: Keras restores the one before, or says that it cannot
            if not previous[0].exists():
                return None
            try:
                variables = _optimizer_variables(previous[0])
            except _UnreadableError:
                return None
            metadata = previous[1]
        epoch = _epoch(metadata)
        if epoch is None and variables is None:
            return None
        epoch = epoch or 0  # Keras begins with the first one where no file says another
        saved_in = max(epoch - 1, 0) if callback.save_freq == "epoch" else epoch
        return cls(epoch, saved_in, variables, metadata)


def restore(
    callbacks: list[keras.callbacks.Callback], optimizer: keras.optimizers.Optimizer, logs: dict | None
) -> None:
    """Restore now what `BackupAndRestore` will restore once more, so that its failure can be undone.

    If it fails, the variables that `optimizer` has now have the values that they have now.
    """
    with rolled_back(variable_values(optimizer.variables), only_on_error=True):
        for callback in callbacks:
            # What another class does may not bear to be done twice.
            if isinstance(callback, _KIND) and type(callback).on_train_begin is _KIND.on_train_begin:
                callback.on_train_begin(logs)


def _epoch(metadata: Path) -> int | None:
    try:
        content = json.loads(metadata.read_text())
    except (OSError, ValueError, RecursionError):  # there is none, or it is not whole
        return None
    epoch = content.get("epoch") if isinstance(content, dict) else None
    return epoch if type(epoch) is int and epoch >= 0 else None


class _UnreadableError(Exception):
    """The weights file is damaged."""


def _optimizer_variables(weights: Path) -> int | None:
    if not weights.exists():
        return None
    try:
        with h5py.File(weights, "r") as file:
            slots = file.get("optimizer/vars")
            return None if slots is None else len(slots)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # whatever is damaged in it
        raise _UnreadableError from error
