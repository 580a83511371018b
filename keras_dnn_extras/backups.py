"""What a backup of `BackupAndRestore` holds, read before Keras restores it."""

import json
from dataclasses import dataclass
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import keras

_PATHS = (
    "_weights_path",
    "_training_metadata_path",
    "_prev_weights_path",
    "_prev_training_metadata_path",
)


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
    def of(cls, callback: keras.callbacks.BackupAndRestore) -> "Backup | None":
        """Return what `callback` is about to restore, or None.

        Raises:
            RuntimeError: this version of Keras keeps its backups elsewhere.
        """
        weights, metadata = _path(callback, "_weights_path"), _path(callback, "_training_metadata_path")
        previous = [
            _path(callback, f"_prev{name}") for name in ("_weights_path", "_training_metadata_path")
        ]
        try:
            variables = _optimizer_variables(weights)
        except OSError:  # torn: Keras restores the one before, or says that it cannot
            if not previous[0].exists():
                return None
            variables = _optimizer_variables(previous[0])
            metadata = previous[1]
        epoch = _epoch(metadata)
        if epoch is None and variables is None:
            return None
        epoch = epoch or 0  # Keras begins with the first one where no file says another
        saved_in = max(epoch - 1, 0) if callback.save_freq == "epoch" else epoch
        return cls(epoch, saved_in, variables, metadata)


def _path(callback: keras.callbacks.BackupAndRestore, name: str) -> Path:
    if not hasattr(callback, name):
        raise RuntimeError(
            f"keras_dnn_extras needs `BackupAndRestore.{name}` to know what was unfrozen when the backup "
            "was written, and this version of Keras does not have it. Install a version that is supported, "
            "or resume from a saved model with `initial_epoch` instead. "
            f"Received: keras=={keras.__version__}, callback={callback}"
        )
    return Path(getattr(callback, name))


def _epoch(metadata: Path) -> int | None:
    try:
        return json.loads(metadata.read_text())["epoch"]
    except (OSError, ValueError, KeyError):  # there is none, or it is not whole
        return None


def _optimizer_variables(weights: Path) -> int | None:
    if not weights.exists():
        return None
    with h5py.File(weights, "r") as file:
        found = file.get("optimizer/vars")
        return None if found is None else len(found)
