"""Draw the README's picture: digits, a constant learning rate and 1cycle, ten seeds each.

    KERAS_BACKEND=jax python docs/pictures/one_cycle.py --train    # about eight minutes on two cores
    python docs/pictures/one_cycle.py                              # draw what was measured

Real data: the 1,797 digits of scikit-learn, 1,200 to train on and 597 to test. The network has five
hidden layers of 50 units with BatchNormalization and sees 8 epochs in batches of 16. Each rate of the grid
is tried as a constant rate and as the peak of 1cycle, from the same weights and with the same batches. The
results are kept in `one_cycle.json`, beside `one_cycle.png`.
"""

import argparse
import datetime
import json
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "one_cycle.json"
PICTURE = HERE / "one_cycle.png"
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
SEEDS = range(1, 11)
EPOCHS = 8
BATCH_SIZE = 16
BLUE, ORANGE = "#0072b2", "#d55e00"  # told apart by colour-blind readers too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train first, and keep the results")
    if parser.parse_args().train:
        RESULTS.write_text(json.dumps(trained(), indent=1) + "\n")
    results = json.loads(RESULTS.read_text())
    for name in ("constant", "one_cycle"):
        for rate, accuracies in results[name].items():
            print(f"{name:>10} {rate:>6} {np.mean(accuracies):.1%} +- {np.std(accuracies, ddof=1):.1%}")
    draw(results)


# -- training -------------------------------------------------------------------------------------------


def trained() -> dict[str, Any]:
    """Return the test accuracies of all seeds, by rate, with and without 1cycle."""
    import keras

    import keras_dnn_extras as kdx

    train, test = load_data()
    model = network()
    accuracies: dict[str, dict[str, list[float]]] = {"constant": {}, "one_cycle": {}}
    for rate in RATES:
        for name, by_rate in accuracies.items():
            by_rate[str(rate)] = []
            for seed in SEEDS:
                start_again(model, seed, rate)
                callbacks = [kdx.OneCycleScheduler(rate)] if name == "one_cycle" else []
                model.fit(*train, batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=callbacks, verbose=0)
                by_rate[str(rate)].append(round(model.evaluate(*test, verbose=0)[1], 6))
            print(name, rate, np.mean(by_rate[str(rate)]), flush=True)
    return {
        "measured": datetime.date.today().isoformat(),
        "backend": keras.backend.backend(),
        "keras": keras.version(),
        "test_images": len(test[0]),
        **accuracies,
    }


def load_data() -> tuple[tuple, tuple]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=597, stratify=y, random_state=0)
    return (x_train, y_train), (x_test, y_test)


def network() -> Any:
    import keras

    model = keras.Sequential([keras.Input((64,))])
    for _ in range(5):
        model.add(keras.layers.Dense(50, kernel_initializer="he_normal", use_bias=False))
        model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.Activation("elu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    optimizer = keras.optimizers.SGD(momentum=0.9)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def start_again(model: Any, seed: int, rate: float) -> None:
    """Give the model fresh weights of that seed, and its optimizer an empty state and the rate."""
    import keras

    keras.utils.set_random_seed(seed)
    model.set_weights(network().get_weights())
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape))
    model.optimizer.learning_rate = rate
    keras.utils.set_random_seed(seed)  # the same batches


# -- the picture ----------------------------------------------------------------------------------------


def draw(results: dict[str, Any]) -> None:
    """Draw the cycle, and the accuracies by learning rate."""
    figure = Figure(figsize=(8.4, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    draw_cycle(left)
    draw_accuracies(right, results)
    figure.savefig(PICTURE, dpi=140)


def draw_cycle(ax: Any) -> None:
    import keras_dnn_extras as kdx

    updates = -(-1200 // BATCH_SIZE)
    kdx.OneCycleScheduler(0.1).plot(ax, epochs=EPOCHS, steps_per_epoch=updates)


def draw_accuracies(ax: Any, results: dict[str, Any]) -> None:
    """A line through the means, a dot for each seed."""
    styles = {
        "one_cycle": ("1cycle up to this rate", BLUE, "o-"),
        "constant": ("this rate, constant", ORANGE, "s--"),
    }
    for name, (label, color, style) in styles.items():
        rates = [float(rate) for rate in results[name]]
        for rate, accuracies in zip(rates, results[name].values(), strict=True):
            ax.plot([rate] * len(accuracies), accuracies, ".", color=color, alpha=0.4, markersize=5)
        means = [np.mean(accuracies) for accuracies in results[name].values()]
        ax.plot(rates, means, style, color=color, label=label, linewidth=2)
    ax.set(xscale="log", xlabel="learning rate", ylabel="accuracy on test images", ylim=(0.895, 1.0))
    ax.set_xticks(RATES, map(str, RATES))
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.grid(alpha=0.3)
    below = np.mean(results["constant"]["0.3"])
    ax.annotate(f"\u2193 {below:.0%}", (0.33, 0.917), color=ORANGE, ha="right", va="center")
    ax.legend(loc="lower left", title=f"digits, {EPOCHS} epochs, {len(SEEDS)} seeds")
    ax.set_title("Accuracy by learning rate")


if __name__ == "__main__":
    main()
