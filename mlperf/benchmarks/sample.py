"""The synthetic sample: small data with a planted signal, to run the benchmarks on machines without Criteo data.

Network, target and rules are those of the benchmark. Results on the sample show that everything works. They cannot
be submitted, because synthetic data has no reference convergence.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_SAMPLE_ROWS = 1000  # with fewer, the test split may have no clicks


@dataclass(frozen=True)
class SampleSize:
    """The arguments from which a sample can be generated again: the rows of all days together, and the seed."""

    rows: int
    seed: int


SAMPLE = SampleSize(rows=240_000, seed=1)  # made by run_and_time.sh if there is no other data
