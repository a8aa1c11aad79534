"""Settings of the model: architecture, weight initialization and training loss."""

from __future__ import annotations

from dataclasses import dataclass

from mlperf.registry import INTERACTIONS
from mlperf.settings.flags import flag, part, variants
from mlperf.settings.kinds import (
    MAX_COUNT,
    at_least,
    between,
    choice,
    switch,
    two_weights,
    whole_between,
    whole_numbers,
)

EMBEDDING_PRECISIONS = ("fp32", "bf16", "fp16")

_MAX_DIMENSION = 1 << 20
_MAX_WIDTH = 1 << 24  # of a layer


@dataclass(frozen=True)
class QuotientRemainder:
    """Quotient-remainder tables (arXiv 1909.02107), for tables of more than `threshold` rows.

    The vector of an id combines (`operation`) the rows of its quotient and remainder by `collisions`.
    """

    threshold: int = flag("--qr-threshold", at_least(0), 200, "compress tables of more than N rows")
    operation: str = flag(
        "--qr-operation",
        choice("mult", "add", "concat"),
        "mult",
        "combination of the quotient and remainder vectors; concat doubles the feature size",
    )
    collisions: int = flag(
        "--qr-collisions", whole_between(1, 1 << 20), 4, "number of ids that share a quotient row"
    )


@dataclass(frozen=True)
class MixedDimension:
    """Mixed-dimension tables (arXiv 1909.11810), for tables of more than `threshold` rows.

    The dimension of a table is proportional to its number of rows to the power of -`temperature`.
    """

    threshold: int = flag("--md-threshold", at_least(0), 200, "compress tables of more than N rows")
    temperature: float = flag(
        "--md-temperature",
        between(0, 1),
        0.3,
        "temperature alpha in [0, 1] of the power rule; 0: equal dimensions",
    )
    round_dimensions: bool = flag("--md-round-dims", switch, False, "round dimensions to powers of 2")


Compression = QuotientRemainder | MixedDimension


@dataclass(frozen=True)
class Architecture:
    """Sizes and kinds of a model.

    rows_per_table: number of rows of each embedding table; replaced by those of the data set, if it defines them.
    ids_per_table: number of ids of each table in a sample of a data set; None: one. Those of generated data vary.
    dimension: embedding dimension. mlp_bot: layer widths from the dense features to `feature_size`. mlp_top: layer
    widths after the interaction, down to 1. loss_threshold: t > 0 clamps the predictions to [t, 1 - t].
    cross_layers, cross_rank: sizes of the cross network, the interaction "dcn".
    compression: compression of large tables; if None, tables are stored uncompressed.
    """

    rows_per_table: tuple[int, ...] = flag(
        "--arch-embedding-size",
        whole_numbers(MAX_COUNT),
        (4, 3, 2),
        "rows per table for generated data and, if given, for terabyte_dcnv2; other data sets define their own",
    )
    dimension: int = flag("--arch-sparse-feature-size", whole_between(1, _MAX_DIMENSION), 2, "embedding dimension")
    mlp_bot: tuple[int, ...] = flag(
        "--arch-mlp-bot",
        whole_numbers(_MAX_WIDTH, minimum=0),
        (4, 3, 2),
        "bottom MLP layer widths, starting with the number of dense features, which can be 0 with "
        "--data-set=columns",
    )
    mlp_top: tuple[int, ...] = flag(
        "--arch-mlp-top",
        whole_numbers(_MAX_WIDTH),
        (4, 2, 1),
        "top MLP layer widths, without the input width",
    )
    interaction_op: str = flag("--arch-interaction-op", choice(*INTERACTIONS), "dot", "feature interaction")
    cross_layers: int = flag(
        "--dcn-num-layers", whole_between(1, 64), 3, "dcn: number of layers of the cross network"
    )
    cross_rank: int = flag(
        "--dcn-low-rank-dim", whole_between(1, _MAX_WIDTH), 512, "dcn: rank of the weights of the cross network"
    )
    interaction_itself: bool = flag(
        "--arch-interaction-itself", switch, False, "dot: include the product of each feature with itself"
    )
    activation: str = flag(
        "--activation-function", choice("relu", "sigmoid", "tanh"), "relu", "activation of the hidden layers"
    )
    weighted_pooling: str | None = flag(
        "--weighted-pooling",
        choice("fixed", "learned"),
        None,
        "weighted sum pooling with fixed or learned weights (default: unweighted)",
    )
    loss_threshold: float = flag(
        "--loss-threshold", between(0, 0.5, below=True), 0.0, "t: clamp predictions to [t, 1-t]"
    )
    embedding_precision: str = flag(
        "--embedding-precision",
        choice(*EMBEDDING_PRECISIONS),
        "fp32",
        "precision of stored embedding rows; bf16, fp16: half the memory, updates are rounded stochastically",
    )
    compression: Compression | None = variants(
        {
            "--qr-flag": (QuotientRemainder, "quotient-remainder tables (arXiv 1909.02107)"),
            "--md-flag": (MixedDimension, "mixed-dimension tables (arXiv 1909.11810)"),
        },
        conflict="only one kind of compression is possible",
        group="compressed embedding tables",
    )
    ids_per_table: tuple[int, ...] | None = None

    @property
    def has_cross_network(self) -> bool:
        """Whether the interaction is a cross network, as in DLRM-DCNv2."""
        return self.interaction_op == "dcn"

    @property
    def feature_size(self) -> int:
        """Width D of a feature: twice the dimension if quotient and remainder are concatenated."""
        concatenates = isinstance(self.compression, QuotientRemainder) and self.compression.operation == "concat"
        return 2 * self.dimension if concatenates else self.dimension


@dataclass(frozen=True)
class ModelSettings:
    """A model with its initialization and its loss."""

    architecture: Architecture = part(Architecture)
    mlp_init: str = flag(
        "--mlp-init",
        choice("auto", "normal", "uniform", "pytorch"),
        "auto",
        "initial weights outside the tables; pytorch: uniform in ±1/sqrt(fan_in), as DLRM-DCNv2; auto: pytorch "
        "with dcn, otherwise normal for a data set and uniform for random data",
    )
    embedding_init: str = flag(
        "--embedding-init",
        choice("numpy", "device"),
        "numpy",
        "generator for initial table weights; numpy: same values on every machine; device: faster, on the device",
    )
    loss: str = flag(
        "--loss-function",
        choice("mse", "bce", "wbce", "bce_logits"),
        "mse",
        "training loss; bce_logits: bce computed from the value before the sigmoid, as DLRM-DCNv2",
    )
    loss_weights: tuple[float, float] = flag(
        "--loss-weights", two_weights, (1.0, 1.0), "wbce: weights of labels 0 and 1"
    )
