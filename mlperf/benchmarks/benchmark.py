"""Classes for the facts that a benchmark fixes: model, data set, target, schedule and contents of the log.

They have no behaviour beyond looking the facts up, and what follows from them. Each benchmark has its own file
beside this one. Nothing in this package imports PyTorch.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from mlperf.benchmarks.data_sets import DataSetTraits

STATUSES = ("cloud", "onprem", "preview", "research")  # values of submission_status in every edition
DIVISIONS = ("closed", "open")


@dataclass(frozen=True)
class Network:
    """The layer widths of a DLRM and its training loss.

    bottom_mlp: widths from the dense features to the embedding dimension.
    top_mlp: widths without the input width, which follows from the interaction.
    interaction, loss: values of `--arch-interaction-op` and `--loss-function`.
    cross_layers, cross_rank: sizes of the cross network; None for another interaction.
    """

    bottom_mlp: tuple[int, ...]
    top_mlp: tuple[int, ...]
    interaction: str = "dot"
    loss: str = "bce"
    cross_layers: int | None = None
    cross_rank: int | None = None

    @property
    def embedding_dimension(self) -> int:
        """The dimension of an embedding vector, which is the output width of the bottom MLP."""
        return self.bottom_mlp[-1]

    @property
    def flags(self) -> tuple[str, ...]:
        """The trainer's flags for this network."""
        return (
            f"--arch-sparse-feature-size={self.embedding_dimension}",
            f"--arch-mlp-bot={dashed(self.bottom_mlp)}",
            f"--arch-mlp-top={dashed(self.top_mlp)}",
            f"--arch-interaction-op={self.interaction}",
            *_given("--dcn-num-layers", self.cross_layers),
            *_given("--dcn-low-rank-dim", self.cross_rank),
            f"--loss-function={self.loss}",
        )


@dataclass(frozen=True)
class DataSet:
    """A data set as a benchmark uses it.

    traits: of the data set that `--data-set` selects.
    index_limit: value of `--max-ind-range`; if None, there is no limit.
    table_rows: rows of each embedding table with the limit; empty if they are not published.
    ids_per_table: ids of a sample in each table, of which all but the first are drawn; None: one.
    train_samples, eval_samples, held_out_samples: published sizes of the training split, the evaluation split and
    the unused rest of the last day; 0 if they are not published.
    """

    traits: DataSetTraits
    index_limit: int | None = None
    table_rows: tuple[int, ...] = ()
    ids_per_table: tuple[int, ...] | None = None
    train_samples: int = 0
    eval_samples: int = 0
    held_out_samples: int = 0

    @property
    def name(self) -> str:
        """The value of `--data-set`."""
        return self.traits.name

    @property
    def flags(self) -> tuple[str, ...]:
        """The trainer's flags for this data set."""
        sizes = None if self.ids_per_table is None else dashed(self.ids_per_table)
        return (f"--data-set={self.name}", *self._limit, *_given("--multi-hot-sizes", sizes))

    @property
    def preparation_flags(self) -> tuple[str, ...]:
        """The flags of the preparation for this data set, which are also flags of the trainer."""
        return (f"--data-set={self.name}", *(() if self.traits.limits_rows else self._limit))

    @property
    def _limit(self) -> tuple[str, ...]:
        return _given("--max-ind-range", self.index_limit)


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
    """A log entry that describes the optimizer or its schedule.

    setting: a field of TrainingSettings, such as "schedule.learning_rate". If it is None, `value` is logged.
    """

    key: str
    setting: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class Benchmark(Workload):
    """A benchmark of MLPerf Training. `name` is the value of submission_benchmark in the log.

    optimizer: value of `--optimizer`. adagrad_epsilon: value of `--adagrad-epsilon`; None for another optimizer.
    auc_target: the AUC on the evaluation split that ends a run.
    evaluations_per_epoch: number of evaluations per epoch that the rules require.
    rounds_interval_up: whether the steps between two evaluations are rounded up, otherwise down.
    first_epoch: number of the first epoch in the log; `epoch_num` is this number at the beginning of a run.
    runs: number of runs in a result; a reference convergence point needs twice as many.
    fixes_eval_samples: whether the closed division allows only the published number of evaluation samples.
    hyperparameters: optimizer entries of the log, in order.
    """

    optimizer: str
    auc_target: float
    evaluations_per_epoch: int
    rounds_interval_up: bool
    first_epoch: int
    runs: int
    fixes_eval_samples: bool
    hyperparameters: tuple[LoggedHyperparameter, ...]
    adagrad_epsilon: float | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The trainer's flags for this benchmark."""
        epsilon = _given("--adagrad-epsilon", self.adagrad_epsilon)
        target = f"--mlperf-auc-threshold={self.auc_target}"
        return (*super().flags, f"--optimizer={self.optimizer}", *epsilon, target)

    @property
    def sample_flags(self) -> tuple[str, ...]:
        """The trainer's flags on the sample, besides those of the benchmark."""
        return ("--mlperf-division=open",) if self.fixes_eval_samples else ()

    def steps_between_evaluations(self, samples: int, global_batch: int) -> int:
        """Return the number of optimizer steps from one evaluation to the next.

        samples: training samples of an epoch. global_batch: samples of a step.
        """
        steps, rest = divmod(samples, global_batch * self.evaluations_per_epoch)
        return max(1, steps + (self.rounds_interval_up and rest > 0))


@dataclass(frozen=True)
class Edition:
    """One edition of MLPerf Training and the recommendation benchmark that it includes.

    published: the day on which the results of its round were published; later runs cannot belong to it.
    required_keys: log keys that the closed division requires.
    checks_package: whether its package checker checks seeds, system descriptions and convergence.
    open_target: lowest AUC allowed in the open division; 0 if the submitter chooses the target.
    new_keys: log keys that its rules introduced and require. new_optional_keys: those that they only allow.
    early_keys: keys that a later edition introduced and that logs of this edition may already contain.
    """

    name: str
    benchmark: Benchmark
    published: datetime.date
    required_keys: frozenset[str]
    checks_package: bool
    open_target: float = 0.0
    new_keys: frozenset[str] = frozenset()
    new_optional_keys: frozenset[str] = frozenset()
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


def dashed(numbers: Iterable[float]) -> str:
    """Return a list of numbers as the flags take it: "13-512-256"."""
    return "-".join(map(str, numbers))


def _given(flag: str, value: object | None) -> tuple[str, ...]:
    """Return a flag with its value; nothing if there is none."""
    return () if value is None else (f"{flag}={value}",)
