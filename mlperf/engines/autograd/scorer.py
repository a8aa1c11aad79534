"""Score batches with the unmodified PyTorch model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.models.dlrm import DLRM_Net


class AutogradScorer:
    """Calls the model. precision: "fp32", "tf32" (matrix products on a GPU) or "bf16" (PyTorch's autocast)."""

    def __init__(self, model: DLRM_Net, precision: str) -> None:
        self.model = model
        self.device = model.tables.device
        self._precision = precision
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `first` on."""
        return data.batches(epoch, first)

    def score(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted probabilities and the labels, float32 [B] each, on the device."""
        batch = batch.to(self.device)
        with torch.no_grad(), self.autocast():
            return self.model(batch).squeeze(1), batch.labels.squeeze(1)

    def check(self) -> None:
        """Do nothing: the data source checked the batches when it read them."""

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context manager that sets the precision of matrix products."""
        if self._precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
