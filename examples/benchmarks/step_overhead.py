"""What `OneCycleScheduler` adds to a training step: time, and operations in the compiled step.

    KERAS_BACKEND=tensorflow python examples/benchmarks/step_overhead.py    # or jax, or torch

Three arms run in turn in one process, a few steps at a time: the bare step twice, which shows what is
noise, and the step with the callback. The ratios are of neighbouring windows, and the figures medians.
Everything is traced before the clock starts. Two machines' figures compare only by their ratios.
"""

import argparse
import itertools
import platform
import time

import keras
import numpy as np

import keras_dnn_extras as kdx

BACKEND = keras.backend.backend()
SIZES = {"small, batch 32": ((64, 64, 64), 32), "mid-size, batch 128": ((784, 1000, 200), 128)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="windows of each arm")
    parser.add_argument("--steps", type=int, default=20, help="steps in a window")
    arguments = parser.parse_args()
    print(f"{BACKEND}, Keras {keras.__version__}, {platform.processor() or platform.machine()}, ", end="")
    print(f"{arguments.rounds} windows of {arguments.steps} steps")
    for name, (units, batch_size) in SIZES.items():
        report(name, units, batch_size, arguments)


def report(name, units, batch_size, arguments):
    total = (arguments.rounds + 2) * arguments.steps
    callback = kdx.OneCycleScheduler(0.01)
    arms = {
        "bare": Arm(units, batch_size, None, total),
        "bare again": Arm(units, batch_size, None, total),
        "with the callback": Arm(units, batch_size, callback, total),
    }
    weights = arms["bare"].model.count_params()
    print(f"\n{name}: {weights:,} weights")
    for arm in arms.values():  # warm up
        arm.seconds_per_step(arguments.steps)
    times = {arm: [] for arm in arms}
    for i in range(arguments.rounds):
        order = list(arms) if i % 2 else list(arms)[::-1]
        for arm in order:
            times[arm].append(arms[arm].seconds_per_step(arguments.steps))
    for arm in arms:
        ratios = np.array(times[arm]) / np.array(times["bare"])
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        print(
            f"  {arm:<18} {1e3 * np.median(times[arm]):8.3f} ms a step, "
            f"x{middle:.3f} of bare (quartiles {low:.3f} to {high:.3f})"
        )
    counts = {arm: arms[arm].operations() for arm in ("bare", "with the callback")}
    print(f"  operations: {counts['bare']:,} bare, {counts['with the callback']:,} with the callback")


class Arm:
    """A model whose training step is called by itself, as the loop of `fit` does."""

    def __init__(self, units, batch_size, callback, total):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(n, activation="relu") for n in units[1:]]
        self.model = keras.Sequential([keras.Input((units[0],)), *layers, keras.layers.Dense(10)])
        self.model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        rng = np.random.default_rng(0)
        x = rng.normal(size=(batch_size, units[0])).astype("float32")
        self.batch = keras.ops.convert_to_tensor(x), keras.ops.zeros(batch_size, "int32")
        self.model.fit(*self.batch, batch_size=batch_size, verbose=0)  # builds the optimizer
        self.data = self._data()
        self.callback, self.done = callback, 0
        if callback is not None:
            callback.set_model(self.model)
            callback.set_params({"epochs": 1, "steps": total})
            callback.on_train_begin()
            callback.on_epoch_begin(0)
        if BACKEND == "jax":
            parts = ("trainable_variables", "non_trainable_variables", "optimizer_variables")
            everything = dict.fromkeys((*parts, "metrics_variables"), True)
            self._begin()  # uploads and traces, while the variables have their values
            self.state = self.model._get_jax_state(**everything)

    def _data(self):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            return iter(tf.data.Dataset.from_tensors(self.batch).repeat())
        return itertools.repeat(self.batch if BACKEND == "jax" else [self.batch])

    def _begin(self):
        if self.callback is not None:
            self.callback.on_train_batch_begin(self.done)

    def _step(self):
        self._begin()
        self.done += 1
        if BACKEND == "jax":
            logs, self.state = self.model.train_function(self.state, self.data)
        elif BACKEND == "torch":
            logs = self.model.train_function(next(self.data))
        else:
            logs = self.model.train_function(self.data)
        return logs["loss"]

    def seconds_per_step(self, steps):
        start = time.perf_counter()
        for _ in range(steps):
            loss = self._step()
        float(loss)  # waits for the device
        return (time.perf_counter() - start) / steps

    def operations(self):
        """Count the operations of the compiled step, or on torch those that one step dispatches."""
        if BACKEND == "torch":
            return self._dispatched()
        if self.callback is None:
            return self._compiled(self.model.train_function)
        state = self.callback.step_state
        with state._in_place():
            return self._compiled(state._traced, state._variables())

    def _compiled(self, function, added=()):
        names, cells = function.__code__.co_freevars, function.__closure__
        inside = {name: cell.cell_contents for name, cell in zip(names, cells, strict=True)}
        if BACKEND == "tensorflow":
            step = inside["multi_step_on_iterator"].get_concrete_function(self.data)
            definition = step.graph.as_graph_def()
            return len(definition.node) + sum(len(f.node_def) for f in definition.library.function)
        weights, others, slots, metrics = self.state
        state = weights, others, [*slots, *(v.value for v in added)], metrics
        text = inside["step_function"].lower(state, self.batch).compile().as_text()
        return sum(" = " in line for line in text.splitlines())

    def _dispatched(self):
        from torch.utils._python_dispatch import TorchDispatchMode

        class Count(TorchDispatchMode):
            total = 0

            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                Count.total += 1
                return function(*args, **(kwargs or {}))

        with Count():
            self._step()
        return Count.total


if __name__ == "__main__":
    main()
