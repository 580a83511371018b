"""The stages of `GradualUnfreezing`: the layers of one model that are unfrozen in one epoch each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import counted
from keras_dnn_extras._keras_internals import weights_of_layer_alone
from keras_dnn_extras._models import layers_by_path, layers_to_unfreeze, owners


@dataclass(frozen=True)
class Stage:
    """Layers, those within them included, that are unfrozen when `epoch` begins."""

    epoch: int
    layers: list[keras.layers.Layer]

    @property
    def weights(self) -> list[keras.Variable]:
        weights = [weight for layer in self.layers for weight in weights_of_layer_alone(layer)]
        return list({id(weight): weight for weight in weights}.values())

    def paths(self, model: keras.Model) -> list[str]:
        """Return the paths of the layers of `model` whose weights are unfrozen."""
        weights = set(map(id, self.weights))
        return [
            path
            for path, layer in layers_by_path(model).items()
            if any(id(variable) in weights for variable in layer.weights)
        ]

    def summary(self, model: keras.Model) -> str:
        """Return the line that tells what is unfrozen."""
        paths, size = self.paths(model), sum(int(np.prod(weight.shape)) for weight in self.weights)
        layers = ", ".join(paths[:1]) or "no layer with weights"
        if len(paths) > 1:
            layers = f"{counted(len(paths), 'layer')}, {paths[0]} to {paths[-1]}"
        return f"Epoch {self.epoch + 1}: GradualUnfreezing unfroze {layers} ({counted(size, 'weight')})."


def stages_of(model: keras.Model, plan: Mapping[int, Any], batch_norm: bool) -> list[Stage]:
    """Return what `plan` means in `model`, in the order of the epochs."""
    return [
        Stage(epoch, layers_to_unfreeze(model, layers, batch_norm, name=f"plan[{epoch}]"))
        for epoch, layers in plan.items()
    ]


def refuse_unfrozen(model: keras.Model, stages: list[Stage], plan: Mapping[int, Any]) -> None:
    """Raise where a layer of `stages` trains already. None in `plan` stands for those that are frozen."""
    trainable = set(map(id, model.trainable_variables))
    for stage in stages:
        unfrozen = [weight for weight in stage.weights if id(weight) in trainable]
        if unfrozen and (plan[stage.epoch] is not None or len(unfrozen) == len(stage.weights)):
            path = owners(model)[id(unfrozen[0])]
            raise ValueError(
                f"The layer {path!r} is to be unfrozen in epoch {stage.epoch}, but it is not frozen. "
                f"Call `freeze(model, {path!r})` before `fit`, or leave it out of the plan. "
                f"Received: plan={plan}"
            )
