"""1. Vanishing gradients: what initializers and activations let through.

Networks of 10 hidden layers on digits. `GradientNormMonitor` measures the gradients of the training itself.
The signal that a layer gets is the more different from that of the last one, the further down it is: the
table has the norm of the first hidden layer's gradient over that of the last one's, in the first update, as
a power of ten: 0 if both get the same.
"""

import common

settings = common.settings(__doc__, epochs=5, seeds=2)

import keras
import numpy as np

import keras_dnn_extras as kdx

LAYERS, UNITS = 10, 60
NETWORKS = {  # activation and initializer
    "sigmoid, normal 0.05": ("sigmoid", "random_normal"),
    "sigmoid, Glorot": ("sigmoid", "glorot_normal"),
    "tanh, Glorot": ("tanh", "glorot_normal"),
    "ReLU, Glorot": ("relu", "glorot_normal"),
    "ReLU, He": ("relu", "he_normal"),
    "Leaky ReLU, He": ("leaky_relu", "he_normal"),
    "PReLU, He": ("prelu", "he_normal"),
    "ELU, He": ("elu", "he_normal"),
    "SELU, LeCun": ("selu", "lecun_normal"),
}


def network(activation, initializer):
    layers = [keras.Input((64,))]
    for i in range(LAYERS):
        layers.append(keras.layers.Dense(UNITS, kernel_initializer=initializer, name=f"hidden_{i}"))
        prelu = activation == "prelu"  # which has weights of its own
        layers.append(keras.layers.PReLU() if prelu else keras.layers.Activation(activation))
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    x_train, x_test, y_train, y_test = common.digits()
    rows, vanishing = {name: [] for name in NETWORKS}, set()
    for seed in settings.seeds:
        for name, choices in NETWORKS.items():
            keras.utils.set_random_seed(seed)
            model = network(*choices)
            monitor = kdx.GradientNormMonitor(on_problem="ignore")
            model.fit(x_train, y_train, epochs=settings.epochs, callbacks=[monitor], verbose=0)
            first, last = (monitor.history[f"gradient_norm/hidden_{i}"][0] for i in (0, LAYERS - 1))
            rows[name].append((np.log10(first / last), model.evaluate(x_test, y_test, verbose=0)[1]))
            if any(finding.kind == "vanishing" for finding in monitor.findings):
                vanishing.add(name)
    common.table({"log10 first / last": ".1f", "test accuracy": ".1%"}, rows)
    kept = [name for name, row in rows.items() if abs(np.mean(row, axis=0)[0]) < 0.5]
    print(f"\nWithin a factor of 3 from the last to the first layer: {'; '.join(kept) or '-'}.")
    print(f"Vanishing, says the monitor: {'; '.join(sorted(vanishing)) or '-'}.")
    common.verdict(rows, 1, "test accuracy", ".1%")


if __name__ == "__main__":
    main()
