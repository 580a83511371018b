"""Models to transfer: a body with BatchNormalization in it, nested or not, and a head."""

import keras
import numpy as np

L = keras.layers
FEATURES, OUTPUTS = 6, 2


def body_layers():
    return [
        L.Dense(5, name="first", kernel_regularizer=keras.regularizers.L2(0.01)),
        L.BatchNormalization(name="norm"),
        L.Dense(5, activation="tanh", name="second"),
    ]


def flat():
    return keras.Sequential([keras.Input((FEATURES,)), *body_layers(), L.Dense(OUTPUTS, name="head")])


def nested():
    body = keras.Sequential([keras.Input((FEATURES,)), *body_layers()], name="body")
    inputs = keras.Input((FEATURES,))
    return keras.Model(inputs, L.Dense(OUTPUTS, name="head")(body(inputs)))


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body = keras.Sequential(body_layers(), name="body")
        self.head = L.Dense(OUTPUTS, name="head")

    def call(self, inputs, training=None):
        return self.head(self.body(inputs, training=training))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, FEATURES), "float32"))
    return model


MODELS = {"flat": flat, "nested": nested, "subclassed": subclassed}


def layer(model, name):
    """Return the layer of any of these models by its own name."""
    return next(found for found in model._flatten_layers() if found.name == name)


def path(model, name):
    """Return how the layer is called in `model`."""
    if name == "body":
        return slice(0, -1) if isinstance(model, keras.Sequential) else "body"
    return name if isinstance(model, keras.Sequential) else f"body/{name}"


def data(rows=20, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(rows, FEATURES)), rng.normal(size=(rows, OUTPUTS))
    return x.astype("float32"), y.astype("float32")


def values(weights):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in weights]


def assert_same(found, expected):
    for new, old in zip(found, expected, strict=True):
        np.testing.assert_array_equal(new, old)


def fit(model, *, epochs=1, **arguments):
    x, y = data()
    arguments = {"batch_size": 5, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(x, y, epochs=epochs, **arguments)
