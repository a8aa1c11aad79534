"""The supported benchmarks of MLPerf Training and the editions that include them, as data.

A new benchmark needs one file beside `dlrm.py` and one entry in each of the tables below.
"""

from __future__ import annotations

from mlperf.benchmarks import dlrm, dlrm_dcnv2
from mlperf.benchmarks.benchmark import DIVISIONS, STATUSES, Benchmark, Edition, Workload, dashed
from mlperf.benchmarks.dlrm import DLRM
from mlperf.benchmarks.dlrm_dcnv2 import DLRM_DCNV2
from mlperf.benchmarks.non_mlperf import KAGGLE, TERABYTE_10M
from mlperf.benchmarks.sample import MIN_SAMPLE_ROWS, SAMPLE, SampleSize

BENCHMARKS: dict[str, Benchmark] = {DLRM.name: DLRM, DLRM_DCNV2.name: DLRM_DCNV2}
WORKLOADS: dict[str, Workload] = {**BENCHMARKS, KAGGLE.name: KAGGLE, TERABYTE_10M.name: TERABYTE_10M}
# Each edition includes exactly one recommendation benchmark, so the edition's name identifies it.
EDITIONS: dict[str, Edition] = {edition.name: edition for edition in (*dlrm.EDITIONS, *dlrm_dcnv2.EDITIONS)}
# Editions whose recommendation benchmark is not supported, with its name.
OTHER_EDITIONS = {"6.1.0": "dlrmv4"}


def editions_of(workload: Workload) -> tuple[Edition, ...]:
    """Return the editions that include a benchmark, in order; none for a workload that is no benchmark."""
    return tuple(edition for edition in EDITIONS.values() if edition.benchmark is workload)


def default_edition(benchmark: Benchmark) -> Edition:
    """Return the edition that runs of a benchmark use by default: the latest."""
    return editions_of(benchmark)[-1]


def benchmark_with(interaction: str) -> Benchmark:
    """Return the benchmark whose network has an interaction; DLRM if there is none."""
    found = (benchmark for benchmark in BENCHMARKS.values() if benchmark.network.interaction == interaction)
    return next(found, DLRM)


__all__ = [
    "BENCHMARKS",
    "DIVISIONS",
    "DLRM",
    "DLRM_DCNV2",
    "EDITIONS",
    "KAGGLE",
    "MIN_SAMPLE_ROWS",
    "OTHER_EDITIONS",
    "SAMPLE",
    "STATUSES",
    "TERABYTE_10M",
    "WORKLOADS",
    "Benchmark",
    "Edition",
    "SampleSize",
    "Workload",
    "benchmark_with",
    "dashed",
    "default_edition",
    "editions_of",
]
