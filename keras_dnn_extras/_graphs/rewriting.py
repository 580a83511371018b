"""Copies of functional and sequential models: one new layer for each, some of them others or left out."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import keras
import numpy as np
from keras import tree

# Private, as Keras tells the files' own way of keeping shared objects shared nowhere else.
from keras.src.saving.serialization_lib import ObjectSharingScope, SafeModeScope

from keras_dnn_extras._graphs.graph import Call, Level, Value, fill_in
from keras_dnn_extras._graphs.layer_configs import NO_CONFIG, copy_what_no_config_holds, serialized
from keras_dnn_extras._graphs.sample_inputs import drawn, sizes
from keras_dnn_extras._keras_internals import functional_of


@dataclass(frozen=True)
class Edit:
    """How the copy of a layer differs.

    Attributes:
        config: entries of its config.
        weights: by the path of the attribute, as `cell.kernel`. Others are copied.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]


@dataclass
class Changes:
    """What differs in the copy of a model, by `id(layer)`.

    Attributes:
        edits: layers of another config or other weights.
        removed: layers that are left out: what goes into them takes the place of what comes out.
        replaced_by_identity: the same, for those whose name is the name of an output.
    """

    edits: dict[int, Edit] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    replaced_by_identity: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Copy:
    """A copy of a model.

    Attributes:
        model: the copy.
        models: the copies of it and of all models in it, by `id` of the original.
        tensors: what stands in the copy for each value of the original's levels.
        operations: the copies of layers and other operations, by `id` of the original.
    """

    model: keras.Model
    models: dict[int, keras.Model]
    tensors: dict[Value, Any]
    operations: dict[int, Any]


def rebuilt(model: keras.Model, levels: Mapping[int, Level], changes: Changes) -> Copy:
    """Return a copy of `model` with `changes`. No layer of the original is called.

    Args:
        levels: of `model` and of each functional or sequential model that it calls, by `id(model)`.

    Raises:
        ValueError: a layer cannot be made anew from its config.
    """
    # A config that was made here and now holds no code but the model's own.
    with ObjectSharingScope(), SafeModeScope(False):
        builder = _Builder(levels, changes)
        copy = Copy(builder.model(model), builder.models, builder.tensors, builder.operations)
    builder.finish()
    return copy


def check_followed(model: Any) -> None:
    """Raise if `model` is a built sequential model in which Keras cannot follow a layer.

    Such a layer does not tell the shape of what it makes. The model then trains and predicts, and has
    neither `inputs` nor a graph.

    Raises:
        ValueError: names the layer.
    """
    if not (isinstance(model, keras.Sequential) and model.built) or functional_of(model) is not None:
        return
    first, *others = model._layers
    spec = getattr(first, "output", None) if isinstance(first, keras.layers.InputLayer) else None
    for layer in others if spec is not None else []:
        try:
            spec = layer.compute_output_spec(spec)
        except NotImplementedError as error:
            raise ValueError(
                f"The layer {layer.name!r} does not tell the shape of what it makes, so that what comes "
                "after it cannot be followed. Give its class a `compute_output_shape`, or pass "
                f"`output_shape` to a `TorchModuleWrapper`. Received: model={model}, layer={layer}"
            ) from error


def without_activation(layer: keras.Layer) -> keras.Layer:
    """Return a copy of a built layer that computes what its activation is given."""
    config = _config(layer)
    config = {**config, "config": {**config["config"], "activation": "linear"}}
    with SafeModeScope(False):
        new = _deserialized(config, layer)
    _copy_state(layer, new)
    return new


