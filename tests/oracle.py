"""What models compute at inference, in NumPy and float64, straight from the definitions of the layers."""

import itertools

import keras
import numpy as np
from keras import layers


def outputs_of(model, *inputs):
    """Return the one output of `model` for its inputs, flat. It knows the layers that the tests have."""
    functional = getattr(model, "_functional", None) or model
    known = {id(t): np.asarray(x, "float64") for t, x in zip(functional.inputs, inputs, strict=True)}

    def value(tensor):
        if id(tensor) not in known:
            operation, index, _ = tensor._keras_history
            arguments = operation._inbound_nodes[index].arguments
            args, kwargs = keras.tree.map_structure(
                lambda a: value(a) if isinstance(a, keras.KerasTensor) else a,
                (arguments.args, arguments.kwargs),
            )
            known[id(tensor)] = computed(operation, args, kwargs)
        return known[id(tensor)]

    return value(functional.outputs[0])


def computed(layer, args, kwargs):
    kind, (x, *more) = type(layer), args
    if isinstance(layer, keras.Model):
        return outputs_of(layer, x)
    activation = getattr(layer, "activation", None)
    if kind in _RECURRENT:
        return _recurrent(layer, x, kwargs.get("mask"))
    if kind in (layers.MultiHeadAttention, layers.GroupQueryAttention):
        return _attention(layer, x, *more)
    if kind in _FUNCTIONS:
        return _activated(activation, _FUNCTIONS[kind](layer, x))
    for family, function in _FAMILIES:
        if kind in family:
            return _activated(activation, function(layer, x))
    raise NotImplementedError(kind)


def weight(variable):
    return None if variable is None else np.asarray(keras.ops.convert_to_numpy(variable), "float64")


def _activated(activation, x):
    if activation is None or activation is keras.activations.linear:
        return x
    return {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "elu": _elu}[activation.__name__](x)


def _elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _with_bias(layer, x):
    bias = weight(layer.bias)
    return x if bias is None else x + bias


def _batch_norm(layer, x):
    shape = [1] * x.ndim
    shape[layer.axis] = -1
    one, none = np.ones(x.shape[layer.axis]), np.zeros(x.shape[layer.axis])
    gamma, beta = (weight(w) if w is not None else d for w, d in ((layer.gamma, one), (layer.beta, none)))
    mean, variance = weight(layer.moving_mean), weight(layer.moving_variance)
    gamma, beta, mean, variance = (a.reshape(shape) for a in (gamma, beta, mean, variance))
    return gamma * (x - mean) / np.sqrt(variance + layer.epsilon) + beta


# -- convolutions ----------------------------------------------------------------------------------------


def _convolved(x, kernel, strides, padding, dilation, groups=1):
    """Return a convolution of `x`, of shape `(rows, *positions, channels)`: a sum over the taps."""
    if padding != "valid":
        pads = []
        for n, k, s, d in zip(x.shape[1:-1], kernel.shape, strides, dilation, strict=False):
            reach = (k - 1) * d
            total = reach if padding == "causal" else max((-(-n // s) - 1) * s + reach + 1 - n, 0)
            left = total if padding == "causal" else total // 2
            pads.append((left, total - left))
        x = np.pad(x, [(0, 0), *pads, (0, 0)])
    sizes = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:-1], kernel.shape, strides, dilation, strict=False)
    ]
    outputs = kernel.shape[-1] // groups
    parts = []
    for group in range(groups):
        inputs = slice(group * kernel.shape[-2], (group + 1) * kernel.shape[-2])
        made = 0.0
        for tap in itertools.product(*map(range, kernel.shape[:-2])):
            where = [
                slice(t * d, t * d + s * (n - 1) + 1, s)
                for t, d, s, n in zip(tap, dilation, strides, sizes, strict=True)
            ]
            part = kernel[(*tap, slice(None), slice(group * outputs, (group + 1) * outputs))]
            made = made + x[(slice(None), *where, inputs)] @ part
        parts.append(made)
    return np.concatenate(parts, axis=-1)


