"""The benchmarks of MLPerf Training that this project runs, and the editions that contain them, as data.

A new benchmark is one file beside `dlrm.py` and one entry in each of the tables below.
"""

from __future__ import annotations

from mlperf.benchmarks import dlrm
from mlperf.benchmarks.benchmark import DIVISIONS, STATUSES, Benchmark, Edition, Workload
from mlperf.benchmarks.dlrm import DLRM
from mlperf.benchmarks.non_mlperf import KAGGLE, TERABYTE_10M
from mlperf.benchmarks.sample import SAMPLE

BENCHMARKS: dict[str, Benchmark] = {DLRM.name: DLRM}
WORKLOADS: dict[str, Workload] = {**BENCHMARKS, KAGGLE.name: KAGGLE, TERABYTE_10M.name: TERABYTE_10M}
# An edition contains one of the recommendation benchmarks, so that its name says which.
EDITIONS: dict[str, Edition] = {edition.name: edition for edition in dlrm.EDITIONS}
DEFAULT_EDITION = EDITIONS["2.1.0"]

__all__ = [
    "BENCHMARKS",
    "DEFAULT_EDITION",
    "DIVISIONS",
    "DLRM",
    "EDITIONS",
    "KAGGLE",
    "SAMPLE",
    "STATUSES",
    "TERABYTE_10M",
    "WORKLOADS",
    "Benchmark",
    "Edition",
    "Workload",
]
