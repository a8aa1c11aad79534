"""Where the batches of a run come from, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlperf.settings.dataset import DatasetSettings
from mlperf.settings.flags import flag, part
from mlperf.settings.kinds import at_least, between, boolean, choice, path, positive, switch

_PRIVATE_LOADER = "names a private loader of the first authors that was never published"


@dataclass(frozen=True)
class IdDistribution:
    """How random ids are distributed over a table: uniformly, or as clipped normal shares of its rows."""

    kind: str = flag(
        "--rand-data-dist", choice("uniform", "gaussian"), "uniform", "random data: distribution of the ids"
    )
    minimum: float = flag("--rand-data-min", between(0, 1), 0.0, "gaussian: smallest share of the table")
    maximum: float = flag("--rand-data-max", between(0, 1), 1.0, "gaussian: largest share of the table")
    mu: float = flag(
        "--rand-data-mu", between(), -1.0, "gaussian: mean share; -1: the middle of the minimum and the maximum"
    )
    sigma: float = flag("--rand-data-sigma", positive, 1.0, "gaussian: standard deviation of the share")

    @property
    def mean(self) -> float:
        """The mean share of the table."""
        return (self.minimum + self.maximum) / 2 if self.mu == -1 else self.mu


@dataclass(frozen=True)
class GeneratedDataSettings:
    """What random and synthetic batches hold.

    lookups: ids per table and sample, at most or, with `fixed_lookups`, exactly; repeated ids are dropped then.
    trace_file: the distribution of stack distances; a "j" in its name stands for the table's number. None: the
    files that come with the project.
    """

    data_size: int = flag("--data-size", at_least(1), 1, "samples, unless --num-batches is given")
    lookups: int = flag("--num-indices-per-lookup", at_least(1), 10, "ids per table and sample, at most")
    fixed_lookups: bool = flag(
        "--num-indices-per-lookup-fixed", boolean, False, "exactly --num-indices-per-lookup ids"
    )
    round_targets: bool = flag("--round-targets", boolean, False, "targets 0 or 1 instead of numbers in between")
    ids: IdDistribution = part(IdDistribution)
    trace_file: Path = flag(
        "--data-trace-file",
        path,
        Path("input/dist_emb_j.log"),
        "synthetic: distribution of stack distances, j standing for the table's number",
    )
    trace_padding: bool = flag(
        "--data-trace-enable-padding",
        boolean,
        False,
        "synthetic: when every id was used, draw only ids that were used before",
    )


@dataclass(frozen=True)
class DataSettings(DatasetSettings):
    """Where batches come from. `generation`: "random", "synthetic" or "dataset"."""

    generation: str = flag(
        "--data-generation",
        choice("random", "synthetic", "dataset", refused={"internal": _PRIVATE_LOADER}),
        "random",
        "where batches come from: drawn at random, with a given locality, or a Criteo data set",
    )
    batch_size: int = flag("--mini-batch-size", at_least(1), 1, "samples per batch")
    test_mini_batch_size: int = flag(
        "--test-mini-batch-size", at_least(1, or_value=-1), -1, "samples per test batch; -1: as in training"
    )
    num_batches: int = flag(
        "--num-batches",
        at_least(0),
        0,
        "random data: batches per epoch instead of --data-size; data set: stop each epoch after N batches; 0: all",
    )
    num_workers: int = flag(
        "--num-workers", at_least(0), 0, "threads that read ahead; 0: one on a CPU, four for a GPU"
    )
    test_num_workers: int = flag(
        "--test-num-workers", at_least(0, or_value=-1), -1, "the same for test data; -1: as in training"
    )
    shuffle_batches: bool = flag(
        "--mlperf-bin-shuffle", switch, False, "visit the batches in an order drawn from the seed"
    )
    generated: GeneratedDataSettings = part(GeneratedDataSettings, group="random and synthetic data")

    @property
    def test_batch_size(self) -> int:
        """Samples per test batch."""
        return self.test_mini_batch_size if self.test_mini_batch_size > 0 else self.batch_size

    @property
    def generated_samples(self) -> int:
        """Samples of random or synthetic data per epoch."""
        return self.num_batches * self.batch_size if self.num_batches else self.generated.data_size

    def readers(self, *, use_gpu: bool) -> int:
        """Return the threads that read training batches; a GPU takes more rows than one thread copies."""
        return self.num_workers or (4 if use_gpu else 1)

    def test_readers(self, *, use_gpu: bool) -> int:
        """Return the threads that read test batches."""
        if self.test_num_workers < 0:
            return self.readers(use_gpu=use_gpu)
        return self.test_num_workers or (4 if use_gpu else 1)
