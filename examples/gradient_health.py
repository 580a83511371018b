"""Gradients in networks of 30 layers: which initializers and activations let them through.

    KERAS_BACKEND=tensorflow python examples/gradient_health.py    # or jax, or torch

It trains deep networks on the digits of scikit-learn for a few epochs. It prints the gradient norms of the
first and the last hidden layer in the first update, and what `GradientNormMonitor` finds, and draws four of
them in `gradient_health.png`.
"""

import argparse
import sys

import keras

try:
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits
except ImportError as error:
    sys.exit(f"{error}. This example needs two more packages: pip install matplotlib scikit-learn")

import keras_dnn_extras as kdx

LAYERS, UNITS, BATCH = 30, 100, 64


def normal(stddev):
    return lambda i: keras.initializers.RandomNormal(stddev=stddev, seed=i)


def named(name):
    classes = {"glorot": "GlorotUniform", "he": "HeNormal", "lecun": "LecunNormal"}
    return lambda i: getattr(keras.initializers, classes[name])(seed=i)


# activation, initializer, whether there is BatchNormalization
NETWORKS = {
    "sigmoid, normal 0.05": ("sigmoid", normal(0.05), False),
    "sigmoid, Glorot": ("sigmoid", named("glorot"), False),
    "tanh, Glorot": ("tanh", named("glorot"), False),
    "ReLU, normal 0.5": ("relu", normal(0.5), False),
    "ReLU, He": ("relu", named("he"), False),
    "SELU, LeCun": ("selu", named("lecun"), False),
    "ELU, He, BatchNormalization": ("elu", named("he"), True),
}
SHOWN = ("sigmoid, Glorot", "ReLU, normal 0.5", "SELU, LeCun", "ELU, He, BatchNormalization")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--picture", default="gradient_health.png")
    arguments = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    x = ((x - x.mean()) / x.std()).astype("float32")
    # Whole batches: over the 5 rows of the last one BatchNormalization multiplies the gradients by 100.
    rows = len(x) // BATCH * BATCH
    x, y = x[:rows], y[:rows]
    monitors = {}
    print(f"{'':<28} {'first layer':>11} {'last layer':>10} {'accuracy':>8}  findings")
    for name in (*NETWORKS, "ResNet"):
        model = resnet() if name == "ResNet" else deep(*NETWORKS[name])
        model.compile(
            keras.optimizers.SGD(0.002, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        monitor = monitors[name] = kdx.GradientNormMonitor(on_problem="ignore")
        training = {"batch_size": BATCH, "epochs": arguments.epochs, "verbose": 0}
        history = model.fit(x, y, callbacks=[monitor], **training).history
        print_row(name, monitor, history["accuracy"][-1])
    figure = Figure(figsize=(13, 10), layout="constrained")
    for name, ax in zip(SHOWN, figure.subplots(2, 2).flat, strict=True):
        monitors[name].plot(ax)
        ax.set_title(name)
    figure.savefig(arguments.picture)
    print(f"See {arguments.picture}.")


def deep(activation, initializer, batch_norm):
    layers = [keras.Input((64,))]
    for i in range(LAYERS):
        kernel = initializer(i)
        layers.append(
            keras.layers.Dense(UNITS, kernel_initializer=kernel, use_bias=not batch_norm, name=f"dense_{i}")
        )
        if batch_norm:
            layers.append(keras.layers.BatchNormalization(name=f"norm_{i}"))
        layers.append(keras.layers.Activation(activation))
    return keras.Sequential(
        [*layers, keras.layers.Dense(10, kernel_initializer=named("glorot")(0), name="out")]
    )


def resnet():
    keras.utils.set_random_seed(0)

    def convolution(x):
        x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        return keras.layers.BatchNormalization()(x)

    inputs = keras.Input((64,))
    x = convolution(keras.layers.Reshape((8, 8, 1))(inputs))
    for _ in range(3):
        y = keras.layers.ReLU()(convolution(x))
        x = keras.layers.ReLU()(keras.layers.Add()([x, convolution(y)]))
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def print_row(name, monitor, accuracy):
    norms = [values for key, values in monitor.history.items() if key.startswith("gradient_norm/")]
    first, last = norms[0][0], norms[-2][0]  # the very last one is the output layer
    counts = [(f.kind, len(f.layers)) for f in monitor.findings]
    found = ", ".join(f"{kind} in {n} layer{'s' if n > 1 else ''}" for kind, n in counts) or "-"
    print(f"{name:<28} {first:11.1e} {last:10.1e} {accuracy:8.1%}  {found}")


if __name__ == "__main__":
    main()
