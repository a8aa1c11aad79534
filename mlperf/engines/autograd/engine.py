"""The general engine: PyTorch modules and autograd."""

from __future__ import annotations

import os
from pathlib import Path

from mlperf.engines.autograd.scorer import AutogradScorer
from mlperf.engines.autograd.step import AutogradStep
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer
from mlperf.settings.settings import Settings


class AutogradEngine:
    """Supports every model and every setting, on the CPU and on a GPU."""

    description = "autograd"

    def supports(self, model: DLRM_Net, settings: Settings) -> str | None:
        """Return None: everything is supported."""
        return None

    def make_step(self, model: DLRM_Net, settings: Settings, optimizer: Optimizer) -> AutogradStep:
        """Return the training step. Must be called before the first matrix product of the process."""
        if settings.training.optimizer != "sgd" and not settings.use_gpu:
            fix_mkl_summation_order()
        loss = Loss(settings.model.loss, settings.model.loss_weights)
        return AutogradStep(model, loss, optimizer, settings.precision)

    def make_scorer(self, model: DLRM_Net, settings: Settings) -> AutogradScorer:
        """Return the scorer."""
        return AutogradScorer(model, settings.precision)


def fix_mkl_summation_order() -> None:
    """Make MKL sum in the same order on every x86 processor (MKL_CBWR). Must be called before its first product.

    Adagrad's first steps are as large as the learning rate for any nonzero gradient, so a rounding difference at a
    ReLU changes the losses. On Intel processors MKL uses AVX-512, whose summation order differs from that of the
    published losses; the order of AVX2 is the same.
    """
    try:
        is_intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return
    if is_intel:
        os.environ.setdefault("MKL_CBWR", "AVX2")
