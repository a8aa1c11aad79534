"""Models and batch sizes that the training step is measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from command_line import named_values
from mlperf import benchmarks
from mlperf.benchmarks import Workload

REDUCED_ROWS = 1000  # rows per table at most with --reduced
REDUCED_BATCH = 128

# On a GPU: bytes of a step beside its tables, and rows per table if the full tables do not fit.
BYTES_BESIDE_TABLES = 9e9
ROWS_OF_SMALLER_TABLES = 24_000_000


@dataclass(frozen=True)
class Shape:
    """A model and a batch size.

    limit: maximum number of rows per table; None for the sizes of the workload.
    plain: whether other programs are timed too, which needs memory for a second copy of the tables.
    """

    name: str
    batch_size: int
    workload: Workload
    limit: int | None = None
    plain: bool = True

    @property
    def tables(self) -> tuple[int, ...]:
        """Rows per table."""
        return tuple(min(rows, self.limit or rows) for rows in self.workload.data.table_rows)

    @property
    def ids_per_table(self) -> tuple[int, ...] | None:
        """Ids of a sample in each table; None: one."""
        return self.workload.data.ids_per_table

    @property
    def flags(self) -> tuple[str, ...]:
        """The trainer's flags for the model and the number of ids."""
        ids = self.ids_per_table
        sizes = () if ids is None else (f"--multi-hot-sizes={'-'.join(map(str, ids))}",)
        return (*self.workload.network.flags, *sizes)

    @property
    def title(self) -> str:
        """The name, and the limit of the tables if it is not part of the name."""
        return f"{self.name}, tables of at most {self.limit:,} rows" if self.limit else self.name

    def reduced(self) -> Shape:
        """Return the same with tiny tables and batches, to test a script."""
        batch_size = min(self.batch_size, REDUCED_BATCH)
        return replace(self, name=f"{self.name} reduced", limit=REDUCED_ROWS, batch_size=batch_size)


# The most important first. Tables of 400,000 rows take 1.7 GB, the full ones of DLRM 96 GB.
SHAPES = (
    Shape("MLPerf-full-65536", 65536, benchmarks.DLRM, plain=False),
    Shape("MLPerf-65536", 65536, benchmarks.DLRM, limit=400_000),
    Shape("MLPerf-2048", 2048, benchmarks.DLRM, limit=400_000),
    Shape("Kaggle-128", 128, benchmarks.KAGGLE),
    Shape("DCNv2-65536", 65536, benchmarks.DLRM_DCNV2, limit=400_000),
    Shape("DCNv2-2048", 2048, benchmarks.DLRM_DCNV2, limit=40_000),
)
PRECISIONS = ("bf16", "tf32", "fp32")
# Measured if --shapes is not given. Those of DLRM-DCNv2 are usually measured with another --optimizer.
GPU_SHAPES = ("MLPerf-full-65536", "MLPerf-65536", "MLPerf-2048", "Kaggle-128")
CPU_SHAPES = ("MLPerf-2048", "Kaggle-128")


def shapes_named(names: str | None, *, use_gpu: bool) -> list[Shape]:
    """Return the shapes with these names, separated by commas, the most important first; None: the default."""
    if names is None:
        return [shape for shape in SHAPES if shape.name in (GPU_SHAPES if use_gpu else CPU_SHAPES)]
    chosen = named_values("--shapes", names, [shape.name for shape in SHAPES])
    return [shape for shape in SHAPES if shape.name in chosen]


def precisions_named(names: str | None, *, use_gpu: bool) -> list[str]:
    """Return these precisions, separated by commas, the fastest first; None: all of the device."""
    known = [name for name in PRECISIONS if use_gpu or name != "tf32"]
    chosen = known if names is None else named_values("--precision", names, known)
    return [precision for precision in known if precision in chosen]


def in_order(shapes: Sequence[Shape], precisions: Sequence[str]) -> list[tuple[Shape, str]]:
    """Return all combinations, the most important first: fp32, by far the slowest on a GPU, comes last."""
    fast, slow = ([one for one in precisions if (one == "fp32") is is_slow] for is_slow in (False, True))
    return [(shape, one) for group in (fast, slow) for shape in shapes for one in group]
