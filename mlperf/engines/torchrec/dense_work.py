"""What every process computes of a step of several: MLPs, interaction and loss.

B samples of this process, T tables, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from mlperf.distributed.processes import Processes
from mlperf.engines.observer import BACKWARD_PASS, LOSS_GRADIENT, BackwardParts, Observer
from mlperf.engines.torchrec import linear_products
from mlperf.engines.torchrec.features import ShardedBatch, table_name
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss

_TABLES = "exchange of row gradients, update of the tables"
_WAITING = "waiting for the gradients"


class DenseWork(nn.Module):
    """Everything but the tables: MLPs, interaction and loss, which all processes have.

    observer: is told which part runs.
    """

    def __init__(self, model: DLRM_Net, loss: Loss, precision: str, processes: Processes) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.processes = processes
        self.weight = 1.0  # of the loss; 0 makes every gradient 0
        self.names = [table_name(number) for number in range(len(model.architecture.rows_per_table))]
        self.name = model.dense_name
        self._observer: Observer | None = None
        self._precision = precision
        self._on_cpu = model.tables.device.type == "cpu"
        self._fused = linear_products.available(model.tables.device, precision)

    @property
    def observer(self) -> Observer | None:
        """Is told which part runs."""
        return self._observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        assert self._observer is None, "observers do not replace each other"
        self._observer = observer
        if observer is not None:
            bottom = list(self.model.bot_l.parameters())
            torch.autograd.graph.register_multi_grad_hook(bottom, lambda gradients: observer.switch(_TABLES))

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts of the forward pass and their methods."""
        return {
            "run_bottom": "bottom MLP",
            "rows_in_order": "waiting for the rows" if self.processes.size > 1 else "embedding lookup",
            "interact": self.model.interaction_name,
            "run_top": "top MLP",
            "compute_loss": "loss",
        }

    def forward(self, batch: ShardedBatch, found: KeyedTensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the share of the loss, scaled for the mean over processes, and the sums of `LossSums`."""
        share, sums = self.compute_loss(batch, self.logits(batch, found))
        if self.observer is not None:
            share.register_hook(lambda gradient: self._backward_start())
        return share, sums

    def compute_loss(
        self, batch: ShardedBatch, logits: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return what `forward` returns, for the logits [batch.size, 1]."""
        probability = self.model.probability(logits)
        if batch.size == 0:
            loss = logits.sum() * 0
            share = loss
        else:
            loss = self.loss(logits if self.loss.on_logits else probability, batch.labels)
            share = loss * (self.weight * batch.size * self.processes.size / batch.whole)
        correct = (probability.detach().round() == batch.labels).sum()
        return share, (loss.detach().double() * batch.size, correct)

    def logits(self, batch: ShardedBatch, found: KeyedTensor) -> torch.Tensor:
        """Return the logits [batch.size, 1], without those of the padding."""
        with self._autocast(batch.dense.device):
            bottom = self.run_bottom(batch.dense)
            # The rows arrive while the bottom MLP is computed, and their gradients leave before its backward pass.
            pooled = self.rows_in_order(found)
            interacted = self.interact(bottom, pooled)
            logits = self.run_top(interacted)
        parts = BackwardParts(self.observer)
        parts.then(logits, "gradient of the top MLP")
        parts.then(interacted, f"gradient of the {self.model.interaction_name}")
        parts.then(bottom, "gradient of the bottom MLP")
        parts.then(pooled, _TABLES)
        return logits[: batch.size]

    def run_bottom(self, dense: torch.Tensor) -> torch.Tensor:
        """Return the output of the bottom MLP [B, D] for dense features [B, K]."""
        return linear_products.bottom(self.model, dense) if self._fused else self.model.bottom(dense)

    def rows_in_order(self, found: KeyedTensor) -> torch.Tensor:
        """Return the pooled rows [B, T, D], which the planner orders by process. Waits for them."""
        values = found.values() if found.keys() == self.names else KeyedTensor.regroup([found], [self.names])[0]
        return values.view(len(values), len(self.names), -1)

    def interact(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the interaction of the bottom MLP's output [B, D] and the pooled rows [B, T, D]."""
        if self._fused:
            return linear_products.interact(self.model, bottom, pooled)
        return self.model.interact(bottom, pooled)

    def run_top(self, interacted: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, 1]."""
        return linear_products.run_top(self.model, interacted) if self._fused else self.model.run_top(interacted)

    def _backward_start(self) -> None:
        """Begin the backward pass. Once it has all gradients, it waits for those of the other processes."""
        observer = self.observer
        assert observer is not None
        if self._on_cpu:
            observer.begin(LOSS_GRADIENT)
        else:
            observer.begin(BACKWARD_PASS)
            observer.switch(LOSS_GRADIENT)
        if self.processes.size > 1:  # runs before the callback of DDP, which waits
            torch.autograd.Variable._execution_engine.queue_callback(lambda: observer.switch(_WAITING))

    def backward_stop(self) -> None:
        """End the last part of the backward pass."""
        if self.observer is not None:
            self.observer.end()

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self._precision != "bf16":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)
