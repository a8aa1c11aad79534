"""Smaller DLRM workloads of the original implementation. They are not MLPerf benchmarks."""

from __future__ import annotations

from mlperf.benchmarks import data_sets
from mlperf.benchmarks.benchmark import DataSet, Network, Workload

KAGGLE = Workload(
    name="kaggle",
    network=Network(bottom_mlp=(13, 512, 256, 64, 16), top_mlp=(512, 256, 1)),
    data=DataSet(
        traits=data_sets.KAGGLE,
        table_rows=(
            *(1_460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5_683, 8_351_593, 3_194),
            *(27, 14_992, 5_461_306, 10, 5_652, 2_173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572),
        ),
    ),
)

# Published with at most 10,000,000 rows per table; the exact table sizes depend on the subsampling.
TERABYTE_10M = Workload(
    name="terabyte_10m",
    network=Network(bottom_mlp=(13, 512, 256, 64), top_mlp=(512, 512, 256, 1)),
    data=DataSet(traits=data_sets.TERABYTE, index_limit=10_000_000),
)
