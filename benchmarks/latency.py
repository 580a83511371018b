"""How long one sample takes: `predict`, a call of the model, fused, and each engine.

    KERAS_BACKEND=tensorflow python benchmarks/latency.py    # or jax, or torch

The arms run in turn in one process, forwards and backwards, for a few milliseconds or one call each. All
calls are timed one by one: p50 and p99 are of all of them, and ratios are medians over the rounds. All is
traced, compiled and warmed up before the clock starts. All arms take a NumPy array and return one.

1. 784-300-100-10 with batch normalizations, beside the same arithmetic written by hand in NumPy.
2. The same without batch normalizations, where fusing brings nothing.
3. MobileNetV2 with random statistics, on each engine, fused and not fused.
"""

import argparse
import os
import platform
import statistics
import time
from importlib.metadata import version

import keras
import numpy as np

import keras_dnn_extras as kdx
from keras_dnn_extras.inference.engines import ENGINES, built_engine
from keras_dnn_extras.inference.signatures import EngineError, signature_of

L = keras.layers
BACKEND = keras.backend.backend()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="turns of each arm")
    parser.add_argument("--turn", type=float, default=5.0, help="milliseconds of a turn")
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--only", default="", help="run the cases with this in their name")
    arguments = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    runtimes = ", ".join(f"{name} {version(name)}" for name in (BACKEND, "keras", "numpy"))
    print(f"{runtimes}, Python {platform.python_version()}, {machine}, load {os.getloadavg()[0]:.1f}")
    cases = {
        "dense, with batch normalizations": lambda: dense_case(True, arguments),
        "dense, without": lambda: dense_case(False, arguments),
        f"MobileNetV2, {arguments.size} pixels": lambda: image_case(arguments),
    }
    for name, run in cases.items():
        if arguments.only in name:
            print(f"\n{name}, {arguments.rounds} rounds")
            run()


# -- models ---------------------------------------------------------------------------------------------


def dense_model(with_norms):
    layers = [keras.Input((784,))]
    for units in (300, 100):
        layers += [L.Dense(units, use_bias=not with_norms)]
        layers += [L.BatchNormalization()] if with_norms else []
        layers += [L.Activation("elu")]
    return randomized(keras.Sequential([*layers, L.Dense(10, activation="softmax")]))


def randomized(model):
    """Give batch normalizations the statistics of one that was trained, more or less."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
            layer.beta.assign(rng.normal(size=shape) / 10)
            layer.moving_mean.assign(rng.normal(size=shape) / 10)
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, shape))
    return model


def by_hand(model):
    """Return what one would write for the fused dense model."""
    weights = [keras.ops.convert_to_numpy(weight) for weight in model.weights]

    def elu(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    def run(x):
        first, first_bias, second, second_bias, last, last_bias = weights
        hidden = elu(elu(x @ first + first_bias) @ second + second_bias)
        powers = np.exp((logits := hidden @ last + last_bias) - logits.max())
        return powers / powers.sum()

    return run


# -- cases ----------------------------------------------------------------------------------------------


def dense_case(with_norms, arguments):
    model = dense_model(with_norms)
    fused = kdx.fuse_batch_norm(model).model
    x = np.random.default_rng(0).normal(size=(1, 784)).astype("float32")
    arms = {
        "predict": lambda: model.predict(x, verbose=0),
        "predict_on_batch": lambda: model.predict_on_batch(x),
        "model(x)": lambda: called(model, x),
        "fused model(x)": lambda: called(fused, x),
    }
    for name in ENGINES:
        try:
            fast = kdx.compile_for_inference(model, engine=name)
        except ValueError as error:
            print(f"  without {name!r}: {reason(error)}")
            continue
        arms[name] = lambda fast=fast: fast(x)
    hand = by_hand(fused)
    arms["NumPy by hand"] = lambda: hand(x)
    times = measured(arms, arguments)
    report(times, ["predict", "model(x)", "NumPy by hand"])


def image_case(arguments):
    shape = (arguments.size, arguments.size, 3)
    model = randomized(keras.applications.MobileNetV2(input_shape=shape, weights=None))
    fused = kdx.fuse_batch_norm(model)
    print(f"  {len(fused.report.fused)} of {len(fused.report.fused) + len(fused.report.kept)} folded")
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype("float32")
    arms = {
        "model(x)": lambda: called(model, x),
        "fused model(x)": lambda: called(fused.model, x),
    }
    for name in ENGINES:
        try:
            for label, each in {name: model, f"fused {name}": fused.model}.items():
                run = built_engine(name, each, signature_of(each, 1))
                arms[label] = lambda run=run: run([x])[0]
        except EngineError as error:
            print(f"  without {name!r}: {error}")
    times = measured(arms, arguments)
    report(times, ["model(x)"])
    for name in ENGINES:
        if name in times:
            print(f"  {name}: not fused it takes {ratio(times, name, f'fused {name}'):.2f} times as long")


def called(model, x):
    return keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(x, training=False)))


def reason(error):
    return str(error).split(": ", 1)[1].split(". ")[0]


# -- measuring ------------------------------------------------------------------------------------------


def measured(arms, arguments):
    """Return for each arm a list of the times of its calls, in seconds, for each round."""
    for run in arms.values():
        for _ in range(5):
            run()
    times = {name: [] for name in arms}
    for i in range(arguments.rounds):
        for name in list(arms) if i % 2 else list(arms)[::-1]:
            times[name].append(turn(arms[name], arguments.turn / 1e3))
    return times


def turn(run, seconds):
    end, times = time.perf_counter() + seconds, []
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def ratio(times, name, other):
    """Return how many times as long as `other` an arm takes."""
    pairs = zip(times[name], times[other], strict=True)
    return statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)


def report(times, others):
    width = max(map(len, times))
    print(f"  {'':{width}} {'p50':>10} {'p99':>10}  " + "  ".join(f"{other} / it" for other in others))
    for name, rounds in times.items():
        p50, p99 = 1e6 * np.percentile(np.concatenate(rounds), [50, 99])
        ratios = "  ".join(f"{ratio(times, other, name):{len(other) + 5}.2f}" for other in others)
        print(f"  {name:{width}} {p50:7.1f} us {p99:7.1f} us  {ratios}")


if __name__ == "__main__":
    main()
