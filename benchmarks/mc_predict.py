"""What `mc_predict` costs, beside what is usual: time, memory, and how far it is from the machine's limit.

    KERAS_BACKEND=tensorflow python benchmarks/mc_predict.py    # or jax, or torch

The arms of a model run in turn in one process: `mc_predict`; the recipe of the book, which stacks calls
of the model with `training=True`; a compiled function that loops over them; and on TensorFlow
uncertainty-wizard, where it is installed. Ratios are of neighbouring runs, and figures medians. Everything
is traced before the clock starts. The limit is the arithmetic of the sampled part, all units counted, at
the rate that the machine reaches with one large product of matrices. On images and sequences 20 samples are
taken in the slow arms and the time multiplied, which `--all` does not do.
"""

import argparse
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import keras
import numpy as np

import keras_dnn_extras as kdx

L = keras.layers
BACKEND = keras.backend.backend()
SAMPLES = 100


def book_model():
    dense = [L.Dropout(0.2), L.Dense(300, "relu"), L.Dropout(0.5), L.Dense(100, "relu"), L.Dropout(0.5)]
    return keras.Sequential([keras.Input((784,)), *dense, L.Dense(10, "softmax")])


def image_model():
    body = keras.applications.MobileNetV2(
        input_shape=(96, 96, 3), weights=None, include_top=False, pooling="avg"
    )
    return keras.Sequential([keras.Input((96, 96, 3)), body, L.Dropout(0.5), L.Dense(10, "softmax")])


def sequence_model():
    return keras.Sequential(
        [
            keras.Input((100, 16)),
            L.LSTM(64),
            L.Dropout(0.5),
            L.Dense(32, "relu"),
            L.Dropout(0.5),
            L.Dense(10),
        ]
    )


# model, batch sizes, samples that the slow arms take
CASES = {
    "784-300-100-10, three dropouts": (book_model, (1, 32, 1000), 100),
    "MobileNetV2, dropout in its head": (image_model, (32,), 20),
    "LSTM over 100 steps, dropout in its head": (sequence_model, (32,), 20),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--all", action="store_true", help="take all samples in the slow arms, too")
    parser.add_argument("--only", default="", help="run the cases with this in their name")
    parser.add_argument("--memory", action="store_true", help="measure nothing but memory")
    arguments = parser.parse_args()
    if arguments.memory:
        report_memory()
        return
    rate = matrix_rate()
    print(f"{BACKEND}, Keras {keras.__version__}, {platform.processor() or platform.machine()}, ", end="")
    print(
        f"{SAMPLES} samples, {arguments.rounds} rounds, one product of matrices: {rate / 1e9:.0f} GFlop/s"
    )
    for name, (build, batch_sizes, slow) in CASES.items():
        if arguments.only in name:
            print(f"\n{name}")
            for batch_size in batch_sizes:
                report(build(), batch_size, SAMPLES if arguments.all else slow, arguments.rounds, rate)
    # in a process of its own, where nothing is left that it could use again
    subprocess.run([sys.executable, __file__, "--memory"], check=True)


def matrix_rate():
    """Return how many multiplications and additions a second one product of matrices makes."""
    x = keras.ops.ones((1024, 1024))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        keras.ops.convert_to_numpy(keras.ops.matmul(x, x))
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times)


def report(model, batch_size, slow, rounds, rate):
    x = np.random.default_rng(0).random((batch_size, *model.input_shape[1:]), dtype="float32")
    arms = {
        "mc_predict": (lambda: kdx.mc_predict(model, x, SAMPLES, batch_size=max(batch_size, 32)), 1),
        "the book": (lambda: stacked(model, x, slow), SAMPLES / slow),
        "a compiled loop": (compiled_loop(model, x, slow), SAMPLES / slow),
    }
    if BACKEND == "tensorflow" and slow == SAMPLES:
        arms |= wizard(model, x)
    times = {name: [] for name in arms}
    for i in range(rounds + 1):
        order = list(arms) if i % 2 else list(arms)[::-1]
        for name in order:
            run, factor = arms[name]
            start = time.perf_counter()
            run()
            times[name].append(factor * (time.perf_counter() - start))
    own = times.pop("mc_predict")[1:]
    floor = arithmetic(model) * batch_size * SAMPLES / rate
    print(
        f"  batch {batch_size}: {1e3 * statistics.median(own):.2f} ms, the limit {1e3 * floor:.2f} ms; ",
        end="",
    )
    ratios = {
        name: statistics.median(t / o for t, o in zip(found[1:], own, strict=True))
        for name, found in times.items()
    }
    print(
        ", ".join(f"{name} takes {ratio:.1f} times as long" for name, ratio in ratios.items()), flush=True
    )


