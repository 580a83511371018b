"""What carries values into the training step or out of it."""

from collections.abc import Iterable
from contextlib import AbstractContextManager

import keras
import numpy as np

from keras_dnn_extras._backends import strategy_scope
from keras_dnn_extras._training_step.timeline import Timeline


class StepPart:
    """The protocol of a part of the training step of one `fit`. Callbacks get it by `TrainingStep.part`.

    A new part is a subclass in a file of its own: the step knows none by name. Each part has an `in_place`
    of its own, and of the other methods those that it needs.

    Args:
        model: the model that is trained.
        optimizer: its innermost optimizer.
        timeline: where the fit stands.
    """

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, timeline: Timeline):
        self._model = model
        self._optimizer = optimizer
        self._timeline = timeline

    @property
    def variables(self) -> Iterable[keras.Variable]:
        """The variables that the part reads or writes in the step. They may be made by `upload`."""
        return ()

    @property
    def numbers_per_update(self) -> int:
        """How many numbers the part writes in an update. Where they are many, tables have fewer rows."""
        return 0

    def in_place(self) -> AbstractContextManager[None]:
        """Return a context in which the step is traced or runs.

        Only within it the optimizer and the model differ from what Keras made.
        """
        raise NotImplementedError

    def upload(self, updates: np.ndarray) -> None:
        """Get ready for the coming updates. Between two steps, after `download`.

        Args:
            updates: their `iterations`, of shape `(rows,)`. The next upload comes before they are over.
        """

    def download(self) -> None:
        """Read what the step has written since the last time. Between two steps: it asks the device.

        When an epoch ends, and before each `upload`. `timeline.updates` is up to date then.
        """

    def reset(self) -> None:
        """Get ready to be traced for other weights than before. At the beginning of an epoch."""


def step_variable(model: keras.Model, shape: tuple[int, ...], dtype: str) -> keras.Variable:
    """Return a variable of zeros that the step of `model` may read and write, the same on all replicas."""
    with strategy_scope(model):
        return keras.Variable(
            np.zeros(shape),
            dtype=dtype,
            trainable=False,
            aggregation="only_first_replica",
            name="step_state",
        )
