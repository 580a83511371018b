"""Copies of models with dropout that stays active, and back."""

import inspect
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import PACKAGE
from keras_dnn_extras._graphs import copy_model
from keras_dnn_extras._keras_internals import draws_numbers, flat_layers
from keras_dnn_extras._models import check_model
from keras_dnn_extras.uncertainty.dropout_layers import (
    dropout_layers,
    drops_within,
    plain_classes_of_own,
    untried,
)
from keras_dnn_extras.uncertainty.dropout_subclasses import (
    DROPPING,
    draws_at_inference,
    dropping_class,
    is_known,
    likeness,
    way_out,
)
from keras_dnn_extras.uncertainty.mc_layers import (
    MCAlphaDropout,
    MCDropout,
    MCGaussianDropout,
    MCSpatialDropout1D,
    MCSpatialDropout2D,
    MCSpatialDropout3D,
)


def _name(layer_class: type) -> str:
    """Return the name of a class in configs: Keras exports one of its own by another name."""
    exported = [name for name, value in vars(keras.layers).items() if value is layer_class]
    return exported[0] if exported else layer_class.__name__


def _key(layer_class: type) -> tuple[str | None, str]:
    """Return what configs call a class: `registered_name`, None for those of Keras, and `class_name`."""
    is_of_keras = layer_class in vars(keras.layers).values()
    return None if is_of_keras else keras.saving.get_registered_name(layer_class), _name(layer_class)


