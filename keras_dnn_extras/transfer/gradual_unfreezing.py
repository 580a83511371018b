"""Unfreeze a model layer by layer while it trains."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import PACKAGE, check_bool, check_number, check_verbose, config_of, counted
from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._keras_internals import callbacks_of_fit
from keras_dnn_extras._models import (
    check_rebuildable,
    flags,
    innermost_optimizer,
    layers_by_path,
    owners,
    put_back,
    seen_batches,
    set_trainable,
    to_unfreeze,
    unfrozen_as_before_on_error,
    unscaled,
    variables_if_built,
)
from keras_dnn_extras._training_step import LearningRateMultipliers, StepCallback, TrainingStep
from keras_dnn_extras.transfer.backups import Backup, restore
from keras_dnn_extras.transfer.interruptions import forget_frozen, freeze_again, remember_frozen


@dataclass(frozen=True)
class _Stage:
    epoch: int
    layers: list[keras.layers.Layer]

    @property
    def weights(self) -> list[keras.Variable]:
        found = [variable for layer in self.layers for variable in layer._trainable_variables]
        return list({id(variable): variable for variable in found}.values())


@keras.saving.register_keras_serializable(package=PACKAGE)
class GradualUnfreezing(StepCallback):
    """Unfreeze layers at the beginning of given epochs of one `fit`, without compiling again.

    Until its epoch nothing moves a layer: no gradient, no weight decay, no moving average, and
    BatchNormalization is in inference mode. From then on it trains as in a model that was compiled at that
    epoch: the optimizer goes on with what it has of the weights that trained before, and takes up the new
    ones as if it had begun with them there and then, so that the averages of Adam and its like, which begin
    at zero, are corrected for it: all but the momentum of `Nadam`, which keeps one correction for all
    weights, so that new ones begin with smaller steps. Begin with a model that is frozen up to the layers
    that train from the first epoch on, as `replace_head` makes it. Interrupted and resumed, with
    `BackupAndRestore` or from a saved model and `initial_epoch`, the same layers are frozen as without the
    interruption. What was unfrozen when a backup was written is read from its weights file, so that the
    optimizer's state fits.

    Args:
        plan: dict that maps an epoch, from 0, to the layers that are unfrozen when it begins, as in
            `unfreeze`: None for all that are frozen, a name or a path, an int, a slice, a layer, a compiled
            regular expression, or a list of these.
        batch_norm: whether to unfreeze BatchNormalization too.
        verbose: 1 prints what is unfrozen.

    Attributes:
        unfrozen: dict from the epochs of the plan that were reached in the last `fit` to the paths of the
            layers with weights that were unfrozen there.

    Raises:
        ValueError: the plan is empty, or has a negative epoch. When `fit` begins: a layer that is to be
            unfrozen later is not frozen; the plan names layers that the model does not have; the model is
            not compiled; another `GradualUnfreezing` is there too; a backup of `BackupAndRestore` does not
            fit the plan, or is in a remote folder; the optimizer has variables of weights that are not in
            lists.
        TypeError: the plan is no dict of the above.
        RuntimeError: this version of Keras keeps the files of `BackupAndRestore` elsewhere.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.layers[0].trainable = False
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> gradual = GradualUnfreezing({2: None})
    >>> history = model.fit(x, y, epochs=3, callbacks=[gradual], verbose=0)
    >>> gradual.unfrozen == {2: [layer.name for layer in model.layers]}
    True

    Reference:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification, 2018
        (https://arxiv.org/abs/1801.06146).
    """

    def __init__(self, plan: Mapping[int, Any], *, batch_norm: bool = False, verbose: int = 0):
        super().__init__()
        _check_plan(plan)
        check_bool("batch_norm", batch_norm)
        check_verbose(verbose)
        self.plan = {int(epoch): plan[epoch] for epoch in sorted(plan)}
        self.batch_norm = batch_norm
        self.verbose: int = verbose
        self.unfrozen: dict[int, list[str]] = {}
        self._left: list[_Stage] = []
        self._to_restore: list[keras.callbacks.Callback] = []

    def get_config(self) -> dict[str, Any]:
        plan = {epoch: _as_config(layers) for epoch, layers in self.plan.items()}
        return {"plan": plan, **config_of(self, "batch_norm", "verbose")}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradualUnfreezing":
        plan = {int(epoch): _from_config(layers) for epoch, layers in config["plan"].items()}
        return cls(**{**config, "plan": plan})

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {
            "_left": [],
            "_restored": [],
            "_starts": {},
            "_to_restore": [],
        }

    # -- in `fit` -----------------------------------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        callbacks = callbacks_of_fit(self)
        if callbacks:  # before `BackupAndRestore`, whose file has the state of what was unfrozen then
            callbacks.remove(self)
            callbacks.insert(0, self)

    def on_train_begin(self, logs: dict | None = None) -> None:
        innermost_optimizer(self.model)
        with unfrozen_as_before_on_error(self.model):
            super().on_train_begin(logs)
            if self._to_restore:
                restore(self._to_restore, self.model.optimizer, logs)
        self._to_restore = []

    def _set_up(self, callbacks: list[keras.callbacks.Callback]) -> None:
        for other in callbacks:
            if isinstance(other, GradualUnfreezing):
                raise ValueError(
                    "There are two `GradualUnfreezing`. Put all epochs into the plan of one. "
                    f"Received: callbacks={[self, *callbacks]}"
                )
        self._left = [
            _Stage(epoch, to_unfreeze(self.model, layers, self.batch_norm, name=f"plan[{epoch}]"))
            for epoch, layers in self.plan.items()
        ]
        self.unfrozen = {}
        self._starts: dict[int, int] = {}
        self._started = False
        backup = Backup.latest(callbacks)
        self._to_restore = callbacks if backup else []
        if self.model.built:
            with strategy_scope(self.model):
                check_rebuildable(self.model.optimizer, self.model.trainable_variables)
        if backup:  # after an interruption, maybe in this process
            freeze_again(self.model)
        remember_frozen(self.model)
        # In fits before this one, and not forgotten.
        self._trained = self._known() & set(map(id, self.model.trainable_variables))
        self._restored = [
            stage for stage in self._left if stage.epoch <= (backup.saved_in if backup else 0)
        ]
        self._in_backup: set[int] = set()
        if backup and backup.optimizer_variables is not None and self.model.built:
            self._restored = self._stages_in(backup)
        if backup:
            self._in_backup = {stage.epoch for stage in self._restored}
        for stage in self._restored:
            set_trainable(self.model, stage.layers, True)

    def _stages_in(self, backup: Backup) -> list[_Stage]:
        """Return the stages that were reached when the weights of `backup` were saved.

        The weights file tells: it has the optimizer's state of all weights that were trained. The other
        file may be older, if the process died between the two, and may have a wrong epoch after a second
        interruption if Keras saves every so many batches.
        """
        as_told = len(self._restored)
        counts = [as_told, *range(as_told + 1, len(self._left) + 1), *reversed(range(as_told))]
        for count in counts:
            stages = self._left[:count]
            if self._optimizer_variables(stages) == backup.optimizer_variables:
                break
        else:
            raise ValueError(
                f"The backup has {backup.optimizer_variables} variables of an optimizer, which fits what "
                "is trained in no epoch of the plan. Resume with the model, the optimizer and the plan of "
                "the interrupted `fit`, or delete the backup. Received: "
                f"plan={self.plan}, optimizer={self.model.optimizer}, backup_dir={backup.epoch_file.parent}"
            )
        if stages and stages[-1].epoch > backup.epoch:
            raise ValueError(
                f"The weights in the backup were saved in epoch {stages[-1].epoch} or later, but training "
                f"would go on in epoch {backup.epoch}: the process ended between the two files of the "
                "backup, or was interrupted twice with `save_freq` in batches, or the file cannot be read. "
                "Write the epoch that was interrupted as `epoch` into "
                f"{str(backup.epoch_file)!r}, or delete the backup. "
                f"Received: plan={self.plan}"
            )
        return stages

    def _optimizer_variables(self, stages: list[_Stage]) -> int:
        """Return how many variables the optimizer has where `stages` are reached."""
        model, before = self.model, flags(self.model)
        try:
            for stage in stages:
                set_trainable(model, stage.layers, True)
            with strategy_scope(model):
                return variables_if_built(model.optimizer, model.trainable_variables)
        finally:
            put_back(before)

    def _join_step(self, step: TrainingStep) -> None:
        stages = list(self._left)
        step.expect_weights(lambda: [variable for stage in stages for variable in stage.weights])
        if self._restored or self._known() - set(map(id, self.model.trainable_variables)):
            step.rebuild()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        due = [stage for stage in self._left if stage.epoch <= epoch]
        self._left = [stage for stage in self._left if stage.epoch > epoch]
        if not self._started:
            self._refuse_unfrozen()
        if due:
            with unfrozen_as_before_on_error(self.model):
                self._unfreeze(due, epoch)
            self._record(due)
        self._started = True

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        forget_frozen(self.model)

    def _refuse_unfrozen(self) -> None:
        weights = {id(variable) for variable in self.model.trainable_variables}
        for stage in self._left:
            found = [v for v in stage.weights if id(v) in weights]
            if found and (self.plan[stage.epoch] is not None or len(found) == len(stage.weights)):
                path = owners(self.model)[id(found[0])]
                raise ValueError(
                    f"The layer {path!r} is to be unfrozen in epoch {stage.epoch}, but it is not frozen. "
                    f"Call `freeze(model, {path!r})` before `fit`, or leave it out of the plan. "
                    f"Received: plan={self.plan}"
                )

    def _unfreeze(self, stages: list[_Stage], epoch: int) -> None:
        known = self._known()
        for stage in stages:
            set_trainable(self.model, stage.layers, True)
            resumed = stage.epoch < epoch or stage.epoch in self._in_backup
            begin = self._step.timeline.batches_until(stage.epoch, epoch) if resumed else 0
            now = seen_batches(unscaled(self.model.optimizer))
            for key in map(id, stage.weights):
                if key not in self._starts:  # of an earlier stage
                    in_state = key in (known if resumed else self._trained)
                    self._starts[key] = begin if in_state else now
        self._step.part(LearningRateMultipliers).starts = self._starts
        self._step.rebuild()

    def _record(self, stages: list[_Stage]) -> None:
        for stage in stages:
            self.unfrozen[stage.epoch] = _paths(self.model, stage)
            if self.verbose:
                self._tell(stage)

    def _known(self) -> set[int]:
        """Return the weights that the optimizer has the state of, by `id(weight)`."""
        optimizer = unscaled(self.model.optimizer)
        return set(map(id, optimizer._trainable_variables)) if optimizer.built else set()

    def _tell(self, stage: _Stage) -> None:
        weights = sum(int(np.prod(variable.shape)) for variable in stage.weights)
        names = self.unfrozen[stage.epoch]
        what = ", ".join(names[:1]) or "no layer with weights"
        if len(names) > 1:
            what = f"{counted(len(names), 'layer')}, {names[0]} to {names[-1]}"
        print(
            f"\nEpoch {stage.epoch + 1}: GradualUnfreezing unfroze {what} ({counted(weights, 'weight')})."
        )


def _paths(model: keras.Model, stage: _Stage) -> list[str]:
    weights = {id(variable) for variable in stage.weights}
    return [
        path
        for path, layer in layers_by_path(model).items()
        if any(id(variable) in weights for variable in layer.weights)
    ]


def _check_plan(plan: Any) -> None:
    if not isinstance(plan, Mapping):
        raise TypeError(f"Expected `plan` to be a dict from epochs to layers. Received: plan={plan!r}")
    if not plan:
        raise ValueError(f"Expected `plan` to have at least one epoch. Received: plan={plan!r}")
    for epoch, layers in plan.items():
        check_number("the epochs of plan", epoch, "at least 0", lambda epoch: epoch >= 0, Integral)
        for item in layers if isinstance(layers, (list, tuple)) else [layers]:
            known = (str, Integral, slice, re.Pattern, keras.layers.Layer)
            if item is not None and (isinstance(item, bool) or not isinstance(item, known)):
                raise TypeError(
                    "Expected the layers of `plan` to be None, a name, an int, a slice, a layer, a "
                    f"compiled regular expression, or a list of these. Received: plan={plan!r}"
                )


def _as_config(layers: Any) -> Any:
    if isinstance(layers, (list, tuple)):
        return [_as_config(item) for item in layers]
    if isinstance(layers, slice):
        return {"slice": [layers.start, layers.stop, layers.step]}
    if isinstance(layers, re.Pattern):
        return {"regex": layers.pattern, "flags": layers.flags}
    return layers.name if isinstance(layers, keras.layers.Layer) else layers


def _from_config(layers: Any) -> Any:
    if isinstance(layers, (list, tuple)):
        return [_from_config(item) for item in layers]
    if isinstance(layers, dict):
        return (
            slice(*layers["slice"]) if "slice" in layers else re.compile(layers["regex"], layers["flags"])
        )
    return layers