def _conv(layer, x):
    kernel = weight(layer.kernel)
    x = _convolved(x, kernel, layer.strides, layer.padding, layer.dilation_rate, layer.groups)
    return _with_bias(layer, x)


def _each(x, kernel, layer):
    inputs = kernel.shape[-2]
    kernel = kernel.reshape(*kernel.shape[:-2], 1, -1)
    return _convolved(x, kernel, layer.strides, layer.padding, layer.dilation_rate, inputs)


def _depthwise(layer, x):
    return _with_bias(layer, _each(x, weight(layer.kernel), layer))


def _separable(layer, x):
    x = _each(x, weight(layer.depthwise_kernel), layer)
    pointwise = weight(layer.pointwise_kernel)
    return _with_bias(layer, x @ pointwise.reshape(pointwise.shape[-2:]))


def _transposed(layer, x):
    kernel = weight(layer.kernel)
    taps, strides = kernel.shape[:-2], layer.strides
    full = [
        max(n * s + max(k - s, 0), (n - 1) * s + k)
        for n, k, s in zip(x.shape[1:-1], taps, strides, strict=True)
    ]
    made = np.zeros((len(x), *full, kernel.shape[-2]))
    for tap in itertools.product(*map(range, taps)):
        where = [
            slice(t, t + s * (n - 1) + 1, s) for t, s, n in zip(tap, strides, x.shape[1:-1], strict=True)
        ]
        made[(slice(None), *where)] += x @ kernel[tap].T
    if layer.padding == "same":
        cuts = [max(k - s, 0) // 2 for k, s in zip(taps, strides, strict=True)]
        where = [slice(c, c + n * s) for c, n, s in zip(cuts, x.shape[1:-1], strides, strict=True)]
        made = made[(slice(None), *where)]
    return _with_bias(layer, made)


# -- other layers ----------------------------------------------------------------------------------------


def _einsum(layer, x):
    return _with_bias(layer, np.einsum(layer.equation, x, weight(layer.kernel)))


def _pooled(layer, x):
    reduce = np.nanmax if "Max" in type(layer).__name__ else np.nanmean
    pads = []
    for n, k, s in zip(x.shape[1:-1], layer.pool_size, layer.strides, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0) if layer.padding == "same" else 0
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=np.nan)  # padding counts for nothing
    windows = np.lib.stride_tricks.sliding_window_view(x, layer.pool_size, tuple(range(1, x.ndim - 1)))
    windows = windows[(slice(None), *(slice(None, None, s) for s in layer.strides))]
    return reduce(windows, axis=tuple(range(x.ndim, windows.ndim)))


def _global(layer, x):
    reduce = np.max if "Max" in type(layer).__name__ else np.mean
    return reduce(x, axis=tuple(range(1, x.ndim - 1)), keepdims=layer.keepdims)


def _padded(layer, x):
    return np.pad(x, [(0, 0), *np.reshape(layer.padding, (-1, 2)), (0, 0)])


def _cropped(layer, x):
    cuts = np.reshape(layer.cropping, (-1, 2))
    where = (slice(a, n - b) for (a, b), n in zip(cuts, x.shape[1:-1], strict=True))
    return x[(slice(None), *where)]


def _enlarged(layer, x):
    for axis, size in enumerate(np.atleast_1d(layer.size), 1):
        x = np.repeat(x, size, axis=axis)
    return x


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _recurrent(layer, x, mask):
    cell, steps = layer.cell, x.shape[1]
    kernel, recurrent, bias = weight(cell.kernel), weight(cell.recurrent_kernel), weight(cell.bias)
    bias = np.zeros(kernel.shape[-1]) if bias is None else bias
    inputs, states = (bias, 0.0) if bias.ndim == 1 else bias
    h = c = np.zeros((len(x), layer.units))
    made = []
    for step in range(steps):
        a = x[:, step] @ kernel + inputs
        if type(layer) is layers.SimpleRNN:
            new, memory = np.tanh(a + h @ recurrent), c
        elif type(layer) is layers.LSTM:
            i, f, g, o = np.split(a + h @ recurrent, 4, axis=-1)
            memory = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            new = _sigmoid(o) * np.tanh(memory)
        else:
            new, memory = _gated(layer, a, h, recurrent, states), c
        keep = np.ones((len(x), 1), bool) if mask is None else mask[:, step, None].astype(bool)
        h, c = np.where(keep, new, h), np.where(keep, memory, c)
        made.append(h)
    return np.stack(made, axis=1) if layer.return_sequences else h


