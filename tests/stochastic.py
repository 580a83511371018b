"""Models with dropout of every kind, and what Keras itself draws of them: an independent reference."""

import keras
import numpy as np

L = keras.layers
STEPS, FEATURES = 4, 3


def _sequence(*layers):
    return keras.Sequential([keras.Input((STEPS, FEATURES)), *layers, L.Flatten(), L.Dense(2)])


def _attention(layer):
    query = keras.Input((STEPS, FEATURES))
    value = L.Dense(FEATURES)(query)
    in_list = isinstance(layer, (L.Attention, L.AdditiveAttention))
    attended = layer([query, value]) if in_list else layer(query, value)
    return keras.Model(query, L.Dense(2)(L.Flatten()(attended)))


def _image(*layers, rank=2):
    return keras.Sequential([keras.Input((*[2] * rank, 5)), *layers, L.Flatten(), L.Dense(2)])


def _stacked():
    cells = [L.LSTMCell(4, dropout=0.3), L.GRUCell(3, recurrent_dropout=0.4)]
    return L.RNN(cells, return_sequences=True)


def _recipe():
    inputs = keras.Input((STEPS, FEATURES))
    dropped = L.Dropout(0.4)(inputs, training=True)
    hidden = L.LSTM(4, dropout=0.3)(dropped, training=True)
    return keras.Model(inputs, L.Dense(2)(hidden))


def _masked():
    layers = [L.Embedding(6, 4, mask_zero=True), L.Dropout(0.4), L.LSTM(3, dropout=0.3), L.Dense(2)]
    return keras.Sequential([keras.Input((STEPS,), dtype="int32"), *layers])


KINDS = {
    "Dropout": lambda: _sequence(L.Dropout(0.4)),
    "noise_shape": lambda: _sequence(L.Dropout(0.4, noise_shape=(None, 1, None))),
    "AlphaDropout": lambda: _sequence(L.AlphaDropout(0.3)),
    "AlphaDropout, noise_shape": lambda: _sequence(L.AlphaDropout(0.3, noise_shape=(None, STEPS, 1))),
    "GaussianDropout": lambda: _sequence(L.GaussianDropout(0.4)),
    "SpatialDropout1D": lambda: _sequence(L.SpatialDropout1D(0.4)),
    "SpatialDropout2D": lambda: _image(L.SpatialDropout2D(0.4)),
    "SpatialDropout2D, channels first": lambda: _image(L.SpatialDropout2D(0.4, "channels_first")),
    "SpatialDropout3D": lambda: _image(L.SpatialDropout3D(0.4), rank=3),
    "SimpleRNN": lambda: _sequence(L.SimpleRNN(4, dropout=0.3, recurrent_dropout=0.3)),
    "LSTM": lambda: _sequence(L.LSTM(4, dropout=0.3, recurrent_dropout=0.3, return_sequences=True)),
    "GRU": lambda: _sequence(L.GRU(4, dropout=0.3, recurrent_dropout=0.3, return_sequences=True)),
    "GRU, reset before": lambda: _sequence(L.GRU(4, dropout=0.3, reset_after=False, go_backwards=True)),
    "Bidirectional": lambda: _sequence(L.Bidirectional(L.LSTM(3, recurrent_dropout=0.4))),
    "cells in a stack": lambda: _sequence(_stacked()),
    "ConvLSTM1D": lambda: keras.Sequential(
        [
            keras.Input((2, STEPS, FEATURES)),
            L.ConvLSTM1D(2, 2, dropout=0.3, recurrent_dropout=0.3),
            L.Flatten(),
            L.Dense(2),
        ]
    ),
    "Attention": lambda: _attention(L.Attention(dropout=0.4)),
    "AdditiveAttention": lambda: _attention(L.AdditiveAttention(dropout=0.4)),
    "MultiHeadAttention": lambda: _attention(L.MultiHeadAttention(2, 3, dropout=0.4)),
    "GroupQueryAttention": lambda: _attention(L.GroupQueryAttention(3, 4, 2, dropout=0.4)),
    "TimeDistributed": lambda: _sequence(L.TimeDistributed(L.Dropout(0.4))),
    "training=True": _recipe,
    "mask of an embedding": _masked,
}


def inputs_of(model, rows=1, seed=0):
    """Return random inputs, one of which has a padded step."""
    shape = (rows, *model.inputs[0].shape[1:])
    rng = np.random.default_rng(seed)
    if model.inputs[0].dtype == "int32":
        x = rng.integers(1, 6, shape)
        x[:, -1] = 0
        return x
    return rng.normal(size=shape).astype("float32")


def drawn_by_keras(model, row, samples):
    """Return the outputs of `samples` calls of `model` with dropout active: each row has its masks."""
    repeated = keras.ops.convert_to_tensor(np.repeat(row, samples, axis=0))
    return keras.ops.convert_to_numpy(model(repeated, training=True)).astype("float64")


def assert_same_distribution(first, second):
    """Check means and all covariances of two sets of samples, rows of which are draws.

    A mean of n draws is off by sqrt(variance / n), and so is a covariance, which is the mean of products.
    Six of these deviations together are exceeded in one case of 500 million, if they are normal.
    """
    first, second = (samples.reshape(len(samples), -1) for samples in (first, second))
    _assert_same_means(first, second)
    centred = [samples - samples.mean(axis=0) for samples in (first, second)]
    products = [(c[:, :, None] * c[:, None, :]).reshape(len(c), -1) for c in centred]
    _assert_same_means(*products)


def _assert_same_means(first, second):
    deviation = np.sqrt(sum(samples.var(axis=0) / len(samples) for samples in (first, second)))
    difference = np.abs(first.mean(axis=0) - second.mean(axis=0))
    assert np.all(deviation > 0)
    assert np.all(difference < 6 * deviation), (difference / deviation).max()
