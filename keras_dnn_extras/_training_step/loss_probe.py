"""The loss of each batch, taken where the training step passes it to the metric that Keras logs."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dnn_extras._backends import depending_on, mean_over_replicas
from keras_dnn_extras._keras_internals import loss_metric, replaced
from keras_dnn_extras._training_step.ring_buffer import Readers, RingBuffer
from keras_dnn_extras._training_step.step_part import StepPart, step_variable
from keras_dnn_extras._training_step.timeline import Timeline

_WIDTHS = [1]  # of the tables


class LossProbe(StepPart):
    """Records the loss of each batch, with the update that its gradient goes into.

    What Keras logs is the mean of the epoch so far, from which the loss of a batch cannot be computed
    back: its float32 sum has lost it.
    """

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, timeline: Timeline):
        super().__init__(model, optimizer, timeline)
        self._readers = Readers()
        self._ring: Any = None
        self._in_step = threading.local()  # replicas of a MirroredStrategy are threads

    def record_for(self, reader: Any) -> None:
        """Record the losses for `reader`. Before the first batch."""
        self._readers.add(reader)

    def losses(self, reader: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return what was downloaded since `reader` asked last: the updates of batches, and their losses.

        Both are of shape `(batches,)`. An update of several batches is there several times.
        """
        updates, (losses,) = self._readers.take(reader, _WIDTHS)
        return updates - self._timeline.origin, losses[:, 0]

    @property
    def variables(self) -> list[keras.Variable]:
        return [] if self._ring is None else self._ring.variables

    def upload(self, updates: np.ndarray) -> None:
        if self._ring is None:
            variable = partial(step_variable, self._model)
            self._ring = RingBuffer(_WIDTHS, len(updates), int(updates[0]), variable)

    def download(self) -> None:
        if self._ring is not None:
            self._readers.put(self._ring.read())

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        metrics = {id(m): m for m in [loss_metric(self._model), *self._model.metrics]}.values()
        with contextlib.ExitStack() as stack:
            for metric in metrics:
                update_state, result = self._noting_values(metric), self._noting_result(metric)
                stack.enter_context(replaced(metric, update_state=update_state, result=result))
            step = self._recording(self._model.train_step)
            stack.enter_context(replaced(self._model, train_step=step))
            yield

    def _noting_values(self, metric: keras.metrics.Metric) -> Callable:
        update_state = metric.update_state

        def note(values: Any, *args: Any, **kwargs: Any) -> Any:
            weight = kwargs.get("sample_weight", args[0] if args else None)
            vars(self._in_step).setdefault("of_metrics", {})[id(metric)] = values, weight
            if metric.name == "loss":
                self._in_step.loss = values, weight
            return update_state(values, *args, **kwargs)

        return note

    def _noting_result(self, metric: keras.metrics.Metric) -> Callable:
        compute = metric.result

        def note() -> Any:
            result = compute()
            vars(self._in_step).setdefault("results", {})[id(result)] = result, id(metric)
            return result

        return note

    def _recording(self, train_step: Callable) -> Callable:
        def on_tensors(*arguments: Any) -> Any:
            update = self._update()
            logs = train_step(*arguments)
            self._write(*self._loss(logs), update)
            return logs

        def on_state(state: tuple, data: Any) -> Any:
            variables = self._model.optimizer.variables
            with keras.StatelessScope(list(zip(variables, state[2], strict=True))):
                update = self._update()
            logs, state = train_step(state, data)
            with keras.StatelessScope(list(zip(variables, state[2], strict=True))) as scope:
                self._write(*self._loss(logs), update)
            of_optimizer = [scope.get_current_value(variable) for variable in variables]
            return logs, (state[0], state[1], of_optimizer, state[3])

        return on_state if keras.backend.backend() == "jax" else on_tensors

    def _loss(self, logs: Any) -> tuple[Any, Any]:
        """Return the loss of the batch and its weight, a number of samples: float32 of shape `()`."""
        values, weight = self._noted_loss(logs)
        if values is None:
            raise RuntimeError(
                "The training step tells no loss. In a custom `train_step` pass the loss of the batch to "
                "`update_state` of a metric named `loss` that is among `self.metrics`, or return it under "
                f"`loss`. Received: model={self._model}"
            )
        values = ops.cast(values, "float32")
        weight = ops.cast(1.0 if weight is None else weight, "float32")
        if len(values.shape):
            weights = ops.broadcast_to(weight, ops.shape(values))
            weight = ops.sum(weights)
            values = ops.sum(values * weights) / weight
        return values, weight

    def _noted_loss(self, logs: Any) -> tuple[Any, Any]:
        noted = vars(self._in_step)
        loss, results, of_metrics = (noted.pop(name, {}) for name in ("loss", "results", "of_metrics"))
        if loss:
            return loss
        # A `train_step` without a metric named `loss` returns the loss itself, or another metric's mean.
        loss = logs.get("loss") if isinstance(logs, dict) else None
        if id(loss) not in results:
            return loss, None
        return of_metrics.get(results[id(loss)][1], (None, None))

    def _update(self) -> Any:
        # a copy, as PyTorch counts in place
        return ops.copy(ops.cast(self._optimizer.iterations, "int32"))

    def _write(self, loss: Any, weight: Any, update: Any) -> None:
        loss = ops.stop_gradient(mean_over_replicas(loss, weight))
        with depending_on([loss]):
            self._ring.append(update, ops.reshape(loss, (1,)))
