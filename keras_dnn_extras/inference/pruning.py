"""How many weights of a model are zero, and small ones made so."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._arguments import check_number, check_positive
from keras_dnn_extras._backends import value_on_host
from keras_dnn_extras._display import Displayed, Summary, table_text
from keras_dnn_extras._models import check_model, kernel_obstacle, layers_by_path, unique_name


@dataclass(frozen=True, repr=False)
class KernelSparsity(Displayed):
    """The zeros of one kernel.

    Attributes:
        path: of the kernel: the path of its layer and its own name, as `backbone/conv1/kernel`.
        zeros: the number of weights that are 0, or below the threshold.
        size: the number of all its weights.
    """

    path: str
    zeros: int
    size: int

    @property
    def share(self) -> float:
        """The share of zeros, 0 for a kernel without weights."""
        return self.zeros / self.size if self.size else 0.0

    def _summary(self) -> Summary:
        zeros = f"zeros={self.zeros}, size={self.size}, share={self.share:.3g}"
        return Summary(f"KernelSparsity(path={self.path!r}, {zeros})")


@dataclass(frozen=True, repr=False)
class Sparsity(Displayed):
    """What `sparsity` returns: `str(sparsity)` is a table.

    Attributes:
        kernels: a tuple with one entry for each kernel, with `path`, `zeros`, `size` and `share`.
        threshold: below which a weight was counted as 0.
    """

    kernels: tuple[KernelSparsity, ...]
    threshold: float

    @property
    def zeros(self) -> int:
        """The number of zeros in all kernels."""
        return sum(kernel.zeros for kernel in self.kernels)

    @property
    def size(self) -> int:
        """The number of weights in all kernels."""
        return sum(kernel.size for kernel in self.kernels)

    @property
    def share(self) -> float:
        """The share of zeros in all kernels together."""
        return self.zeros / self.size if self.size else 0.0

    def __str__(self) -> str:
        return table_text([*self._rows(), _row("all", self)], self._header())

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [_row(each.path, each) for each in self.kernels]

    def _header(self) -> tuple[str, str, str, str]:
        return "kernel", f"below {self.threshold:g}" if self.threshold else "zero", "weights", "share"

    def _summary(self) -> Summary:
        kind = f"weights below {self.threshold:g}" if self.threshold else "weights that are zero"
        facts = {kind: f"{self.zeros:,} of {self.size:,}, {self.share:.1%}"}
        return Summary("Sparsity", facts, self._rows(), self._header(), "print(sparsity) shows all")


def sparsity(model: keras.Model, threshold: float = 0.0) -> Sparsity:
    """Count the weights of a model that are zero, kernel by kernel.

    Kernels are the weights whose names end in `kernel`, as Keras's layers have them: those of dense and
    recurrent layers, convolutions and attention. Biases, embeddings and what normalizes are none. A kernel
    that several layers share is counted once.

    Args:
        model: a Keras model that is built. Nested models are gone through.
        threshold: float >= 0, a size below which a weight counts as zero too: what `zero_small_weights`
            would make of the model. 0: exact zeros alone.

    Returns:
        A `Sparsity`: the table as a string, `share` in all, `kernels` one by one.

    Raises:
        ValueError: `threshold` is negative or not finite, the model is not built or has no kernels, or some
            are quantized or have LoRA weights.
        TypeError: `model` is no Keras model, `threshold` no number.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")])
    >>> model.set_weights([np.array([[0.0, 0.001], [-0.5, 2.0]]), np.zeros(2)])
    >>> print(sparsity(model, threshold=0.01))
    kernel        below 0.01  weights  share
    dense/kernel           2        4  50.0%
    all                    2        4  50.0%
    >>> sparsity(model).share
    0.25

    Reference:
        Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015
        (https://arxiv.org/abs/1506.02626).
    """
    check_number("threshold", threshold, "finite and at least 0", lambda t: 0 <= t < float("inf"))
    kernels = []
    for path, kernel in _kernels(model).items():
        zero = _zeros(value_on_host(kernel), threshold)
        kernels.append(KernelSparsity(path, int(zero.sum()), zero.size))
    return Sparsity(tuple(kernels), float(threshold))


def zero_small_weights(model: keras.Model, threshold: float) -> keras.Model:
    """Make exact zeros of the small weights of a model: magnitude pruning.

    L1 regularization makes weights small, but never 0: gradient descent steps over it and back. This puts
    `w = 0` where `abs(w) < threshold`, in the same kernels as `sparsity`. It changes the model that it is
    given, as `set_weights` does; `sparsity(model, threshold)` tells beforehand how many weights it takes,
    and `model.get_weights()` beforehand keeps what they were. Further training moves the zeros again.

    A threshold is for kernels of one scale. Before BatchNormalization the scale of a kernel has no
    meaning, and L1 makes all of it smaller: try several thresholds on validation data.

    Args:
        model: a Keras model that is built, compiled or not. Nested models are gone through.
        threshold: float > 0.

    Returns:
        `model`.

    Raises:
        ValueError: `threshold` is not positive and finite, the model is not built or has no kernels, or
            some are quantized or have LoRA weights.
        TypeError: `model` is no Keras model, `threshold` no number.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="dense")])
    >>> model.set_weights([np.array([[0.0, 0.001], [-0.5, 2.0]]), np.zeros(2)])
    >>> zero_small_weights(model, 0.01).get_weights()[0].tolist()
    [[0.0, 0.0], [-0.5, 2.0]]

    Reference:
        Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015
        (https://arxiv.org/abs/1506.02626).
    """
    check_positive("threshold", threshold)
    for kernel in _kernels(model).values():
        value = value_on_host(kernel)
        kernel.assign(np.where(_zeros(value, threshold), np.zeros_like(value), value))
    return model


def _zeros(value: np.ndarray, threshold: float) -> np.ndarray:
    return (value == 0) | (np.abs(value) < threshold)


def _row(name: str, counted: Any) -> tuple[str, str, str, str]:
    return name, f"{counted.zeros:,}", f"{counted.size:,}", f"{counted.share:.1%}"


def _kernels(model: Any) -> dict[str, keras.Variable]:
    """Return the kernels of `model` by their paths, each once."""
    check_model("model", model)
    if not model.built:
        raise ValueError(
            "The model has no weights yet. Give it a `keras.Input`, or call it once. "
            f"Received: model={model}"
        )
    kernels: dict[str, keras.Variable] = {}
    seen = set()
    for layer_path, layer in layers_by_path(model).items():
        for name, variable in _named_kernels(layer):
            if id(variable) not in seen:
                seen.add(id(variable))
                kernels[unique_name(f"{layer_path}/{name}", kernels)] = variable
    if not kernels:
        raise ValueError(
            f"The model has no kernels: no weight whose name ends in `kernel`. Received: model={model}"
        )
    return kernels


def _named_kernels(layer: keras.layers.Layer) -> Iterator[tuple[str, keras.Variable]]:
    obstacle = kernel_obstacle(layer)
    if obstacle is not None:
        raise ValueError(f"{obstacle}: its kernel is not what it computes with. Received: layer={layer}")
    for variable in layer.weights:
        if variable.name.endswith("kernel"):
            # Within a layer that is made of layers the path tells which one it is of.
            yield variable.path.removeprefix(f"{layer.path}/"), variable
