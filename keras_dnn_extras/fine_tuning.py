"""Fine-tune a pretrained model in one call: its head first, then all of it."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import keras
import numpy as np

from keras_dnn_extras.arguments import check_in_float32, check_number, check_positive, positive_float
from keras_dnn_extras.curves import Curve
from keras_dnn_extras.gradual_unfreezing import GradualUnfreezing
from keras_dnn_extras.layers import layers_by_path
from keras_dnn_extras.learning_rate_callback import FitToCome, LearningRateCallback
from keras_dnn_extras.model_state import built, check_recompilable, recompile
from keras_dnn_extras.optimizers import innermost_optimizer, momentum_names, recovers_weights_by_momentum
from keras_dnn_extras.schedules import OneCycle
from keras_dnn_extras.step_state import StepState
from keras_dnn_extras.surgery import Graph, values_of
from keras_dnn_extras.trainable import is_batch_norm, set_trainable, weights_of, within
from keras_dnn_extras.undoing import trained_as_before_on_error
from keras_dnn_extras.validation import with_checked_validation

_MOMENTA = 0.95, 0.85  # at the ends of a cycle and in its middle, as in `OneCycleScheduler`
_ROWS = 20  # of the table


def fine_tune(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    epochs: int,
    frozen_epochs: int = 1,
    learning_rate: float = 1e-3,
    learning_rate_divisor: float = 100.0,
    layer_decay: float | None = None,
    **fit_arguments: Any,
) -> keras.callbacks.History:
    """Train the head of a pretrained model alone, then all of it with a lower learning rate.

    It is one `fit` of `epochs` epochs. In the first `frozen_epochs` the head trains, on a one-cycle
    schedule up to `learning_rate`; then all layers do, on another one up to
    `learning_rate / learning_rate_divisor`. Momentum runs the other way, as in `OneCycleScheduler`. The
    head is what is trainable if the rest is frozen, as `replace_head` leaves it; if nothing is frozen, or
    everything, it is the layers with weights that the outputs come from. BatchNormalization of the body
    stays in inference mode throughout. After an exception the same layers are frozen as before the call, so
    that it can be called again, with `BackupAndRestore` to go on where it stopped.

    Args:
        model: a compiled Keras model, with a float learning rate, which is not used.
        x, y: data as in `fit`.
        epochs: int > 0, how many in all.
        frozen_epochs: int from 0 to `epochs`, how many of them for the head alone.
        learning_rate: float > 0, the largest of the first cycle.
        learning_rate_divisor: float > 0, by which that of the second is lower.
        layer_decay: float > 0, at most 1, or None for 1. The `i`-th layer with weights to train, counted
            from 0 at the output, has the share `layer_decay**i` of the learning rate: in models of many
            layers take 0.9 or more.
        **fit_arguments: other arguments of `fit`: `validation_data`, `batch_size`, `callbacks` and so on.
            With `verbose` other than 0, a table tells which layers train when, at what rate.

    Returns:
        The `History` of all epochs. The learning rate of each epoch's last update is in it.

    Raises:
        ValueError: a value is out of its range; the model is not compiled, has no weights, or its
            optimizer has a schedule; a callback sets the learning rate, too; the length of an epoch is
            unknown and `steps_per_epoch` not given.
        TypeError: a value is of the wrong type.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = fine_tune(model, x, y, epochs=3, verbose=0)
    >>> len(history.history["loss"])
    3

    Reference:
        Howard & Gugger, fastai: A Layered API for Deep Learning, 2020 (https://arxiv.org/abs/2002.04688).
    """
    learning_rate = positive_float("learning_rate", learning_rate)
    divisor = positive_float("learning_rate_divisor", learning_rate_divisor)
    check_in_float32("learning_rate / learning_rate_divisor", learning_rate / divisor)
    _check_arguments(epochs, frozen_epochs, layer_decay)
    innermost_optimizer(model)
    check_recompilable(model)
    x = built(model, x, fit_arguments.get("batch_size") or 32)
    x, fit_arguments = with_checked_validation(model, x, y, fit_arguments)
    head, body = _head_and_body(model)
    later = [layer for layer in body if not is_batch_norm(layer)]
    rates = learning_rate, learning_rate / divisor
    shares = _shares(model, head + later, 1.0 if layer_decay is None else float(layer_decay))
    schedule = FineTuneSchedule(epochs, frozen_epochs, rates, shares)
    callbacks = [*_as_list(fit_arguments.pop("callbacks", None)), schedule]
    if later and frozen_epochs < epochs:
        callbacks.append(GradualUnfreezing({frozen_epochs: later}))
    with trained_as_before_on_error(model):  # the layers that are trainable tell the next call the head
        if (fit_arguments.get("initial_epoch") or 0) <= frozen_epochs:  # else it goes on with all of it
            set_trainable(model, within(body), False)
        set_trainable(model, head, True)
        recompile(model)
        if fit_arguments.get("verbose", "auto") != 0:
            print(_table(model, schedule, later))
        return model.fit(x, y, epochs=epochs, callbacks=callbacks, **fit_arguments)


class FineTuneSchedule(LearningRateCallback):
    """A one-cycle schedule for the head, and another one for all layers, each with its share of the rate.

    Args:
        epochs, frozen_epochs: as in `fine_tune`.
        rates: the largest learning rate of each of the two.
        shares: the share that each layer has of them, from the first layer to the last.
    """

    def __init__(
        self,
        epochs: int,
        frozen_epochs: int,
        rates: tuple[float, float],
        shares: list[tuple[keras.layers.Layer, float]],
    ):
        super().__init__()
        self.epochs, self.frozen_epochs = epochs, frozen_epochs
        self.rates, self.shares = rates, shares

    @property
    def told_as(self) -> str:
        return "fine_tune"

    def needs_length(self) -> str | None:
        return "data of a known length"

    def curves_for(self, fit: StepState | FitToCome, initial: Callable[[], float]) -> dict[str, Curve]:
        total = fit.total or 1
        first = int(np.sum(fit.epoch_at(np.arange(total)) < self.frozen_epochs))
        cycles = [
            OneCycle(rate, max(n, 1)) for rate, n in zip(self.rates, (first, total - first), strict=True)
        ]
        ends, middle = _MOMENTA
        momenta = [cycle.cycle(ends, middle, ends) for cycle in cycles]
        return {
            "learning_rate": _in_turn(cycles[0].curve, cycles[1].curve, first),
            "momentum": _in_turn(momenta[0], momenta[1], first),
        }

    def driven_momenta(self, optimizer: keras.optimizers.Optimizer) -> list[str]:
        return [] if recovers_weights_by_momentum(optimizer) else momentum_names(optimizer)

    def take_part(self, step_state: StepState) -> None:
        super().take_part(step_state)
        for layer, share in self.shares:
            step_state.share_rate(weights_of(layer), share)


def _in_turn(before: Curve, after: Curve, first: int) -> Curve:
    """Return the curve that is `before` in the first updates, and `after` from the update `first` on."""
    return lambda i: np.where(np.asarray(i) < first, before(i), after(np.maximum(np.asarray(i) - first, 0)))


def _head_and_body(model: keras.Model) -> tuple[list[keras.layers.Layer], list[keras.layers.Layer]]:
    layers = list(layers_by_path(model).values())
    weighty = [layer for layer in layers if weights_of(layer) and not is_batch_norm(layer)]
    if not weighty:
        raise ValueError(f"The model has no layer with weights to train. Received: model={model}")
    trained = [layer for layer in weighty if layer.trainable and layer.trainable_variables]
    if 0 < len(trained) < len(weighty):
        head = [layer for layer in layers if weights_of(layer) and layer.trainable_variables]
    else:
        head = _output_layers(model, weighty)
    chosen = set(map(id, head))
    return head, [layer for layer in layers if id(layer) not in chosen]


def _output_layers(model: keras.Model, weighty: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Return the last layers with weights on the way to the outputs."""
    graph = Graph.of(model)
    if graph is None:
        return weighty[-1:]
    made_by = {value: call for call in graph.calls for value in call.outputs}
    left, found = values_of(graph.outputs), []
    while left:
        call = made_by.get(left.pop())
        if call is None:
            continue
        own = (
            [layer for layer in weighty if layer in within([call.operation])]
            if _is_layer(call.operation)
            else []
        )
        if own:
            found.append(own[-1])
        else:
            left += call.inputs
    return [layer for layer in weighty if any(layer is one for one in found)]


def _shares(
    model: keras.Model, layers: list[keras.layers.Layer], decay: float
) -> list[tuple[keras.layers.Layer, float]]:
    """Return the layers with weights from the first to the last, and the share of the rate of each."""
    place = {id(layer): i for i, layer in enumerate(layers_by_path(model).values())}
    graph = Graph.of(model)
    called: dict[int, int] = {}
    for i, call in enumerate(graph.calls if graph else []):
        if _is_layer(call.operation):
            for layer in within([call.operation]):
                called.setdefault(id(layer), i)
    with_weights = [layer for layer in layers if weights_of(layer)]
    ordered = sorted(with_weights, key=lambda layer: (called.get(id(layer), -1), place[id(layer)]))
    return [(layer, decay**i) for i, layer in zip(range(len(ordered))[::-1], ordered, strict=True)]


def _is_layer(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Layer)


def _as_list(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


def _check_arguments(epochs: Any, frozen_epochs: Any, layer_decay: Any) -> None:
    check_positive("epochs", epochs, Integral)
    check_number("frozen_epochs", frozen_epochs, "from 0 to `epochs`", lambda n: 0 <= n <= epochs, Integral)
    if layer_decay is not None:
        check_number("layer_decay", layer_decay, "above 0 and at most 1", lambda d: 0 < d <= 1, Real)


def _table(model: keras.Model, schedule: FineTuneSchedule, later: list[keras.layers.Layer]) -> str:
    """Return which layers train in which epochs, and their largest learning rates there."""
    paths = {id(layer): path for path, layer in layers_by_path(model).items()}
    frozen = set(map(id, later))
    first, second = schedule.rates
    rows = []
    for layer, share in schedule.shares:
        count = sum(int(np.prod(variable.shape)) for variable in weights_of(layer))
        rate = None if id(layer) in frozen else first * share
        rows.append((paths[id(layer)], count, rate, second * share))
    groups: list[list[tuple]] = []
    for row in rows:
        alike = groups and (row[2] is None) == (groups[-1][-1][2] is None)
        if alike and (len(rows) > _ROWS or row[2:] == groups[-1][-1][2:]):
            groups[-1].append(row)
        else:
            groups.append([row])
    n, m = schedule.frozen_epochs, schedule.epochs
    titles = ["layers", "weights", *(["epoch 1" if n == 1 else f"epochs 1-{n}"] if n else [])]
    titles += [f"epoch {m}" if m == n + 1 else f"epochs {n + 1}-{m}"] if n < m else []
    lines = [titles]
    for group in groups:
        cells = [_span([row[0] for row in group]), f"{sum(row[1] for row in group):,}"]
        cells += [_rates([row[2] for row in group])] if n else []
        lines.append(cells + ([_rates([row[3] for row in group])] if n < m else []))
    norms = [
        layer for layer in layers_by_path(model).values() if is_batch_norm(layer) and not layer.trainable
    ]
    if norms:
        still = ["inference mode"] * (len(titles) - 2)
        lines.append([f"BatchNormalization ({len(norms)} of the body)", "", *still])
    wide = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    told = ["  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip() for line in lines]
    return "\n".join([*told[:1], "-" * max(map(len, told)), *told[1:]])


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)})"


def _rates(rates: list[float | None]) -> str:
    known = [rate for rate in rates if rate is not None]
    if not known:
        return "frozen"
    low, high = min(known), max(known)
    return f"{high:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
