"""Settings of printed output, logs, plots and exported files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlperf.benchmarks import DIVISIONS, DLRM, DLRM_DCNV2, EDITIONS, OTHER_EDITIONS, STATUSES, default_edition
from mlperf.settings.flags import flag
from mlperf.settings.kinds import at_least, boolean, choice, file_name, path_or, switch, text, whole_between
from mlperf.settings.run import TENSOR_BOARD_FOLDER

ALL_EDITIONS = "all"
_OTHERS = {name: f"includes {benchmark}, which is not supported" for name, benchmark in OTHER_EDITIONS.items()}
EDITION = choice(*EDITIONS, refused=_OTHERS, metavar="EDITION")
EDITION_OR_ALL = choice(*EDITIONS, ALL_EDITIONS, refused=_OTHERS, metavar="EDITION")


@dataclass(frozen=True)
class ReportSettings:
    """Printed output, profiles, plots and exported files."""

    print_frequency: int = flag("--print-freq", at_least(1), 1, "print a progress line every N batches")
    print_time: bool = flag("--print-time", switch, False, "print ms per iteration in progress lines")
    print_wall_time: bool = flag("--print-wall-time", switch, False, "print the time of day in progress lines")
    debug: bool = flag(
        "--debug-mode",
        switch,
        False,
        "print the architecture, the data (3 batches of a data set) and the parameters before and after training",
    )
    print_precision: int = flag(
        "--print-precision", whole_between(0, 100), 5, "digits of printed numbers in debug mode"
    )
    profile: bool = flag(
        "--enable-profiling",
        switch,
        False,
        "profile the first 100 steps: table in dlrm_s_pytorch.prof, Chrome trace in dlrm_s_pytorch.json; earlier "
        "profiles are kept, and the next gets a number",
    )
    time_breakdown: bool = flag(
        "--time-breakdown",
        switch,
        False,
        "measure the parts of the run (reading, lookup, MLPs, updates, evaluation, ...): table at the end, and "
        "dlrm_s_pytorch_time.json and .png; earlier ones are kept, and the next gets a number",
    )
    plot_compute_graph: bool = flag(
        "--plot-compute-graph",
        switch,
        False,
        "draw the model in dlrm_s_pytorch_graph.png; needs pygraphviz and matplotlib",
    )
    tensor_board_folder: Path | None = flag(
        "--tensor-board-filename",
        path_or(TENSOR_BOARD_FOLDER),
        None,
        f"TensorBoard log folder ({TENSOR_BOARD_FOLDER} if no value is given)",
    )
    metrics_file: Path | None = flag(
        "--metrics-file",
        file_name,
        None,
        "file (.jsonl) to write with one JSON object per event: settings, progress, evaluations, outcome; older "
        "files are refused",
    )
    tracker: str | None = flag(
        "--track",
        choice("mlflow", "wandb"),
        None,
        "send settings, curves and outcome to MLflow or Weights & Biases, whose environment variables say where",
    )
    save_onnx: bool = flag(
        "--save-onnx", switch, False, "export the model to dlrm_s_pytorch.onnx; needs onnx and onnxscript"
    )


@dataclass(frozen=True)
class QuantizationSettings:
    """Bits per weight for inference; 32: not quantized."""

    mlp_bits: int = flag(
        "--quantize-mlp-with-bit",
        choice(8, 16, 32),
        32,
        "bits of the weights of MLPs and cross network (with --inference-only on a CPU)",
    )
    embedding_bits: int = flag(
        "--quantize-emb-with-bit", choice(4, 8, 32), 32, "bits of the embedding weights (with --inference-only)"
    )

    @property
    def requested(self) -> bool:
        """Whether any weights are quantized."""
        return self.mlp_bits != 32 or self.embedding_bits != 32


@dataclass(frozen=True)
class ComplianceSettings:
    """The MLPerf log and its entries about the submission."""

    enabled: bool = flag(
        "--mlperf-logging", switch, False, "write the compliance log, and compute all six test metrics"
    )
    log_file: Path = flag(
        "--mlperf-log-file",
        file_name,
        Path("mlperf_dlrm.log"),
        "path of the compliance log; older files are kept: the default name gets a number, others are refused",
    )
    edition: str | None = flag(
        "--mlperf-edition",
        EDITION,
        None,
        f"edition of MLPerf Training: {', '.join(EDITIONS)}; determines the log keys, the target and the "
        "evaluation schedule (default: "
        f"{default_edition(DLRM).name}, with --arch-interaction-op=dcn {default_edition(DLRM_DCNV2).name})",
    )
    division: str = flag("--mlperf-division", choice(*DIVISIONS), "closed", "division in the log")
    submitter: str = flag("--mlperf-submitter", text, "reference", "organization in the log")
    status: str = flag("--mlperf-status", choice(*STATUSES), "onprem", "availability of the system in the log")
    platform: str = flag("--mlperf-platform", text, "unknown", "system name in the log")
    cache_cleared: bool = flag(
        "--mlperf-cache-cleared", boolean, False, "log that the page cache was dropped before the run"
    )
