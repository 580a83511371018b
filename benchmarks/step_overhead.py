"""What our callbacks add to a training step: time, and operations in the compiled step.

    KERAS_BACKEND=tensorflow python benchmarks/step_overhead.py    # or jax, or torch

The arms run in turn in one process, a few steps at a time: the bare step twice, which shows what is
noise, the step with each callback, and the bare step with what is often done for want of a monitor: a
second gradient of the same batch. The ratios are of neighbouring windows, and the figures medians.
Everything is traced before the clock starts. Two machines' figures compare only by their ratios.
"""

import argparse
import itertools
import platform
import time

import keras
import numpy as np

import keras_dnn_extras as kdx

CALLBACKS = {
    "OneCycleScheduler": lambda: kdx.OneCycleScheduler(0.01),
    "GradientNormMonitor": kdx.GradientNormMonitor,
    "both": lambda: (kdx.OneCycleScheduler(0.01), kdx.GradientNormMonitor()),
    "with update_ratios": lambda: kdx.GradientNormMonitor(update_ratios=True),
}
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
    arms = {label: Arm(units, batch_size, (), total) for label in ("bare", "bare again")}
    for label, make in CALLBACKS.items():
        made = make()
        arms[label] = Arm(units, batch_size, made if isinstance(made, tuple) else (made,), total)
    arms["second gradient"] = Arm(units, batch_size, (), total, second_gradient=True)
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
            f"  {arm:<20} {1e3 * np.median(times[arm]):8.3f} ms a step, "
            f"x{middle:.3f} of bare (quartiles {low:.3f} to {high:.3f})"
        )
    counts = {arm: arms[arm].operations() for arm in arms if arm not in ("bare again", "second gradient")}
    print("  operations: " + ", ".join(f"{count:,} {arm}" for arm, count in counts.items()))


class Arm:
    """A model whose training step is called by itself, as the loop of `fit` does."""

    def __init__(self, units, batch_size, callbacks, total, second_gradient=False):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(n, activation="relu") for n in units[1:]]
        self.model = keras.Sequential([keras.Input((units[0],)), *layers, keras.layers.Dense(10)])
        self.model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        rng = np.random.default_rng(0)
        x = rng.normal(size=(batch_size, units[0])).astype("float32")
        labels = rng.integers(0, 10, batch_size, "int32")
        self.batch = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(labels)
        self.model.fit(*self.batch, batch_size=batch_size, verbose=0)  # builds the optimizer
        self.data = self._data()
        self.second_gradient = norm_of_gradient(self.model) if second_gradient else None
        self.callbacks, self.done = callbacks, 0
        fit = {"epochs": 1, "steps": total}
        for callback in callbacks:
            callback.set_model(self.model)
            callback.set_params(fit)
            callback.on_train_begin()
        for callback in callbacks:
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
        for callback in self.callbacks:
            callback.on_train_batch_begin(self.done)

    def _step(self):
        self._begin()
        self.done += 1
        if self.second_gradient is not None:
            self.norm = self.second_gradient(*self._weights(), *self.batch)
        if BACKEND == "jax":
            logs, self.state = self.model.train_function(self.state, self.data)
        elif BACKEND == "torch":
            logs = self.model.train_function(next(self.data))
        else:
            logs = self.model.train_function(self.data)
        return logs["loss"]

    def _weights(self):
        return (self.state[0],) if BACKEND == "jax" else ()

    def seconds_per_step(self, steps):
        start = time.perf_counter()
        for _ in range(steps):
            loss = self._step()
        float(loss)  # waits for the device
        if self.second_gradient is not None:
            float(self.norm)
        return (time.perf_counter() - start) / steps

    def operations(self):
        """Count the operations of the compiled step, or on torch those that one step dispatches."""
        if BACKEND == "torch":
            return self._dispatched()
        if not self.callbacks:
            return self._compiled(self.model.train_function)
        step = self.callbacks[0]._step
        with step._in_place():
            return self._compiled(step._traced, step._variables())

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


def norm_of_gradient(model):
    """Return a compiled function of a batch (on JAX, of the weights and a batch)."""
    loss = model.loss
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function
        def norm(x, y):
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=True))
            return tf.linalg.global_norm(tape.gradient(value, model.trainable_variables))

        return norm
    if BACKEND == "jax":
        import jax

        def of_weights(weights, x, y):
            return loss(y, model.stateless_call(weights, [], x, training=True)[0])

        def norm_of_weights(weights, x, y):
            gradients = jax.grad(of_weights)(weights, x, y)
            return keras.ops.sqrt(sum(keras.ops.sum(keras.ops.square(g)) for g in gradients))

        return jax.jit(norm_of_weights)
    import torch

    def norm_by_torch(x, y):
        value = loss(y, model(x, training=True))
        gradients = torch.autograd.grad(value, [v.value for v in model.trainable_variables])
        return torch.nn.utils.get_total_norm(gradients)

    return norm_by_torch


if __name__ == "__main__":
    main()
