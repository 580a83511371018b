"""Models with batch normalizations, with random statistics, by the pattern that they show, and helpers."""

import functools
import inspect

import keras
import numpy as np

import keras_dnn_extras as kdx

L = keras.layers
# Keras on torch repeats the border there, and takes means of that: as right to fold, not what others do.
SAME = "valid" if keras.backend.backend() == "torch" else "same"


def randomized(model, seed=0):
    """Give all weights random values: a fifth of the gammas are 0, and half of the others negative."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        norm = isinstance(layer, L.BatchNormalization)
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            shape, name = tuple(variable.shape), variable.name
            if "float" not in keras.backend.standardize_dtype(variable.dtype):
                continue
            if name.endswith("variance"):
                value = rng.uniform(0.5, 2.0, shape)
            elif norm and name == "gamma":
                value = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 0, 1], shape, p=[0.4, 0.2, 0.4])
            elif "kernel" in name:
                fan_in = np.prod(shape[:-1]) if shape else 1
                value = rng.normal(size=shape) / np.sqrt(max(fan_in, 1))
            else:
                value = rng.normal(size=shape) / 2
            variable.assign(value)
    return model


def inputs_of(model, rows=3, seed=5):
    """Return random inputs of a model, one array for each tensor."""
    rng = np.random.default_rng(seed)
    functional = getattr(model, "_functional", None) or model
    found = []
    for tensor in functional.inputs:
        shape, dtype = (rows, *tensor.shape[1:]), keras.backend.standardize_dtype(tensor.dtype)
        found.append(
            rng.normal(size=shape).astype(dtype)
            if "float" in dtype
            else rng.integers(0, 3, shape).astype(dtype)
        )
    return found


def _stack(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


def _norm(**kwargs):
    return L.BatchNormalization(name="bn", **kwargs)


def _before(shape, layer, norm=None, between=()):
    """A layer that is linear, then a normalization, and something that is not linear."""
    return _stack(shape, layer, *between, norm or _norm(), L.ReLU())


def _after(shape, layer, norm=None, between=()):
    """Something that is not linear, then a normalization, and a layer that takes it."""
    return _stack(shape, L.ReLU(), norm or _norm(), *between, layer)


BACKWARD = {
    "Dense": lambda: _before((5,), L.Dense(4)),
    "Dense without bias": lambda: _before((5,), L.Dense(4, use_bias=False)),
    "Dense on sequences": lambda: _before((3, 5), L.Dense(4)),
    "no center": lambda: _before((5,), L.Dense(4), _norm(center=False)),
    "no scale": lambda: _before((5,), L.Dense(4), _norm(scale=False, epsilon=0.1)),
    "EinsumDense": lambda: _before((3, 5), L.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d")),
    "EinsumDense without bias": lambda: _before(
        (3, 5), L.EinsumDense("abc,cde->abde", (None, 4, 2)), _norm(axis=-2)
    ),
    "EinsumDense, bias of another axis": lambda: _before(
        (3, 5), L.EinsumDense("abc,cde->abde", (None, 4, 2), bias_axes="e"), _norm(axis=2)
    ),
    "EinsumDense, ellipsis": lambda: _before((3, 5), L.EinsumDense("...x,xy->...y", 4, bias_axes="y")),
    "Conv1D causal dilated": lambda: _before((9, 3), L.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "Conv2D": lambda: _before((7, 6, 3), L.Conv2D(4, 3, padding="same", strides=2, use_bias=False)),
    "Conv2D grouped": lambda: _before((7, 6, 4), L.Conv2D(6, 3, groups=2)),
    "Conv2D dilated": lambda: _before((7, 6, 3), L.Conv2D(4, 2, padding="same", dilation_rate=2)),
    "Conv3D": lambda: _before((4, 5, 4, 2), L.Conv3D(3, 2, strides=2)),
    "DepthwiseConv1D": lambda: _before((9, 3), L.DepthwiseConv1D(3, depth_multiplier=2)),
    "DepthwiseConv2D": lambda: _before((7, 6, 3), L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")),
    "SeparableConv1D": lambda: _before((9, 3), L.SeparableConv1D(4, 3, depth_multiplier=2)),
    "SeparableConv2D": lambda: _before((7, 6, 3), L.SeparableConv2D(4, 3, padding="same", use_bias=False)),
    "Conv1DTranspose": lambda: _before((5, 3), L.Conv1DTranspose(4, 3, strides=2)),
    "Conv2DTranspose": lambda: _before(
        (4, 5, 3), L.Conv2DTranspose(2, 3, strides=2, padding="same", use_bias=False)
    ),
    "Conv3DTranspose": lambda: _before((3, 3, 3, 2), L.Conv3DTranspose(3, 2)),
    "through AveragePooling": lambda: _before(
        (7, 6, 3), L.Conv2D(4, 2), between=[L.AveragePooling2D(3, 2, padding=SAME)]
    ),
    "through MaxPooling": lambda: _before(
        (8, 8, 3), L.Conv2D(4, 2), _norm(scale=False), [L.MaxPooling2D(3, 2, padding="same")]
    ),
    "through GlobalAveragePooling": lambda: _before(
        (7, 6, 3), L.Conv2D(4, 2), between=[L.GlobalAveragePooling2D()]
    ),
    "through Flatten": lambda: _before((2, 2, 3), L.Conv2D(4, 2), between=[L.Flatten()]),
    "through Reshape": lambda: _before((4, 3), L.Dense(5), between=[L.Reshape((2, 2, 5))]),
    "through Permute": lambda: _before((4, 3), L.Dense(5), _norm(axis=1), [L.Permute((2, 1))]),
    "through RepeatVector": lambda: _before((4,), L.Dense(5), between=[L.RepeatVector(3)]),
    "through UpSampling and Cropping": lambda: _before(
        (5, 5, 3), L.Conv2D(4, 2), between=[L.UpSampling2D(2), L.Cropping2D(1)]
    ),
    "through Dropout": lambda: _before((5,), L.Dense(4), between=[L.Dropout(0.5), L.GaussianNoise(1.0)]),
    "through Add": lambda: _joined(L.Add(), 4, 4),
    "through Subtract": lambda: _joined(L.Subtract(), 4, 4),
    "through Average": lambda: _joined(L.Average(), 4, 4),
    "through Concatenate": lambda: _joined(L.Concatenate(), 4, 3),
    "through Concatenate along another axis": lambda: _joined(L.Concatenate(axis=1), 4, 4, shape=(3, 5)),
}
if "renorm" in inspect.signature(L.BatchNormalization).parameters:  # since Keras 3.14
    BACKWARD["renorm"] = lambda: _before((5,), L.Dense(4), _norm(renorm=True))


def _joined(join, *units, shape=(5,)):
    inputs = keras.Input(shape)
    joined = join([L.Dense(n, use_bias=i == 0, name=f"dense_{i}")(inputs) for i, n in enumerate(units)])
    return keras.Model(inputs, L.ReLU()(_norm()(joined)))


FORWARD = {
    "Dense": lambda: _after((5,), L.Dense(4, activation="tanh")),
    "Dense without bias": lambda: _after((5,), L.Dense(4, use_bias=False)),
    "EinsumDense": lambda: _after((3, 5), L.EinsumDense("abc,cde->abde", (None, 4, 2), bias_axes="e")),
    "EinsumDense, kept axis": lambda: _after((3, 5), L.EinsumDense("abc,bd->adc", (4, 5)), _norm(axis=1)),
    "Conv1D": lambda: _after((9, 3), L.Conv1D(4, 3, dilation_rate=2)),
    "Conv2D grouped": lambda: _after((7, 6, 4), L.Conv2D(6, 3, groups=2, use_bias=False)),
    "Conv2D of one position": lambda: _after((7, 6, 4), L.Conv2D(6, 1, padding="same")),
    "Conv3D": lambda: _after((4, 4, 4, 2), L.Conv3D(3, 2)),
    "DepthwiseConv2D": lambda: _after((7, 6, 3), L.DepthwiseConv2D(3, depth_multiplier=2)),
    "SeparableConv2D": lambda: _after((7, 6, 3), L.SeparableConv2D(4, 3, depth_multiplier=2)),
    "SeparableConv1D without bias": lambda: _after((9, 3), L.SeparableConv1D(4, 3, use_bias=False)),
    "LSTM": lambda: _after((4, 5), L.LSTM(3)),
    "LSTM without bias": lambda: _after((4, 5), L.LSTM(3, use_bias=False, return_sequences=True)),
    "GRU": lambda: _after((4, 5), L.GRU(3)),
    "GRU without bias": lambda: _after((4, 5), L.GRU(3, use_bias=False)),
    "GRU, reset before": lambda: _after((4, 5), L.GRU(3, reset_after=False)),
    "SimpleRNN": lambda: _after((4, 5), L.SimpleRNN(3)),
    "MultiHeadAttention": lambda: _attending(L.MultiHeadAttention(2, 3)),
    "MultiHeadAttention without bias": lambda: _attending(L.MultiHeadAttention(2, 3, use_bias=False)),
    "GroupQueryAttention": lambda: _attending(L.GroupQueryAttention(3, 4, 2)),
    "through AveragePooling": lambda: _after(
        (7, 6, 3), L.Conv2D(4, 2), between=[L.AveragePooling2D(3, 2, padding=SAME)]
    ),
    "through MaxPooling": lambda: _after((8, 8, 3), L.Conv2D(4, 2), _norm(scale=False), [L.MaxPooling2D()]),
    "through GlobalAveragePooling": lambda: _after(
        (7, 6, 3), L.Dense(4), between=[L.GlobalAveragePooling2D()]
    ),
    "through Flatten": lambda: _after((3, 2, 4), L.Dense(5), between=[L.Flatten()]),
    "through Reshape": lambda: _after((3, 4, 5), L.Conv1D(3, 2), between=[L.Reshape((12, 5))]),
    "through Permute": lambda: _after((4, 3), L.Dense(5), _norm(axis=1), [L.Permute((2, 1))]),
    "through RepeatVector": lambda: _after((4,), L.LSTM(3), between=[L.RepeatVector(3)]),
    "through Dropout": lambda: _after((5,), L.Dense(4), between=[L.Dropout(0.5), L.Activation("linear")]),
    "through Concatenate": lambda: _joined_before(),
}


def _attending(layer):
    inputs = keras.Input((4, 5))
    norm = _norm()(inputs)
    return keras.Model(inputs, layer(norm, norm))


def _joined_before():
    inputs = keras.Input((5,))
    relu = L.ReLU()(inputs)
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()([relu, _norm()(inputs), relu])))


PATTERNS = {f"backward {k}": v for k, v in BACKWARD.items()} | {
    f"forward {k}": v for k, v in FORWARD.items()
}


@functools.cache
def fused_pattern(pattern):
    """Return a model and what came of it, which tests read and do not change."""
    model = randomized(PATTERNS[pattern]())
    return model, kdx.fuse_batch_norm(model)


def normalizations(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, L.BatchNormalization)]


def predicted(model, inputs):
    given = inputs if len(inputs) > 1 else inputs[0]
    return [np.asarray(keras.ops.convert_to_numpy(y), "float64") for y in keras.tree.flatten(model(given))]


def relative_error(found, expected):
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


def assert_same(model, fused, limit=2e-6):
    inputs = inputs_of(model)
    for found, expected in zip(predicted(fused, inputs), predicted(model, inputs), strict=True):
        assert relative_error(found, expected) <= limit


def weights_of(model):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def dense_norm_relu(*extra, shape=(5,)):
    stack = [
        keras.Input(shape),
        L.Dense(4, name="dense"),
        L.BatchNormalization(name="bn"),
        L.ReLU(name="relu"),
    ]
    return randomized(keras.Sequential([*stack, *extra]))


def functional(build, *shapes):
    inputs = [keras.Input(shape) for shape in shapes or [(5,)]]
    return randomized(keras.Model(inputs if len(inputs) > 1 else inputs[0], build(*inputs)))


def stacked(*stack):
    def build(x):
        for layer in stack:
            x = layer(x)
        return x

    return build


def norm_relu(**kwargs):
    return L.BatchNormalization(name="bn", **kwargs), L.ReLU(name="relu")


class Forgetful(L.Layer):
    """Multiplies by a factor that its config does not have."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, "dtype": self.dtype_policy}
