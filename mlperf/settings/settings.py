"""Settings of a run: created once from the flags, frozen, and passed down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlperf.benchmarks import EDITIONS, Edition, benchmark_with, default_edition
from mlperf.settings.data import DataSettings
from mlperf.settings.flags import flag, part
from mlperf.settings.kinds import boolean, choice, file_or_folder, switch
from mlperf.settings.model import ModelSettings
from mlperf.settings.predictions import PredictionSettings
from mlperf.settings.processes import ProcessSettings
from mlperf.settings.reports import ComplianceSettings, QuantizationSettings, ReportSettings
from mlperf.settings.run import RunSettings
from mlperf.settings.training import TrainingSettings

# Precision of matrix products; weights, updates and the loss are float32 (tables: --embedding-precision).
PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class AcceptedFlags:
    """Flags accepted for compatibility with existing scripts and launchers; they have no effect."""

    memory_map: bool = flag("--memory-map", switch, False, "ignored: preparation always works out of core")
    multiprocessing: bool = flag(
        "--dataset-multiprocessing", switch, False, "ignored: preparation always uses all cores"
    )
    sync_dense_params: bool = flag(
        "--sync-dense-params", boolean, True, "ignored: the MLPs of all processes are always equal"
    )


LATEST = "latest"  # value of --load-model


@dataclass(frozen=True)
class Settings:
    """All settings of a run.

    given: keys of the flags that were given; distinguishes a flag given with its default value from one left out.
    """

    model: ModelSettings = part(ModelSettings, group="model")
    data: DataSettings = part(DataSettings, group="data")
    training: TrainingSettings = part(TrainingSettings, group="training")
    use_gpu: bool = flag(
        "--use-gpu", switch, False, "run on the GPU; fails if no GPU is visible", group="training"
    )
    precision: str = flag(
        "--precision",
        choice(*PRECISIONS),
        "fp32",
        "precision of matrix products and activations (tf32: GPU only); weights, updates and loss are float32",
        group="training",
    )
    load_model: Path | None = flag(
        "--load-model",
        file_or_folder,
        None,
        "checkpoint to resume or evaluate; latest: that of --save-model if it exists, else start anew",
        group="checkpoints and inference",
    )
    load_weights: Path | None = flag(
        "--load-weights",
        file_or_folder,
        None,
        "start new training with the weights of this checkpoint (of this or another program), of a bare "
        "state_dict, or of a file .npz with emb.K.weight, bottom.N.weight, cross.L.V, top.N.weight, ...",
        group="checkpoints and inference",
    )
    save_model: Path | None = flag(
        "--save-model",
        file_or_folder,
        None,
        "checkpoint to write whenever the test metric (AUC with --mlperf-logging, else accuracy) improves: a "
        "file, or a folder with engine torchrec",
        group="checkpoints and inference",
    )
    inference_only: bool = flag(
        "--inference-only",
        switch,
        False,
        "evaluate on the split of --split and exit; flags of the training have no effect, and no log is written",
        group="checkpoints and inference",
    )
    split: str = flag(
        "--split",
        choice("train", "test", "val"),
        "test",
        "with --inference-only: evaluate on all training rows, in file order, or on the first (test) or "
        "second half (val) of the last day; with --data-set=columns, as the data was divided",
        group="checkpoints and inference",
    )
    predictions: PredictionSettings = part(PredictionSettings, group="checkpoints and inference")
    quantization: QuantizationSettings = part(QuantizationSettings, group="checkpoints and inference")
    processes: ProcessSettings = part(ProcessSettings, group="engine and processes")
    run: RunSettings = part(RunSettings, group="folder of the run")
    report: ReportSettings = part(ReportSettings, group="reports")
    compliance: ComplianceSettings = part(ComplianceSettings, group="MLPerf log")
    accepted: AcceptedFlags = part(AcceptedFlags, group="accepted without effect")
    given: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def loads_latest(self) -> bool:
        """Whether the checkpoint that is loaded is that of --save-model, if there is one."""
        return self.load_model == Path(LATEST)

    @property
    def keeps_best_model(self) -> bool:
        """Whether the folder of the run gets the checkpoint with the best test metric, without --save-model."""
        can_save = not self.inference_only and self.data.generation == "dataset" and self.training.evaluates
        return self.run.output_dir is not None and self.save_model is None and can_save

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.data.seed

    @property
    def edition(self) -> Edition:
        """The edition of --mlperf-edition; by default the latest with the benchmark of the interaction."""
        if self.compliance.edition is not None:
            return EDITIONS[self.compliance.edition]
        return default_edition(benchmark_with(self.model.architecture.interaction_op))

    @property
    def mlp_init(self) -> str:
        """Distribution of initial weights outside the tables: "normal", "uniform" or "pytorch"."""
        if self.model.mlp_init != "auto":
            return self.model.mlp_init
        if self.model.architecture.has_cross_network:
            return "pytorch"
        return "normal" if self.data.generation == "dataset" else "uniform"
