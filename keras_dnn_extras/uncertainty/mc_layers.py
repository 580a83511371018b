"""Dropout layers that stay active after training, for Monte-Carlo predictions."""

from typing import Any, Literal

import keras

from keras_dnn_extras._arguments import PACKAGE, check_number

DataFormat = Literal["channels_first", "channels_last"]


@keras.saving.register_keras_serializable(package=PACKAGE)
class MCDropout(keras.layers.Dropout):
    """Dropout that is active in every call: `fit`, `evaluate`, `predict`, `predict_on_batch`.

    Sets a share `rate` of the inputs to 0 and divides the others by `1 - rate`, whatever the `training`
    argument says, so that predictions of the model are samples. Their mean and spread over many calls
    tell what the model does not know. The mask of the input is passed on; in mixed precision the layer
    computes in the compute dtype.

    Args:
        rate: float in [0, 1], the share to drop. 0 returns the inputs, 1 returns zeros.
        noise_shape: tuple or None, the shape of the binary mask, which is broadcast to the inputs'. An
            entry None is the inputs' own: `(None, 1, None)` drops the same features at all timesteps.
        seed: int or None, makes the sequence of masks repeatable. Two layers with the same seed and
            shape draw the same masks; on PyTorch, where Keras adds the number of the call to the seed,
            also those with neighbouring seeds, a call later.
        **kwargs: arguments of `keras.layers.Layer`, such as `name`, `dtype` and `trainable`.

    Call arguments:
        inputs: tensor of any shape, floating dtype.
        training: ignored.

    Returns:
        A tensor of the shape of the inputs and the layer's compute dtype.

    Raises:
        ValueError: `rate` is not in [0, 1].
        TypeError: `rate` is no number.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([MCDropout(0.5, seed=1)])
    >>> samples = np.stack([model.predict(np.ones((1, 4)), verbose=0) for _ in range(20)])
    >>> bool(samples.std() > 0)
    True

    Reference:
        Gal & Ghahramani, Dropout as a Bayesian Approximation, 2016 (https://arxiv.org/abs/1506.02142).
    """

    def __init__(
        self,
        rate: float,
        noise_shape: tuple[int | None, ...] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        _check_rate(rate)
        super().__init__(rate, noise_shape=noise_shape, seed=seed, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if self.rate == 1:  # Keras before 3.14 raises on TensorFlow.
            return keras.ops.zeros_like(inputs)
        return super().call(inputs, training=True)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MCAlphaDropout(keras.layers.AlphaDropout):
    """Alpha dropout that is active in every call, for self-normalizing networks (SELU).

    Sets a share `rate` of the inputs to SELU's negative saturation value and rescales, which keeps
    inputs of mean 0 and variance 1 so, whatever the `training` argument says. The mask of the input is
    passed on; in mixed precision the layer computes in the compute dtype.

    Args:
        rate: float in [0, 1), the share to drop. At 1 the rescaling would be infinite.
        noise_shape: tuple or None, the shape of the binary mask, as in `MCDropout`.
        seed: int or None, makes the sequence of masks repeatable.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: tensor of any shape, floating dtype.
        training: ignored.

    Returns:
        A tensor of the shape of the inputs and the layer's compute dtype.

    Raises:
        ValueError: `rate` is not in [0, 1).
        TypeError: `rate` is no number.

    Example:

    >>> bool(keras.ops.std(MCAlphaDropout(0.2, seed=1)(keras.ops.zeros((1, 100)))) > 0)
    True

    Reference:
        Klambauer et al., Self-Normalizing Neural Networks, 2017 (https://arxiv.org/abs/1706.02515).
    """

    def __init__(
        self,
        rate: float,
        noise_shape: tuple[int | None, ...] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        _check_rate(rate, below_one=True)
        super().__init__(rate, noise_shape=noise_shape, seed=seed, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return super().call(inputs, training=True)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MCGaussianDropout(keras.layers.GaussianDropout):
    """Multiplicative Gaussian noise that is active in every call.

    Multiplies the inputs by noise of mean 1 and variance `rate / (1 - rate)`, that of dropout, whatever
    the `training` argument says. The mask of the input is passed on; in mixed precision the layer
    computes in the compute dtype.

    Args:
        rate: float in [0, 1). At 1 the variance would be infinite.
        seed: int or None, makes the sequence of noise repeatable.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: tensor of any shape, floating dtype.
        training: ignored.

    Returns:
        A tensor of the shape of the inputs and the layer's compute dtype.

    Raises:
        ValueError: `rate` is not in [0, 1).
        TypeError: `rate` is no number.

    Example:

    >>> bool(keras.ops.std(MCGaussianDropout(0.2, seed=1)(keras.ops.ones((1, 100)))) > 0)
    True

    Reference:
        Srivastava et al., Dropout, 2014, section 10 (https://jmlr.org/papers/v15/srivastava14a.html).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        _check_rate(rate, below_one=True)
        super().__init__(rate, seed=seed, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return super().call(inputs, training=True)


class _MCSpatialDropout(keras.layers.Dropout):
    """What the three spatial layers share. Goes before the Keras layer among the bases.

    The constructor of Keras's spatial layers takes no `**kwargs`, and their config names the compute
    dtype only, so that `trainable` and a mixed-precision policy would be lost on the way through a file.
    """

    def __init__(self, rate: float, ndim: int, seed: int | None = None, **kwargs: Any):
        _check_rate(rate)
        keras.layers.Dropout.__init__(self, rate, seed=seed, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=ndim)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if self.rate == 1:  # Keras before 3.14 raises on TensorFlow.
            return keras.ops.zeros_like(inputs)
        return super().call(inputs, training=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **keras.layers.Layer.get_config(self)}


@keras.saving.register_keras_serializable(package=PACKAGE)
class MCSpatialDropout1D(_MCSpatialDropout, keras.layers.SpatialDropout1D):
    """Dropout of whole feature maps of a sequence, active in every call.

    Sets a share `rate` of the channels to 0 and divides the others by `1 - rate`, whatever the `training`
    argument says: after `Conv1D`, where neighbours are alike and dropping single values would hide
    little. The mask of the input is passed on; in mixed precision the layer computes in the compute
    dtype.

    Args:
        rate: float in [0, 1], the share to drop. 0 returns the inputs, 1 returns zeros.
        seed: int or None, makes the sequence of masks repeatable.
        **kwargs: arguments of `keras.layers.Layer`, such as `name`, `dtype` and `trainable`.

    Call arguments:
        inputs: tensor of shape `(batch, steps, channels)`, floating dtype.
        training: ignored.

    Returns:
        A tensor of the shape of the inputs and the layer's compute dtype.

    Raises:
        ValueError: `rate` is not in [0, 1].
        TypeError: `rate` is no number.

    Example:

    >>> maps = MCSpatialDropout1D(0.5, seed=1)(keras.ops.ones((1, 3, 8)))
    >>> bool(keras.ops.all(keras.ops.std(maps, axis=1) == 0))
    True

    Reference:
        Tompson et al., Efficient Object Localization, 2014 (https://arxiv.org/abs/1411.4280).
    """

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, ndim=3, seed=seed, **kwargs)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MCSpatialDropout2D(_MCSpatialDropout, keras.layers.SpatialDropout2D):
    """Dropout of whole feature maps of an image, active in every call.

    Sets a share `rate` of the channels to 0 and divides the others by `1 - rate`, whatever the `training`
    argument says: after `Conv2D`, where neighbours are alike and dropping single values would hide
    little. The mask of the input is passed on; in mixed precision the layer computes in the compute
    dtype.

    Args:
        rate: float in [0, 1], the share to drop. 0 returns the inputs, 1 returns zeros.
        data_format: `"channels_last"`, `"channels_first"` or None, which is
            `keras.config.image_data_format()`.
        seed: int or None, makes the sequence of masks repeatable.
        **kwargs: arguments of `keras.layers.Layer`, such as `name`, `dtype` and `trainable`.

    Call arguments:
        inputs: tensor of shape `(batch, rows, columns, channels)`, channels first or last, floating dtype.
        training: ignored.

    Returns:
        A tensor of the shape of the inputs and the layer's compute dtype.

    Raises:
        ValueError: `rate` is not in [0, 1], or `data_format` is unknown.
        TypeError: `rate` is no number.

    Example:

    >>> maps = MCSpatialDropout2D(0.5, seed=1)(keras.ops.ones((1, 3, 3, 8)))
    >>> bool(keras.ops.all(keras.ops.std(maps, axis=(1, 2)) == 0))
    True

    Reference:
        Tompson et al., Efficient Object Localization, 2014 (https://arxiv.org/abs/1411.4280).
    """

    def __init__(
        self,
        rate: float,
        data_format: DataFormat | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, ndim=4, seed=seed, **kwargs)
        self.data_format = _standardize_data_format(data_format)


@keras.saving.register_keras_serializable(package=PACKAGE)
class MCSpatialDropout3D(_MCSpatialDropout, keras.layers.SpatialDropout3D):
    """Dropout of whole feature maps of a volume, active in every call.

    Sets a share `rate` of the channels to 0 and divides the others by `1 - rate`, whatever the `training`
    argument says: after `Conv3D`, where neighbours are alike and dropping single values would hide
    little. The mask of the input is passed on; in mixed precision the layer computes in the compute
    dtype.

    Args:
        rate: float in [0, 1], the share to drop. 0 returns the inputs, 1 returns zeros.
        data_format: `"channels_last"`, `"channels_first"` or None, which is
            `keras.config.image_data_format()`.
        seed: int or None, makes the sequence of masks repeatable.
        **kwargs: arguments of `keras.layers.Layer`, such as `name`, `dtype` and `trainable`.

    Call arguments:
        inputs: tensor of shape `(batch, depth, rows, columns, channels)`, channels first or last, floating
            dtype.
        training: ignored.

    Returns:
        A tensor of the shape of the inputs and the layer's compute dtype.

    Raises:
        ValueError: `rate` is not in [0, 1], or `data_format` is unknown.
        TypeError: `rate` is no number.

    Example:

    >>> maps = MCSpatialDropout3D(0.5, seed=1)(keras.ops.ones((1, 3, 3, 3, 8)))
    >>> bool(keras.ops.all(keras.ops.std(maps, axis=(1, 2, 3)) == 0))
    True

    Reference:
        Tompson et al., Efficient Object Localization, 2014 (https://arxiv.org/abs/1411.4280).
    """

    def __init__(
        self,
        rate: float,
        data_format: DataFormat | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, ndim=5, seed=seed, **kwargs)
        self.data_format = _standardize_data_format(data_format)


def _standardize_data_format(data_format: str | None) -> str:
    if data_format is None:
        return keras.config.image_data_format()
    if str(data_format).lower() not in ("channels_first", "channels_last"):
        raise ValueError(
            'Expected `data_format` to be "channels_first" or "channels_last". '
            f"Received: data_format={data_format!r}"
        )
    return str(data_format).lower()


def _check_rate(rate: Any, below_one: bool = False) -> None:
    check_number("rate", rate, "between 0 and 1", lambda value: 0 <= value <= 1)
    if below_one and rate == 1:
        raise ValueError(
            "Expected `rate` to be below 1, where the noise becomes infinite. Use a smaller rate. "
            f"Received: rate={rate}"
        )
