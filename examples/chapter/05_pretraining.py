"""5. Pretraining without labels: an autoencoder, and an auxiliary task, then 50 labels.

1437 digits have no labels but 50. The encoder learns from all: to rebuild the images, layer by layer too,
or to tell by how many quarters an image was turned, which takes no labels. Then it learns the digits.
"""

import common

settings = common.settings(__doc__, epochs=30, seeds=3)

import keras
import numpy as np
from sklearn.model_selection import train_test_split

import keras_dnn_extras as kdx

LABELS = 50


def encoder():
    hidden = [
        keras.layers.Dense(units, activation="elu", kernel_initializer="he_normal", name=f"hidden_{units}")
        for units in (100, 50)
    ]
    return keras.Sequential([keras.Input((64,)), *hidden], name="encoder")


def turned(x):
    """Return each image turned by 0 to 3 quarters, and by how many."""
    images = x.reshape(-1, 8, 8)
    quarters = [np.rot90(images, k, axes=(1, 2)).reshape(x.shape) for k in range(4)]
    return np.concatenate(quarters), np.repeat(np.arange(4), len(x))


def nothing(body, x):
    pass


def autoencoder(body, x):
    kdx.pretrain_autoencoder(body, x, epochs=settings.epochs, verbose=0)


def greedy(body, x):
    kdx.pretrain_autoencoder(body, x, epochs=settings.epochs, greedy=True, verbose=0)


def auxiliary(body, x):
    head = keras.layers.Dense(4, activation="softmax", name="quarters")
    loss = "sparse_categorical_crossentropy"
    kdx.pretrain_auxiliary(body, head, *turned(x), loss=loss, epochs=settings.epochs, verbose=0)


WAYS = {
    "from scratch": nothing,
    "autoencoder": autoencoder,
    "layer by layer": greedy,
    "turned images": auxiliary,
}


def main():
    x_train, x_test, y_train, y_test = common.digits()
    rows = {name: [] for name in WAYS}
    for seed in settings.seeds:
        labelled, _, labels, _ = train_test_split(
            x_train, y_train, train_size=LABELS, stratify=y_train, random_state=seed
        )
        for name, pretrain in WAYS.items():
            keras.utils.set_random_seed(seed)
            body = encoder()
            pretrain(body, x_train)
            head = keras.layers.Dense(10, activation="softmax", name="digit")
            model = kdx.replace_head(body, head, after=body.layers[-1].name, freeze_body=False)
            model.compile(
                keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
            )
            model.fit(labelled, labels, batch_size=10, epochs=settings.epochs, verbose=0)
            rows[name].append((model.evaluate(x_test, y_test, verbose=0)[1],))
    common.table({"test accuracy": ".1%"}, rows)
    common.verdict(rows, 0, "test accuracy", ".1%")


if __name__ == "__main__":
    main()
