"""Which batch normalizations of a model can be folded into which layers, and why others cannot."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_dnn_extras._graphs import (
    Call,
    Census,
    Changes,
    Edit,
    ObstacleError,
    Value,
    Wiring,
    check_unquantized,
    is_idle,
)
from keras_dnn_extras.fusion import algebra, propagation
from keras_dnn_extras.fusion.algebra import Affine
from keras_dnn_extras.fusion.foldable_layers import LINEAR, NORMALIZING, Flow, Linear, Weights, precision_of


@dataclass(frozen=True)
class Fold:
    """A layer that goes into others.

    Attributes:
        source: the layer.
        targets: the others.
        direction: `"backward"` into layers before it, `"forward"` into one after it.
        made: a value that is the same before and after.
    """

    source: Any
    targets: tuple[Any, ...]
    direction: str
    made: Value

    @property
    def into(self) -> tuple[str, ...]:
        """The names of the others."""
        return tuple(layer.name for layer in self.targets)


class Plan:
    """What can be folded in a model, without changing it.

    Args:
        census: of the model.
        refused: why some layers are not to be folded after all, by `id` of the layer.

    Attributes:
        changes: for `rebuilt`.
        folds: by `id` of the model that has them, in the order of the calls.
        reasons: why others stay, by `id` of the layer.
        idle: layers that are left out because they do nothing at inference, by their paths.
        changed: values of the original that are others in the copy.
    """

    def __init__(self, census: Census, refused: Mapping[int, str]):
        self.changes = Changes()
        self.folds: dict[int, list[Fold]] = {}
        self.reasons: dict[int, str] = dict(refused)
        self.idle: dict[str, Any] = {}
        self.changed: set[Value] = set()
        wirings = {
            key: Wiring(census.models[key], level)
            for key, level in census.levels.items()
            if key not in census.frozen
        }
        self._leave_out_idle(census, wirings)
        for key, wiring in wirings.items():
            folder = _Folder(self, census, wiring, is_outermost=not census.paths[key])
            self.folds[key] = folder.fold()
        for key, why in census.frozen.items():
            for call in census.levels[key].calls:
                self.reasons.setdefault(id(call.operation), f"{_sentence(why)}.")

    def _leave_out_idle(self, census: Census, wirings: Mapping[int, Wiring]) -> None:
        """Leave out layers that do nothing, where this holds for all calls of them."""
        idle = [id(call.operation) for wiring in wirings.values() for call in _idle_calls(wiring)]
        for key, wiring in wirings.items():
            for call in list(wiring.calls):
                layer = call.operation
                if id(layer) in idle and idle.count(id(layer)) == len(census.calls[id(layer)]):
                    wiring.remove(call)
                    if id(layer) not in self.changes.removed:
                        self.idle[census.paths[key] + layer.name] = layer
                    self.changes.removed.add(id(layer))


def _idle_calls(wiring: Wiring) -> Iterator[Call]:
    """Yield the calls of layers that do nothing, and whose names are not those of outputs."""
    is_sequential = isinstance(wiring.model, keras.Sequential)
    found = [call for call in wiring.calls if is_idle(call.operation) and _is_through(call)]
    if is_sequential and len(found) == len(wiring.calls):
        found = found[:-1]  # a model has at least one layer
    for call in found:
        if is_sequential or call.outputs[0] not in wiring.outputs:
            yield call


class _Folder:
    """Folds the layers of one level."""

    def __init__(self, plan: Plan, census: Census, wiring: Wiring, is_outermost: bool):
        self._plan = plan
        self._census = census
        self._wiring = wiring
        # There the names of the layers that make the outputs are the names of the outputs.
        self._names_outputs = is_outermost and not isinstance(wiring.model, keras.Sequential)
        self._calls = list(wiring.calls)
        self._weights: dict[int, tuple[Any, Weights]] = {}
        self._folds: list[Fold] = []

    def fold(self) -> list[Fold]:
        """Fold all that can be folded: backward first, which is better in floats."""
        while self._all_backward(LINEAR) or self._all_forward() or self._all_backward(_WITH_NORMALIZING):
            pass
        for call in self._sources(NORMALIZING):
            self._plan.reasons[id(call.operation)] = self._why_not(call)
        self._edit()
        order = [id(call.operation) for call in self._calls]
        return sorted(self._folds, key=lambda fold: order.index(id(fold.source)))

    def _edit(self) -> None:
        """Note what is different in the layers that stay: weights, and what would look at other numbers."""
        gone = self._plan.changes.removed | self._plan.changes.replaced_by_identity
        for layer in {id(call.operation): call.operation for call in self._wiring.calls}.values():
            if id(layer) in gone or not isinstance(layer, keras.Layer):
                continue
            config: dict[str, Any] = {}
            arrays: dict[str, np.ndarray] = {}
            if self._makes_others(layer) and getattr(layer, "activity_regularizer", None) is not None:
                config["activity_regularizer"] = None
            if id(layer) in self._weights:
                weights = self._weights[id(layer)][1]
                config |= _without_regularizers(layer)
                config |= _WITH_NORMALIZING[type(layer)].config(layer, weights)
                arrays = {path: array for path, array in weights.items() if array is not None}
            if config or arrays:
                self._plan.changes.edits[id(layer)] = Edit(config, arrays)

    def _makes_others(self, layer: Any) -> bool:
        calls = self._census.calls[id(layer)]
        return any(value in self._plan.changed for call in calls for value in call.outputs)

    def _sources(self, kinds: Mapping[type, Any]) -> list[Call]:
        settled = self._plan.reasons.keys() | self._plan.changes.replaced_by_identity
        calls = self._wiring.calls
        return [c for c in calls if type(c.operation) in kinds and id(c.operation) not in settled]

    def _all_backward(self, kinds: Mapping[type, Linear]) -> bool:
        sources = self._sources(NORMALIZING)
        return sum(self._done(lambda call=call: self._backward(call, kinds)) for call in sources) > 0

    def _all_forward(self) -> bool:
        sources = reversed(self._sources({**NORMALIZING, **_PREPROCESSING}))
        return sum(self._done(lambda call=call: self._forward(call)) for call in sources) > 0

    def _done(self, fold: Any) -> bool:
        try:
            fold()
        except ObstacleError:
            return False
        return True

    def _why_not(self, call: Call) -> str:
        whys = []
        try:
            self._flows(call)
        except ObstacleError as obstacle:
            return f"{_sentence(str(obstacle))}."
        for fold in (lambda: self._backward(call, _WITH_NORMALIZING), lambda: self._forward(call)):
            try:
                fold()
            except ObstacleError as obstacle:
                whys.append(str(obstacle))
        return f"Not into layers before it: {whys[0]}. Not into layers after it: {whys[1]}."

    # -- one fold ----------------------------------------------------------------------------------------

    def _backward(self, call: Call, kinds: Mapping[type, Linear]) -> None:
        flow = self._flows(call)[0]
        if not _is_through(call):
            raise ObstacleError(f"{call.operation.name!r} changes the dtype of what goes through it")
        targets: list[tuple[Any, Weights]] = []
        passed: set[Value] = set()
        self._find_before(self._wiring.real(call.args[0]), flow, kinds, targets, passed)
        self._commit(call, targets, passed, Fold(call.operation, (), "backward", call.outputs[0]))

    def _find_before(
        self, value: Value, flow: Flow, kinds: Mapping[type, Linear], targets: list, passed: set[Value]
    ) -> None:
        """Fold `flow`, which is to come out as `value`, into the nearest layers that make it."""
        maker = self._wiring.maker(value)
        self._wiring.only_user(value)
        passed.add(value)
        if type(maker.operation) in kinds:
            self._check_target(maker.operation)
            made = kinds[type(maker.operation)].backward(maker, self._weights_of(maker.operation), flow)
            targets.append((maker.operation, made))
            return
        for before, branch in propagation.before(maker, flow):
            self._find_before(self._wiring.real(before), branch, kinds, targets, passed)

    def _forward(self, call: Call) -> None:
        obstacle = None
        for flow in self._flows(call):
            try:
                return self._forward_as(call, flow)
            except ObstacleError as error:
                obstacle = error
        raise obstacle or ObstacleError("it is not known what it does")

    def _forward_as(self, call: Call, flow: Flow) -> None:
        value, passed = call.outputs[0], {call.outputs[0]}
        user, name = self._wiring.only_user(value)
        _check_casts(call, user)
        while type(user.operation) not in LINEAR:
            flow = propagation.after(user, name, flow)
            value = user.outputs[0]
            passed.add(value)
            user, name = self._wiring.only_user(value)
        layer = user.operation
        self._check_target(layer)
        made = LINEAR[type(layer)].forward(user, name, self._weights_of(layer), flow)
        self._check_cancellation(call, layer)
        self._commit(call, [(layer, made)], passed, Fold(call.operation, (), "forward", user.outputs[0]))

    def _commit(self, call: Call, targets: list, passed: set[Value], fold: Fold) -> None:
        for layer, weights in targets:
            arrays = [array for array in weights.values() if array is not None]
            if not all(algebra.fits(array, precision_of(layer)) for array in arrays):
                raise ObstacleError(
                    f"weights of {layer.name!r} are not finite, or would be too large for "
                    f"{precision_of(layer)}"
                )
        self._weights.update({id(layer): (layer, weights) for layer, weights in targets})
        self._plan.changed.update(*map(self._wiring.names, passed))
        into = tuple(layer for layer, _ in targets)
        self._folds.append(Fold(fold.source, into, fold.direction, fold.made))
        if self._names_outputs and call.outputs[0] in self._wiring.outputs:
            self._plan.changes.replaced_by_identity.add(id(call.operation))
        else:
            self._wiring.remove(call)
            self._plan.changes.removed.add(id(call.operation))

    # -- layers ------------------------------------------------------------------------------------------

    def _weights_of(self, layer: Any) -> Weights:
        if id(layer) in self._weights:
            return self._weights[id(layer)][1]
        return _WITH_NORMALIZING[type(layer)].weights(layer)

    def _check_target(self, layer: Any) -> None:
        self._census.check_alone(layer)
        check_unquantized(layer)

    def _flows(self, call: Call) -> list[Flow]:
        """Return what a layer does: more than one where it is the same number for all channels."""
        layer, value = call.operation, call.outputs[0]
        self._census.check_alone(layer)
        check_unquantized(layer)
        if call.kwargs.get("training"):
            raise ObstacleError(f"{layer.name!r} is called with training=True")
        if not _has_one_tensor(call):
            raise ObstacleError(f"{layer.name!r} is not called with one tensor")
        if type(layer) in NORMALIZING:
            affine = algebra.batch_norm_affine(
                **_statistics(self._weights_of(layer)), epsilon=layer.epsilon
            )
            flows = [Flow(affine, layer.axis % len(value.shape))]
        else:
            flows = _PREPROCESSING[type(layer)](layer, value)
        if not all(np.all(np.isfinite(array)) for flow in flows for array in flow.affine):
            raise ObstacleError(f"the statistics of {layer.name!r} make scales that are not finite")
        return flows

    def _check_cancellation(self, call: Call, target: Any) -> None:
        layer = call.operation
        if type(layer) in NORMALIZING:
            statistics = _statistics(self._weights_of(layer))
            found = algebra.batch_norm_cancellation(**statistics, epsilon=layer.epsilon)
        else:
            found = float(np.max(np.abs(self._flows(call)[0].affine.shift)))
        if found > algebra.LARGEST_CANCELLATION[precision_of(target)]:
            raise ObstacleError(
                f"{target.name!r} would be ill-conditioned: means of {layer.name!r} are {found:.3g} times "
                f"their deviations, and that many roundings of {precision_of(target)} would be seen"
            )


_WITH_NORMALIZING = {**LINEAR, **NORMALIZING}


def _without_regularizers(layer: Any) -> dict[str, Any]:
    """Return what to change in a config for weights that are none of those that were trained."""
    suffixes = ("_regularizer", "_constraint")
    config = layer.get_config().items()
    return {
        name: None
        for name, value in config
        if value is not None and name.endswith(suffixes) and name != "activity_regularizer"
    }


def _has_one_tensor(call: Call) -> bool:
    return len(call.args) == 1 and isinstance(call.args[0], Value) and len(call.outputs) == 1


def _is_through(call: Call) -> bool:
    """Return whether a call takes one tensor, and makes one of the same shape and dtype."""
    if not _has_one_tensor(call) or call.kwargs.get("training"):
        return False
    taken, made = call.args[0], call.outputs[0]
    return (taken.shape, taken.dtype) == (made.shape, made.dtype)


def _check_casts(call: Call, user: Call) -> None:
    """Raise where `call` changes the dtype, unless `user` would do that itself."""
    taken, made, layer = call.args[0], call.outputs[0], user.operation
    if taken.dtype == made.dtype:
        return
    casts = isinstance(layer, keras.Layer) and layer.autocast and layer.compute_dtype == made.dtype
    if not (casts and "float" in taken.dtype and "float" in made.dtype):
        raise ObstacleError(f"{call.operation.name!r} changes the dtype of what goes through it")


def _statistics(weights: Weights) -> dict[str, Any]:
    return {
        "gamma": weights["gamma"],
        "beta": weights["beta"],
        "mean": weights["moving_mean"],
        "variance": weights["moving_variance"],
    }


def _sentence(clause: str) -> str:
    return clause if clause.startswith("'") else clause[:1].upper() + clause[1:]


# -- layers before the first one -------------------------------------------------------------------------


def _rescaling(layer: Any, value: Value) -> list[Flow]:
    scale, offset = (np.asarray(array, "float64") for array in (layer.scale, layer.offset))
    if scale.size > 1 and keras.config.image_data_format() == "channels_first":
        raise ObstacleError(f"{layer.name!r} has a scale for each channel, and they come first")
    return _flows_of(layer, value, scale, offset)


def _normalization(layer: Any, value: Value) -> list[Flow]:
    mean, variance = (
        keras.ops.convert_to_numpy(array).astype("float64") for array in (layer.mean, layer.variance)
    )
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return _flows_of(layer, value, deviation, mean)
    return _flows_of(layer, value, 1 / deviation, -mean / deviation)


def _flows_of(layer: Any, value: Value, scale: np.ndarray, shift: np.ndarray) -> list[Flow]:
    """Return what `scale` and `shift`, of any shapes that broadcast with `value`, are along one axis."""
    scale, shift = np.broadcast_arrays(scale, shift)
    ndim = len(value.shape)
    long = [ndim - scale.ndim + axis for axis, size in enumerate(scale.shape) if size > 1]
    if scale.ndim > ndim or len(long) > 1:
        raise ObstacleError(f"{layer.name!r} has numbers of its own along several axes")
    axes = long or [axis for axis in (ndim - 1, 1) if axis > 0]
    found = []
    for axis in dict.fromkeys(axes):
        size = value.shape[axis]
        if size is not None:
            found.append(
                Flow(
                    Affine(*(np.broadcast_to(array.reshape(-1), (size,)) for array in (scale, shift))), axis
                )
            )
    if not found:
        raise ObstacleError("the number of its channels is not known")
    return found


_PREPROCESSING = {layers.Rescaling: _rescaling, layers.Normalization: _normalization}
