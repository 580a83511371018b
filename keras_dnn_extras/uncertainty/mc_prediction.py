"""Monte-Carlo predictions: many thinned networks at the price of a few."""

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import tree
from numpy.typing import NDArray

from keras_dnn_extras._arguments import (
    check_bool,
    check_choice,
    check_number,
    check_positive,
    check_verbose,
    counted,
)
from keras_dnn_extras._backends import memory_of_machine
from keras_dnn_extras._display import Displayed, Summary
from keras_dnn_extras._models import Data, are_arrays, batches, check_model, number_of_batches, with_first
from keras_dnn_extras.uncertainty.masks import Masks
from keras_dnn_extras.uncertainty.mc_batches import Noise, SampledBatch
from keras_dnn_extras.uncertainty.mc_summary import summary_of
from keras_dnn_extras.uncertainty.mc_tally import Tally
from keras_dnn_extras.uncertainty.metrics import both_classes, predictive_entropy
from keras_dnn_extras.uncertainty.raw_inputs import preprocessed, preprocessor_of, with_arrays_of_strings
from keras_dnn_extras.uncertainty.sampler_cache import samplers_of

# As types, fields are those of a model with one output: of several they are structures of arrays. What may
# be None, as an entropy of a regression, is Any as well, so that type checkers ask nobody to test for it.
Array = NDArray[Any]

_FEWEST = 20  # samples before the standard error is believed, and between two looks at it


@dataclass(frozen=True, repr=False)
class MCPrediction(Displayed):
    """What the samples of `mc_predict` say. Each field has the structure of the model's outputs.

    Attributes:
        mean: of the samples, as the outputs of `predict`; of logits, of the probabilities they make.
        variance: over the samples, divided by their number.
        num_samples: an int.
        expected_entropy: mean of the entropies of the samples, in nats: the aleatoric part, what more data
            would not change. Without the last axis; of a single unit, which has the probability p of the
            second of two classes, that of `(1 - p, p)`. None for outputs that are no class probabilities.
        variation_ratio: the share of samples whose class is not the most frequent one, or None as above.
        samples: of shape `(samples, n, ...)`, with `keep_samples=True`, else None.
    """

    mean: Array
    variance: Array
    num_samples: int
    expected_entropy: Array | Any
    variation_ratio: Array | Any
    samples: Array | Any = None

    def _summary(self) -> Summary:
        return summary_of(self)

    @property
    def std(self) -> Array:
        """Standard deviation over the samples."""
        return tree.map_structure(np.sqrt, self.variance)

    @property
    def standard_error(self) -> Array:
        """Of the mean: `std / sqrt(num_samples)`."""
        return tree.map_structure(lambda std: std / math.sqrt(self.num_samples), self.std)

    @property
    def predictive_entropy(self) -> Array | Any:
        """Entropy of the mean, in nats: all the uncertainty. None where there are no probabilities."""
        return tree.map_structure(
            lambda mean, other: None if other is None else predictive_entropy(_classes(mean, other)),
            self.mean,
            self.expected_entropy,
        )

    @property
    def mutual_information(self) -> Array | Any:
        """`predictive_entropy - expected_entropy`, at least 0: the epistemic part, which more data reduces.

        Of few samples it is too small: about `1 - 1 / num_samples` of what it would be of many.
        """
        return tree.map_structure(
            lambda total, expected: None if total is None else np.maximum(total - expected, 0),
            self.predictive_entropy,
            self.expected_entropy,
        )

    def quantile(self, q: float | Sequence[float] | Array) -> Array:
        """Return the quantiles `q` over the samples, as `numpy.quantile` does.

        Args:
            q: float or list of floats in [0, 1].

        Raises:
            ValueError: the samples were not kept.
        """
        if self.samples is None:
            raise ValueError(
                "Quantiles need all samples. Pass `keep_samples=True` to `mc_predict`. "
                "Received: samples=None"
            )
        return tree.map_structure(lambda samples: np.quantile(samples, q, axis=0), self.samples)


