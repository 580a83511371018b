"""Subclasses of layers that drop something: what theirs is like is found out by calling them.

A class whose `call` passes `training=True` on, as books tell to write, draws in every call. Nothing but a
call shows it. A stand-in is called, from equal random states, so that neither layer nor generators move.
"""

import collections
import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import tree

from keras_dnn_extras._backends import no_trace, random_generators
from keras_dnn_extras._keras_internals import first_node, flat_layers, projection, takes_training
from keras_dnn_extras._rollback import rolled_back

_LAYERS = keras.layers
DROPPING = (
    *(_LAYERS.Dropout, _LAYERS.AlphaDropout, _LAYERS.GaussianDropout),
    *(_LAYERS.SpatialDropout1D, _LAYERS.SpatialDropout2D, _LAYERS.SpatialDropout3D),
    *(_LAYERS.SimpleRNN, _LAYERS.LSTM, _LAYERS.GRU, _LAYERS.RNN),
    *(_LAYERS.ConvLSTM1D, _LAYERS.ConvLSTM2D, _LAYERS.ConvLSTM3D),
    *(_LAYERS.Attention, _LAYERS.AdditiveAttention),
    *(_LAYERS.MultiHeadAttention, _LAYERS.GroupQueryAttention),
)
"""The classes of Keras that can drop something. What else there is has these within it."""
_RECURRENT = (_LAYERS.SimpleRNN, _LAYERS.LSTM, _LAYERS.GRU)
_IN_LIST = (_LAYERS.Attention, _LAYERS.AdditiveAttention)  # which take their inputs in a list
_HEADS = (_LAYERS.MultiHeadAttention, _LAYERS.GroupQueryAttention)
_OWN = ("keras.", "keras_dnn_extras.")  # where classes come from that are known
_RATE = 0.5  # of the stand-in: at that of the layer, both ways could look alike
_LENGTH = 4  # of axes of unknown length
_LENGTHS = (_LENGTH, 16, 32, 60, 100, 64, 84, 128, 224, 299, 1)  # where a layer takes no such short ones
_LARGEST = 2**22  # numbers in an array
_MUTABLE = (list, dict, set, collections.deque, bytearray, np.ndarray)

Likeness = Literal["training", "always", "other"]


class _NotTakenError(Exception):
    """A layer does not take the inputs that it was tried with."""


def is_known(layer: Any) -> bool:
    """Return whether a layer is called as a class of Keras or of this package tells."""
    base, kind = known_class(layer), type(layer)
    return kind.call is base.call and kind.__call__ is base.__call__


def known_class(layer: Any) -> Any:
    """Return the class of a layer, or the nearest one above it, that is of Keras or of this package."""
    return next(kind for kind in type(layer).__mro__ if kind.__module__.startswith(_OWN))


def dropping_class(layer: Any) -> Any:
    """Return the class of Keras that can drop something and that a layer is of, or None."""
    return next((kind for kind in type(layer).__mro__ if kind in DROPPING), None)


def likeness(layer: Any, lengths: Sequence[int] = ()) -> Likeness:
    """Return what a layer of a class of the user's own does, by the class that it is made from.

    Args:
        lengths: to try for axes of unknown length, besides the usual ones.

    Returns:
        `"training"`: the same as that of Keras, in training and at inference. `"always"`: in every call
        what that one does in training. `"other"`: neither of these, or what cannot be found out.
    """
    base = dropping_class(layer)
    if type(layer).call is base.call and type(layer).__call__ is base.__call__:
        return "training"
    return _tried(_compared, layer, lengths) or "other"


def draws_at_inference(layer: Any, lengths: Sequence[int] = ()) -> bool | None:
    """Return whether two calls of a layer in inference mode differ, or None if it cannot be called.

    Args:
        lengths: as for `likeness`.
    """

    def differ(layer: Any, arguments: tuple) -> bool:
        return not _same(*_outputs(layer, _own_call(layer), arguments, False, times=2))

    return _tried(differ, layer, lengths)


def _tried(test: Callable[[Any, tuple], Any], layer: Any, lengths: Sequence[int] = ()) -> Any:
    """Return what `test` finds of a layer and arguments that it takes, or None where it takes none."""
    for length in dict.fromkeys([_LENGTH, *lengths, *_LENGTHS]):
        with contextlib.suppress(_NotTakenError):
            other = _built(layer)
            arguments = _arguments(other, length)
            return None if arguments is None else test(other, arguments)
    return None


@contextlib.contextmanager
def _code_of_the_user() -> Iterator[None]:
    """Run what is not ours on inputs that are none of its model's: it may raise whatever it likes."""
    try:
        yield
    except Exception as error:
        raise _NotTakenError from error


def _compared(layer: Any, arguments: tuple) -> Likeness:
    base, own_call = dropping_class(layer), _own_call(layer)
    active = _outputs(layer, own_call, arguments, training=True)  # first, as it is what may not be taken
    if not _same(active, _outputs(layer, base.call, arguments, training=True)):
        return "other"
    at_inference = _outputs(layer, own_call, arguments, training=False)
    if _same(at_inference, _outputs(layer, base.call, arguments, training=False)):
        return "training"  # which is the same as always where nothing is dropped
    return "always" if _same(at_inference, active) else "other"


def way_out(layer: Any) -> str:
    """Return what to do with a class that does more than the one that it is made from."""
    base = dropping_class(layer)
    name = "Dropout" if base is None else base.__name__
    return (
        f"Make it a `keras.layers.Layer` that holds a `keras.layers.{name}`, calls it without `training`, "
        "and does the rest itself"
    )


