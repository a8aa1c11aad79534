"""The synthetic sample: the DLRM benchmark on small data with a planted signal, for machines without Criteo data.

Network, target and rules are those of the benchmark. Results on the sample show that everything works. They cannot
be submitted, because synthetic data has no reference convergence.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlperf.benchmarks.benchmark import Benchmark
from mlperf.benchmarks.dlrm import DLRM


@dataclass(frozen=True)
class Sample:
    """The sample that run_and_time.sh makes: rows of all days together, and the seed of everything in it."""

    benchmark: Benchmark
    rows: int
    seed: int


SAMPLE = Sample(benchmark=DLRM, rows=240_000, seed=1)
