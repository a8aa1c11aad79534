"""Score batches with the unmodified PyTorch model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.engines.observer import Observer
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.rows import Lookup


class AutogradScorer:
    """Calls the model. precision: "fp32", "tf32" (matrix products on a GPU) or "bf16" (PyTorch's autocast)."""

    observer: Observer | None = None

    def __init__(self, model: DLRM_Net, precision: str) -> None:
        self.model = model
        self.device = model.tables.device
        self._precision = precision
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `first` on."""
        return data.batches(epoch, first)

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts of the forward pass and their methods."""
        copy = {} if self.device.type == "cpu" else {"to_device": "copy of the batch to the device"}
        return {
            **copy,
            "look_up": "embedding lookup",
            "run_bottom": "bottom MLP",
            "interact": self.model.interaction_name,
            "run_top": "top MLP",
        }

    def score(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted probabilities and the labels, float32 [B] each, on the device."""
        batch = self.to_device(batch)
        with torch.no_grad(), self.autocast():
            pooled = self.look_up(batch).pooled
            logits = self.run_top(self.interact(self.run_bottom(batch.dense), pooled))
            return self.model.probability(logits).squeeze(1), batch.labels.squeeze(1)

    def to_device(self, batch: Batch) -> Batch:
        """Return the batch on the device."""
        return batch.to(self.device)

    def look_up(self, batch: Batch) -> Lookup:
        """Return the pooled embeddings."""
        return self.model.look_up(batch)

    def run_bottom(self, dense: torch.Tensor) -> torch.Tensor:
        """Return the output of the bottom MLP [B, D] for dense features [B, K]."""
        return self.model.bottom(dense)

    def interact(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the interaction of the bottom MLP's output [B, D] and pooled embeddings [B, T, D]."""
        return self.model.interact(bottom, pooled)

    def run_top(self, interacted: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [B, 1]."""
        return self.model.run_top(interacted)

    def check(self) -> None:
        """Do nothing: the data source checked the batches when it read them."""

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context manager that sets the precision of matrix products."""
        if self._precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
