"""Which stages an interrupted `fit` had reached, so that what a backup holds fits the model."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._models import set_trainable, trainable_flags, variables_if_built
from keras_dnn_extras._rollback import rolled_back
from keras_dnn_extras.transfer.backups import Backup
from keras_dnn_extras.transfer.unfreezing_stages import Stage


def reached_stages(
    model: keras.Model, stages: list[Stage], backup: Backup | None, plan: Mapping[int, Any]
) -> list[Stage]:
    """Return those of `stages` that are unfrozen before the first epoch, as in `backup` if there is one."""
    last_epoch = backup.saved_in if backup else 0
    reached = [stage for stage in stages if stage.epoch <= last_epoch]
    if backup is None or backup.optimizer_variables is None or not model.built:
        return reached
    reached = _stages_in(model, stages, backup, len(reached), plan)
    _check_epoch(reached, backup, plan)
    return reached


def _stages_in(
    model: keras.Model, stages: list[Stage], backup: Backup, expected: int, plan: Mapping[int, Any]
) -> list[Stage]:
    """Return the stages that were reached when the weights of `backup` were saved.

    The weights file tells: it has the optimizer's state of all weights that were trained. The other
    file may be older, if the process died between the two, and may have a wrong epoch after a second
    interruption if Keras saves every so many batches.

    Args:
        expected: how many stages there are by that other file: the first number to try.
    """
    for count in (expected, *range(expected + 1, len(stages) + 1), *reversed(range(expected))):
        if _optimizer_variables(model, stages[:count]) == backup.optimizer_variables:
            return stages[:count]
    raise ValueError(
        f"The backup has {backup.optimizer_variables} variables of an optimizer, which fits what "
        "is trained in no epoch of the plan. Resume with the model, the optimizer and the plan of "
        "the interrupted `fit`, or delete the backup. Received: "
        f"plan={plan}, optimizer={model.optimizer}, backup_dir={backup.epoch_file.parent}"
    )


def _optimizer_variables(model: keras.Model, stages: list[Stage]) -> int:
    """Return how many variables the optimizer has where `stages` are reached."""
    with rolled_back(trainable_flags(model)):
        for stage in stages:
            set_trainable(model, stage.layers, True)
        with strategy_scope(model):
            return variables_if_built(model.optimizer, model.trainable_variables)


def _check_epoch(reached: list[Stage], backup: Backup, plan: Mapping[int, Any]) -> None:
    if reached and reached[-1].epoch > backup.epoch:
        raise ValueError(
            f"The weights in the backup were saved in epoch {reached[-1].epoch} or later, but training "
            f"would go on in epoch {backup.epoch}: the process ended between the two files of the "
            "backup, or was interrupted twice with `save_freq` in batches, or the file cannot be read. "
            "Write the epoch that was interrupted as `epoch` into "
            f"{str(backup.epoch_file)!r}, or delete the backup. "
            f"Received: plan={plan}"
        )
