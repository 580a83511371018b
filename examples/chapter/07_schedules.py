"""7. Learning-rate schedules: constant, power, exponential, piecewise constant, performance, 1cycle.

All begin with the same rate, but 1cycle, which has its peak there times three.
"""

import common

settings = common.settings(__doc__, epochs=10, seeds=3)

import keras

import keras_dnn_extras as kdx

RATE = 0.02


def schedules(epochs):
    """Return the callbacks, new for each `fit`."""
    return {
        "constant": [],
        "power": [kdx.PowerLR(decay_epochs=epochs / 9)],  # a tenth at the end
        "exponential": [kdx.ExponentialLR(decay_rate=0.1, decay_epochs=epochs)],
        "piecewise constant": [
            kdx.PiecewiseConstantLR([epochs / 2, epochs * 3 / 4], [RATE, RATE / 3, RATE / 10])
        ],
        "performance": [keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1)],
        "1cycle": [kdx.OneCycleScheduler(3 * RATE)],
    }


def network():
    hidden = [keras.layers.Dense(64, activation="elu", kernel_initializer="he_normal") for _ in range(3)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, activation="softmax")])
    optimizer = keras.optimizers.SGD(RATE, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    x_train, x_test, y_train, y_test = common.digits()
    rows = {name: [] for name in schedules(settings.epochs)}
    for seed in settings.seeds:
        for name, callbacks in schedules(settings.epochs).items():
            keras.utils.set_random_seed(seed)
            model = network()
            arguments = {"epochs": settings.epochs, "validation_split": 0.2, "verbose": 0}
            history = model.fit(x_train, y_train, callbacks=callbacks, **arguments).history
            accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
            rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
            rows[name].append((rate, history["loss"][-1], accuracy))
    common.table({"last rate": ".5f", "training loss": ".4f", "test accuracy": ".1%"}, rows)
    common.verdict(rows, 1, "training loss", ".4f", lowest=True)
    common.verdict(rows, 2, "test accuracy", ".1%")


if __name__ == "__main__":
    main()
