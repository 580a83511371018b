"""Where `BackupAndRestore` keeps its files."""

from pathlib import Path

import keras


def weights_file(callback: keras.callbacks.BackupAndRestore, *, previous: bool = False) -> Path:
    """Return the path of the weights, or of those that `double_checkpoint` keeps of the backup before.

    Raises:
        ValueError: it is in a remote folder.
        RuntimeError: this version of Keras keeps its backups elsewhere.
    """
    return _path(callback, "_prev_weights_path" if previous else "_weights_path")


def metadata_file(callback: keras.callbacks.BackupAndRestore, *, previous: bool = False) -> Path:
    """Return the path of the file that has the epoch, as `weights_file` that of the weights."""
    return _path(callback, "_prev_training_metadata_path" if previous else "_training_metadata_path")


def _path(callback: keras.callbacks.BackupAndRestore, name: str) -> Path:
    if not hasattr(callback, name):
        raise RuntimeError(
            f"keras_dnn_extras needs `BackupAndRestore.{name}` to know what was unfrozen when the backup "
            "was written, and this version of Keras does not have it. Install a version that is supported, "
            "or resume from a saved model with `initial_epoch` instead. "
            f"Received: keras=={keras.__version__}, callback={callback}"
        )
    path = str(getattr(callback, name))
    if "://" in path:  # to `pathlib` there would be no file
        raise ValueError(
            "A backup in a remote folder cannot be read to know what was unfrozen when it was written. Use "
            "a local `backup_dir`, or resume from a saved model with `initial_epoch` instead. "
            f"Received: backup_dir={callback.backup_dir!r}"
        )
    return Path(path)
