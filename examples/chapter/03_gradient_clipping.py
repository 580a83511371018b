"""3. Gradient clipping: by value, and by norm.

First what each makes of one gradient: clipping by value bends it, clipping by norm keeps its direction.
Then a regression that needs it: the progression of diabetes in a year is a number in the hundreds, and so
are the first errors, whose gradients are too large for a usual learning rate.
"""

import common

settings = common.settings(__doc__, epochs=20, seeds=3)

import keras
import numpy as np
from sklearn.datasets import load_diabetes

import keras_dnn_extras as kdx

WAYS = {
    "no clipping": {},
    "clipvalue=1": {"clipvalue": 1.0},
    "clipnorm=1, each weight": {"clipnorm": 1.0},
    "global_clipnorm=1": {"global_clipnorm": 1.0},
}


def step(gradient, clipping):
    """Return the gradient that the optimizer really applies."""
    weights = keras.Variable(np.zeros(2))
    keras.optimizers.SGD(1.0, **clipping).apply([keras.ops.convert_to_tensor(gradient)], [weights])
    return -np.array(keras.ops.convert_to_numpy(weights))


def network():
    hidden = [keras.layers.Dense(50, activation="elu", kernel_initializer="he_normal") for _ in range(3)]
    return keras.Sequential([keras.Input((10,)), *hidden, keras.layers.Dense(1)])


def main():
    gradient = np.float32([0.9, 100.0])
    print(f"{'the gradient':<24}{np.array2string(gradient, precision=4)}")
    for name, clipping in WAYS.items():
        print(f"{name:<24}{np.array2string(step(gradient, clipping), precision=4)}")
    x, y = load_diabetes(return_X_y=True)
    x = x / x.std(axis=0)
    rows = {name: [] for name in WAYS}
    for seed in settings.seeds:
        for name, clipping in WAYS.items():
            keras.utils.set_random_seed(seed)
            model = network()
            model.compile(keras.optimizers.SGD(0.01, momentum=0.9, **clipping), "mse", metrics=["mae"])
            monitor = kdx.GradientNormMonitor(per_layer=False, on_problem="ignore")
            arguments = {"epochs": settings.epochs, "callbacks": [monitor], "verbose": 0}
            history = model.fit(x, y, **arguments).history
            first = monitor.history["gradient_norm"][0]
            rows[name].append((first, np.mean(history["clipped_fraction"]), history["mae"][-1]))
    print()
    common.table({"first gradient": ".0f", "updates clipped": ".0%", "mean absolute error": ".1f"}, rows)
    lost = [name for name, row in rows.items() if np.isnan(row).any()]
    print(f"\nDiverged to NaN: {', '.join(lost) or '-'}.")
    print(f"Who predicts the mean of all is {abs(y - y.mean()).mean():.1f} off.", end="")
    common.verdict(rows, 2, "mean absolute error", ".1f", lowest=True)


if __name__ == "__main__":
    main()
