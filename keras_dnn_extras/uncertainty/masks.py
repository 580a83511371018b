"""The masks of each sample: how they are asked for, and drawn.

A mask is a function of (seed, call of a layer, sample, and row where rows differ) alone. It is
drawn by NumPy, so that it does not depend on the backend, the batch, or how many samples run at once.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Masks = Literal["shared", "independent"]


@dataclass(frozen=True)
class Request:
    """The noise that one call of a layer takes.

    Attributes:
        call: the place among all calls of such layers, in the order in which they are computed.
        shape: of a row's noise.
        rate: the share that is dropped.
        gaussian: whether the noise is normal, or says what is kept.
    """

    call: int
    shape: tuple[int, ...]
    rate: float
    gaussian: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Streams:
    """The noise of all requests, sample after sample.

    Args:
        seed: int >= 0.
        shared: whether all rows of a sample have the same.
        is_once: whether each sample is asked for once, where they are not shared: no generator is kept.
    """

    def __init__(self, seed: int, shared: bool, is_once: bool = False):
        self._seed = seed
        self._shared = shared
        self._is_once = is_once
        self._generators: dict[tuple, Any] = {}

    def draw(self, request: Request, first: int, samples: int, rows: int) -> np.ndarray:
        """Return the noise of `samples` samples from `first`, of shape `(samples, rows or 1, ...)`.

        With shared noise the samples have to be asked for in order; else of each sample the rows.
        """
        if self._shared:
            generator = self._generator(request)
            return _drawn(generator, request, samples).reshape(samples, 1, *request.shape)
        drawn = [_drawn(self._generator(request, k), request, rows) for k in range(first, first + samples)]
        return np.stack(drawn).reshape(samples, rows, *request.shape)

    def position(self) -> dict[tuple, Any]:
        """Return how far the noise is drawn, for `move_to`."""
        return copy.deepcopy(self._generators)

    def move_to(self, position: dict[tuple, Any]) -> None:
        """Go on behind the noise that was drawn up to `position`, by these streams or by equal ones."""
        self._generators = copy.deepcopy(position)

    def _generator(self, request: Request, *sample: int) -> np.random.Generator:
        key = (request.call, *sample)
        if key in self._generators:
            return self._generators[key]
        entropy = np.random.SeedSequence(self._seed, spawn_key=key)
        generator = np.random.Generator(np.random.SFC64(entropy))
        if self._shared or not self._is_once:
            self._generators[key] = generator
        return generator


def _drawn(generator: np.random.Generator, request: Request, count: int) -> np.ndarray:
    """Return the next `count` pieces of noise of the generator, the same ones however many come at once."""
    if request.gaussian:
        deviation = math.sqrt(request.rate / (1 - request.rate))
        noise = generator.standard_normal((count, request.size), "float32")
        return 1 + np.float32(deviation) * noise
    words = -(-request.size // 2)
    bits = (
        generator.bit_generator.random_raw(count * words)
        .astype("<u8")
        .view("<u4")
        .reshape(count, 2 * words)
    )
    return bits[:, : request.size] >= np.uint32(min(round(request.rate * 2**32), 2**32 - 1))
