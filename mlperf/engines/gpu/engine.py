"""The engine for one GPU: what it supports, and its step and scorer. Imports Triton only when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlperf.engines.requirements import unsupported_model, unsupported_setting
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.optimizers import Optimizer
from mlperf.settings.settings import Settings

if TYPE_CHECKING:
    from mlperf.engines.gpu.step import GpuScorer, GpuStep

# Limits of the kernels' tiles: features of a sample (one more than tables), values of a feature, and inputs of the
# last layer, which one program reads whole. Rows of all tables are numbered in int32.
MAX_FEATURES = 32
MAX_DIMENSION = 256
MAX_LAST_INPUTS = 1024
MAX_ROWS = 2**31 - 1


class GpuEngine:
    """SGD, one batch a step: Triton kernels between the library's matrix products."""

    description = "gpu (Triton kernels, each step replayed as a CUDA graph)"

    def supports(self, model: DLRM_Net, settings: Settings) -> str | None:
        """Return why this engine cannot do the run, None if it can."""
        return unsupported_setting(settings) or unsupported_by_kernels(model) or _triton_obstacle()

    def make_step(self, model: DLRM_Net, settings: Settings, optimizer: Optimizer) -> GpuStep:
        """Return the training step."""
        from mlperf.engines.gpu.step import GpuStep

        loss = Loss(settings.model.loss, settings.model.loss_weights)
        return GpuStep(model, loss, optimizer, settings.precision, settings.data.max_ind_range)

    def make_scorer(self, model: DLRM_Net, settings: Settings) -> GpuScorer:
        """Return the scorer."""
        from mlperf.engines.gpu.step import GpuScorer

        return GpuScorer(model, settings.precision, settings.data.max_ind_range)


def unsupported_by_kernels(model: DLRM_Net) -> str | None:
    """Return why the kernels cannot run `model`, None if they can."""
    architecture = model.architecture
    features, dimension = len(architecture.rows_per_table) + 1, architecture.dimension
    rows, last_inputs = sum(architecture.rows_per_table), architecture.top_widths[-2]
    if features > MAX_FEATURES:
        return f"{features - 1} tables exceed the limit of {MAX_FEATURES - 1} of the gpu engine"
    if dimension > MAX_DIMENSION:
        return f"--arch-sparse-feature-size={dimension} exceeds the limit of {MAX_DIMENSION} of the gpu engine"
    if rows > MAX_ROWS:
        return f"{rows:,} rows of all tables exceed the limit of {MAX_ROWS:,} of the gpu engine"
    if last_inputs > MAX_LAST_INPUTS:
        return f"{last_inputs} inputs of the last layer exceed the limit of {MAX_LAST_INPUTS} of the gpu engine"
    return unsupported_model(model)


def _triton_obstacle() -> str | None:
    try:
        from mlperf.engines.gpu import launch, step  # noqa: F401
    except ImportError as error:
        obstacle: str | None = str(error)
    else:
        obstacle = launch.obstacle()
    if obstacle is None:
        return None
    return f"the faster gpu engine needs Triton, a part of PyTorch's CUDA build, and a C compiler: {obstacle}"
