"""Draw the pictures of the gallery, each by a `plot` of the package, on real data.

    KERAS_BACKEND=torch python docs/pictures/gallery.py    # about a minute

The pictures go beside this file. `docs/gallery.md` shows them.
"""

import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

import keras_dnn_extras as kdx

HERE = pathlib.Path(__file__).parent
L = keras.layers


def main() -> None:
    keras.utils.set_random_seed(0)
    draw_search()
    draw_schedules()
    draw_gradients()
    draw_uncertainty()
    draw_band()


def save(name: str, draw: Callable[[Any], Any], width: float = 6.0, height: float = 4.0) -> None:
    """Draw on new axes, and save the picture."""
    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure.subplots())
    figure.savefig(HERE / f"{name}.png", dpi=120)
    print(f"{name}.png")


def digits() -> tuple[Any, Any]:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def deep_network(activation: str, initializer: str, depth: int) -> Any:
    hidden = [
        L.Dense(50, activation, kernel_initializer=initializer, name=f"hidden_{i + 1}")
        for i in range(depth)
    ]
    model = keras.Sequential(
        [keras.Input((64,)), *hidden, L.Dense(10, activation="softmax", name="output")]
    )
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def draw_search() -> None:
    x, y = digits()
    search = kdx.find_learning_rate(deep_network("elu", "he_normal", 3), x, y, verbose=0)
    save("search", search.plot)


def draw_schedules() -> None:
    """The learning rate of each callback over 8 epochs."""
    x, y = digits()
    callbacks = (
        kdx.OneCycleScheduler(0.1),
        kdx.ExponentialLR(decay_rate=0.1, decay_epochs=4),
        kdx.PowerLR(decay_epochs=1),
        kdx.PiecewiseConstantLR([2, 5], [0.1, 0.03, 0.01]),
    )
    figure = Figure(figsize=(10, 7), layout="constrained")
    for ax, callback in zip(figure.subplots(2, 2).flat, callbacks, strict=True):
        model = deep_network("elu", "he_normal", 2)
        model.optimizer.learning_rate = 0.1
        model.fit(x, y, epochs=8, callbacks=[callback], verbose=0)
        callback.plot(ax)
    figure.savefig(HERE / "schedules.png", dpi=120)
    print("schedules.png")


def draw_gradients() -> None:
    """Twelve layers: gradients vanish with the sigmoid, and do not with He and ELU."""
    x, y = digits()
    for name, activation, initializer in (
        ("vanishing", "sigmoid", "glorot_uniform"),
        ("healthy", "elu", "he_normal"),
    ):
        monitor = kdx.GradientNormMonitor()
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            deep_network(activation, initializer, 12).fit(x, y, epochs=2, callbacks=[monitor], verbose=0)
        save(f"gradients_{name}", monitor.plot, width=7.5, height=4.2)


def draw_uncertainty() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=300, random_state=0)
    model = keras.Sequential([keras.Input((30,))])
    for _ in range(2):
        model.add(L.Dense(50, activation="elu", kernel_initializer="he_normal"))
        model.add(L.Dropout(0.3))
    model.add(L.Dense(1, activation="sigmoid"))
    model.compile("adam", "binary_crossentropy")
    model.fit(x_train, y_train, epochs=8, verbose=0)
    prediction = kdx.mc_predict(model, x_test, samples=100, seed=1)
    probabilities, entropy = prediction.mean[:, 0], prediction.predictive_entropy
    right = (probabilities > 0.5) == y_test
    save("uncertainty", lambda ax: kdx.plot_uncertainty(right, entropy, ax=ax))
    save("reliability", lambda ax: kdx.plot_reliability(y_test, probabilities, ax=ax))
    save("risk_coverage", kdx.risk_coverage(~right, entropy).plot)


def draw_band() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (300, 1)).astype("float32")
    y = np.sin(2 * x[:, 0]) + 0.1 * rng.normal(size=300)
    layers = [L.Dense(100, "elu"), L.Dropout(0.1), L.Dense(100, "elu"), L.Dropout(0.1)]
    model = keras.Sequential([keras.Input((1,)), *layers, L.Dense(1)])
    model.compile(keras.optimizers.Adam(0.005), "mse")
    model.fit(x, y, epochs=100, verbose=0)
    places = np.linspace(-3.5, 3.5, 120, dtype="float32")[:, None]
    band = kdx.mc_predict(model, places, seed=1)
    save("band", lambda ax: kdx.plot_band(places, band.mean[:, 0], band.std[:, 0], data=(x, y), ax=ax))


if __name__ == "__main__":
    main()
