"""Estimate a step of DLRM-DCNv2 from the bytes that its kernels move: python bench/gpu/dcnv2_traffic.py.

Needs no GPU. The step is that of the benchmark with products in bf16, tables in bf16 and exact Adagrad, and with
tables of at most 16 million rows, which fit on a GPU with 80 GB.
"""

from __future__ import annotations

import bench_folder  # noqa: F401

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from gpu_workload import DCNV2_ROWS, Workload, make_batch, workload_of

from command_line import script_parser
from mlperf.benchmarks import DLRM_DCNV2
from mlperf.data.batch import RawBatch
from mlperf.data.schema import CRITEO
from mlperf.engines.gpu.kernels.decode import dense_width
from mlperf.engines.gpu.kernels.sorted_rows import CHUNK
from mlperf.util.program import run_program

# Rates that the measured step of DLRM implies (README.md): in TB/s, of the rows of the tables and of the other
# kernels, and in PFLOP/s, of the products.
RATES = {"H200": (2.5, 3.0, 0.65), "H100": (2.2, 2.5, 0.60)}

ACTIVATION = 2  # bytes of bfloat16
SORT_PASSES = 4  # of 8 bits of an int32
SORTED = 12  # bytes of an int32 row and its int64 position


@dataclass(frozen=True)
class Part:
    """Bytes that a part of the step reads and writes.

    least, most: if all repeated reads of a row or gradient hit a cache, and if none does. of_tables: whether these
    are mostly rows of the tables.
    """

    name: str
    least: float
    most: float
    of_tables: bool = False


@dataclass(frozen=True)
class ReadRows:
    """How often a batch reads the rows of the tables.

    ids: all. distinct: each row once. shared_parts: parts of runs of equal rows that cross a chunk of sorted rows.
    """

    ids: int
    distinct: int
    shared_parts: int


def read_rows(workload: Workload, batch: RawBatch) -> ReadRows:
    """Count the rows that a batch reads."""
    assert batch.ids is not None
    assert workload.ids_per_table is not None
    starts = np.cumsum([0, *workload.table_rows[:-1]])
    counts = [batch.size * count for count in workload.ids_per_table]
    rows = np.sort(batch.ids.numpy() + np.repeat(starts, counts))
    begins = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    ends = np.append(begins[1:], len(rows)) - 1
    crossed = ends // CHUNK - begins // CHUNK
    return ReadRows(len(rows), len(begins), int((crossed[crossed > 0] + 1).sum()))


def traffic(workload: Workload, read: ReadRows, *, row_bytes: int, sums_bytes: int) -> Iterator[Part]:
    """Yield the parts of a step but the products. row_bytes, sums_bytes: of a row and of its sums of squares."""
    network, samples = workload.network, workload.batch_size
    layers, rank = network.cross_layers or 0, network.cross_rank or 0
    features = samples * (len(workload.table_rows) + 1) * network.embedding_dimension * ACTIVATION
    columns = features // (samples * ACTIVATION)
    gradient_bytes = network.embedding_dimension * ACTIVATION
    hidden = [*network.bottom_mlp[1:], *network.top_mlp[:-2]]
    bottom = pairwise((dense_width(CRITEO), *network.bottom_mlp[1:]))
    weights = layers * columns * (2 * rank + 1) + sum(a * b + b for a, b in bottom)
    weights += sum(a * b + b for a, b in pairwise((columns, *network.top_mlp)))
    moved = 3 * samples * CRITEO.row_bytes + 4 * 4 * read.ids
    yield Part("copy and decoding of the rows, numbering of the ids", moved, moved)
    pooled = features + 4 * read.ids
    yield Part("pooling", pooled + read.distinct * row_bytes, pooled + read.ids * row_bytes, True)
    forward = (4 * layers - 1) * features
    yield Part("cross network forward, element-wise", forward, forward)
    loss = 2 * samples * network.top_mlp[-2] * ACTIVATION
    relu = 3 * samples * sum(hidden) * ACTIVATION + loss
    yield Part("loss, and gradient of ReLU", relu, relu)
    backward = (6 * layers - 1) * features
    yield Part("cross network backward, element-wise", backward, backward)
    sort = 2 * SORT_PASSES * SORTED * read.ids
    yield Part("sort of the ids", sort, sort)
    updated = SORTED * read.ids + 2 * read.distinct * (row_bytes + sums_bytes)
    updated += 2 * read.shared_parts * network.embedding_dimension * 4
    most = updated + read.ids * gradient_bytes
    yield Part("update of the tables", updated + features, most, True)
    update = weights * (4 * 4 + 2 * ACTIVATION)
    yield Part("update of the weights", update, update)


def product_operations(workload: Workload) -> float:
    """Return the floating-point operations of the matrix products of a step."""
    network, layers, rank = workload.network, workload.network.cross_layers or 0, workload.network.cross_rank or 0
    columns = (len(workload.table_rows) + 1) * network.embedding_dimension
    bottom = list(pairwise((dense_width(CRITEO), *network.bottom_mlp[1:])))
    top = pairwise((columns, *network.top_mlp[:-1]))
    forward = 2 * layers * columns * rank + sum(a * b for a, b in (*bottom, *top))
    return 2.0 * workload.batch_size * (3 * forward - bottom[0][0] * bottom[0][1])


def print_estimate(workload: Workload, read: ReadRows, *, row_bytes: int, sums_bytes: int) -> None:
    """Print the bytes of each part and the times that follow."""
    print(f"{read.ids:,} rows read, {read.distinct:,} of them distinct")
    print(f"{'part of a step, estimated':55}{'MB':>16}" + "".join(f"{gpu + ', ms':>16}" for gpu in RATES))
    totals = {gpu: [0.0, 0.0] for gpu in RATES}
    for part in traffic(workload, read, row_bytes=row_bytes, sums_bytes=sums_bytes):
        line = f"{part.name:55}{_range(part.least / 1e6, part.most / 1e6, 0):>16}"
        for gpu, (of_tables, of_others, _) in RATES.items():
            rate = 1e9 * (of_tables if part.of_tables else of_others)  # bytes per ms
            times = part.least / rate, part.most / rate
            totals[gpu] = [total + time for total, time in zip(totals[gpu], times, strict=True)]
            line += f"{_range(*times, 2):>16}"
        print(line)
    operations = product_operations(workload)
    products = {gpu: operations / (1e12 * rates[2]) for gpu, rates in RATES.items()}
    name = f"matrix products, {operations / 1e12:.2f} TFLOP"
    print(f"{name:71}" + "".join(f"{products[gpu]:16.2f}" for gpu in RATES))
    sums = (_range(totals[gpu][0] + products[gpu], totals[gpu][1] + products[gpu], 1) for gpu in RATES)
    print(f"{'a step':71}" + "".join(f"{text:>16}" for text in sums))


def _range(least: float, most: float, digits: int) -> str:
    low, high = f"{least:,.{digits}f}", f"{most:,.{digits}f}"
    return low if low == high else f"{low} to {high}"


def main() -> None:
    """Print the estimate for log-uniform ids."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--reduced", action="store_true", help="tiny sizes, to test the script")
    reduced = parser.parse_args().reduced
    workload = workload_of(DLRM_DCNV2, reduced=reduced)
    if not reduced:
        workload = replace(workload, row_limit=DCNV2_ROWS, device=torch.device("cpu"))
    dimension = workload.network.embedding_dimension
    read = read_rows(workload, make_batch(workload, 1))
    print_estimate(workload, read, row_bytes=2 * dimension, sums_bytes=4 * dimension)


if __name__ == "__main__":
    sys.exit(run_program("dcnv2_traffic.py", main))