def mc_predict(
    model: keras.Model,
    x: Data,
    samples: int = 100,
    *,
    batch_size: int = 32,
    seed: int | None = None,
    masks: Masks = "shared",
    tolerance: float | None = None,
    max_samples: int | None = None,
    keep_samples: bool = False,
    from_logits: bool | Sequence[bool] | Mapping[str, bool] = False,
    verbose: int = 0,
) -> MCPrediction:
    """Predict with dropout active, many times, and tell mean, spread and uncertainty.

    All dropout is active: layers, those within nested models and wrappers, `dropout` and
    `recurrent_dropout` of recurrent layers, attention dropout; of a plain model as of one of MC layers. The
    rest is in inference mode, BatchNormalization with its moving averages. Nothing of the model changes,
    but that one which was not built is built.

    What was set in the model or its layers since the last call counts: numbers, functions, objects, also in
    lists, dicts and tuples. After a change within an array or another object call `compile`, as for
    `predict`.

    What lies before the first dropout is computed once for each batch of inputs, and only the rest is
    sampled. Masks depend on `seed`, the number of the sample, the place of the layer, and with
    `masks="independent"` the row alone, not on the layers' own seeds, the backend, or `batch_size`. Inputs
    of another length or size have masks of their own.

    Entropies are told of class probabilities. By the activation that makes an output, if the graph of the
    model shows it, these are the units of a softmax, and a single sigmoid unit, for two classes. Several
    sigmoid units are labels that may be true together, and have none: give each an output of its own. Where
    the activation is not known, the values decide: several units that sum to 1, or one in [0, 1].

    Args:
        model: a Keras model, functional, sequential or subclassed, compiled or not.
        x: as for `predict`: arrays in the structure of the inputs, `tf.data.Dataset`, `PyDataset`,
            generator, torch `DataLoader`. Where `predict` of a model preprocesses its inputs by a
            `preprocessor`, as that of KerasHub's tasks does, so does this: strings, for one.
        samples: int > 0.
        batch_size: int > 0, inputs at a time. Datasets have their own.
        seed: int >= 0 or None, which draws one, repeatable with `keras.utils.set_random_seed`.
        masks: `"shared"`: sample k is one thinned network for all inputs, so that results do not depend on
            the order of the rows. `"independent"`: each input has its own masks.
        tolerance: float > 0 or None: sample until the largest standard error of all outputs is below it, at
            least 20 and at most `max_samples` times, in steps of 20, instead of `samples` times. What lies
            before the first dropout is kept in memory for all inputs.
        max_samples: int >= 20 or None, which is ten times `samples`.
        keep_samples: bool, whether to return all samples, too.
        from_logits: bool, whether outputs are logits, or bools in the structure of the outputs. All fields
            are then of the probabilities: the softmax of the last axis, the sigmoid of a single unit.
            Outputs that a softmax or a sigmoid makes in the model are probabilities already.
        verbose: 1 shows a progress bar.

    Returns:
        An `MCPrediction`.

    Raises:
        ValueError: an argument is out of its range, the model has no dropout in it, there is no input, a
            layer draws random numbers that cannot be told apart by sample, or the samples that are to be
            kept do not fit into memory.
        TypeError: an argument is of the wrong type.

    Example:

    >>> import numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> layers = [keras.layers.Dense(30, activation="relu"), keras.layers.Dropout(0.2)]
    >>> model = keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])
    >>> prediction = mc_predict(model, np.ones((5, 4)), samples=50)
    >>> prediction.mean.shape, prediction.mutual_information.shape
    ((5, 3), (5,))
    >>> bool((prediction.std > 0).all())
    True

    Reference:
        Gal & Ghahramani, Dropout as a Bayesian Approximation, 2016 (https://arxiv.org/abs/1506.02142).
    """
    _check_model_and_sizes(model, samples, batch_size, tolerance, max_samples)
    _check_options(seed, masks, keep_samples, from_logits, verbose)
    x, source = _source(model, x, int(batch_size))
    first, source = with_first(source)
    if first is None or not len(tree.flatten(first)[0]):
        raise ValueError(f"Expected `x` to have at least one row. Received: x={x!r}")
    samplers = samplers_of(model, first)
    rows = min(int(batch_size), len(tree.flatten(first)[0]))
    count = number_of_batches(x, int(batch_size))
    most = int(samples) if tolerance is None else _most(samples, max_samples)
    if keep_samples:
        needed = samplers.of(model, first, from_logits).bytes_of(most, rows * (count or 1))
        _check_memory(needed, f"samples={samples}" if tolerance is None else f"max_samples={most}")
    seed = random.getrandbits(31) if seed is None else int(seed)
    noise = Noise(seed, masks == "shared", count == 1 and are_arrays(x))
    parts = (
        SampledBatch(samplers.of(model, batch, from_logits), noise, batch, rows, keep_samples)
        for batch in source
    )
    bar = keras.utils.Progbar(count, verbose=verbose, unit_name="batch")
    done = []
    if tolerance is None:
        for part in parts:
            part.sample(int(samples))
            done.append(part.finished())
            bar.update(len(done), finalize=False)
    else:
        done = _sampled_until(tolerance, most, list(parts), bar)
    bar.update(len(done), finalize=True)
    samplers.note(model)
    return _prediction(done)


