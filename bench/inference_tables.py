"""Measure contenders in a scenario and print the table, for `measure_inference.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from inference_contenders import VARIANTS, Contender, Variant
from inference_floor import InferenceFloor
from inference_scenarios import Latencies, call_latencies, highest_rate, offline, scoring, serve
from inference_subject import Subject
from training_baselines import copy_bandwidth

REFERENCE = VARIANTS["fp32"]
LOADS = (0.25, 0.5, 0.75)  # of the throughput of the first contender
SEARCH_STEPS = 7


@dataclass(frozen=True)
class Plan:
    """What is measured.

    seconds: time for each measurement. sizes: batch sizes. max_batch, rates, latency_bound: of the scenario
    "server"; the rates are those at which samples arrive, None for shares of the throughput. latency_bound: in
    milliseconds; None: no rate is searched.
    """

    sizes: Sequence[int]
    seconds: float
    max_batch: int
    rates: Sequence[float] | None
    latency_bound: float | None


def print_batches(subject: Subject, programs: Sequence[Contender], plan: Plan) -> None:
    """Print the latencies of batches of each size."""
    bandwidth = copy_bandwidth(subject.model.tables.device)
    for size in plan.sizes:
        if size > subject.samples:
            print(f"batch size {size:,}: not measured: there are only {subject.samples:,} samples")
            continue
        floors = {one.variant: InferenceFloor(subject, one.variant, size, bandwidth) for one in programs}
        scores = {one.name: scoring(one, subject.samples, size) for one in programs}
        calls: dict[str, Callable[[], object]] = {_floor(one): floors[one].products for one in floors}
        times = call_latencies({**calls, **scores}, plan.seconds)
        bounds = {one: floor.seconds(float(np.median(times[_floor(one)]))) for one, floor in floors.items()}
        print(f"batch size {size:,}")
        _print_header("ms: p50", "p95", "p99", "samples/s", "of floor", "of fp32", "difference")
        own = {one.variant: float(np.median(times[one.name])) for one in reversed(programs)}
        for variant, bound in bounds.items():
            _print_row(f"floor {variant.name}", [f"{1e3 * bound:.3f}", "", "", f"{size / bound:,.0f}"])
        for one in programs:
            values = times[one.name]
            p50, p95, p99 = np.percentile(values, (50, 95, 99))
            of_fp32 = f"{p50 / own[REFERENCE]:.2f}" if REFERENCE in own else ""
            cells = [f"{1e3 * p50:.3f}", f"{1e3 * p95:.3f}", f"{1e3 * p99:.3f}", f"{size / values.mean():,.0f}"]
            difference = f"{_difference(subject, one, programs[0], size):.1e}"
            _print_row(one.name, [*cells, f"{p50 / bounds[one.variant]:.2f}", of_fp32, difference])


def _floor(variant: Variant) -> str:
    return f"floor {variant.name}"


def _difference(subject: Subject, one: Contender, first: Contender, size: int) -> float:
    """Return the mean difference of the probabilities of both for the first batch of `size`."""
    scored = [contender.score(contender.inputs(0, size)).float().cpu() for contender in (one, first)]
    return float((scored[0] - scored[1]).abs().mean())


def print_offline(subject: Subject, programs: Sequence[Contender], plan: Plan) -> None:
    """Print the throughput if all samples are there, with the best of the batch sizes."""
    print(f"offline: {subject.samples:,} samples are there")
    _print_header("samples/s", "batch size", "of first")
    first = None
    for one in programs:
        sizes = [size for size in plan.sizes if size <= subject.samples]
        rates = {size: offline(one, subject.samples, size, plan.seconds) for size in sizes}
        size = max(rates, key=lambda size: rates[size])
        first = first or rates[size]
        _print_row(one.name, [f"{rates[size]:,.0f}", f"{size:,}", f"{rates[size] / first:.2f}"])


def print_server(subject: Subject, programs: Sequence[Contender], plan: Plan) -> None:
    """Print the latencies of samples that arrive at random times."""
    rates = plan.rates
    if rates is None:
        capacity = offline(programs[0], subject.samples, min(plan.max_batch, subject.samples), plan.seconds)
        rates = [load * capacity for load in LOADS]
    for rate in rates:
        print(f"server: {rate:,.0f} samples/s arrive, at most {plan.max_batch:,} are scored together")
        _print_header("ms: p50", "p95", "p99", "samples/s", "mean batch", "not scored")
        for one in programs:
            served = _served(subject, one, plan, rate)
            cells = [f"{1e3 * served.percentile(percent):.3f}" for percent in (50, 95, 99)]
            cells += [f"{served.samples_per_second:,.0f}", f"{served.batch:.1f}", f"{served.waiting:,}"]
            _print_row(one.name, cells)
    if plan.latency_bound is not None:
        print(f"server: highest rate whose 99th percentile is at most {plan.latency_bound:g} ms")
        _print_header("samples/s")
        for one in programs:
            capacity = offline(one, subject.samples, min(plan.max_batch, subject.samples), plan.seconds)
            meets = partial(_meets, subject, one, plan)
            _print_row(one.name, [f"{highest_rate(meets, capacity, SEARCH_STEPS):,.0f}"])


def _served(subject: Subject, one: Contender, plan: Plan, rate: float) -> Latencies:
    max_batch = min(plan.max_batch, subject.samples)
    return serve(one, subject.samples, rate=rate, seconds=plan.seconds, max_batch=max_batch)


def _meets(subject: Subject, one: Contender, plan: Plan, rate: float) -> bool:
    """Return whether the latencies at `rate` keep to the bound."""
    assert plan.latency_bound is not None
    served = _served(subject, one, plan, rate)
    return served.waiting == 0 and 1e3 * served.percentile(99) <= plan.latency_bound


def _print_header(*titles: str) -> None:
    _print_row("", titles)


def _print_row(name: str, cells: Sequence[str]) -> None:
    print(f"  {name:<42}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