def _gated(layer, a, h, recurrent, states):
    az, ar, ah = np.split(a, 3, axis=-1)
    if layer.reset_after:
        bz, br, bh = np.split(h @ recurrent + states, 3, axis=-1)
        z, r = _sigmoid(az + bz), _sigmoid(ar + br)
        return z * h + (1 - z) * np.tanh(ah + r * bh)
    uz, ur, uh = np.split(recurrent, 3, axis=-1)
    z, r = _sigmoid(az + h @ uz), _sigmoid(ar + h @ ur)
    return z * h + (1 - z) * np.tanh(ah + (r * h) @ uh)


def _attention(layer, query, value, key=None):
    key = value if key is None else key
    q, k, v = (
        _with_bias(part, np.einsum("btc,chd->bthd", x, weight(part.kernel)))
        for part, x in ((layer._query_dense, query), (layer._key_dense, key), (layer._value_dense, value))
    )
    k, v = (np.repeat(a, q.shape[2] // a.shape[2], axis=2) for a in (k, v))  # of groups of queries
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    made = np.einsum("bhts,bshd->bthd", scores / scores.sum(axis=-1, keepdims=True), v)
    return _with_bias(
        layer._output_dense, np.einsum("bthd,hdo->bto", made, weight(layer._output_dense.kernel))
    )


def _normalized(layer, x):
    return (x - weight(layer.mean)) / np.maximum(np.sqrt(weight(layer.variance)), keras.config.epsilon())


_RECURRENT = (layers.SimpleRNN, layers.LSTM, layers.GRU)
_FUNCTIONS = {
    layers.Dense: lambda layer, x: _with_bias(layer, x @ weight(layer.kernel)),
    layers.EinsumDense: _einsum,
    layers.BatchNormalization: _batch_norm,
    layers.Rescaling: lambda layer, x: x * np.asarray(layer.scale) + np.asarray(layer.offset),
    layers.Normalization: _normalized,
    layers.Flatten: lambda layer, x: x.reshape(len(x), -1),
    layers.Reshape: lambda layer, x: x.reshape(len(x), *layer.target_shape),
    layers.Permute: lambda layer, x: x.transpose(0, *layer.dims),
    layers.RepeatVector: lambda layer, x: np.repeat(x[:, None], layer.n, axis=1),
    layers.ReLU: lambda layer, x: np.maximum(x, 0),
    layers.Activation: lambda layer, x: x,
    layers.Add: lambda layer, xs: sum(xs),
    layers.Subtract: lambda layer, xs: xs[0] - xs[1],
    layers.Average: lambda layer, xs: sum(xs) / len(xs),
    layers.Concatenate: lambda layer, xs: np.concatenate(xs, axis=layer.axis),
}
_FAMILIES = [
    ((layers.Conv1D, layers.Conv2D, layers.Conv3D), _conv),
    ((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _depthwise),
    ((layers.SeparableConv1D, layers.SeparableConv2D), _separable),
    ((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _transposed),
    ((layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D), _pooled),
    ((layers.GlobalAveragePooling2D, layers.GlobalMaxPooling1D), _global),
    ((layers.ZeroPadding2D,), _padded),
    ((layers.Cropping2D,), _cropped),
    ((layers.UpSampling2D,), _enlarged),
    (
        (layers.Dropout, layers.Identity, layers.GaussianNoise, layers.ActivityRegularization),
        lambda layer, x: x,
    ),
]
