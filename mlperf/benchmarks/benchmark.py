"""Classes for the facts that a benchmark fixes: model, data set, target, schedule and contents of the log.

They have no behaviour beyond looking the facts up. Each benchmark has its own file beside this one. Nothing in
this package imports PyTorch.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

STATUSES = ("cloud", "onprem", "preview", "research")  # values of submission_status in every edition
DIVISIONS = ("closed", "open")


@dataclass(frozen=True)
class Network:
    """The layer widths of a DLRM and its training loss.

    bottom_mlp: widths from the dense features to the embedding dimension.
    top_mlp: widths without the input width, which follows from the interaction.
    interaction, loss: values of `--arch-interaction-op` and `--loss-function`.
    """

    bottom_mlp: tuple[int, ...]
    top_mlp: tuple[int, ...]
    interaction: str = "dot"
    loss: str = "bce"

    @property
    def embedding_dimension(self) -> int:
        """The dimension of an embedding vector, which is the output width of the bottom MLP."""
        return self.bottom_mlp[-1]

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
    index_limit: ids are taken modulo this number before they are numbered; if None, there is no limit.
    table_rows: rows of each embedding table after that; empty if they are not published.
    train_samples, eval_samples, held_out_samples: published sizes of the training split, the evaluation split and
    the unused rest of the last day; 0 if they are not published.
    """

    name: str
    index_limit: int | None = None
    table_rows: tuple[int, ...] = ()
    train_samples: int = 0
    eval_samples: int = 0
    held_out_samples: int = 0

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the trainer and of the preparation that select the data set and limit its ids."""
        limit = () if self.index_limit is None else (f"--max-ind-range={self.index_limit}",)
        return (f"--data-set={self.name}", *limit)


@dataclass(frozen=True)
class Workload:
    """A network and its data set. `name` is the argument of `python -m mlperf.benchmarks`."""

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
    evaluations_per_epoch: number of evaluations per epoch that the rules require.
    runs: number of runs in a result; a reference convergence point needs twice as many.
    hyperparameters: optimizer entries of the log, in order.
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
    """One edition of MLPerf Training and the recommendation benchmark that it includes.

    published: the day on which the results of its round were published; later runs cannot belong to it.
    required_keys: log keys that the closed division requires.
    checks_package: whether its package checker checks seeds, system descriptions and convergence.
    open_target: lowest AUC allowed in the open division; 0 if the submitter chooses the target.
    new_keys: log keys that its rules introduced.
    early_keys: keys that a later edition introduced and that logs of this edition may already contain.
    """

    name: str
    benchmark: Benchmark
    published: datetime.date
    required_keys: frozenset[str]
    checks_package: bool
    open_target: float = 0.0
    new_keys: frozenset[str] = frozenset()
    early_keys: frozenset[str] = frozenset()

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
        """The number of evaluations per epoch that the rules require."""
        return self.benchmark.evaluations_per_epoch

    def target(self, division: object) -> float:
        """Return the AUC that a run of `division` must reach. Any value but "open" is treated as closed."""
        return self.open_target if division == "open" else self.auc_target


def _dashed(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))
