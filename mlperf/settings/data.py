"""Settings of the data: its source, batch sizes and reader threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlperf.settings.dataset import DatasetSettings
from mlperf.settings.flags import flag, part
from mlperf.settings.kinds import (
    MAX_INT32,
    at_least,
    between,
    boolean,
    choice,
    file_name,
    positive,
    switch,
    whole_between,
    whole_numbers,
)

_MAX_THREADS = 1024
_PRIVATE_LOADER = "refers to a data loader that the original authors never published"


@dataclass(frozen=True)
class IdDistribution:
    """Distribution of random ids over a table: uniform, or a clipped normal distribution.

    minimum, maximum, mu and sigma are fractions of the number of rows.
    """

    kind: str = flag(
        "--rand-data-dist", choice("uniform", "gaussian"), "uniform", "random data: distribution of the ids"
    )
    minimum: float = flag(
        "--rand-data-min", between(0, 1), 0.0, "gaussian: smallest id, as a fraction of the rows"
    )
    maximum: float = flag("--rand-data-max", between(0, 1), 1.0, "gaussian: largest id, as a fraction of the rows")
    mu: float = flag(
        "--rand-data-mu",
        between(),
        -1.0,
        "gaussian: mean, as a fraction of the rows; -1: midpoint of minimum and maximum",
    )
    sigma: float = flag(
        "--rand-data-sigma", positive, 1.0, "gaussian: standard deviation, as a fraction of the rows"
    )

    @property
    def mean(self) -> float:
        """The mean, as a fraction of the rows."""
        return (self.minimum + self.maximum) / 2 if self.mu == -1 else self.mu


@dataclass(frozen=True)
class GeneratedDataSettings:
    """Settings of random and synthetic batches.

    lookups: ids drawn per table and sample: exactly this many with `fixed_lookups`, otherwise at most. Duplicates
    are removed in both cases.
    trace_file: stack-distance distributions; a standalone "j" in the file name is replaced by the table number.
    """

    data_size: int = flag("--data-size", at_least(1), 1, "samples per epoch, unless --num-batches is given")
    lookups: int = flag(
        "--num-indices-per-lookup", whole_between(1, 1 << 20), 10, "maximum number of ids per table and sample"
    )
    fixed_lookups: bool = flag(
        "--num-indices-per-lookup-fixed",
        boolean,
        False,
        "draw exactly --num-indices-per-lookup ids; equal ones count once",
    )
    round_targets: bool = flag("--round-targets", boolean, False, "round targets to 0 or 1")
    ids: IdDistribution = part(IdDistribution)
    trace_file: Path = flag(
        "--data-trace-file",
        file_name,
        Path("input/dist_emb_j.log"),
        "synthetic: stack-distance distribution; j is replaced by the table number",
    )
    trace_padding: bool = flag(
        "--data-trace-enable-padding",
        boolean,
        False,
        "synthetic: after all ids were used, reuse ids only",
    )


@dataclass(frozen=True)
class MultiHotSettings:
    """Several ids per table for a data set with one: a fixed function of that id adds the others.

    sizes: number of ids of each table; None: one, the id itself.
    tables_file: file with the added ids of every id; if None, it is beside the data, or in memory if it is small.
    """

    sizes: tuple[int, ...] | None = flag(
        "--multi-hot-sizes",
        whole_numbers(1 << 16),
        None,
        "number of ids of each table, of which all but the id of the data set are drawn (default: one id)",
    )
    distribution: str = flag(
        "--multi-hot-distribution",
        choice("uniform", "pareto"),
        "uniform",
        "distribution of the ids that --multi-hot-sizes adds",
    )
    tables_file: Path | None = flag(
        "--multi-hot-tables",
        file_name,
        None,
        "file (.npz) with the ids that --multi-hot-sizes adds to each id; created if missing (default: beside the "
        "data, or in memory if they are few)",
    )


@dataclass(frozen=True)
class DataSettings(DatasetSettings):
    """Source and size of batches. `generation`: "random", "synthetic" or "dataset"."""

    generation: str = flag(
        "--data-generation",
        choice("random", "synthetic", "dataset", refused={"internal": _PRIVATE_LOADER}),
        "random",
        "source of the data: random, synthetic (with given reuse distances) or a data set",
    )
    batch_size: int = flag("--mini-batch-size", whole_between(1, MAX_INT32), 1, "samples per batch")
    test_mini_batch_size: int = flag(
        "--test-mini-batch-size",
        whole_between(1, MAX_INT32, or_value=-1),
        -1,
        "samples per test batch; -1: same as --mini-batch-size",
    )
    num_batches: int = flag(
        "--num-batches",
        at_least(0),
        0,
        "batches per epoch: overrides --data-size for generated data, truncates epochs of a data set; 0: no limit",
    )
    num_workers: int = flag(
        "--num-workers",
        whole_between(0, _MAX_THREADS),
        0,
        "threads of each process that read ahead; 0: one on a CPU, four on a GPU, or fewer if the processes of a "
        "node have fewer cores each",
    )
    test_num_workers: int = flag(
        "--test-num-workers",
        whole_between(0, _MAX_THREADS, or_value=-1),
        -1,
        "the same for test data; -1: same as --num-workers",
    )
    shuffle_batches: bool = flag(
        "--mlperf-bin-shuffle", switch, False, "shuffle the order of the batches, using the random seed"
    )
    verify: bool = flag(
        "--verify-data",
        switch,
        False,
        "before the run, compare all bytes of the splits that it reads with the checksums in X.json",
        group="data set",
    )
    multi_hot: MultiHotSettings = part(MultiHotSettings, group="data set")
    generated: GeneratedDataSettings = part(GeneratedDataSettings, group="random and synthetic data")

    @property
    def test_batch_size(self) -> int:
        """Samples per test batch."""
        return self.test_mini_batch_size if self.test_mini_batch_size > 0 else self.batch_size

    @property
    def generated_samples(self) -> int:
        """Samples of random or synthetic data per epoch."""
        return self.num_batches * self.batch_size if self.num_batches else self.generated.data_size

    def ids_per_table(self, tables: int) -> tuple[int, ...]:
        """Return the number of ids of each table and sample; at most this many for generated data."""
        if self.generation != "dataset":
            return (self.generated.lookups,) * tables
        return self.multi_hot.sizes or (1,) * tables

    def readers(self, default: int) -> int:
        """Return the number of threads that read training batches; by default, `default`."""
        return self.num_workers or default

    def test_readers(self, default: int) -> int:
        """Return the number of threads that read test batches; by default, `default`."""
        return self.readers(default) if self.test_num_workers < 0 else self.test_num_workers or default