def stacked(model, x, samples):
    given = keras.ops.convert_to_tensor(x)
    return np.stack(
        [
            keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(given, training=True)))
            for _ in range(samples)
        ]
    )


def compiled_loop(model, x, samples):
    """Return a function that samples the whole model in a compiled loop: what one writes with some care."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        loop = tf.function(lambda x: tf.map_fn(lambda _: model(x, training=True), tf.zeros(samples)))
        given = tf.constant(x)
        return lambda: loop(given).numpy()
    if BACKEND == "jax":
        import jax

        layers = [layer for layer in model._flatten_layers() if isinstance(layer, L.Dropout)]

        def sample(state, key):
            values = [value for value, _ in state]
            mapping = list(zip(model.variables, values, strict=True))
            seeds = [layer.seed_generator.state for layer in layers]
            keys = jax.random.randint(key, (len(seeds), 2), 0, 2**31 - 1).astype("uint32")
            mapping += list(zip(seeds, keys, strict=True))
            with keras.StatelessScope(mapping):
                return model(given, training=True)

        given = jax.numpy.asarray(x)
        loop = jax.jit(lambda values, keys: jax.lax.map(lambda key: sample(values, key), keys))
        return lambda: np.asarray(
            loop([(v.value, 0) for v in model.variables], jax.random.split(jax.random.key(0), samples))
        )
    import torch

    given = torch.tensor(x)

    def run():  # compiling takes torch half a minute and gains nothing here
        with torch.inference_mode():
            return torch.stack([model(given, training=True) for _ in range(samples)]).numpy()

    return run


def wizard(model, x):
    try:
        import uncertainty_wizard as uwiz
    except ImportError:
        return {}
    stochastic = uwiz.models.StochasticSequential()
    for layer in [L.Input(model.input_shape[1:]), *model.layers]:
        stochastic.add(layer)
    stochastic.compile("sgd", "sparse_categorical_crossentropy")
    measures = ["pred_entropy", "mutu_info"]
    arguments = {"quantifier": measures, "sample_size": SAMPLES, "verbose": 0}
    return {"uncertainty-wizard": (lambda: stochastic.predict_quantified(x, **arguments), 1)}


def arithmetic(model):
    """Return the multiplications and additions of one row's sample: those after the first dropout."""
    names = [isinstance(layer, L.Dropout) for layer in model.layers]
    sampled = model.layers[names.index(True) :]
    return sum(
        2 * layer.kernel.shape[0] * layer.kernel.shape[1] for layer in sampled if hasattr(layer, "kernel")
    )


def report_memory():
    """Print what a prediction of 1,000 rows takes beyond what is there before, at its highest."""
    status, clear = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")
    if not clear.exists():
        return
    model, x = book_model(), np.ones((1000, 784), "float32")

    def megabytes(key):
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024

    model.predict(x, batch_size=1000, verbose=0)
    kdx.mc_predict(model, x[:300], 20, batch_size=300)  # whatever is loaded by the first call
    print("\nmemory at batch 1000, the first time with its tracing:", end="")
    for samples in (100, 100, 1000):
        clear.write_text("5")  # the peak begins anew
        before = megabytes("VmRSS")
        kdx.mc_predict(model, x, samples, batch_size=1000)
        print(f" {megabytes('VmHWM') - before:.0f} MB more for {samples} samples;", end="")
    print()


if __name__ == "__main__":
    main()
