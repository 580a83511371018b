"""9. The guidelines: five recipes at the same budget, each with what it is good for.

Three hidden layers of 100 units, as many epochs, each with 1cycle up to the recipe's own peak. What is
shown is the model as it would be used: fused for low latency, with its small weights made zeros, and with
the predictions of many samples where risk matters.
"""

import common

settings = common.settings(__doc__, epochs=10, seeds=3)

import keras
import numpy as np

import keras_dnn_extras as kdx

RECIPES = ("default", "self_normalizing", "sparse", "low_latency", "risk_sensitive")


def main():
    x_train, x_test, y_train, y_test = common.digits()
    rows = {name: [] for name in RECIPES}
    for seed in settings.seeds:
        for name in RECIPES:
            keras.utils.set_random_seed(seed)
            model = kdx.dnn(64, [100, 100, 100], 10, recipe=name, inputs=x_train, seed=seed)
            one_cycle = kdx.OneCycleScheduler(kdx.recipe(name).max_learning_rate)
            model.fit(x_train, y_train, epochs=settings.epochs, callbacks=[one_cycle], verbose=0)
            if name == "low_latency":
                model = kdx.fuse_batch_norm(model).model
            if name == "sparse":
                kdx.zero_small_weights(model, 1e-3)
            if name == "risk_sensitive":
                probabilities = kdx.mc_predict(model, x_test, samples=100, seed=seed).mean
            else:
                probabilities = model.predict(x_test, verbose=0)
            accuracy = np.mean(probabilities.argmax(axis=1) == y_test)
            nll = kdx.negative_log_likelihood(y_test, probabilities)
            rows[name].append((accuracy, nll, kdx.sparsity(model).share, len(model.layers)))
    columns = {"test accuracy": ".1%", "negative log-likelihood": ".3f", "zeros": ".0%", "layers": ".0f"}
    common.table(columns, rows)
    common.verdict(rows, 0, "test accuracy", ".1%")
    common.verdict(rows, 1, "negative log-likelihood", ".3f", lowest=True)


if __name__ == "__main__":
    main()
