"""The model: its architecture, how its weights are initialized, and its training loss."""

from __future__ import annotations

from dataclasses import dataclass

from mlperf.registry import INTERACTIONS
from mlperf.settings.flags import flag, part, variants
from mlperf.settings.kinds import at_least, between, choice, integers, switch, two_weights


@dataclass(frozen=True)
class QuotientRemainder:
    """Quotient-remainder tables (arXiv 1909.02107), for tables of more than `threshold` rows.

    An id's vector combines (`operation`) a row for the quotient by `collisions` with a row for the remainder.
    """

    threshold: int = flag("--qr-threshold", at_least(0), 200, "compress tables of more than N rows")
    operation: str = flag(
        "--qr-operation",
        choice("mult", "add", "concat"),
        "mult",
        "how the vectors of quotient and remainder are combined; concat doubles the feature size",
    )
    collisions: int = flag("--qr-collisions", at_least(1), 4, "number of ids that share a row of quotients")


@dataclass(frozen=True)
class MixedDimension:
    """Mixed-dimension tables (arXiv 1909.11810), for tables of more than `threshold` rows.

    The dimension of a table falls with its number of rows to the power of -`temperature`.
    """

    threshold: int = flag("--md-threshold", at_least(0), 200, "compress tables of more than N rows")
    temperature: float = flag(
        "--md-temperature", between(0, 1), 0.3, "exponent of the popularity in [0, 1]; 0: all dimensions equal"
    )
    round_dimensions: bool = flag("--md-round-dims", switch, False, "round dimensions to powers of 2")


Compression = QuotientRemainder | MixedDimension


@dataclass(frozen=True)
class Architecture:
    """Sizes and kinds of a model.

    rows_per_table: of each embedding table; a data set brings its own. dimension: of an embedding vector. mlp_bot:
    widths from the dense features to `feature_size`. mlp_top: widths after the interaction, down to 1.
    loss_threshold: t > 0 clamps the predictions to [t, 1 - t]. compression: of the tables, None: stored whole.
    """

    rows_per_table: tuple[int, ...] = flag(
        "--arch-embedding-size", integers, (4, 3, 2), "rows per table for random data; a data set brings its own"
    )
    dimension: int = flag("--arch-sparse-feature-size", at_least(1), 2, "embedding dimension")
    mlp_bot: tuple[int, ...] = flag(
        "--arch-mlp-bot", integers, (4, 3, 2), "bottom MLP widths, the first being the number of dense features"
    )
    mlp_top: tuple[int, ...] = flag(
        "--arch-mlp-top", integers, (4, 2, 1), "top MLP widths without the first, which the interaction decides"
    )
    interaction_op: str = flag("--arch-interaction-op", choice(*INTERACTIONS), "dot", "feature interaction")
    interaction_itself: bool = flag(
        "--arch-interaction-itself", switch, False, "dot: include each feature's product with itself"
    )
    activation: str = flag(
        "--activation-function", choice("relu", "sigmoid", "tanh"), "relu", "activation of hidden layers"
    )
    weighted_pooling: str | None = flag(
        "--weighted-pooling",
        choice("fixed", "learned"),
        None,
        "a weight per row in pooling, fixed or learned; without the flag, none",
    )
    loss_threshold: float = flag(
        "--loss-threshold", between(0, 0.5, below=True), 0.0, "t: clamp predictions to [t, 1-t]"
    )
    compression: Compression | None = variants(
        {
            "--qr-flag": (QuotientRemainder, "quotient-remainder tables (arXiv 1909.02107)"),
            "--md-flag": (MixedDimension, "mixed-dimension tables (arXiv 1909.11810)"),
        },
        conflict="a table is compressed in one way",
        group="compressed embedding tables",
    )

    @property
    def feature_size(self) -> int:
        """D, the width of a feature: twice the dimension if quotient and remainder are concatenated."""
        concatenates = isinstance(self.compression, QuotientRemainder) and self.compression.operation == "concat"
        return 2 * self.dimension if concatenates else self.dimension


@dataclass(frozen=True)
class ModelSettings:
    """A model with its initialization and its loss."""

    architecture: Architecture = part(Architecture)
    mlp_init: str = flag(
        "--mlp-init",
        choice("auto", "normal", "uniform"),
        "auto",
        "initial MLP weights; auto: normal for a data set, uniform for random data",
    )
    embedding_init: str = flag(
        "--embedding-init",
        choice("numpy", "device"),
        "numpy",
        "generator of the tables; numpy: the legacy stream, the same everywhere; device: on the tables' device",
    )
    loss: str = flag("--loss-function", choice("mse", "bce", "wbce"), "mse", "training loss")
    loss_weights: tuple[float, float] = flag(
        "--loss-weights", two_weights, (1.0, 1.0), "wbce: weight of label 0 and of label 1"
    )
