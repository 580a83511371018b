"""The loss of each batch, taken where the training step tells it to the metric that Keras logs."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_dnn_extras._backends import depending_on, mean_over_replicas
from keras_dnn_extras._keras_internals import replaced
from keras_dnn_extras._training_step.ring_buffer import Ring


class BatchLosses:
    """A ring that the training step writes its loss into, with the update it goes into.

    What Keras logs is the mean of the epoch so far, from which the loss of a batch cannot be computed
    back: its float32 sum has lost it.
    """

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, ring: Ring):
        self._model = model
        self._optimizer = optimizer
        self.ring = ring  # of one table with one column
        self._taken = threading.local()  # replicas of a MirroredStrategy are threads

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Listen to the model's step and to its metrics while the step is traced or runs."""
        metrics = {id(m): m for m in [self._model._loss_tracker, *self._model.metrics]}.values()
        with contextlib.ExitStack() as stack:
            for metric in metrics:
                update_state, result = self._listening(metric), self._telling(metric)
                stack.enter_context(replaced(metric, update_state=update_state, result=result))
            step = self._recording(self._model.train_step)
            stack.enter_context(replaced(self._model, train_step=step))
            yield

    def _listening(self, metric: keras.metrics.Metric) -> Callable:
        update_state = metric.update_state

        def listen(values: Any, *args: Any, **kwargs: Any) -> Any:
            weight = kwargs.get("sample_weight", args[0] if args else None)
            vars(self._taken).setdefault("given", {})[id(metric)] = values, weight
            if metric.name == "loss":
                self._taken.loss = values, weight
            return update_state(values, *args, **kwargs)

        return listen

    def _telling(self, metric: keras.metrics.Metric) -> Callable:
        result = metric.result

        def tell() -> Any:
            told = result()
            vars(self._taken).setdefault("told", {})[id(told)] = told, id(metric)
            return told

        return tell

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
            own = [scope.get_current_value(variable) for variable in variables]
            return logs, (state[0], state[1], own, state[3])

        return on_state if keras.backend.backend() == "jax" else on_tensors

    def _loss(self, logs: Any) -> tuple[Any, Any]:
        """Return the loss of the batch and its weight, a number of samples."""
        taken, told, given = (vars(self._taken).pop(name, {}) for name in ("loss", "told", "given"))
        if not taken:
            # A `train_step` without a metric named `loss` tells the loss itself, or another metric's mean.
            loss = logs.get("loss") if isinstance(logs, dict) else None
            taken = given.get(told[id(loss)][1], (None, None)) if id(loss) in told else (loss, None)
        values, weight = taken
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

    def _update(self) -> Any:
        # a copy, as PyTorch counts in place
        return ops.copy(ops.cast(self._optimizer.iterations, "int32"))

    def _write(self, loss: Any, weight: Any, update: Any) -> None:
        loss = ops.stop_gradient(mean_over_replicas(loss, weight))
        with depending_on([loss]):
            self.ring.append(update, ops.reshape(loss, (1,)))
