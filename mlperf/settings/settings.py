"""What a run is asked to do: frozen settings, made once from the flags and passed down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# What matrix products are in; weights, updates and the loss are float32 always.
PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class DataSettings:
    """Where batches come from. `generation` is "random", "synthetic" or "dataset"; sizes of 0 mean "not limited".

    gaussian: mean, deviation, least and most of random ids as shares of their table; None: uniform.
    trace_file: the distribution of synthetic ids, "j" standing for the table's number.
    """

    generation: str
    data_set: str
    raw_data_file: Path | None
    processed_data_file: Path | None
    randomize: str
    max_ind_range: int
    sub_sample_rate: float
    write_npz: bool
    batch_size: int
    test_batch_size: int
    readers: int
    test_readers: int
    shuffle_batches: bool
    data_size: int
    num_batches: int
    lookups: int
    lookups_fixed: bool
    round_targets: bool
    gaussian: tuple[float, float, float, float] | None
    trace_file: Path
    trace_padding: bool


@dataclass(frozen=True)
class CompressionSettings:
    """kind: "quotient-remainder" (with operation and collisions) or "mixed-dimension" (with the others)."""

    kind: str
    threshold: int
    operation: str
    collisions: int
    temperature: float
    round_dimensions: bool


@dataclass(frozen=True)
class QuantizationSettings:
    """Bits of weights for inference; 32: not quantized."""

    mlp_bits: int
    embedding_bits: int

    @property
    def asked(self) -> bool:
        """Whether anything is to be quantized."""
        return self.mlp_bits != 32 or self.embedding_bits != 32


@dataclass(frozen=True)
class ModelSettings:
    """The model but for the number of rows per table, which the data may bring."""

    embedding_rows: tuple[int, ...]
    dimension: int
    mlp_bot: tuple[int, ...]
    mlp_top: tuple[int, ...]
    interaction_op: str
    interaction_itself: bool
    activation: str
    weighted_pooling: str | None
    compression: CompressionSettings | None
    mlp_init: str
    embedding_init: str
    loss: str
    loss_weights: tuple[float, float]
    loss_threshold: float


@dataclass(frozen=True)
class TrainingSettings:
    """Optimizer, schedule, length and evaluation. `test_frequency` 0: none; None: 20 times an epoch."""

    epochs: int
    optimizer: str
    learning_rate: float
    warmup_steps: int
    decay_start_step: int
    decay_steps: int
    accumulate: int
    test_frequency: int | None
    accuracy_threshold: float
    auc_threshold: float


@dataclass(frozen=True)
class ReportSettings:
    """What is printed, logged and saved."""

    print_frequency: int
    print_time: bool
    print_wall_time: bool
    all_metrics: bool
    log_file: Path
    edition: str
    division: str
    status: str
    submitter: str
    platform: str
    cache_cleared: bool
    save_model: Path | None
    debug: bool
    print_precision: int
    profile: bool
    plot_compute_graph: bool
    tensor_board_folder: Path | None
    save_onnx: bool


@dataclass(frozen=True)
class Settings:
    """A whole run."""

    seed: int
    use_gpu: bool
    precision: str
    inference_only: bool
    load_model: Path | None
    data: DataSettings
    model: ModelSettings
    training: TrainingSettings
    report: ReportSettings
    quantization: QuantizationSettings
