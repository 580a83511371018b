"""Give a trained model another head."""

import keras

from keras_dnn_extras._arguments import check_bool
from keras_dnn_extras._backends import random_generators
from keras_dnn_extras._graphs import copy_model, trial_copies
from keras_dnn_extras._keras_internals import is_automatic_name
from keras_dnn_extras._models import (
    Head,
    check_model,
    graph_nodes,
    layers_of_head,
    set_trainable,
    unique_name,
    with_inner_layers,
)
from keras_dnn_extras._rollback import rolled_back
from keras_dnn_extras.transfer.cutting import check_cut, cut, input_layer


def replace_head(
    model: keras.Model, head: Head, *, after: str | None = None, freeze_body: bool = True
) -> keras.Model:
    """Return a new model: the body of `model`, copied, under another head.

    Training it leaves `model` as it was. It takes the inputs that `model` takes, also those that the body
    does not need. What the class of `model` does besides computing its graph, such as a `train_step` of its
    own, is not copied.

    Args:
        model: a functional or sequential model that is built.
        head: a layer, a list of layers, one after the other, or a model. It is used as it is, not copied.
        after: name or path of the last layer of the body. None: all but the last layer of the model.
        freeze_body: whether to freeze the body, as `freeze` does.

    Returns:
        A functional model, or a sequential one if `model` is that. It is not compiled.

    Raises:
        ValueError: there is no layer `after`, or the model cannot be cut there or copied; a layer of
            the head has the name of one of the body; the model has a preprocessor, as tasks of KerasHub.
        TypeError: `model` is no model, or `head` no layer, list of layers or model.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> new_model = replace_head(model, keras.layers.Dense(3, activation="softmax"))
    >>> new_model.output_shape
    (None, 3)
    >>> [layer.trainable for layer in new_model.layers]
    [False, True]

    Reference:
        Donahue et al., DeCAF, 2013 (https://arxiv.org/abs/1310.1531).
    """
    check_model("model", model)
    check_bool("freeze_body", freeze_body)
    heads = layers_of_head(head)
    if after is not None and not isinstance(after, str):
        raise TypeError(f"Expected `after` to be the name of a layer. Received: after={after!r}")
    check_cut(model, after)
    body = cut(copy_model(model).model, after)
    if freeze_body:
        set_trainable(body, with_inner_layers([body]), False)
    with rolled_back(graph_nodes(heads), only_on_error=True):
        _set_apart(heads, body)
        _try(body, heads)
        new = _joined(body, heads)
    new.dtype_policy = model.dtype_policy  # tells `compile` whether to scale the loss
    return new


def _joined(body: keras.Model, heads: list[keras.layers.Layer]) -> keras.Model:
    if isinstance(body, keras.Sequential):
        return keras.Sequential([input_layer(body), *body.layers, *heads], name=body.name)
    outputs = body.outputs[0] if len(body.outputs) == 1 else body.output
    for layer in heads:
        outputs = layer(outputs)
    return keras.Model(body.input, outputs, name=body.name)


def _try(body: keras.Model, heads: list[keras.layers.Layer]) -> None:
    """Raise what calls of `heads` would raise, before any is built, as far as they can be copied."""
    copies = trial_copies(heads)
    if copies is None:
        return
    with rolled_back(graph_nodes([body, *copies]), random_generators()):
        _joined(body, copies)


def _set_apart(heads: list[keras.layers.Layer], body: keras.Model) -> None:
    """Give layers that Keras named, and that are not built, a name that the body does not have."""
    names = {layer.name for layer in body.layers}
    for layer in heads:
        if layer.name not in names:
            names.add(layer.name)
            continue
        if layer.built or not is_automatic_name(layer):
            raise ValueError(
                f"The body has a layer of the name {layer.name!r} too. Give that of the head another name. "
                f"Received: head={heads}"
            )
        layer.name = unique_name(layer.name, names, first=1)
        names.add(layer.name)
