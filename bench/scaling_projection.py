"""Print a projection of the training step on more GPUs than were measured: python bench/scaling_projection.py.

It adds the time to send the bytes of `scaling_traffic`, at the rates of the links, to the time that one GPU
computes. Nothing of it was measured on several GPUs. What it leaves out makes a real step slower: the latency of
each collective, the differences between the processes, and that other kernels were measured than TorchRec's.
"""

from __future__ import annotations

import checkout  # noqa: F401

import math
import sys
from dataclasses import dataclass

from command_line import script_parser
from mlperf import benchmarks
from mlperf.util.program import run_program
from scaling_traffic import VALUE, Network, dense_weights, sent_bytes
from training_shapes import Shape

# Of one GPU in one direction, bytes per second. NVIDIA's data sheet of the DGX H100 states 900 GB/s of NVLink in
# both directions, and a network adapter of 400 Gb/s for each of the 8 GPUs.
NVLINK, NETWORK, GPUS_PER_NODE = 450e9, 50e9, 8


@dataclass(frozen=True)
class Measured:
    """A benchmark on one GPU: a step takes `fixed` and `per_sample` seconds for each sample."""

    shape: Shape
    fixed: float
    per_sample: float


# DLRM in bf16 on an H100: 3.24 ms at a batch of 65,536, 0.293 ms at 2048 (bench/results/gpu_step_h100.md).
# DLRM-DCNv2 in bf16 on an H200: 22.4 ms at 65,536 (bench/results/gpu_dcnv2_h200.md), with the fixed part of DLRM.
FIXED = 3.24e-3 - (3.24e-3 - 0.293e-3) / (65536 - 2048) * 65536
DLRM = Measured(Shape("dlrm", 65536, benchmarks.DLRM), FIXED, (3.24e-3 - FIXED) / 65536)
DCNV2 = Measured(Shape("dlrm_dcnv2", 65536, benchmarks.DLRM_DCNV2), FIXED, (22.4e-3 - FIXED) / 65536)
# GPUs, the batch size of a published result for as many, and parts into which the columns of a table are divided.
CASES = (
    *((DLRM, 8, 55296, 1), (DLRM, 64, 71680, 1), (DLRM, 64, 71680, 4)),
    *((DCNV2, 8, 55296, 1), (DCNV2, 64, 135168, 1), (DCNV2, 64, 135168, 4)),
)


@dataclass(frozen=True)
class Projection:
    """Seconds of the parts of a step: computations, rows and their gradients, ids, gradients of the weights.

    The rows and their gradients are waited for. The ids of the next batch are sent during the step, and the
    gradients of the weights during the backward pass: they cost nothing if they are hidden completely.
    """

    computing: float
    rows: float
    ids: float
    weights: float

    @property
    def least(self) -> float:
        """Seconds of a step in which what can be hidden is."""
        return self.computing + self.rows

    @property
    def most(self) -> float:
        """Seconds of a step in which nothing is hidden."""
        return self.least + self.ids + self.weights


def projection(measured: Measured, gpus: int, batch: int, parts: int) -> Projection:
    """Return the projection for tables in float32 and a batch of all GPUs together.

    parts: 1 if the tables are sharded table-wise, else the parts of each that are sharded column-wise.
    """
    shape = measured.shape
    tables = len(shape.tables)
    ids = shape.ids_per_table or (1,) * tables
    dimension, weights = shape.workload.network.embedding_dimension, dense_weights(shape)
    kind = "table-wise" if parts == 1 else "column-wise"
    network = Network(ids, (kind,) * tables, (parts,) * tables, dimension, weights)
    sent = sent_bytes(network, gpus, batch, reduce_factor=1)
    # The GPU with the most parts sends the most rows, and receives the most ids and gradients.
    busiest = math.ceil(tables * parts / gpus) * gpus / (tables * parts)
    per_gpu = {name: value * batch / gpus * busiest for name, value in sent.items()}
    return Projection(
        measured.fixed + measured.per_sample * batch / gpus,
        _exchange(per_gpu["rows"] + per_gpu["row gradients"], gpus),
        _exchange(per_gpu["ids"], gpus),
        _all_reduce(VALUE * weights, gpus),
    )


def _exchange(sent: float, gpus: int) -> float:
    """Return the seconds to send bytes to all other GPUs alike: within the node and to other nodes at a time."""
    if gpus == 1:
        return 0.0
    in_node = min(gpus, GPUS_PER_NODE) - 1
    others = gpus - 1 - in_node
    return sent / (gpus - 1) * max(in_node / NVLINK, others / NETWORK)


def _all_reduce(size: float, gpus: int) -> float:
    """Return the seconds of a ring all-reduce in each node, then between nodes over all their adapters."""
    in_node = min(gpus, GPUS_PER_NODE)
    nodes = gpus // in_node
    return 2 * size * ((in_node - 1) / in_node / NVLINK + (nodes - 1) / nodes / in_node / NETWORK)


def main() -> None:
    """Print the table, in Markdown."""
    script_parser(__file__, __doc__).parse_args()
    print(
        "| benchmark | GPUs | batch | sharding | computing, ms | rows and their gradients, ms | ids, ms | "
        "gradients of the weights, ms | step, ms | million samples/s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for measured, gpus, batch, columns in CASES:
        found = projection(measured, gpus, batch, columns)
        kind = "table-wise" if columns == 1 else f"column-wise, {columns} parts"
        parts = " | ".join(f"{1e3 * one:.2f}" for one in (found.computing, found.rows, found.ids, found.weights))
        steps = f"{1e3 * found.least:.2f} to {1e3 * found.most:.2f}"
        rates = f"{batch / found.most / 1e6:.0f} to {batch / found.least / 1e6:.0f}"
        print(f"| `{measured.shape.name}` | {gpus} | {batch:,} | {kind} | {parts} | {steps} | {rates} |")


if __name__ == "__main__":
    sys.exit(run_program("scaling_projection.py", main))
