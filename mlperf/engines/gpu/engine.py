"""The engine for one GPU: what it supports, its step and its scorer. Triton is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlperf.data.schema import CRITEO, RowSchema
from mlperf.engines.supported import unsupported_model, unsupported_setting
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer
from mlperf.settings.settings import Settings
from mlperf.util.compiler_cache import choose_triton_cache

if TYPE_CHECKING:
    from mlperf.engines.gpu.scorer import GpuScorer
    from mlperf.engines.gpu.step import GpuStep


class GpuEngine:
    """One batch per step: cuBLAS matrix products with Triton kernels in between."""

    description = "gpu (Triton kernels, each step replayed as a CUDA graph)"

    def supports(self, model: DLRM_Net, settings: Settings) -> str | None:
        """Return why this engine cannot do the run, None if it can."""
        return (
            unsupported_setting(settings)
            or _unsupported_quantization(settings)
            or unsupported_model(model)
            or _unsupported_by_kernels(model)
        )

    def make_step(self, model: DLRM_Net, settings: Settings, optimizer: Optimizer) -> GpuStep:
        """Return the training step."""
        from mlperf.engines.gpu.step import GpuStep

        loss = Loss(settings.model.loss, settings.model.loss_weights)
        return GpuStep(
            *(model, loss, optimizer, settings.precision, settings.data.max_ind_range),
            model.architecture.ids_per_table,
            schema=_row_schema(model, settings),
            has_transforms=settings.data.traits.has_columns_file,
        )

    def make_scorer(self, model: DLRM_Net, settings: Settings) -> GpuScorer:
        """Return the scorer."""
        from mlperf.engines.gpu.scorer import GpuScorer

        return GpuScorer(
            *(model, settings.precision, settings.data.max_ind_range),
            model.architecture.ids_per_table,
            schema=_row_schema(model, settings),
            has_transforms=settings.data.traits.has_columns_file,
        )


def _row_schema(model: DLRM_Net, settings: Settings) -> RowSchema:
    """Return the layout of the rows: those of Criteo's data have one id per table, whatever is added to it."""
    if not settings.data.traits.has_columns_file:
        return CRITEO
    architecture = model.architecture
    one_hot = (1,) * len(architecture.rows_per_table)
    return RowSchema(architecture.mlp_bot[0], architecture.ids_per_table or one_hot)


def _unsupported_quantization(settings: Settings) -> str | None:
    if settings.quantization.requested:
        return "quantized weights need PyTorch's own operators"
    return None


def _unsupported_by_kernels(model: DLRM_Net) -> str | None:
    choose_triton_cache()
    try:
        from mlperf.engines.gpu import limits, triton_support
    except ImportError as error:
        missing: str | None = str(error)
    else:
        missing = triton_support.missing_requirement()
    if missing is not None:
        return f"the faster gpu engine needs Triton, a part of PyTorch's CUDA build, and a C compiler: {missing}"
    return limits.unsupported_size(model)
