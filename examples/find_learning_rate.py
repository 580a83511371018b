"""Which learning rate? A range test of a hundred batches, against a grid of whole training runs.

    pip install ".[plot]" scikit-learn
    python examples/find_learning_rate.py                      # about a minute on two cores
    KERAS_BACKEND=jax python examples/find_learning_rate.py    # or torch

Real data: the 1797 digits of scikit-learn, of which a network with 5 hidden layers sees 8 epochs. For each
of three seeds: `find_learning_rate` suggests a rate, and 1cycle trains up to it, once. Against it stands a
grid of constant rates, each trained for as many epochs from the same weights with the same batches. The
grid's choice is its best rate on the validation split; the test split chooses nothing.
`find_learning_rate.png` in the current folder shows a range test and the accuracies.
"""

import sys
import time

started = time.time()

try:
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    sys.exit(f"{error}. This example needs two more packages: pip install matplotlib scikit-learn")

import keras
import numpy as np

import keras_dnn_extras as kdx

SEEDS = (1, 2, 3)
GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
EPOCHS = 8
BATCH_SIZE = 32


def main():
    train, validation, test = load_data()
    steps = -(-len(train[0]) // BATCH_SIZE)
    print(f"Keras {keras.__version__} on {keras.backend.backend()}: {EPOCHS} epochs of {steps} batches.\n")

    model = deep_network()
    accuracies = {name: [] for name in (*GRID, "1cycle", "grid")}
    searches = []
    for seed in SEEDS:
        start_again(model, seed)
        search = kdx.find_learning_rate(model, *train, batch_size=BATCH_SIZE, verbose=0)
        searches.append(search)
        print(f"seed {seed}: suggestion {search.suggestion:.3g}. {search.reason}")

        by_validation = {}
        for rate in GRID:
            start_again(model, seed, rate)
            fit(model, train)
            by_validation[rate] = accuracy(model, validation)
            accuracies[rate].append(accuracy(model, test))
        best = max(by_validation, key=by_validation.get)
        accuracies["grid"].append(accuracies[best][-1])

        start_again(model, seed)
        fit(model, train, [kdx.OneCycleScheduler(search.suggestion)])
        accuracies["1cycle"].append(accuracy(model, test))

    print_table(accuracies, len(searches[0].losses), steps)
    draw(searches, accuracies)
    print(f"\nSee find_learning_rate.png. Took {time.time() - started:.0f} s.")


def load_data():
    """Return the splits for training, validation and test, each as (images, labels)."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    rest, test, rest_labels, test_labels = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=0
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=360, stratify=rest_labels, random_state=0
    )
    return (train, train_labels), (validation, validation_labels), (test, test_labels)


def deep_network():
    """Return 5 hidden layers by the default recipe: He initialization, ELU, BatchNormalization."""
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(5):
        model.add(keras.layers.Dense(64, kernel_initializer="he_normal", use_bias=False))
        model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.Activation("elu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    optimizer = keras.optimizers.SGD(momentum=0.9)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def start_again(model, seed, rate=0.01):
    """Give `model` the weights of a fresh one of that seed, its optimizer an empty state and the rate."""
    keras.utils.set_random_seed(seed)
    model.set_weights(deep_network().get_weights())
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape))
    model.optimizer.learning_rate = rate
    keras.utils.set_random_seed(seed)  # the same batches


def fit(model, data, callbacks=None):
    model.fit(*data, batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=callbacks, verbose=0)


def accuracy(model, data):
    return model.evaluate(*data, verbose=0)[1]


def print_table(accuracies, searched, steps):
    whole = EPOCHS * steps
    rows = {f"constant {rate:g}": (accuracies[rate], whole) for rate in GRID}
    rows["best constant, by validation"] = accuracies["grid"], len(GRID) * whole
    rows["1cycle up to the suggestion"] = accuracies["1cycle"], searched + whole
    print(f"\n{'test accuracy':<30} {'mean':>6} {'seeds':^26} {'batches':>8}")
    for name, (found, batches) in rows.items():
        seeds = "  ".join(f"{value:.1%}" for value in found)
        print(f"{name:<30} {np.mean(found):>6.1%} {seeds:^26} {batches:>8,}")
    print("One image is 0.3 points: differences of a few of them are no differences.")


def draw(searches, accuracies):
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    searches[0].plot(left)
    left.set_title(f"Range test: {len(searches[0].losses)} batches")
    for rate in GRID:
        right.plot([rate] * len(SEEDS), accuracies[rate], "o", color="C7")
    right.plot(GRID, [np.mean(accuracies[rate]) for rate in GRID], color="C7", label="constant rates")
    peaks = [search.suggestion for search in searches]
    right.plot(peaks, accuracies["1cycle"], "D", color="C1", label="1cycle")
    right.set(xscale="log", xlabel="learning rate (1cycle: peak)", ylabel="test accuracy")
    right.set_title(f"{EPOCHS} epochs, {len(SEEDS)} seeds")
    right.legend()
    figure.savefig("find_learning_rate.png", dpi=120)


if __name__ == "__main__":
    main()