class _Builder:
    def __init__(self, levels: Mapping[int, Level], changes: Changes):
        self.models: dict[int, keras.Model] = {}
        self.tensors: dict[Value, Any] = {}
        self.operations: dict[int, Any] = {}
        self._levels = levels
        self._changes = changes
        self._unfinished: list[tuple[Any, Any]] = []
        # All before the first is made: a layer within another is known as the same by what both told.
        operations = [call.operation for level in levels.values() for call in level.calls]
        operations += [t._keras_history.operation for level in levels.values() for t in _inputs(level)]
        self._configs = {
            id(operation): _config(operation) for operation in operations if id(operation) not in levels
        }

    def model(self, model: Any) -> Any:
        if id(model) not in self.models:
            build = self._sequential if isinstance(model, keras.Sequential) else self._functional
            new = self.models[id(model)] = build(model)
            if new.dtype_policy != model.dtype_policy:
                new.dtype_policy = model.dtype_policy
        return self.models[id(model)]

    def finish(self) -> None:
        """Copy the state of layers that make weights when they are first called with numbers."""
        calls = [call for level in self._levels.values() for call in level.calls]
        for old, new in self._unfinished:
            _called_once(new, next(call for call in calls if call.operation is old))
            if not _is_alike(old, new):
                raise _no_copy(old)
            _copy_state(old, new)

    def _functional(self, model: Any) -> keras.Model:
        level, known = self._levels[id(model)], self.tensors
        for value, tensor in zip(level.inputs, _inputs(level), strict=True):
            known[value] = self._operation(tensor._keras_history.operation).output
        for call in level.calls:
            known.update(zip(call.outputs, self._outputs(call), strict=True))
        inputs = tree.pack_sequence_as(model._inputs_struct, [known[value] for value in level.inputs])
        outputs = fill_in(level.outputs, known)
        return keras.Model(inputs, outputs, name=model.name, trainable=model.trainable)

    def _outputs(self, call: Call) -> list:
        if id(call.operation) in self._changes.removed:
            return [self.tensors[call.args[0]]]
        if id(call.operation) in self._changes.replaced_by_identity:
            return [self._operation(call.operation)(self.tensors[call.args[0]])]
        args, kwargs = fill_in((call.args, call.kwargs), self.tensors)
        return tree.flatten(self._operation(call.operation)(*args, **kwargs))

    def _sequential(self, model: Any) -> keras.Sequential:
        level, known = self._levels[id(model)], self.tensors
        kept = [layer for layer in model._layers if id(layer) not in self._changes.removed]
        new = keras.Sequential(
            [self._operation(layer) for layer in kept], name=model.name, trainable=model.trainable
        )
        again: Any = Level.of(new)
        known.update(zip(level.inputs, _inputs(again), strict=True))
        made = iter(_layer_calls(again, new))
        for call in _layer_calls(level, model):
            if id(call.operation) in self._changes.removed:
                known[call.outputs[0]] = known[call.args[0]]
            else:
                known.update(zip(call.outputs, map(again.tensors.get, next(made).outputs), strict=True))
        return new

    def _operation(self, operation: Any) -> Any:
        if id(operation) in self._levels:
            return self.model(operation)
        if id(operation) not in self.operations:
            self.operations[id(operation)] = self._copied(operation)
        return self.operations[id(operation)]

    def _copied(self, operation: Any) -> Any:
        if id(operation) in self._changes.replaced_by_identity:
            return keras.layers.Identity(name=operation.name, dtype=operation.compute_dtype)
        edit = self._changes.edits.get(id(operation))
        config = self._configs[id(operation)]
        if edit is not None:
            config = {**config, "config": {**config["config"], **edit.config}}
        new = _deserialized(config, operation)
        if isinstance(operation, keras.Layer):
            if edit is None and not _is_alike(operation, new):
                self._unfinished.append((operation, new))
            elif edit is None:
                _copy_state(operation, new)
            else:
                _copy_others(operation, new, edit.weights)
                _assign(new, edit.weights)
        return new


def _inputs(level: Level) -> list:
    return [level.tensors[value] for value in level.inputs]


def _layer_calls(level: Level, model: Any) -> list[Call]:
    """Return the calls of the layers of a sequential model, in order, without those that make masks."""
    layers = set(map(id, model._layers))
    return [call for call in level.calls if id(call.operation) in layers]


def _config(operation: Any) -> dict[str, Any]:
    try:
        return serialized(operation)
    except NO_CONFIG as error:
        raise _no_copy(operation) from error


def _deserialized(config: dict[str, Any], operation: Any) -> Any:
    if type(operation) is keras.layers.Lambda:  # its code, copied, would not find what it refers to
        return keras.layers.Lambda(
            operation.function,
            output_shape=operation._output_shape,
            mask=operation.mask,
            arguments=operation.arguments,
            name=operation.name,
            dtype=operation.dtype_policy,
        )
    try:
        return keras.saving.deserialize_keras_object(config, custom_objects=_own_objects(operation))
    except (TypeError, NotImplementedError) as error:
        # A config may have more than `__init__` takes, as in KerasHub's ViT. Keras notes what it got.
        arguments = getattr(operation, "_auto_config", None)
        if not isinstance(operation, keras.Layer) or arguments is None:
            raise _no_copy(operation) from error
        return _built_from_arguments(
            operation, keras.saving.deserialize_keras_object(arguments.config), error
        )


