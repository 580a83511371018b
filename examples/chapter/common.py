"""What the scripts of the chapter share: the command line, the data, and the tables."""

import argparse
import os
import sys
from typing import NamedTuple

try:
    import numpy as np
    from scipy.stats import ttest_1samp
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    sys.exit(f"{error}. The scripts of the chapter need one more package: pip install scikit-learn")


class Settings(NamedTuple):
    """What the command line says."""

    epochs: int
    backend: str
    seeds: range


def settings(doc, *, epochs, seeds=3):
    """Read `[epochs] [backend] [seeds]`, and choose the backend. Call it before keras is imported."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(
        "epochs", type=at_least_one, nargs="?", default=epochs, help="%(default)s if not given"
    )
    parser.add_argument(
        "backend",
        nargs="?",
        choices=["tensorflow", "jax", "torch"],
        default=os.environ.get("KERAS_BACKEND", "tensorflow"),
    )
    parser.add_argument("seeds", type=at_least_one, nargs="?", default=seeds, help="how many, %(default)s")
    given = parser.parse_args()
    os.environ["KERAS_BACKEND"] = given.backend
    print(f"{doc.splitlines()[0]}\n{given.epochs} epochs, {given.seeds} seeds, {given.backend}.\n")
    return Settings(given.epochs, given.backend, range(given.seeds))


def at_least_one(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an int of at least 1, got {text!r}")
    return number


def digits(train_size=None):
    """Return the 8 x 8 digits of scikit-learn, standardized: x_train, x_test, y_train, y_test.

    The split is the same each time. 360 are for the test, and `train_size` or all others for training.
    """
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    if train_size:
        x_train, _, y_train, _ = train_test_split(
            x_train, y_train, train_size=train_size, stratify=y_train, random_state=0
        )
    mean, std = x_train.mean(axis=0), x_train.std(axis=0)
    std[std == 0] = 1
    x_train, x_test = (((part - mean) / std).clip(-5, 5).astype("float32") for part in (x_train, x_test))
    return x_train, x_test, y_train, y_test


def table(columns, rows):
    """Print mean +- standard deviation over the seeds.

    Args:
        columns: dict of the title of each column, and how to format its numbers.
        rows: dict of the name of each row, and a list with a tuple of numbers for each seed.
    """
    lines = [("", *columns)]
    for name, row in rows.items():
        lines.append((name, *(cell(row, i, spec) for i, spec in enumerate(columns.values()))))
    first, *rest = (max(map(len, column)) for column in zip(*lines, strict=True))
    for name, *cells in lines:
        print(name.ljust(first), *(text.rjust(w) for text, w in zip(cells, rest, strict=True)), sep="  ")


def cell(row, column, spec):
    values = [values[column] for values in row]
    mean = format(np.mean(values), spec)
    return f"{mean} +- {format(np.std(values), spec)}" if len(values) > 1 else mean


def verdict(rows, column, name, spec, *, lowest=False):
    """Print which row is best, and which others the seeds cannot tell from it.

    Rows share their seeds: it is a paired t-test, each row against the best.
    """
    # As losses: a network that diverged is the worst.
    sign = 1 if lowest else -1
    values = {row: sign * np.array([each[column] for each in seeds]) for row, seeds in rows.items()}
    values = {row: np.nan_to_num(each, nan=np.inf, posinf=np.inf) for row, each in values.items()}
    best = min(values, key=lambda row: values[row].mean())
    told = format(sign * values[best].mean(), spec)
    print(f"\n{'Lowest' if lowest else 'Highest'} {name}: {best}, {told}.", end=" ")
    seeds = len(values[best])
    if seeds == 1:
        print("One seed does not tell how much of it is chance.")
        return
    alike = [row for row in values if row != best and not apart(values[row] - values[best])]
    print(f"With {seeds} seeds not told apart from it: {'; '.join(alike) or 'no other'}.")


def apart(differences):
    """Whether a mean difference as large as this would be chance in less than one case of 20."""
    if not np.isfinite(differences).all():  # infinitely worse
        return True
    return np.ptp(differences) == 0 != differences[0] or ttest_1samp(differences, 0).pvalue < 0.05
