"""A deep network learns to read digits: a constant learning rate, 1cycle, and what it is unsure of.

    pip install ".[plot]" scikit-learn
    python examples/quickstart.py                      # about a minute on two cores
    KERAS_BACKEND=jax python examples/quickstart.py    # or torch

Real data: the 1797 digits of scikit-learn. The network has 10 hidden layers and 10 epochs to learn. The
constant rate and the peak of 1cycle are chosen alike, with the same budget: three candidates, one seed,
the best on the validation split. Only the two chosen ones see the test split. `quickstart.png` in the
current folder shows how they went.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

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

SEED = 1
EPOCHS = 10
BATCH_SIZE = 16
CANDIDATES = (0.003, 0.01, 0.03)  # for the constant rate and for the peak of 1cycle
SAMPLES = 50


class Trial(NamedTuple):
    """One training run."""

    rate: float
    accuracy: float  # on the validation split
    losses: list[float]  # of the epochs
    weights: list[np.ndarray]
    callback: Any  # None for a constant rate
    file: Path


def main():
    train, validation, test = load_data()
    print(f"Keras {keras.__version__} on {keras.backend.backend()}. Images: {len(train[0])} to train,")
    print(f"{len(validation[0])} to choose the learning rate, {len(test[0])} to test.\n")

    with tempfile.TemporaryDirectory() as folder:
        model = deep_network()
        constant = best_of(model, train, validation, Path(folder), one_cycle=False)
        cycle = best_of(model, train, validation, Path(folder), one_cycle=True)
        constant_accuracy = test_accuracy(model, constant, test)
        cycle_accuracy = test_accuracy(model, cycle, test)
        print(f"\nTest accuracy: constant rate {constant_accuracy:.1%}, 1cycle {cycle_accuracy:.1%}.")
        print(f"One image is {1 / len(test[0]):.1%}.\n")

        there = accuracy_in_plain_keras(cycle.file, test, Path(folder))
        same = "the same" if there == cycle_accuracy else f"NOT the same, {cycle_accuracy:.1%} here"
        print(f"The 1cycle model, loaded by plain Keras in another process: {there:.1%}, {same}.\n")

    images = clear_and_doubtful(mc_network(train), test)
    draw(constant, cycle, images)
    print(f"\nSee quickstart.png. Took {time.time() - started:.0f} s.")


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
    """Return 10 hidden layers by the default recipe: He initialization, ELU, BatchNormalization."""
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(10):
        # BatchNormalization has a bias of its own.
        model.add(keras.layers.Dense(24, kernel_initializer="he_normal", use_bias=False))
        model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.Activation("elu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    return compiled(model)


def compiled(model):
    optimizer = keras.optimizers.SGD(momentum=0.9)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def best_of(model, train, validation, folder, *, one_cycle):
    """Train with each candidate from the same start, and return the best on the validation split."""
    start = model.get_weights()
    name = "one_cycle" if one_cycle else "constant"
    trials = []
    for rate in CANDIDATES:
        # A fresh optimizer in the old one's place. One compiled model for all trials spares tracing
        # 10 layers again and again.
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape))
        model.optimizer.learning_rate = rate
        model.set_weights(start)
        keras.utils.set_random_seed(SEED)  # the same batches

        callback = kdx.OneCycleScheduler(rate) if one_cycle else None
        callbacks = [callback] if one_cycle else []
        history = model.fit(*train, batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=callbacks, verbose=0)

        accuracy = model.evaluate(*validation, verbose=0)[1]
        file = folder / f"{name}_{rate}.keras"
        model.save(file)
        trials.append(Trial(rate, accuracy, history.history["loss"], model.get_weights(), callback, file))
        label = f"1cycle up to {rate}" if one_cycle else f"constant rate {rate}"
        print(f"{label:<20} validation accuracy {accuracy:.1%}, loss {trials[-1].losses[-1]:.3f}")
    model.set_weights(start)
    return max(trials, key=lambda trial: trial.accuracy)


def test_accuracy(model, trial, test):
    model.set_weights(trial.weights)
    return model.evaluate(*test, verbose=0)[1]


# A model trained with our callback is plain Keras: nothing of this package is needed to load it.
PLAIN_KERAS = """
import sys
import keras
import numpy as np

test = np.load(sys.argv[2])
model = keras.saving.load_model(sys.argv[1])
_, accuracy = model.evaluate(test["images"], test["labels"], verbose=0)
assert "keras_dnn_extras" not in sys.modules
print(accuracy)
"""


def accuracy_in_plain_keras(file, test, folder):
    """Load a model in a second process, without this package, and return its accuracy there."""
    data = folder / "test.npz"
    np.savez(data, images=test[0], labels=test[1])
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_KERAS, str(file), str(data)], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"Plain Keras could not load the model:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def mc_network(train):
    """Return a smaller network with dropout that stays active, trained with 1cycle."""
    keras.utils.set_random_seed(SEED)
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(3):
        model.add(keras.layers.Dense(128, kernel_initializer="he_normal", activation="elu"))
        model.add(kdx.MCDropout(0.3))
    model.add(keras.layers.Dense(10, activation="softmax"))
    one_cycle = kdx.OneCycleScheduler(0.02)
    compiled(model).fit(*train, batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=[one_cycle], verbose=0)
    return model


def clear_and_doubtful(model, test):
    """Sample predictions, and return the clearest and the most doubtful test image with theirs."""
    images, labels = test
    # Each prediction is another thinned network's: they agree where the data taught them to.
    samples = np.stack([model.predict(images, batch_size=360, verbose=0) for _ in range(SAMPLES)])
    mean, std = samples.mean(axis=0), samples.std(axis=0)
    confidence = mean.max(axis=1)
    found = []
    print(f"Probabilities of {SAMPLES} samples with Monte-Carlo dropout, mean ± standard deviation:")
    for name, i in {"clear": confidence.argmax(), "doubtful": confidence.argmin()}.items():
        likely = mean[i].argsort()[::-1][:3]
        told = ", ".join(f"{digit}: {mean[i, digit]:.2f} ± {std[i, digit]:.2f}" for digit in likely)
        print(f"  a {name} image, really a {labels[i]}".ljust(36) + told)
        found.append((f"a {name} {labels[i]}", images[i], mean[i], std[i]))
    return found


def draw(constant, cycle, images):
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    (schedule, losses), *row = figure.subplots(2, 2)
    cycle.callback.plot(schedule)
    schedule.set_title(f"1cycle: learning rate up to {cycle.rate}, and momentum")

    epochs = range(1, EPOCHS + 1)
    losses.plot(epochs, constant.losses, "o-", color="C7", label=f"constant rate {constant.rate}")
    losses.plot(epochs, cycle.losses, "o-", color="C0", label="1cycle")
    losses.set(title="10 hidden layers on digits", xlabel="epoch", ylabel="training loss")
    losses.legend()

    for ax, (name, image, mean, std) in zip(row[0], images, strict=True):
        ax.bar(range(10), mean, yerr=std, color="C2", capsize=3)
        ax.set(title=f"{name}: {SAMPLES} samples of MC dropout", xlabel="digit", ylabel="probability")
        ax.set(xticks=range(10), ylim=(0, 1.1))
        inset = ax.inset_axes((0.02, 0.6, 0.2, 0.37))
        inset.imshow(image.reshape(8, 8), cmap="gray_r")
        inset.set(xticks=[], yticks=[])
    figure.savefig("quickstart.png", dpi=120)


if __name__ == "__main__":
    main()