def _source(model: keras.Model, x: Any, batch_size: int) -> tuple[Any, Iterator]:
    """Return `x`, and what the model itself takes of it, batch by batch."""
    preprocessor = preprocessor_of(model)
    if preprocessor is None:
        return x, batches(x, batch_size)
    x = with_arrays_of_strings(x)
    return x, preprocessed(preprocessor, batches(x, batch_size))


def _most(samples: int, max_samples: int | None) -> int:
    """Return how many samples are taken at most where a tolerance ends it."""
    return max(10 * int(samples) if max_samples is None else int(max_samples), _FEWEST)


def _sampled_until(tolerance: float, most: int, parts: list[SampledBatch], bar: Any) -> list[SampledBatch]:
    count, error = 0, math.inf
    while count < most and not error < tolerance:
        count = min(count + _FEWEST, most)
        for part in parts:
            part.sample(count)
        error = max(float(tally.moments.standard_error.max()) for part in parts for tally in part.tallies)
        bar.update(len(parts), [("standard error", error)], finalize=False)
    if not error < tolerance:
        warnings.warn(
            f"The largest standard error after {counted(count, 'sample')} is {error:.3g}, not below "
            f"`tolerance` {tolerance:g}. Raise `max_samples` or the tolerance.",
            stacklevel=3,
        )
    return [part.finished() for part in parts]


def _prediction(parts: list[SampledBatch]) -> MCPrediction:
    """Put the batches together."""
    for tallies in zip(*(part.tallies for part in parts), strict=True):
        are_classes = all(tally.of_classes for tally in tallies)
        for tally in tallies:
            tally.of_classes = are_classes

    def joined(of: Callable[[Tally], Any], axis: int = 0) -> Any:
        by_output = zip(*([of(tally) for tally in part.tallies] for part in parts), strict=True)
        flat = [None if pieces[0] is None else _concatenated(pieces, axis) for pieces in by_output]
        return tree.pack_sequence_as(parts[0].sampler.structure, flat)

    return MCPrediction(
        joined(lambda tally: tally.moments.mean),
        joined(lambda tally: tally.moments.variance),
        parts[0].tallies[0].moments.count,
        joined(lambda tally: tally.expected_entropy),
        joined(lambda tally: tally.variation_ratio),
        joined(lambda tally: np.concatenate(tally.samples), axis=1) if parts[0].keep_samples else None,
    )


def _concatenated(pieces: tuple, axis: int) -> np.ndarray:
    shapes = {piece.shape[axis + 1 :] for piece in pieces}
    if len(shapes) > 1:
        raise ValueError(
            "Outputs of batches that differ in their shape cannot be put together. Predict the inputs of "
            f"each length or size by themselves. Received: outputs of shapes {sorted(shapes)}"
        )
    return np.concatenate(pieces, axis=axis)


def _classes(mean: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    """Return the probabilities of all classes, of which `mean` may have that of the second alone."""
    is_single = mean.ndim == entropy.ndim or mean.shape[-1] == 1
    return both_classes(mean.reshape(entropy.shape)) if is_single else mean


def _check_model_and_sizes(
    model: Any, samples: Any, batch_size: Any, tolerance: Any, max_samples: Any
) -> None:
    check_model("model", model)
    check_positive("samples", samples, Integral)
    check_positive("batch_size", batch_size, Integral)
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    if max_samples is not None:
        check_number("max_samples", max_samples, f"at least {_FEWEST}", lambda v: v >= _FEWEST, Integral)
        if tolerance is None:
            raise ValueError(
                "`max_samples` limits what `tolerance` asks for. Pass both. "
                f"Received: max_samples={max_samples}"
            )


def _check_options(seed: Any, masks: Any, keep_samples: Any, from_logits: Any, verbose: Any) -> None:
    if seed is not None:
        check_number("seed", seed, "at least 0", lambda value: value >= 0, Integral)
    check_choice("masks", masks, Masks)
    check_bool("keep_samples", keep_samples)
    if not all(isinstance(each, (bool, np.bool_)) for each in tree.flatten(from_logits)):
        raise TypeError(
            "Expected `from_logits` to be a bool, or bools in the structure of the outputs. "
            f"Received: from_logits={from_logits!r}"
        )
    check_verbose(verbose)


def _check_memory(needed: int, received: str) -> None:
    """Raise where samples that are to be kept would take more memory than there is."""
    there = memory_of_machine()
    if needed > there:
        raise ValueError(
            f"All samples take {needed / 2**30:.3g} GiB, and this machine has {there / 2**30:.3g}. Take "
            "fewer samples, or pass `keep_samples=False`: mean, variance and entropies need none to be "
            f"kept. Received: {received}, keep_samples=True"
        )
