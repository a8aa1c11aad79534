"""The general engine: the model as it is written, differentiated by autograd."""

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
            use_the_same_summation_order_on_all_processors()
        loss = Loss(settings.model.loss, settings.model.loss_weights)
        return AutogradStep(model, loss, optimizer, settings.precision)

    def make_scorer(self, model: DLRM_Net, settings: Settings) -> AutogradScorer:
        """Return the scorer."""
        return AutogradScorer(model, settings.precision)


def use_the_same_summation_order_on_all_processors() -> None:
    """Make MKL sum in the same order on every x86 processor. Must be called before its first product.

    Adagrad's first steps have the size of the learning rate however small a gradient is, so that an activation
    which rounding alone moves across 0 changes the losses. On Intel processors MKL uses AVX-512, which sums in
    another order than it did for the published losses; AVX2 sums as they did.
    """
    try:
        is_intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return
    if is_intel:
        os.environ.setdefault("MKL_CBWR", "AVX2")
