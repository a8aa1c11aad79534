"""The engine "torchrec"."""

from __future__ import annotations

from mlperf.engines.torchrec.step import TorchRecStep
from mlperf.engines.torchrec.supported import unsupported_batch, unsupported_setting
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer, make_optimizer
from mlperf.settings.settings import Settings


class TorchRecEngine:
    """Shards the tables among the processes."""

    description = "torchrec"

    def supports(self, model: DLRM_Net, settings: Settings) -> str | None:
        """Return why this engine cannot do the run, None if it can."""
        ids = sum(model.architecture.ids_per_table or ())
        return unsupported_setting(settings) or unsupported_batch(settings, ids)

    def make_scorer(self, model: DLRM_Net, settings: Settings) -> TorchRecStep:
        """Return the scorer: a step that is not used to train."""
        return self.make_step(model, settings, make_optimizer(settings.training.optimizer, model))

    def make_step(self, model: DLRM_Net, settings: Settings, optimizer: Optimizer) -> TorchRecStep:
        """Return the training step."""
        loss = Loss(settings.model.loss, settings.model.loss_weights)
        return TorchRecStep(model, loss, optimizer, settings.precision, model.architecture.ids_per_table)