def _always_training(base: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """Return the subclass of a layer whose dropout is active in every call."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["training"] = True
        return base.call(self, *args, **kwargs)

    call.__signature__ = inspect.signature(base.call)  # type: ignore[attr-defined]
    name = f"MC{_name(base)}"
    doc = f"`{_name(base)}` whose dropout is active in every call, as `to_mc_dropout` makes it."
    subclass = type(
        name, (base,), {"call": call, "__doc__": doc, "__module__": __name__, "__qualname__": name}
    )
    return keras.saving.register_keras_serializable(package=PACKAGE)(subclass)


_LAYERS = keras.layers
MC_CLASSES: dict[type, type] = {
    _LAYERS.Dropout: MCDropout,
    _LAYERS.AlphaDropout: MCAlphaDropout,
    _LAYERS.GaussianDropout: MCGaussianDropout,
    _LAYERS.SpatialDropout1D: MCSpatialDropout1D,
    _LAYERS.SpatialDropout2D: MCSpatialDropout2D,
    _LAYERS.SpatialDropout3D: MCSpatialDropout3D,
}
MC_CLASSES |= {base: _always_training(base) for base in DROPPING if base not in MC_CLASSES}
"""What `to_mc_dropout` puts in the place of each layer that drops something."""
_INSTEAD = "use `mc_predict`, which takes the model as it is"


def to_mc_dropout(model: keras.Model) -> keras.Model:
    """Return a copy of `model` whose dropout is active in every call, `predict` among them.

    In the copy MC layers stand in for all layers that drop something: dropout layers, also those that were
    called with `training=True` (which `predict` overrides), within nested models and wrappers, recurrent
    layers with `dropout` or `recurrent_dropout`, and attention with `dropout`. All others are as they were,
    BatchNormalization in inference mode too. Layers that had the same seed have different ones: their masks
    would be the same. The copy saves and loads; it is not compiled. `mc_predict` needs no such copy.

    Args:
        model: a Keras model that can be rebuilt from its config: functional, sequential, or of a class of
            your own whose `get_config` has its layers.

    Returns:
        A model of the same class with the same weights, which are copies.

    Raises:
        ValueError: the model has no dropout in it, or it makes its layers in code of its own.
        TypeError: `model` is no Keras model.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((100,)), keras.layers.Dropout(0.5)])
    >>> mc_model = to_mc_dropout(model)
    >>> float(model.predict(np.ones((1, 100)), verbose=0).std())
    0.0
    >>> float(mc_model.predict(np.ones((1, 100)), verbose=0).std()) > 0
    True

    Reference:
        Gal & Ghahramani, Dropout as a Bayesian Approximation, 2016 (https://arxiv.org/abs/1506.02142).
    """
    check_model("model", model)
    if not dropout_layers(model):
        raise ValueError(
            "There is no dropout in the model, nothing would change. Add a layer such as "
            f"`keras.layers.Dropout` or `MCDropout`, and train with it. Received: model={model}"
        )
    classes = {**MC_CLASSES, **_mc_classes_of_own(model)}
    copy = copy_model(model, _Converter(classes, of_any_rate=False).converted, instead=_INSTEAD).model
    left = _inactive(copy)
    if left:
        raise ValueError(
            f"The model makes the layer {left[0].name!r} in code of its own, where no other can be put in "
            "its place. Use `MCDropout` there, or `mc_predict`, which takes the model as it is. "
            f"Received: model={model}"
        )
    return copy


def to_deterministic(model: keras.Model) -> keras.Model:
    """Return a copy of `model` whose dropout is active in training alone: undo `to_mc_dropout`.

    Args:
        model: a Keras model that can be rebuilt from its config, as `to_mc_dropout` takes and makes.

    Returns:
        A model of the same class with the same weights, which are copies. It is not compiled.

    Raises:
        ValueError: the model makes its layers in code of its own.
        TypeError: `model` is no Keras model.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((100,)), keras.layers.Dropout(0.5)])
    >>> plain = to_deterministic(to_mc_dropout(model))
    >>> bool((plain.predict(np.ones((1, 100)), verbose=0) == 1).all())
    True

    Reference:
        Srivastava et al., Dropout, 2014 (https://jmlr.org/papers/v15/srivastava14a.html).
    """
    check_model("model", model)
    _refuse_other_noise(model)
    classes = {mc: plain for plain, mc in MC_CLASSES.items()} | plain_classes_of_own(model)
    copy = copy_model(model, _Converter(classes, of_any_rate=True).converted, instead=_INSTEAD).model
    left = active_layers(copy)
    if left:
        raise ValueError(
            f"The model makes the layer {left[0].name!r} in code of its own, where no other can be put in "
            f"its place. Use `keras.layers.Dropout` there. Received: model={model}"
        )
    return copy


def active_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of `model` that drop something in every call.

    Raises:
        ValueError: a class of the user's own draws in every call, and nothing can take its place.
    """
    classes = {*MC_CLASSES.values(), *plain_classes_of_own(model)}
    return [layer for layer in flat_layers(model) if type(layer) in classes]


def _mc_classes_of_own(model: keras.Model) -> dict[type, type]:
    """Return what is put in the place of classes of the user's own that drop something."""
    custom = [layer for layer in flat_layers(model) if _is_of_own_class(layer) and drops_within(layer)]
    for layer in custom:
        if likeness(layer) == "other":
            raise ValueError(
                f"The layer {layer.name!r} of class `{type(layer).__name__}` does more than the layer that "
                f"it is made from, and no other can be put in its place. {untried(layer)}{way_out(layer)}. "
                f"Received: layer={layer}"
            )
    return {type(layer): MC_CLASSES[dropping_class(layer)] for layer in custom}


def _refuse_other_noise(model: keras.Model) -> None:
    for layer in drawing_layers(model):
        raise ValueError(
            f"The layer {layer.name!r} of class `{type(layer).__name__}` draws random numbers in every "
            "call, which no copy of it can leave. Let it draw only where `training` is True. "
            f"Received: layer={layer}"
        )


def drawing_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers, not made from one that drops something, that were seen to draw at inference."""
    return [
        layer
        for layer in flat_layers(model)
        if not is_known(layer)
        and draws_numbers(layer)
        and dropping_class(layer) is None
        and draws_at_inference(layer)
    ]


def _is_of_own_class(layer: Any) -> bool:
    classes = {*MC_CLASSES, *MC_CLASSES.values()}
    return dropping_class(layer) is not None and type(layer) not in classes


class _Converter:
    """Replaces classes in the config of a model.

    Args:
        classes: what to put in the place of which.
        of_any_rate: whether also of layers that drop nothing.
    """

    def __init__(self, classes: dict[type, type], of_any_rate: bool):
        self._others = {_key(old): new for old, new in classes.items()}
        self._of_any_rate = of_any_rate
        self._seeds: set[int] = set()

    def converted(self, config: Any) -> Any:
        if isinstance(config, (list, tuple)):
            return type(config)(self.converted(item) for item in config)
        if not isinstance(config, dict):
            return config
        name = config.get("registered_name"), config.get("class_name")
        config = {key: self.converted(value) for key, value in config.items()}
        if name in self._others and (self._of_any_rate or _drops(config["config"])):
            new = self._others[name]
            is_of_package = new.__module__.startswith(PACKAGE)
            config["module"] = new.__module__ if is_of_package else "keras.layers"
            config["class_name"] = new.__name__ if is_of_package else _name(new)
            config["registered_name"] = _key(new)[0]
            config["config"] = self._reseeded(_accepted(new, config["config"]))
            for node in config.get("inbound_nodes", []):
                node.get("kwargs", {}).pop("training", None)  # `predict` would override it in any case
        return config

    def _reseeded(self, config: dict[str, Any]) -> dict[str, Any]:
        seed = config.get("seed")
        if not isinstance(seed, int):
            return config
        original = seed
        while seed in self._seeds:
            seed = int(np.random.SeedSequence([original, len(self._seeds), seed]).generate_state(1)[0] >> 1)
        self._seeds.add(seed)
        return {**config, "seed": seed}


def _accepted(layer_class: type, config: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a class does not take, as Keras's spatial layers do not take `trainable`."""
    accepted: set[str] = set()
    for kind in layer_class.__mro__:
        parameters = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
        accepted |= set(parameters)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            break
    return {name: value for name, value in config.items() if name in accepted}


def _drops(config: dict[str, Any]) -> bool:
    """Return whether the layer of this config has a rate above 0, or a cell with one."""
    if any((config.get(name) or 0) > 0 for name in ("rate", "dropout", "recurrent_dropout")):
        return True
    cell = config.get("cell")
    return cell is not None and any(_drops(c["config"]) for c in cell["config"].get("cells", [cell]))


def _inactive(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of `model` that drop something in training alone."""
    active: set[int] = set()
    for layer in flat_layers(model):
        if type(layer) in MC_CLASSES.values():
            active |= set(map(id, flat_layers(layer)))
    layers = dropout_layers(model)
    dropping = [
        layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer for layer in layers
    ]
    return [layer for layer in dropping if id(layer) not in active]
