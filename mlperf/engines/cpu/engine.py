"""The CPU engine: what it supports, its step and its scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlperf.engines.cpu import half_scorer, int8_layer, products
from mlperf.engines.cpu.half_scorer import HalfScorer
from mlperf.engines.cpu.int8_scorer import Int8Scorer
from mlperf.engines.cpu.loops.parallel import openmp
from mlperf.engines.cpu.scorer import CpuScorer
from mlperf.engines.cpu.step import CpuStep
from mlperf.engines.protocol import EngineScorer
from mlperf.engines.supported import unsupported_model, unsupported_setting
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.mlp import linear_layers
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer
from mlperf.settings.kinds import MAX_INT32
from mlperf.settings.settings import Settings

# Results of the original implementation were published for models with fewer weights in their MLPs than this.
# Adagrad trains those in float32 in the order of summation of the general engine, because it amplifies rounding
# differences until the printed losses differ (`fix_mkl_summation_order`); PyTorch runs their MLPs in 8 bits.
PUBLISHED_SIZES = 1 << 16

# The compiler unrolls the interaction over all tables.
MAX_TABLES = 32


# Scorers of quantized MLPs and why they may be unavailable, by the values of --quantize-mlp-with-bit.
_QUANTIZED: dict[int, Callable[[DLRM_Net, Sequence[int] | None], EngineScorer]] = {8: Int8Scorer, 16: HalfScorer}
_UNAVAILABLE: dict[int, Callable[[], str | None]] = {8: int8_layer.unavailable, 16: half_scorer.unavailable}


class CpuEngine:
    """One batch per step: oneDNN and MKL matrix products with fused loops in between."""

    description = "cpu (fused loops and oneDNN products)"

    def supports(self, model: DLRM_Net, settings: Settings) -> str | None:
        """Return why this engine cannot do the run, None if it can."""
        return (
            unsupported_setting(settings)
            or unsupported_by_loops(model)
            or _too_many_ids(model, settings)
            or _needs_general_engine(model, settings)
            or _missing_requirement(settings)
        )

    def make_step(self, model: DLRM_Net, settings: Settings, optimizer: Optimizer) -> CpuStep:
        """Return the training step."""
        loss = Loss(settings.model.loss, settings.model.loss_weights)
        return CpuStep(model, loss, optimizer, settings.precision, model.architecture.ids_per_table)

    def make_scorer(self, model: DLRM_Net, settings: Settings) -> EngineScorer:
        """Return the scorer."""
        bits = settings.quantization.mlp_bits
        if bits in _QUANTIZED:
            return _QUANTIZED[bits](model, model.architecture.ids_per_table)
        return CpuScorer(model, settings.precision, ids_per_table=model.architecture.ids_per_table)


def unsupported_by_loops(model: DLRM_Net) -> str | None:
    """Return why the loops cannot run `model`, None if they can."""
    tables = len(model.architecture.rows_per_table)
    if tables > MAX_TABLES and model.architecture.interaction_op == "dot":
        return f"{tables} tables exceed the limit of {MAX_TABLES} of the cpu engine"
    return unsupported_model(model)


def _needs_general_engine(model: DLRM_Net, settings: Settings) -> str | None:
    """Return why a run must reproduce published results, which only the general engine does, None if it need not.

    It need not if --engine=cpu was given, or for data with columns of its own, with which nothing was published.
    """
    if settings.processes.engine != "auto" or settings.data.traits.has_columns_file:
        return None
    architecture = model.architecture
    exact = settings.precision == "fp32" and architecture.embedding_precision == "fp32"
    weights = sum(layer.weight.numel() for mlp in (model.bot_l, model.top_l) for layer in linear_layers(mlp))
    if not exact or architecture.interaction_op != "dot" or weights >= PUBLISHED_SIZES:
        return None
    flag, results = _published(settings)
    if flag is None:
        return None
    return f"{flag} reproduces published {results} of models with fewer than {PUBLISHED_SIZES:,} MLP weights"


def _published(settings: Settings) -> tuple[str | None, str]:
    """Return the flag with which results were published that need the general engine, and which results."""
    optimizer = settings.training.optimizer
    if settings.inference_only:
        return ("--quantize-mlp-with-bit=8" if settings.quantization.mlp_bits == 8 else None), "metrics"
    return (None if optimizer == "sgd" else f"--optimizer={optimizer} in fp32"), "losses"


def _too_many_ids(model: DLRM_Net, settings: Settings) -> str | None:
    """Return why the positions of a table's ids do not fit in the int32 of the update, None if they do."""
    ids = settings.data.batch_size * max(model.architecture.ids_per_table or (1,))
    if settings.inference_only or ids <= MAX_INT32:
        return None
    return f"a batch has {ids:,} ids of a table, more than the limit of {MAX_INT32:,} of the cpu engine"


def _missing_requirement(settings: Settings) -> str | None:
    if not products.available():
        return "this build of PyTorch has no oneDNN operator for linear layers"
    if openmp() is None:
        return "PyTorch uses no OpenMP runtime with the GNU (GOMP) interface"
    bits = settings.quantization.mlp_bits
    return _UNAVAILABLE[bits]() if bits in _UNAVAILABLE else None
