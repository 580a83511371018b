"""Fits linear models on two devices and writes their weights to a file: run by test_distribution.py."""

import sys

import keras
import numpy as np
import transfer_models
import truth

import keras_dnn_extras as kdx

OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.9),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "Nadam": lambda: keras.optimizers.Nadam(0.01),
    "scaled Adam": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}
BATCHES, EPOCHS = 6, 2
SEARCH = {"steps": 8, "min_learning_rate": 1e-3, "max_learning_rate": 0.1}
# Keras divides no odd batch among the devices of JAX.
ODD = keras.backend.backend() == "tensorflow"


def loss_data():
    """Return batches of 4, the last of which has 3 samples where that can be: 2 and 1 on two devices."""
    x, y = truth.data(BATCHES, batch_size=4)
    return (x[:-1], y[:-1]) if ODD else (x, y)


def mirrored():
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    return strategy.scope()


def data_parallel():
    import jax

    assert len(jax.devices()) == 2
    return keras.distribution.DataParallel(devices=keras.distribution.list_devices()).scope()


def searched():
    """Return what a range test sees, and how a model that was searched and trained ends up."""
    x, y = truth.data(1)
    results = {}
    for name in ("plain", "searched"):
        model = truth.linear_model(keras.optimizers.Adam(0.01))
        if name == "searched":
            found = kdx.find_learning_rate(model, x, y, **SEARCH, batch_size=2, verbose=0)
            results["searched/losses"] = found.losses
        model.fit(x, y, batch_size=2, epochs=3, verbose=0)
        results[f"{name}/kernel"] = keras.ops.convert_to_numpy(model.trainable_variables[0])
    return results


CLIPNORM = 1.6  # of the kernel's gradient in some batches


def monitored():
    """Return what a monitor sees, of all samples of a batch, with a gradient that is clipped."""
    results = {}
    for name, clipping in {"plain": {}, "clipped": {"clipnorm": CLIPNORM}}.items():
        for scaled in (False, True):
            optimizer = keras.optimizers.SGD(0.01, **clipping)
            model = truth.linear_model(
                keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
            )
            monitor = kdx.GradientNormMonitor(update_ratios=True)
            x, y = truth.data(BATCHES, batch_size=4)
            model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[monitor])
            for key, values in monitor.history.items():
                results[f"{name}, scaled {scaled}: {key}"] = np.array(values)
    return results


def tuned():
    """Return the weights of a model whose head is trained first, each layer at a share of the rate."""
    keras.utils.set_random_seed(1)
    model = kdx.freeze(transfer_models.nested(), "body")
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse")
    x, y = transfer_models.data()
    arguments = {"epochs": 3, "learning_rate": 0.02, "learning_rate_divisor": 2.0, "layer_decay": 0.5}
    kdx.fine_tune(model, x, y, **arguments, batch_size=4, shuffle=False, verbose=0)
    return {f"tuned/{i}": value for i, value in enumerate(transfer_models.values(model.weights))}


def main(path):
    x, y = truth.data(BATCHES)
    results = {}
    with mirrored() if keras.backend.backend() == "tensorflow" else data_parallel():
        for name, optimizer in OPTIMIZERS.items():
            model = truth.linear_model(optimizer())
            callback = kdx.OneCycleScheduler(0.05, anneal="cosine")
            model.fit(x, y, batch_size=2, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[callback])
            weights = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
            results |= {f"{name}/{i}": weight for i, weight in enumerate(weights)}
            results |= {f"{name}/{key}": values for key, values in callback.history.items()}
            results[f"{name}/variables"] = len(model.optimizer.variables)
        model, callback = truth.linear_model(keras.optimizers.SGD(0.01)), kdx.ExponentialLR(1.2)
        model.fit(*loss_data(), batch_size=4, shuffle=False, verbose=0, callbacks=[callback])
        results |= {"losses": callback.losses, "rates": callback.rates}
        results |= searched()
        results |= monitored()
        results |= tuned()
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])
