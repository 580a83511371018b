"""Models whose gradients are known in closed form, and what an optimizer makes of such gradients.

The loss is the mean of the outputs and the layer is linear, so that the gradient of the kernel is the
mean of a batch's inputs and that of the bias is 1, whatever the weights are. Inputs are multiples of
1/8 and batches hold a power of two of them: these gradients are exact in float32.
"""

import keras
import numpy as np

FEATURES, UNITS = 3, 2


@keras.saving.register_keras_serializable(package="tests")
class MeanOutput(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(y_pred, axis=-1) * UNITS + 0 * keras.ops.mean(y_true, axis=-1)


def data(batches, batch_size=2, seed=0):
    """Return inputs that never have a mean near 0, and targets that do not matter."""
    x = np.random.default_rng(seed).integers(4, 16, (batches * batch_size, FEATURES)) / 8
    return x.astype("float32"), np.zeros((batches * batch_size, UNITS), "float32")


def gradients(x, batch_size=2):
    """Return the gradients of each batch of `x`: kernel and bias."""
    means = x.reshape(-1, batch_size, FEATURES).mean(axis=1, dtype="float64").astype("float32")
    return [[np.repeat(mean[:, None], UNITS, axis=1), np.ones(UNITS, "float32")] for mean in means]


def initial_weights():
    return [np.ones((FEATURES, UNITS), "float32"), np.ones(UNITS, "float32")]


def dense():
    return keras.layers.Dense(UNITS, kernel_initializer="ones", bias_initializer="ones", name="linear")


def linear_model(optimizer, build_optimizer=True, **compile_arguments):
    """Return a model of one layer. Where `fit` builds the optimizer, TensorFlow traces each step twice."""
    model = keras.Sequential([keras.Input((FEATURES,)), dense()])
    model.compile(optimizer, loss=MeanOutput(), **compile_arguments)
    if build_optimizer:
        model.optimizer.build(model.trainable_variables)
    return model


def hyperparameter_names(optimizer):
    """Return the names of the momenta of a Keras optimizer. Muon has two, ScheduleFreeAdamW none."""
    return [n for n in ("momentum", "beta_1", "adam_beta_1") if hasattr(optimizer, n)]


def apply_eagerly(optimizer, gradients_of_updates, learning_rates, momenta=None):
    """Return the weights after a plain loop that sets the floats before each update.

    No fit, no callback, no compiled step: what Keras documents as setting an optimizer's attributes.
    """
    variables = [keras.Variable(value) for value in initial_weights()]
    optimizer.build(variables)
    for update, update_gradients in enumerate(gradients_of_updates):
        optimizer.learning_rate = float(learning_rates[update])
        if momenta is not None:
            for name in hyperparameter_names(optimizer):
                setattr(optimizer, name, float(momenta[update]))
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in update_gradients], variables)
    optimizer.finalize_variable_values(variables)
    return [keras.ops.convert_to_numpy(v) for v in variables]


def accumulated(gradients_of_batches, batches):
    """Return the means of each `batches` gradients, without a rest that is never applied."""
    whole = len(gradients_of_batches) // batches * batches
    groups = (gradients_of_batches[i : i + batches] for i in range(0, whole, batches))
    return [[sum(gs) / np.float32(batches) for gs in zip(*group, strict=True)] for group in groups]


def gradients_by_autodiff(model, x, y):
    """Return the gradients of the mean square error of `model` for one batch, by the backend itself."""
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        found = tape.gradient(loss, [v.value for v in model.trainable_variables])
        return [tf.convert_to_tensor(g).numpy() for g in found]
    if backend == "torch":
        import torch

        loss = torch.mean((model(x, training=True) - y) ** 2)
        found = torch.autograd.grad(loss, [v.value for v in model.trainable_variables])
        return [g.numpy() for g in found]
    import jax

    def loss_of(weights):
        others = [v.value for v in model.non_trainable_variables]
        outputs, _ = model.stateless_call(weights, others, x, training=True)
        return jax.numpy.mean((outputs - y) ** 2)

    return [np.asarray(g) for g in jax.grad(loss_of)([v.value for v in model.trainable_variables])]


def norms_of_training(model, x, y, batch_size, epochs, optimizer, accumulation):
    """Train in a plain loop. Return the norms of the gradients: a row for each variable, of each update."""
    found, pending = [], []
    for _ in range(epochs):
        for i in range(0, len(x), batch_size):
            pending.append(gradients_by_autodiff(model, x[i : i + batch_size], y[i : i + batch_size]))
            if len(pending) == accumulation:
                means = [np.mean(gs, axis=0) for gs in zip(*pending, strict=True)]
                found.append([np.sqrt(np.sum(np.square(g, dtype="float64"))) for g in means])
                optimizer.apply([keras.ops.convert_to_tensor(g) for g in means], model.trainable_variables)
                pending = []
    return np.array(found).T
