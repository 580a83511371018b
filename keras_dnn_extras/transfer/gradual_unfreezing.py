"""Unfreeze a model layer by layer while it trains."""

import contextlib
from collections.abc import Mapping
from typing import Any

import keras

from keras_dnn_extras._arguments import PACKAGE, check_bool, check_verbose, config_of, counted
from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._display import brief
from keras_dnn_extras._keras_internals import callbacks_of_fit, trainable_at_compile
from keras_dnn_extras._models import (
    LayerChoices,
    check_rebuildable,
    innermost_optimizer,
    optimizer_attributes,
    seen_batches,
    set_trainable,
    trainable_flags,
    unscaled,
    weights_with_state,
)
from keras_dnn_extras._rollback import rolled_back
from keras_dnn_extras._training_step import LearningRateMultipliers, StepCallback, TrainingStep
from keras_dnn_extras.transfer.backups import Backup, restore
from keras_dnn_extras.transfer.interruptions import forget_frozen, freeze_again, remember_frozen
from keras_dnn_extras.transfer.resumption import reached_stages
from keras_dnn_extras.transfer.unfreezing_plan import check_plan, plan_from_config, plan_to_config
from keras_dnn_extras.transfer.unfreezing_stages import Stage, refuse_unfrozen, stages_of


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

    def __init__(self, plan: Mapping[int, LayerChoices], *, batch_norm: bool = False, verbose: int = 0):
        super().__init__()
        check_plan(plan)
        check_bool("batch_norm", batch_norm)
        check_verbose(verbose)
        self.plan = {int(epoch): plan[epoch] for epoch in sorted(plan)}
        self.batch_norm = batch_norm
        self.verbose: int = verbose
        self.unfrozen: dict[int, list[str]] = {}
        self._begin_fit([])

    def _begin_fit(self, stages: list[Stage]) -> None:
        self._stages_left = stages
        self._reached: list[Stage] = []  # before the first epoch
        self._in_backup: set[int] = set()  # the epochs of those that a backup has the state of
        self._starts: dict[int, int] = {}  # the batch that each unfrozen weight begins in, by its id
        self._started = False
        self._to_restore: list[keras.callbacks.Callback] = []

    def get_config(self) -> dict[str, Any]:
        return {"plan": plan_to_config(self.plan), **config_of(self, "batch_norm", "verbose")}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradualUnfreezing":
        return cls(**{**config, "plan": plan_from_config(config["plan"])})

    def _facts(self) -> dict[str, str]:
        return {
            f"from epoch {epoch} on": f"{counted(len(layers), 'layer')}: {brief(layers)}"
            for epoch, layers in self.unfrozen.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {
            "_stages_left": [],
            "_reached": [],
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
        with self._frozen_again_on_error():
            super().on_train_begin(logs)
            if self._to_restore:
                restore(self._to_restore, self.model.optimizer, logs)
        self._to_restore = []

    def _frozen_again_on_error(self) -> contextlib.AbstractContextManager:
        """Leave what is frozen, and which variables the optimizer has, as they are if the block fails.

        The optimizer stays the same object, and trains nothing meanwhile.
        """
        model = self.model
        return rolled_back(
            optimizer_attributes(model.optimizer),
            trainable_at_compile(model),
            trainable_flags(model),
            only_on_error=True,
        )

    def _set_up(self, others: list[keras.callbacks.Callback]) -> None:
        self._refuse_another(others)
        self._begin_fit(stages_of(self.model, self.plan, self.batch_norm))
        self.unfrozen = {}
        backup = Backup.latest(others)
        self._to_restore = others if backup else []
        if self.model.built:
            with strategy_scope(self.model):
                check_rebuildable(self.model.optimizer, self.model.trainable_variables)
        if backup:  # after an interruption, maybe in this process
            freeze_again(self.model)
        remember_frozen(self.model)
        # In fits before this one, and not forgotten.
        self._trained_before = weights_with_state(self.model.optimizer) & self._trainable()
        self._reached = reached_stages(self.model, self._stages_left, backup, self.plan)
        self._in_backup = {stage.epoch for stage in self._reached} if backup else set()
        for stage in self._reached:
            set_trainable(self.model, stage.layers, True)

    def _refuse_another(self, others: list[keras.callbacks.Callback]) -> None:
        if any(isinstance(other, GradualUnfreezing) for other in others):
            raise ValueError(
                "There are two `GradualUnfreezing`. Put all epochs into the plan of one. "
                f"Received: callbacks={brief([self, *others])}"
            )

    def _trainable(self) -> set[int]:
        """Return the `id` of each weight that is trainable now."""
        return set(map(id, self.model.trainable_variables))

    def _join_step(self, step: TrainingStep) -> None:
        stages = list(self._stages_left)
        step.expect_weights(lambda: [weight for stage in stages for weight in stage.weights])
        if self._reached or weights_with_state(self.model.optimizer) - self._trainable():
            step.rebuild()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        due = [stage for stage in self._stages_left if stage.epoch <= epoch]
        self._stages_left = [stage for stage in self._stages_left if stage.epoch > epoch]
        if not self._started:
            refuse_unfrozen(self.model, self._stages_left, self.plan)
        if due:
            with self._frozen_again_on_error():
                self._unfreeze(due, epoch)
            self._record(due)
        self._started = True

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        forget_frozen(self.model)

    def _unfreeze(self, stages: list[Stage], epoch: int) -> None:
        with_state = weights_with_state(self.model.optimizer)
        now = seen_batches(unscaled(self.model.optimizer))
        for stage in stages:
            set_trainable(self.model, stage.layers, True)
            resumed = stage.epoch < epoch or stage.epoch in self._in_backup
            begin = self._step.timeline.batches_until(stage.epoch, epoch) if resumed else 0
            for weight in map(id, stage.weights):
                if weight not in self._starts:  # of an earlier stage
                    goes_on = weight in (with_state if resumed else self._trained_before)
                    self._starts[weight] = begin if goes_on else now
        self._step.part(LearningRateMultipliers).starts = self._starts
        self._step.rebuild()

    def _record(self, stages: list[Stage]) -> None:
        for stage in stages:
            self.unfrozen[stage.epoch] = stage.paths(self.model)
            if self.verbose:
                print(f"\n{stage.summary(self.model)}")
