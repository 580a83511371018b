"""2. Batch normalization: none, before the activation, after it.

Networks of 8 hidden layers on digits, with an activation that saturates and one that does not.
"""

import common

settings = common.settings(__doc__, epochs=8, seeds=3)

import keras

import keras_dnn_extras as kdx

LAYERS, UNITS = 8, 60


def network(activation, place):
    layers = [keras.Input((64,))]
    for _ in range(LAYERS):
        norm = keras.layers.BatchNormalization()
        act = keras.layers.Activation(activation)
        # Before the activation its shift does what a bias would.
        dense = keras.layers.Dense(UNITS, kernel_initializer="he_normal", use_bias=place != "before")
        layers += {"without": [dense, act], "before": [dense, norm, act], "after": [dense, act, norm]}[
            place
        ]
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    x_train, x_test, y_train, y_test = common.digits()
    rows = {f"{act}, {place}": [] for act in ("sigmoid", "elu") for place in ("without", "before", "after")}
    for seed in settings.seeds:
        for name, row in rows.items():
            keras.utils.set_random_seed(seed)
            model = network(*name.split(", "))
            history = model.fit(x_train, y_train, epochs=settings.epochs, verbose=0).history
            fused = kdx.fuse_batch_norm(model).model
            accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
            row.append((history["loss"][-1], accuracy, len(model.layers), len(fused.layers)))
    columns = {"training loss": ".3f", "test accuracy": ".1%", "layers": ".0f", "when fused": ".0f"}
    common.table(columns, rows)
    common.verdict(rows, 1, "test accuracy", ".1%")


if __name__ == "__main__":
    main()