def _own_call(layer: Any) -> Callable:
    """Return what is to be called of a stand-in: `__call__` leaves more traces."""
    base, kind = known_class(layer), type(layer)
    return kind.call if kind.__call__ is base.__call__ else kind.__call__


def _outputs(layer: Any, call: Callable, arguments: tuple, training: bool, times: int = 1) -> list:
    """Return what calls of a stand-in for `layer` give, from the same random states each time."""
    args, kwargs = arguments
    if takes_training(layer) or call is not _own_call(layer):
        kwargs = {**kwargs, "training": training}
    results = []
    with rolled_back(random_generators()), _attributes_kept(layer), no_trace():
        for _ in range(times):
            with _code_of_the_user():
                outputs = tree.flatten(call(_stand_in(layer), *args, **kwargs))
                results.append([np.asarray(keras.ops.convert_to_numpy(each)) for each in outputs])
    return results if times > 1 else results[0]


@contextlib.contextmanager
def _attributes_kept(layer: Any) -> Iterator[None]:
    """Put back, afterwards, what the layers within `layer` held, such as the masks of a cell.

    Within, they hold copies of their containers: a call may append to a list.
    """
    held = [(vars(part), dict(vars(part))) for part in flat_layers(layer)]
    try:
        for attributes, before in held:
            attributes.update({name: _copied(value) for name, value in before.items()})
        yield
    finally:
        for attributes, before in held:
            for name in attributes.keys() - before.keys():
                del attributes[name]
            attributes.update(before)


def _copied(value: Any) -> Any:
    """Return a copy of a container and of the containers in it, or `value` itself."""
    if not isinstance(value, _MUTABLE):
        return value
    if type(value).__module__.startswith("keras."):  # which would track what is put into the copy
        kind: Any = next(kind for kind in _MUTABLE if isinstance(value, kind))
        value = kind(value)
    else:
        value = copy.copy(value)
    if isinstance(value, list):
        value[:] = map(_copied, value)
    elif isinstance(value, dict):
        value.update({key: _copied(item) for key, item in value.items()})
    return value


def _built(layer: Any) -> Any:
    """Return a recurrent layer that is built: `layer`, or another one from its config."""
    if layer.built or not isinstance(layer, _RECURRENT):
        return layer
    with rolled_back(random_generators()), _code_of_the_user():
        other = type(layer).from_config(layer.get_config())
        other.build((None, None, _LENGTH))
    return other


def _stand_in(layer: Any) -> Any:
    """Return an object with all that `layer` holds, and of its class: what is set in it is lost."""
    stand_in = object.__new__(type(layer))
    vars(stand_in).update(vars(layer))
    if getattr(layer, "rate", 0) > 0:
        vars(stand_in)["rate"] = _RATE
    return stand_in


def _same(first: list, second: list) -> bool:
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(a.shape == b.shape and (a == b).all() for a, b in pairs)


def _arguments(layer: Any, length: int) -> tuple[tuple, dict[str, Any]] | None:
    """Return arguments that a layer can be called with: random ones like those it was called with.

    Args:
        length: of axes of unknown length.
    """
    rng = np.random.default_rng(0)

    def array(item: Any) -> Any:
        return (
            _array(tuple(item.shape), item.dtype, layer, length, rng)
            if isinstance(item, keras.KerasTensor)
            else item
        )

    if not layer.built:
        return None
    node = first_node(layer)
    if node is not None:
        args, kwargs = node.arguments.args, node.arguments.kwargs
        kwargs = {name: value for name, value in kwargs.items() if name != "training"}
        return tree.map_structure(array, (tuple(args), kwargs))
    shapes = _shapes(layer)
    arrays = [_array(shape, "float32", layer, length, rng) for shape in shapes]
    if isinstance(layer, _IN_LIST):
        return (arrays,), {}
    return (tuple(arrays), {}) if arrays else None


def _array(shape: tuple, dtype: Any, layer: Any, length: int, rng: np.random.Generator) -> Any:
    shape = tuple(length if size is None else size for size in shape)
    if math.prod(shape) > _LARGEST:
        raise _NotTakenError
    dtype = keras.backend.standardize_dtype(dtype)
    if "float" not in dtype:
        return keras.ops.ones(shape, dtype)
    dtype = layer.compute_dtype if layer.autocast else dtype  # as `__call__` does it
    return keras.ops.convert_to_tensor(rng.normal(size=shape), dtype)


def _shapes(layer: Any) -> list[tuple]:
    """Return the shapes of what a layer takes that no graph tells of, as far as its weights do."""
    if isinstance(layer, _RECURRENT):
        return [(None, None, layer.cell.kernel.shape[0])]
    if isinstance(layer, _HEADS):
        parts = [projection(layer, name) for name in ("query", "value", "key")]
        return [(None, None, part.kernel.shape[0]) for part in parts]
    if isinstance(layer, _IN_LIST):
        scale = getattr(layer, "scale", None)
        return [(None, None, _LENGTH if scale is None or not scale.shape else scale.shape[-1])] * 2
    if isinstance(layer, (_LAYERS.Dropout, _LAYERS.AlphaDropout, _LAYERS.GaussianDropout)):
        if getattr(layer, "noise_shape", None) is not None:
            return [tuple(None if length == 1 else length for length in layer.noise_shape)]
        rank = layer.input_spec.ndim if layer.input_spec is not None else 2
        return [(*(None,) * (rank - 1), 4 * _LENGTH)]
    return []
