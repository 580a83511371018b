"""A layer tied to the kernel of a Dense layer, for the way back."""

import warnings
from typing import Any

import keras
from keras import activations, constraints, initializers, ops, regularizers

from keras_dnn_extras._arguments import PACKAGE, check_bool, counted
from keras_dnn_extras._keras_internals import is_loading, layers_in_call, mark_shared, shared_object
from keras_dnn_extras._models import computes_with_its_kernel, has_lora
from keras_dnn_extras.pretraining.weight_tying import layers_before, twins


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
        activation: Any = None,
        use_bias: bool = True,
        *,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ):
        _check_dense(dense)
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
        # Held out of Keras's sight: the bias of `dense` is no weight of this layer, nor frozen with it.
        self._tie = _Tie(dense)
        mark_shared(dense)

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
        _check_dense(dense)
        if self.built and dense is not self.dense:
            _check_built(dense)
            if tuple(dense.kernel.shape) != tuple(self.kernel.shape):
                raise ValueError(
                    f"Expected `dense` to have a kernel of shape {tuple(self.kernel.shape)}, as the layer "
                    f"{self.name!r} was built for. Received: dense={dense}, of shape "
                    f"{tuple(dense.kernel.shape)}"
                )
            self._untrack_variable(self.kernel)
            self._take(dense.kernel)
        self._tie = _Tie(dense)
        mark_shared(dense)

    def build(self, input_shape: Any) -> None:
        _check_built(self.dense)
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
        self._take(self.kernel)
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: units})

    def _take(self, kernel: keras.Variable) -> None:
        """Have `kernel` as the last of the weights, so that their order is the same after `tie`."""
        locked = self._tracker.locked
        self._tracker.unlock()
        # Not as Keras sorts it in: `trainable` would not reach a kernel that is frozen now.
        self._tracker.add_to_store("trainable_variables", kernel)
        self._post_track_variable(kernel)
        if locked:
            self._tracker.lock()
        if not self.trainable:
            kernel.trainable = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._tie.is_told_by_name:
            self._find_dense((args, kwargs))
        return super().__call__(*args, **kwargs)

    def _find_dense(self, inputs: Any) -> None:
        """Tie the layer again that was made from a config, if what it is called with tells to what."""
        before = layers_before(inputs)
        found = twins(self.dense, layers_in_call() if before is None else before)
        if found == [self.dense]:
            self.tie(self.dense)
        elif len(found) == 1 and (before is not None or not self.built):
            self.tie(found[0])
        elif not found and before is not None and self._tie.warns:
            # On JAX `predict` calls the layers of a model, not the model, so that no error would come.
            self._tie.warns = False
            warnings.warn(
                f"The layer {self.name!r} was made from its config and has a kernel of its own: the layer "
                f"{self.dense.name!r} that it was tied to is not in the same model. If it is in a model "
                "around it, call `layer.tie(dense)` with both layers.",
                stacklevel=3,
            )
        elif found:
            raise ValueError(
                f"The layer {self.name!r} was made from its config, and has lost its tie to the layer "
                f"{self.dense.name!r} of the model that calls it: they have a kernel each. Call "
                f"`layer.tie(dense)` with both layers, or `layer.tie(layer.dense)` if that is meant, or "
                f"copy the model by a `.keras` file, which keeps the tie. Received: "
                f"{counted(len(found), 'layer')} of the name {self.dense.name!r}"
            )

    def call(self, inputs: Any) -> Any:
        _check_dense(self.dense)  # LoRA and quantization may have come since
        outputs = ops.matmul(inputs, ops.transpose(self.kernel))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        _check_built(self.dense)
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
        known = shared_object(config["dense"])
        dense = known or keras.saving.deserialize_keras_object(config["dense"])
        layer = cls(**{**config, "dense": dense})
        layer._tie.is_told_by_name = known is None
        layer._tie.warns = not is_loading()
        return layer


class _Tie:
    """What Keras shall not take for a part of the layer that holds it.

    Attributes:
        is_told_by_name: whether the layer was made from a config, and `dense` with it, so that another one
            of its name may be meant.
        warns: whether to tell if none is found.
    """

    def __init__(self, dense: keras.layers.Dense):
        self.dense = dense
        self.is_told_by_name = False
        self.warns = False


def _check_dense(dense: Any) -> None:
    if not isinstance(dense, keras.layers.Dense):
        raise TypeError(f"Expected `dense` to be a `keras.layers.Dense`. Received: dense={dense!r}")
    if not computes_with_its_kernel(dense):
        what = "LoRA weights" if has_lora(dense) else f"a kernel in {dense.quantization_mode}"
        raise ValueError(
            f"The layer {dense.name!r} has {what}, which no other layer can share. Tie a plain `Dense`. "
            f"Received: dense={dense}"
        )


def _check_built(dense: keras.layers.Dense) -> None:
    if not dense.built:
        raise ValueError(
            f"The layer {dense.name!r} has no kernel yet. Call it before the layer that is tied to it, or "
            f"build it: `dense.build((None, features))`. Received: dense={dense}"
        )
