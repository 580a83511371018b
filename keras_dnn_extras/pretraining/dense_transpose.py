"""A layer tied to the kernel of a Dense layer, for the way back."""

from typing import Any

import keras
from keras import activations, constraints, initializers, ops, regularizers

from keras_dnn_extras._arguments import PACKAGE, check_bool
from keras_dnn_extras._keras_internals import (
    add_shared_weight,
    is_loading,
    mark_shared,
    remove_weight,
    shared_object,
)
from keras_dnn_extras._models import ByName
from keras_dnn_extras.pretraining.weight_tying import Tie, check_dense, check_dense_built


@keras.saving.register_keras_serializable(package=PACKAGE)
class DenseTranspose(keras.layers.Layer):
    """A dense layer by the transposed kernel of another one: it leads back to that one's inputs.

    `outputs = activation(inputs @ transpose(dense.kernel) + bias)`, the same in `fit` and `predict`. The
    kernel is one variable, that of `dense`: it is counted, saved and updated once, and its gradient is the
    sum of what both layers have to say. It trains while both are trainable; freezing either freezes it.
    Inputs of more axes than two are multiplied along the last one. Masks are passed on.

    Files (`.keras`) and copies keep the tie, in nested models too. So does `clone_model`, and a legacy
    `.h5` file, for a layer whose inputs come from the Dense within the model that it is called in. In a
    nested model, as a decoder of its own, Keras clones it without its Dense: that is a warning, and to call
    or fit the whole is an error, until `tie` ties it again. A decoder that is saved by itself has a kernel
    of its own.

    Args:
        dense: a `keras.layers.Dense`, called or built before this layer.
        activation: as in `Dense`.
        use_bias: whether to add a bias of its own, of the size of the inputs of `dense`.
        bias_initializer, bias_regularizer, bias_constraint: as in `Dense`.
        **kwargs: arguments of every Keras layer: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Raises:
        TypeError: `dense` is no `Dense`, or `use_bias` no bool.
        ValueError: `dense` is quantized or has LoRA weights; when it is built: `dense` is not built yet,
            or the inputs have not as many features as the outputs of `dense`.

    Example:

    >>> dense = keras.layers.Dense(2, activation="relu")
    >>> inputs = keras.Input((5,))
    >>> model = keras.Model(inputs, DenseTranspose(dense)(dense(inputs)))
    >>> [tuple(weight.shape) for weight in model.weights]  # one kernel, two biases
    [(5, 2), (2,), (5,)]

    Reference:
        Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders, 2008
        (https://doi.org/10.1145/1390156.1390294).
    """

    def __init__(
        self,
        dense: keras.layers.Dense,
        activation: ByName | None = None,
        use_bias: bool = True,
        *,
        bias_initializer: ByName = "zeros",
        bias_regularizer: ByName | None = None,
        bias_constraint: ByName | None = None,
        **kwargs: Any,
    ):
        check_dense(dense)
        check_bool("use_bias", use_bias)
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = initializers.get(bias_initializer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.bias_constraint = constraints.get(bias_constraint)
        self.bias = None
        self.input_spec = keras.InputSpec(min_ndim=2)
        self.supports_masking = True
        # Hidden from Keras: the bias of `dense` is no weight of this layer, nor frozen with it.
        self._tie = Tie(dense)
        mark_shared(dense, by=self)

    @property
    def dense(self) -> keras.layers.Dense:
        """The layer whose kernel this one has."""
        return self._tie.dense

    @property
    def kernel(self) -> keras.Variable:
        """The kernel of `dense`, the same variable: `(features, units)`."""
        return self.dense.kernel

    def tie(self, dense: keras.layers.Dense) -> None:
        """Take the kernel of another `dense`, as after cloning a model that this layer is nested in.

        A model that is compiled has to be compiled anew. With `layer.tie(layer.dense)` a kernel of its own
        is declared to be meant.

        Args:
            dense: a `keras.layers.Dense` that is built, with a kernel of the same shape.

        Raises:
            TypeError: `dense` is no `Dense`.
            ValueError: its kernel is not built, or has another shape.
        """
        check_dense(dense)
        if self.built and dense is not self.dense:
            check_dense_built(dense)
            if tuple(dense.kernel.shape) != tuple(self.kernel.shape):
                raise ValueError(
                    f"Expected `dense` to have a kernel of shape {tuple(self.kernel.shape)}, as the layer "
                    f"{self.name!r} was built for. Received: dense={dense}, of shape "
                    f"{tuple(dense.kernel.shape)}"
                )
            remove_weight(self, self.kernel)
            self._add_kernel(dense)
        self._tie = Tie(dense)
        mark_shared(dense, by=self)

    def build(self, input_shape: Any) -> None:
        check_dense_built(self.dense)
        features, units = self.kernel.shape
        if input_shape[-1] != units:
            raise ValueError(
                f"Expected the inputs of {self.name!r} to have {units} features, as the outputs of "
                f"{self.dense.name!r}. Received: input_shape={tuple(input_shape)}"
            )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(features,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self._add_kernel(self.dense)
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: units})

    def _add_kernel(self, dense: keras.layers.Dense) -> None:
        """Have the kernel as the last of the weights, so that their order is the same after `tie`."""
        add_shared_weight(self, dense.kernel)
        if not self.trainable:
            dense.kernel.trainable = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._tie.is_by_name:
            dense = self._tie.find_dense(self, (args, kwargs))
            if dense is not None:
                self.tie(dense)
        return super().__call__(*args, **kwargs)

    def call(self, inputs: Any) -> Any:
        check_dense(self.dense)  # LoRA and quantization may have come since
        outputs = ops.matmul(inputs, ops.transpose(self.kernel))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        check_dense_built(self.dense)
        return (*input_shape[:-1], self.kernel.shape[0])

    def save_own_variables(self, store: Any) -> None:
        if self.bias is not None:  # the kernel is saved with `dense`
            store["0"] = self.bias

    def load_own_variables(self, store: Any) -> None:
        if len(store.keys()) != (self.bias is not None):
            raise ValueError(
                f"The layer {self.name!r} has {int(self.bias is not None)} variables of its own, the file "
                f"has {len(store.keys())}. Received: use_bias={self.use_bias}"
            )
        if self.bias is not None:
            self.bias.assign(store["0"])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dense": keras.saving.serialize_keras_object(self.dense),
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DenseTranspose":
        shared = shared_object(config["dense"])
        dense = shared or keras.saving.deserialize_keras_object(config["dense"])
        layer = cls(**{**config, "dense": dense})
        layer._tie.is_by_name = shared is None
        layer._tie.warns = not is_loading()
        return layer
