"""What `fuse_batch_norm` folds of the networks in `keras.applications`, how fast, and how precisely.

    KERAS_BACKEND=tensorflow python benchmarks/fusion.py    # or jax, or torch
    python benchmarks/fusion.py --only MobileNet ResNet50 --no-oracle

All weights and statistics are random: a fifth of the gammas are 0, and half of the others negative. The
networks end in logits, as a softmax would hide errors. Errors are the largest difference of an output, over
the largest output: of the fused network from the original, and of both from the same network in float64,
which another process computes on TensorFlow. `--no-oracle` leaves that out.
"""

import argparse
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

import keras_dnn_extras as kdx

NETWORKS = (
    *("ResNet50", "MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0"),
    *("InceptionV3", "InceptionResNetV2", "Xception", "NASNetMobile", "ResNet50V2", "DenseNet121"),
)
BACKEND = keras.backend.backend()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=NETWORKS, metavar="NETWORK", choices=NETWORKS)
    parser.add_argument("--no-oracle", action="store_true", help="do not compute in float64")
    parser.add_argument("--reasons", action="store_true", help="print why layers stay")
    parser.add_argument("--expected", help=argparse.SUPPRESS)  # a file: write the outputs in float64 to it
    arguments = parser.parse_args()
    if arguments.expected:
        keras.config.set_dtype_policy("float64")
        [name] = arguments.only
        np.save(arguments.expected, outputs(network(name)))
        return
    print(f"{BACKEND}, Keras {keras.__version__}, {platform.processor() or platform.machine()}")
    kdx.fuse_batch_norm(
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    )  # imports what it needs
    print(
        "| network | folded | of | seconds | of CPU | error | fused from float64 | original from float64 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.only:
        if (BACKEND, name) == ("torch", "NASNetMobile"):
            print(f"| {name} | Keras does not build it on torch | | | | | | |", flush=True)
        else:
            print_row(name, arguments)
        keras.backend.clear_session()


def print_row(name, arguments):
    model = network(name)
    clocks = (time.perf_counter, time.process_time)
    starts = [clock() for clock in clocks]
    result = kdx.fuse_batch_norm(model)
    report, times = result.report, [clock() - start for clock, start in zip(clocks, starts, strict=True)]
    cells = [len(report.fused), len(report.fused) + len(report.kept), *(f"{t:.1f}" for t in times)]
    found, original = outputs(result.model), outputs(model)
    cells.append(f"{relative_error(found, original):.1e}")
    if arguments.no_oracle:
        cells += ["", ""]
    else:
        expected = outputs_in_float64(name)
        cells += [f"{relative_error(each, expected):.1e}" for each in (found, original)]
    print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)
    if arguments.reasons:
        print(*(f"    {kept.layer}: {kept.reason}" for kept in report.kept), sep="\n", flush=True)


def network(name):
    model = getattr(keras.applications, name)(weights=None, classifier_activation=None)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(random_weight(variable, rng))
    return model


def random_weight(variable, rng):
    """Return random values that keep what goes through a deep network in bounds."""
    shape, name = tuple(variable.shape), variable.name
    if name.endswith("variance"):
        return rng.uniform(0.5, 2.0, shape)
    if name == "gamma":
        return rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 0, 1], shape, p=[0.4, 0.2, 0.4])
    if "kernel" in name:
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
    return rng.normal(size=shape) / 2


def outputs(model):
    shape = [length or 224 for length in model.input_shape[1:]]
    x = np.random.default_rng(1).normal(size=(2, *shape))
    made = model(x.astype(model.inputs[0].dtype), training=False)
    return np.asarray(keras.ops.convert_to_numpy(made), "float64")


def outputs_in_float64(name):
    """Return the outputs of the network in float64, which Keras has on TensorFlow alone."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "expected.npy"
        command = [sys.executable, __file__, "--only", name, "--expected", str(path)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return np.load(path)


def relative_error(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


if __name__ == "__main__":
    main()
