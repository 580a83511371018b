"""Engines built, compared with the model, and measured in turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_dnn_extras._display import Displayed, Summary, table_text
from keras_dnn_extras.inference import engines
from keras_dnn_extras.inference.signatures import EngineError, Run, Signature, caller, first_line
from keras_dnn_extras.inference.verification import Truth

WARM_UP = 0.2  # seconds, and at least three calls: torch optimizes a trace in its first ones
ROUNDS = 15  # of turns that the engines take
TURN = 0.002  # seconds, and at least one call
MEASURED = 0.5  # seconds of calls of the engine that was chosen
CALLS = (30, 2000)  # the least and the most of them


@dataclass(frozen=True, repr=False)
class Latency(Displayed):
    """How long calls take, in seconds.

    Attributes:
        p50: half of the calls took no longer.
        p99: 99 of 100 calls took no longer.
    """

    p50: float
    p99: float

    def __str__(self) -> str:
        return f"{_microseconds(self.p50)} in the median, {_microseconds(self.p99)} at the 99th percentile"

    def _summary(self) -> Summary:
        return Summary(f"Latency({self})")


@dataclass(frozen=True, repr=False)
class Candidates(Displayed):
    """Which engines there were: `str(candidates)` is a table.

    Attributes:
        measured: dict of name and median of a call in seconds, of those that can run the model; of the one
            that was asked for.
        left_out: dict of name and reason of the others.
    """

    measured: dict[str, float]
    left_out: dict[str, str]

    def __str__(self) -> str:
        return table_text(self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        fastest = sorted(self.measured.items(), key=lambda item: item[1])
        return [*((name, _microseconds(seconds)) for name, seconds in fastest), *self.left_out.items()]

    def _summary(self) -> Summary:
        return Summary("Candidates", rows=self._rows())


class Bench:
    """Builds engines, compares them with the model, and measures them."""

    def __init__(self, model: keras.Model, signature: Signature, truth: Truth):
        self._model = model
        self._signature = signature
        self._truth = truth

    def chosen(self, engine: str) -> tuple[str, Callable, Latency, Candidates]:
        """Return the name and the call of the fastest engine, or of the one that is asked for.

        Raises:
            ValueError: there is none that computes what the model does.
        """
        calls, left_out = self._calls([engine] if engine != "auto" else list(engines.ENGINES))
        if not calls:
            raise ValueError(self._refusal(engine, left_out))
        example = self._signature.packed(self._truth.inputs[0])
        for call in calls.values():
            _warm_up(call, example)
        medians = _medians(calls, example)
        fastest = min(medians, key=medians.__getitem__)
        return fastest, calls[fastest], _latency(calls[fastest], example), Candidates(medians, left_out)

    def _calls(self, names: list[str]) -> tuple[dict[str, Callable], dict[str, str]]:
        calls, left_out = {}, {}
        for name in names:
            try:
                run = engines.built_engine(name, self._model, self._signature)
                self._check(run)
                calls[name] = caller(run, self._signature, self._truth.structure)
            except EngineError as error:
                left_out[name] = f"left out: {error}"
        return calls, left_out

    def _check(self, run: Run) -> None:
        try:
            self._truth.check(run)
        except EngineError:
            raise
        except Exception as error:  # of a runtime that cannot run what it compiled
            raise EngineError(f"{type(error).__name__}: {first_line(error)}") from error

    def _refusal(self, engine: str, left_out: dict[str, str]) -> str:
        if engine == "auto":
            return f"No engine can run the model. Received: model={self._model}\n{Candidates({}, left_out)}"
        others, _ = self._calls([name for name in engines.ENGINES if name != engine])
        remedy = f"Pass one that can: {', '.join(map(repr, others))}." if others else "No other can either."
        reason = left_out[engine].removeprefix("left out: ")
        return f"The engine {engine!r} cannot run the model: {reason}. {remedy} Received: engine={engine!r}"


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f} us"


def _warm_up(call: Callable, example: Any) -> None:
    end, calls = time.perf_counter() + WARM_UP, 0
    while calls < 3 or time.perf_counter() < end:
        call(example)
        calls += 1


def _medians(calls: dict[str, Callable], example: Any) -> dict[str, float]:
    """Return the median of a call of each, which take turns, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(ROUNDS):
        order = list(calls) if i % 2 else list(calls)[::-1]
        for name in order:
            end = time.perf_counter() + TURN
            while True:
                times[name].append(_seconds(calls[name], example))
                if time.perf_counter() >= end:
                    break
    return {name: statistics.median(found) for name, found in times.items()}


def _latency(call: Callable, example: Any) -> Latency:
    least, most = CALLS
    end = time.perf_counter() + MEASURED
    times: list[float] = []
    while len(times) < least or (len(times) < most and time.perf_counter() < end):
        times.append(_seconds(call, example))
    p50, p99 = np.percentile(times, [50, 99])
    return Latency(float(p50), float(p99))


def _seconds(call: Callable, example: Any) -> float:
    start = time.perf_counter()
    call(example)
    return time.perf_counter() - start
