"""Ways in which samples arrive in `measure_inference.py`: batch after batch, all at once, or at random times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from inference_contenders import Contender

ROUNDS = 5

# Inputs of one size that take turns, so that rows of the tables are not always those of the call before.
_MAX_INPUTS = 256

# The host sleeps at most until this long before the next arrival, and then waits actively.
_WAKE_UP_SECONDS = 2e-4

# A run under load ends after this multiple of its time, although samples wait.
_PATIENCE = 2


@dataclass(frozen=True)
class Latencies:
    """Latencies in seconds: of calls, or of samples from their arrival on.

    samples_per_second: samples scored per second. batch: mean number of samples that were scored together.
    waiting: samples that were not scored when the run ended.
    """

    values: np.ndarray
    samples_per_second: float
    batch: float
    waiting: int = 0

    def percentile(self, percent: float) -> float:
        """Return a percentile in seconds."""
        return float(np.percentile(self.values, percent))


def call_latencies(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, np.ndarray]:
    """Return the seconds of each call of functions that take turns in rounds, `seconds` each in all."""
    values: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()  # warm up: another function used the caches
            end = time.perf_counter() + seconds / ROUNDS
            while True:
                start = time.perf_counter()
                call()
                stop = time.perf_counter()
                values[name].append(stop - start)
                if stop > end:
                    break
    return {name: np.array(own) for name, own in values.items()}


def scoring(contender: Contender, samples: int, size: int) -> Callable[[], torch.Tensor]:
    """Return a function that scores the next batch of `size` and waits for the result in host memory."""
    starts = range(0, samples - size + 1, size)[:_MAX_INPUTS]
    inputs = [contender.inputs(start, size) for start in starts]
    turn = 0

    def score() -> torch.Tensor:
        nonlocal turn
        turn = (turn + 1) % len(inputs)
        return contender.score(inputs[turn]).cpu()

    return score


def offline(contender: Contender, samples: int, size: int, seconds: float) -> float:
    """Return the samples per second if all are there: those of the fastest of several passes over them."""
    inputs = [contender.inputs(start, min(size, samples - start)) for start in range(0, samples, size)]
    best, end = 0.0, time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        for batch in inputs:
            contender.score(batch).cpu()
        stop = time.perf_counter()
        best = max(best, samples / (stop - start))
        if stop > end:
            return best


def serve(
    contender: Contender, samples: int, *, rate: float, seconds: float, max_batch: int, seed: int = 1
) -> Latencies:
    """Return the latencies of samples that arrive at random times, `rate` per second (a Poisson process).

    One worker scores whatever has arrived, at most `max_batch` samples together, as soon as it has finished the
    samples before. A latency includes the wait, the making of the batch and the scoring. A quarter of the time
    comes first and does not count, because libraries prepare each new batch size once.
    """
    if seed:
        serve(contender, samples, rate=rate, seconds=seconds / 4, max_batch=max_batch, seed=0)
    stream = np.random.default_rng(seed)
    arrivals = np.cumsum(stream.exponential(1 / rate, max(1, round(rate * seconds))))
    latencies, sizes, done = np.empty(len(arrivals)), [], 0
    start = time.perf_counter()
    while done < len(arrivals):
        now = time.perf_counter() - start
        if now > _PATIENCE * seconds + arrivals[-1]:
            break
        if arrivals[done] > now:
            pause = arrivals[done] - now - _WAKE_UP_SECONDS
            if pause > 0:
                time.sleep(pause)
            continue
        arrived = int(np.searchsorted(arrivals, now, "right"))
        size = min(arrived - done, max_batch)
        contender.score(contender.inputs(done % (samples - size + 1), size)).cpu()
        latencies[done : done + size] = time.perf_counter() - start - arrivals[done : done + size]
        sizes.append(size)
        done += size
    elapsed = time.perf_counter() - start
    return Latencies(latencies[:done], done / elapsed, float(np.mean(sizes)), len(arrivals) - done)


def highest_rate(meets: Callable[[float], bool], capacity: float, steps: int) -> float:
    """Return the highest rate that `meets` accepts, to capacity / 2^steps; 0 if it accepts none.

    capacity: samples per second that are never exceeded.
    """
    low, high = 0.0, capacity
    for _ in range(steps):
        middle = (low + high) / 2
        if meets(middle):
            low = middle
        else:
            high = middle
    return low
