"""Weights that train at a pace of their own: at a share of the learning rate, or by a later clock."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_dnn_extras._backends import value_of
from keras_dnn_extras._keras_internals import replaced, scalar_variables


class Pacing:
    """Lets the optimizer take some weights for those of another one, in the step.

    That one has a share of the learning rate, as one optimizer for each layer would, and has begun later:
    Adam and its like correct their averages by the number of updates, which a weight that is new to them
    does not have behind it, and would take its first steps three times too large.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self._optimizer = optimizer
        self._shares: dict[int, float] = {}
        self.starts: dict[int, int] = {}  # batches seen before, by `id(weight)`
        self._own: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._shares) or any(self.starts.values())

    def share(self, weights: list[keras.Variable], share: float) -> None:
        """Let `weights` have this `share` of the learning rate."""
        self._shares |= {id(weight): share for weight in weights if share != 1.0}

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Pace the optimizer while the step is traced or runs."""
        optimizer = self._optimizer
        self._own = {name: vars(optimizer)[name] for name in ("_learning_rate", "_iterations")}
        others = {"_apply_weight_decay": self._paced_decay(optimizer._apply_weight_decay)}
        if hasattr(optimizer, "_parallel_update_step"):  # of PyTorch, for many weights at once
            others["_parallel_update_step"] = self._paced_together(optimizer._parallel_update_step)
        else:
            others["update_step"] = self._paced(optimizer.update_step)
        with replaced(optimizer, **others):
            yield

    def _pace_of(self, weight: Any) -> tuple[float, int]:
        # TensorFlow passes variables of its own here.
        optimizer = self._optimizer
        known = id(optimizer._trainable_variables[optimizer._get_variable_index(weight)])
        return self._shares.get(known, 1.0), self.starts.get(known, 0)

    def _paced(self, update_step: Callable) -> Callable:
        def update(gradient: Any, weight: Any, learning_rate: Any) -> Any:
            with self._at(self._pace_of(weight), learning_rate) as rate:
                return update_step(gradient, weight, rate)

        return update

    def _paced_together(self, update_step: Callable) -> Callable:
        def update(gradients: list, weights: list, learning_rate: Any) -> None:
            shared = list(scalar_variables(self._optimizer).values())
            before = [value_of(variable) for variable in shared]
            for pace, places in self._by_pace(weights).items():
                for variable, value in zip(shared, before, strict=True):
                    variable.assign(value)  # Nadam counts in one: once an update, not once a call
                own = [gradients[i] for i in places], [weights[i] for i in places]
                with self._at(pace, learning_rate) as rate:
                    update_step(*own, rate)

        return update

    def _paced_decay(self, decay: Callable) -> Callable:
        def apply(weights: list) -> None:
            decaying = [weight for weight in weights if self._optimizer._use_weight_decay(weight)]
            for (share, _), places in self._by_pace(decaying).items():
                # Not `optimizer.learning_rate`: of replicas that take turns, another one may have set it.
                own = self._own["_learning_rate"]
                rate = own if isinstance(own, keras.Variable) else self._optimizer.learning_rate
                with self._at((share, 0), rate):
                    decay([decaying[i] for i in places])

        return apply

    def _by_pace(self, weights: list) -> dict[tuple[float, int], list[int]]:
        places: dict[tuple[float, int], list[int]] = {}
        for i, weight in enumerate(weights):
            places.setdefault(self._pace_of(weight), []).append(i)
        return places

    @contextlib.contextmanager
    def _at(self, pace: tuple[float, int], learning_rate: Any) -> Iterator[Any]:
        """Make the optimizer the one that trains at this pace, and give its learning rate."""
        (share, start), attributes = pace, vars(self._optimizer)
        try:
            if share != 1.0:
                learning_rate = ops.convert_to_tensor(learning_rate) * share
                attributes["_learning_rate"] = learning_rate
            if start:
                attributes["_iterations"] = ops.convert_to_tensor(self._own["_iterations"]) - start
            yield learning_rate
        finally:
            # The known ones, not those found: replicas of a MirroredStrategy are threads that take turns.
            attributes.update(self._own)
