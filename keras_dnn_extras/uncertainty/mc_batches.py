"""One batch after the other: the noise that each takes, and what its samples say."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops, tree

from keras_dnn_extras.uncertainty.masks import Request, Streams
from keras_dnn_extras.uncertainty.mc_sampler import Sampler
from keras_dnn_extras.uncertainty.mc_tally import Tally

_CACHED = 2**25  # bytes of masks that all batches share


class SampledBatch:
    """One batch, and what its samples say so far."""

    def __init__(self, sampler: Sampler, noise: "Noise", batch: Any, rows: int, keep_samples: bool):
        self._own_rows = len(tree.flatten(batch)[0])
        self._rows = max(self._own_rows, rows)
        self.sampler, self.keep_samples = sampler, keep_samples
        self._draw = noise.of_batch(sampler.requests)
        self._thin = sampler.thins(self._rows, noise.shared)
        self._border = sampler.prefix(_with_rows(batch, self._rows))
        self.tallies = [Tally(reading, self._own_rows) for reading in sampler.readings]
        self._count = 0

    def sample(self, until: int) -> None:
        """Take samples until there are so many."""
        left = until - self._count
        most = 8 if self._thin else max(1, self.sampler.rows // self._rows)
        chunks = -(-left // most)
        size = -(-left // chunks)
        while self._count < until:
            self._take(min(size, until - self._count))

    def _take(self, count: int) -> None:
        noise = self._draw(self._count, count, self._own_rows, self._rows)
        self._count += count
        sums, samples = self.sampler.sample(self._border, noise, thin=self._thin, keep=self.keep_samples)
        for tally, sample in zip(self.tallies, samples, strict=False):
            tally.samples.append(ops.convert_to_numpy(sample)[:, : self._own_rows])
        sums, start = ops.convert_to_numpy(sums), 0
        for tally in self.tallies:
            start = tally.add(sums, start, self._rows, count)

    def finished(self) -> "SampledBatch":
        """Forget what only further samples need."""
        del self._border, self._draw
        return self


class Noise:
    """The noise of all batches.

    Args:
        seed: int >= 0.
        shared: whether all rows of a sample have the same.
        is_of_one_batch: whether there is only one.
    """

    def __init__(self, seed: int, shared: bool, is_of_one_batch: bool):
        self._seed, self.shared = seed, shared
        self._streams = Streams(seed, shared, is_of_one_batch)
        self._cache: dict[tuple, tuple[list, dict]] = {}

    def of_batch(self, requests: list[Request]) -> Callable[[int, int, int, int], list]:
        """Return a function of (first sample, samples, rows, rows to pad to) that draws a batch's noise."""
        streams = Streams(self._seed, shared=True) if self.shared else self._streams
        size = sum(request.size * (4 if request.gaussian else 1) for request in requests)
        position: dict | None = None  # behind noise that came from the cache

        def draw(first: int, samples: int, rows: int, padded: int) -> list:
            nonlocal position
            if not self.shared:
                return [_padded(streams.draw(r, first, samples, rows), padded) for r in requests]
            key = (*requests, first, samples)
            if key in self._cache:
                noise, position = self._cache[key]
                return noise
            if position is not None:
                streams.move_to(position)
                position = None
            noise = [ops.convert_to_tensor(streams.draw(r, first, samples, 1)) for r in requests]
            if (first + samples) * size <= _CACHED:
                self._cache[key] = noise, streams.position()
            return noise

        return draw


def _padded(noise: np.ndarray, rows: int) -> np.ndarray:
    missing = rows - noise.shape[1]
    return np.pad(noise, [(0, 0), (0, missing)] + [(0, 0)] * (noise.ndim - 2)) if missing else noise


def _with_rows(batch: Any, rows: int) -> Any:
    """Return a batch of `rows` rows: a last one that has fewer repeats its last row.

    A trace for its shape would take longer.
    """
    missing = rows - len(tree.flatten(batch)[0])
    if not missing:
        return batch
    return tree.map_structure(lambda array: np.concatenate([array] + [array[-1:]] * missing), batch)