def _built_from_arguments(layer: Any, arguments: dict[str, Any], error: Exception) -> Any:
    """Return a layer of the class and of the arguments of another one, built as it is."""
    try:
        new = type(layer)(**arguments)
    except TypeError:
        raise _no_copy(layer) from error
    new.name, new.trainable, new.dtype_policy = layer.name, layer.trainable, layer.dtype_policy
    if layer.built and layer.get_build_config():
        new.build_from_config(layer.get_build_config())
    return new


def _no_copy(operation: Any) -> ValueError:
    return ValueError(
        f"{operation.name!r} cannot be made anew from its config. Give its class a `get_config` that tells "
        f"every argument of `__init__`, and a `from_config`. Received: layer={operation}"
    )


def _own_objects(operation: Any) -> dict[str, Any]:
    """Return the classes and functions in a layer that are not of Keras, by the names configs have."""
    found: dict[str, Any] = {}
    for part in operation._flatten_layers() if isinstance(operation, keras.Layer) else [operation]:
        for value in [type(part), *vars(part).values()]:
            kind = value if callable(value) and hasattr(value, "__name__") else type(value)
            if kind.__module__ is not None and kind.__module__.split(".")[0] not in ("keras", "builtins"):
                found[kind.__name__] = kind
                if isinstance(kind, type):
                    found[keras.saving.get_registered_name(kind)] = kind
    return found


def _called_once(layer: Any, call: Call) -> None:
    """Call a copy of a layer as the layer is called, with inputs drawn for it."""
    values = list(dict.fromkeys(call.inputs))
    for size in sizes(values):
        try:
            dataclasses.replace(call, operation=layer).run(
                dict(zip(values, drawn(values, [call], size), strict=True))
            )
        except Exception:  # of whatever kind a layer raises for an image that is too small
            continue
        return
    raise _no_copy(call.operation)


def _is_alike(old: Any, new: Any) -> bool:
    """Return whether two layers have the same variables, and layers in them."""
    shapes = [[tuple(variable.shape) for variable in _variables(layer)] for layer in (old, new)]
    return shapes[0] == shapes[1] and len(old._flatten_layers()) == len(new._flatten_layers())


def _copy_state(old: Any, new: Any) -> None:
    """Give a layer all that another one of the same config holds: weights, seeds, states, vocabularies."""
    for variable, value in zip(_variables(new), _variables(old), strict=True):
        variable.assign(_array(value))
    for a, b in zip(old._flatten_layers(), new._flatten_layers(), strict=True):
        copy_adapted(a, b)


def copy_adapted(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Give a layer what no config holds and what `adapt` gave another one: their weights are the same."""
    copy_what_no_config_holds(old, new)
    if isinstance(new, keras.layers.Normalization):  # has constants that are made of its weights
        new.finalize_state()
    if hasattr(old, "save_assets") and hasattr(new, "load_assets"):  # a vocabulary
        if not old.weights:  # the weights of its words, which are no variables of the layer
            store: dict[str, Any] = {}
            old.save_own_variables(store)
            new.load_own_variables(store)
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _copy_others(old: Any, new: Any, edited: Mapping[str, np.ndarray]) -> None:
    """Copy what a layer and its copy both have, but for the weights that are edited."""
    others = {id(attrgetter(path)(new)) for path in edited}
    for a, b in zip(old._flatten_layers(), new._flatten_layers(), strict=True):
        by_name = {variable.name: variable for variable in _own_variables(a)}
        for variable in _own_variables(b):
            if id(variable) not in others:
                variable.assign(_array(by_name[variable.name]))
        for variable, value in zip(_states(b), _states(a), strict=True):
            variable.assign(_array(value))


def _assign(layer: Any, weights: Mapping[str, np.ndarray]) -> None:
    for path, value in weights.items():
        variable = attrgetter(path)(layer)
        shape = value.shape[value.ndim - len(variable.shape) :]  # leading axes are of length 1
        variable.assign(np.broadcast_to(value.reshape(shape), variable.shape))


def _variables(layer: Any) -> list[keras.Variable]:
    return [*layer.variables, *(state for part in layer._flatten_layers() for state in _states(part))]


def _own_variables(layer: Any) -> list[keras.Variable]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _states(layer: Any) -> list[keras.Variable]:
    """Return the states of a stateful recurrent layer, which are not among its variables."""
    states = tree.flatten(vars(layer).get("states"))
    return [state for state in states if isinstance(state, keras.Variable)]


def _array(variable: keras.Variable) -> np.ndarray:
    # A copy: on JAX the array would share the variable's memory, which a step gives away.
    return np.array(keras.ops.convert_to_numpy(variable))
