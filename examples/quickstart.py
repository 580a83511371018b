"""A deep network learns to read digits: a constant learning rate against 1cycle, and what it doubts.

    pip install "keras-dnn-extras[plot]" scikit-learn
    python examples/quickstart.py                       # about a minute on two cores
    KERAS_BACKEND=jax python examples/quickstart.py     # or torch

Real data (scikit-learn's 1797 digits), 20 hidden layers, 12 epochs. The constant rate and the peak of
1cycle are chosen alike: the same three candidates, the same seed, the same number of epochs, the best
by the validation split. The test split is looked at once for each. Writes `quickstart.png` into the
current folder.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

started = time.time()

try:
    import matplotlib
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    sys.exit(f"This example needs scikit-learn and matplotlib: pip install scikit-learn matplotlib ({error})")

import keras
import numpy as np

import keras_dnn_extras as kdx

matplotlib.use("Agg")  # draws into a file, no screen needed
from matplotlib import pyplot as plt  # noqa: E402

SEED = 42
EPOCHS = 12
BATCH_SIZE = 32
CANDIDATES = (0.003, 0.01, 0.03)  # constant rates, and peaks of 1cycle

# Run in a process of its own: a model that was trained with our callback is plain Keras.
PLAIN_KERAS = """
import sys
import keras
import numpy as np

images, labels = np.load(sys.argv[2]).values()
_, accuracy = keras.saving.load_model(sys.argv[1]).evaluate(images, labels, verbose=0)
assert "keras_dnn_extras" not in sys.modules
print(accuracy)
"""


def main():
    train, validation, test = load_data()
    print(f"Keras {keras.__version__} on {keras.backend.backend()}: ", end="")
    print(f"{len(train[0])} images to train on, {len(validation[0])} to choose by, {len(test[0])} to test.\n")

    model = deep_network()
    constant = best_of(model, train, validation, one_cycle=False)
    cycle = best_of(model, train, validation, one_cycle=True)
    print(f"\nTest accuracy, constant rate {constant['rate']}:   {accuracy(model, constant, test):.1%}")
    print(f"Test accuracy, 1cycle up to {cycle['rate']}:     {accuracy(model, cycle, test):.1%}")
    print(f"(One seed, and one image is {1 / len(test[0]):.1%}: see the notes on more seeds in main.)\n")

    check_in_plain_keras(cycle["file"], test, accuracy(model, cycle, test))
    clear, doubtful = doubts(train, test)
    draw(constant, cycle, [clear, doubtful])
    print(f"\nWrote quickstart.png. {time.time() - started:.0f} seconds.")


def load_data():
    """Return the training, validation and test split, each as (images, labels)."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    rest, test, rest_labels, test_labels = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=SEED
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=360, stratify=rest_labels, random_state=SEED
    )
    return (train, train_labels), (validation, validation_labels), (test, test_labels)
