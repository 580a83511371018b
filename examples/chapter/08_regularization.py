"""8. Regularization: L1, L2, dropout, MC dropout and max-norm, with 200 digits to learn from."""

import common

settings = common.settings(__doc__, epochs=40, seeds=3)

import keras
import numpy as np

import keras_dnn_extras as kdx


def network(way):
    penalty = {"L1": keras.regularizers.L1(1e-3), "L2": keras.regularizers.L2(1e-3)}.get(way)
    constraint = keras.constraints.MaxNorm(1.0) if way == "max-norm" else None
    layers = [keras.Input((64,))]
    for _ in range(2):
        layers.append(
            keras.layers.Dense(
                100,
                activation="elu",
                kernel_initializer="he_normal",
                kernel_regularizer=penalty,
                kernel_constraint=constraint,
            )
        )
        if way == "dropout":
            layers.append(keras.layers.Dropout(0.3))
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def scores(model, probabilities, y_test):
    accuracy = np.mean(probabilities.argmax(axis=1) == y_test)
    nll = kdx.negative_log_likelihood(y_test, probabilities)
    return accuracy, nll, kdx.sparsity(model, 1e-3).share


def main():
    x_train, x_test, y_train, y_test = common.digits(train_size=200)
    rows = {way: [] for way in ("nothing", "L1", "L2", "dropout", "MC dropout", "max-norm")}
    for seed in settings.seeds:
        for way in rows:
            if way == "MC dropout":  # the model that was trained with dropout, asked another way
                continue
            keras.utils.set_random_seed(seed)
            model = network(way)
            model.fit(x_train, y_train, epochs=settings.epochs, verbose=0)
            rows[way].append(scores(model, model.predict(x_test, verbose=0), y_test))
            if way == "dropout":
                mean = kdx.mc_predict(model, x_test, samples=100, seed=seed).mean
                rows["MC dropout"].append(scores(model, mean, y_test))
    columns = {"test accuracy": ".1%", "negative log-likelihood": ".3f", "weights below 0.001": ".0%"}
    common.table(columns, rows)
    common.verdict(rows, 0, "test accuracy", ".1%")
    common.verdict(rows, 1, "negative log-likelihood", ".3f", lowest=True)


if __name__ == "__main__":
    main()
