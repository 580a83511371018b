"""6. Faster optimizers, each with a constant learning rate and with 1cycle.

The peak of 1cycle is three times the constant rate. Its momentum runs the other way, where there is one:
`beta_1` of Adam and Nadam. AdaGrad has none, and RMSProp has none in use.
"""

import common

settings = common.settings(__doc__, epochs=6, seeds=3)

import keras

import keras_dnn_extras as kdx

OPTIMIZERS = {
    "momentum": (keras.optimizers.SGD, 0.01, {"momentum": 0.9}),
    "Nesterov": (keras.optimizers.SGD, 0.01, {"momentum": 0.9, "nesterov": True}),
    "AdaGrad": (keras.optimizers.Adagrad, 0.03, {}),
    "RMSProp": (keras.optimizers.RMSprop, 0.001, {}),
    "Adam": (keras.optimizers.Adam, 0.001, {}),
    "Nadam": (keras.optimizers.Nadam, 0.001, {}),
}


def network(optimizer):
    hidden = [keras.layers.Dense(64, activation="elu", kernel_initializer="he_normal") for _ in range(3)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    x_train, x_test, y_train, y_test = common.digits()
    rows = {f"{name}, {rate}": [] for name in OPTIMIZERS for rate in ("constant", "1cycle")}
    for seed in settings.seeds:
        for row in rows:
            name, rate = row.split(", ")
            kind, constant, arguments = OPTIMIZERS[name]
            callbacks = [kdx.OneCycleScheduler(3 * constant)] if rate == "1cycle" else []
            keras.utils.set_random_seed(seed)
            model = network(kind(constant, **arguments))
            history = model.fit(
                x_train, y_train, epochs=settings.epochs, callbacks=callbacks, verbose=0
            ).history
            accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
            rows[row].append((history["loss"][-1], accuracy))
    common.table({"training loss": ".3f", "test accuracy": ".1%"}, rows)
    pairs = [(rows[f"{name}, constant"], rows[f"{name}, 1cycle"]) for name in OPTIMIZERS]
    better = sum(mean_loss(cycle) < mean_loss(constant) for constant, cycle in pairs)
    print(f"\n1cycle reached the lower training loss with {better} of {len(pairs)} optimizers.", end="")
    common.verdict(rows, 1, "test accuracy", ".1%")


def mean_loss(row):
    return sum(loss for loss, _ in row) / len(row)


if __name__ == "__main__":
    main()
