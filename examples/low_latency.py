"""How fast one digit can be told: from `predict` to a compiled model, and what each step brings.

    KERAS_BACKEND=tensorflow python examples/low_latency.py    # or jax, or torch

Three small networks are trained on the digits of scikit-learn: a dense and a convolutional one with
BatchNormalization, and a dense one without, where there is nothing to fuse. Each is then asked for one
digit at a time:

- `predict`, which is made for many batches;
- `model(x)`: the layers one after the other, from Python;
- fused: the same, of the model that `fuse_batch_norm` returns;
- fixed signature: compiled for one row by the backend, with the weights as constants;
- fastest engine: what `compile_for_inference` chooses by itself.

The factor of a row is what this step brings over the row above. All of them make the same errors.
"""

import argparse
import sys
import time

import keras
import numpy as np

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    sys.exit(f"{error}. This example needs one more package: pip install scikit-learn")

import keras_dnn_extras as kdx

L = keras.layers
OWN = {"tensorflow": "graph", "jax": "xla", "torch": "trace"}[keras.backend.backend()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of calls for each row of the table")
    arguments = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    data = train_test_split(x, y, test_size=0.2, random_state=0)
    for name, layers in {
        "dense, BatchNormalization": [L.Flatten(), *dense(300, True), *dense(100, True)],
        "convolutional, BatchNormalization": [*convolution(16), *convolution(32), L.Flatten()],
        "dense, nothing to fuse": [L.Flatten(), *dense(300, False), *dense(100, False)],
    }.items():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8, 8, 1)), *layers, L.Dense(10, activation="softmax")])
        compare(name, model, *data, arguments)


def dense(units, with_norm):
    layer = L.Dense(units, kernel_initializer="he_normal", use_bias=not with_norm)
    return [layer, *[L.BatchNormalization()] * with_norm, L.Activation("elu")]


def convolution(filters):
    layer = L.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", use_bias=False)
    return [layer, L.BatchNormalization(), L.ReLU(), L.MaxPooling2D()]


def compare(name, model, x_train, x_test, y_train, y_test, arguments):
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=arguments.epochs, verbose=0)
    fused = kdx.fuse_batch_norm(model)
    fast = kdx.compile_for_inference(model)
    ways = {
        "predict": lambda row: model.predict(row, verbose=0),
        "model(x)": lambda row: called(model, row),
        "fused": lambda row: called(fused.model, row),
        f"fixed signature ({OWN})": kdx.compile_for_inference(model, engine=OWN),
        f"fastest engine ({fast.engine})": fast,
    }
    rows = [x_test[i : i + 1] for i in range(len(x_test))]
    times = measured(ways, rows, arguments.seconds)
    report(name, times)
    print(f"{'':<4}{len(fused.report.fused)} folded. Engines: {told(fast.candidates)}")
    expected = model.predict(x_test, verbose=0).argmax(axis=1)
    found = np.array([fast(row)[0].argmax() for row in rows])
    print(
        f"{'':<4}Accuracy {np.mean(expected == y_test):.2%} before and {np.mean(found == y_test):.2%} "
        f"after, {np.sum(found != expected)} of {len(rows)} digits told differently."
    )


def called(model, row):
    return keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(row, training=False)))


def measured(ways, rows, seconds):
    """Return the times of single calls of each way, which take turns of a twentieth of the seconds."""
    times = {name: [] for name in ways}
    for way in ways.values():
        for row in rows[:5]:
            way(row)
    for i in range(20):
        for name in list(ways) if i % 2 else list(ways)[::-1]:
            end = time.perf_counter() + seconds / 20
            while True:
                row = rows[len(times[name]) % len(rows)]
                start = time.perf_counter()
                ways[name](row)
                times[name].append(time.perf_counter() - start)
                if time.perf_counter() > end:
                    break
    return times


def report(name, times):
    print(f"\n{name:<34} {'p50':>10} {'p99':>12} {'factor':>8} {'in all':>8}")
    first = before = np.median(times["predict"])
    for way, found in times.items():
        p50, p99 = np.percentile(found, [50, 99])
        print(
            f"{'':<4}{way:<30} {1e6 * p50:7.0f} us {1e6 * p99:9.0f} us {before / p50:8.2f} "
            f"{first / p50:8.1f}"
        )
        before = p50


def told(candidates):
    return ", ".join(f"{name} {1e6 * seconds:.0f} us" for name, seconds in candidates.measured.items())


if __name__ == "__main__":
    main()
