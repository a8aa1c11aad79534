"""The supported benchmarks of MLPerf Training and the editions that include them, as data.

A new benchmark needs one file beside `dlrm.py` and one entry in each of the tables below.
"""

from __future__ import annotations

from mlperf.benchmarks import dlrm
from mlperf.benchmarks.benchmark import DIVISIONS, STATUSES, Benchmark, Edition, Workload
from mlperf.benchmarks.dlrm import DLRM
from mlperf.benchmarks.non_mlperf import KAGGLE, TERABYTE_10M
from mlperf.benchmarks.sample import MIN_SAMPLE_ROWS, SAMPLE, SampleSize

BENCHMARKS: dict[str, Benchmark] = {DLRM.name: DLRM}
WORKLOADS: dict[str, Workload] = {**BENCHMARKS, KAGGLE.name: KAGGLE, TERABYTE_10M.name: TERABYTE_10M}
# Each edition includes exactly one recommendation benchmark, so the edition's name identifies it.
EDITIONS: dict[str, Edition] = {edition.name: edition for edition in dlrm.EDITIONS}
DEFAULT_EDITION = EDITIONS["2.1.0"]

__all__ = [
    "BENCHMARKS",
    "DEFAULT_EDITION",
    "DIVISIONS",
    "DLRM",
    "EDITIONS",
    "KAGGLE",
    "MIN_SAMPLE_ROWS",
    "SAMPLE",
    "STATUSES",
    "TERABYTE_10M",
    "WORKLOADS",
    "Benchmark",
    "Edition",
    "SampleSize",
    "Workload",
]
