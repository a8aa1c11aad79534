"""What a benchmark fixes: the model, the data set, the target, the schedule and the contents of its log.

The classes hold facts and no behaviour beyond looking them up. One file beside this one fills them in for each
benchmark. Nothing in this package imports PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

STATUSES = ("cloud", "onprem", "preview", "research")  # values of submission_status in every edition
DIVISIONS = ("closed", "open")


@dataclass(frozen=True)
class Network:
    """The layer widths of a DLRM and its training loss.

    bottom_mlp: widths from the dense features to the embedding dimension.
    top_mlp: widths without the first, which follows from the interaction.
    interaction, loss: values of `--arch-interaction-op` and `--loss-function`.
    """

    embedding_dimension: int
    bottom_mlp: tuple[int, ...]
    top_mlp: tuple[int, ...]
    interaction: str = "dot"
    loss: str = "bce"

    @property
    def flags(self) -> tuple[str, ...]:
        """The trainer's flags for this network."""
        return (
            f"--arch-sparse-feature-size={self.embedding_dimension}",
            f"--arch-mlp-bot={_dashed(self.bottom_mlp)}",
            f"--arch-mlp-top={_dashed(self.top_mlp)}",
            f"--arch-interaction-op={self.interaction}",
            f"--loss-function={self.loss}",
        )


@dataclass(frozen=True)
class DataSet:
    """A data set as a benchmark uses it.

    name: value of `--data-set`.
    index_limit: ids are taken modulo this number before they are numbered; None: no limit.
    table_rows: rows of each embedding table after that; empty where they are not published.
    ids_per_table: ids of one sample in each table; empty: one everywhere.
    train_samples, eval_samples, held_out_samples: published sizes of the training split, of the split that decides
    about the target, and of the rest of the last day; 0 where they are not published.
    """

    name: str
    index_limit: int | None = None
    table_rows: tuple[int, ...] = ()
    ids_per_table: tuple[int, ...] = ()
    train_samples: int = 0
    eval_samples: int = 0
    held_out_samples: int = 0

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that name and limit the data set, for the trainer and for the preparation."""
        limit = () if self.index_limit is None else (f"--max-ind-range={self.index_limit}",)
        return (f"--data-set={self.name}", *limit)


@dataclass(frozen=True)
class Workload:
    """A network and the data it is trained on, under the name by which `python -m mlperf.benchmarks` knows it."""

    name: str
    network: Network
    data: DataSet

    @property
    def flags(self) -> tuple[str, ...]:
        """The trainer's flags for this workload."""
        return (*self.network.flags, *self.data.flags)


@dataclass(frozen=True)
class LoggedHyperparameter:
    """A log entry that describes the optimizer or its schedule: a field of ScheduleSettings, or a fixed value."""

    key: str
    setting: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class Benchmark(Workload):
    """A benchmark of MLPerf Training. `name` is the value of submission_benchmark in the log.

    optimizer: value of `--optimizer`.
    auc_target: the AUC on the evaluation split that ends a run.
    evaluations_per_epoch: how often the rules ask for an evaluation.
    runs: logs in a result; a reference convergence point takes twice as many.
    hyperparameters: what the log says of the optimizer, in the order in which it is written.
    """

    optimizer: str
    auc_target: float
    evaluations_per_epoch: int
    runs: int
    hyperparameters: tuple[LoggedHyperparameter, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """The trainer's flags for this benchmark."""
        target = f"--mlperf-auc-threshold={self.auc_target}"
        return (*super().flags, f"--optimizer={self.optimizer}", target)


@dataclass(frozen=True)
class Edition:
    """One edition of MLPerf Training and the benchmark of this project that it contains.

    required_keys: log keys that the closed division requires.
    checks_package: whether its package checker looks at seeds, system descriptions and convergence.
    open_target: the lowest AUC in the open division; 0 where the submitter chooses the target.
    """

    name: str
    benchmark: Benchmark
    required_keys: frozenset[str]
    checks_package: bool
    open_target: float = 0.0

    @property
    def auc_target(self) -> float:
        """The AUC that ends a run in the closed division."""
        return self.benchmark.auc_target

    @property
    def runs(self) -> int:
        """The number of logs in a result."""
        return self.benchmark.runs

    @property
    def evaluations_per_epoch(self) -> int:
        """How often the rules ask for an evaluation."""
        return self.benchmark.evaluations_per_epoch

    def target(self, division: object) -> float:
        """Return the AUC that a run of `division` must reach. Any value but "open" is treated as closed."""
        return self.open_target if division == "open" else self.auc_target


def _dashed(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))
