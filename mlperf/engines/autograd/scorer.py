"""What the evaluation asks of a model, and the model as it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from mlperf.data.batch import Batch, RawBatch
from mlperf.data.source import BatchSource
from mlperf.models.dlrm import DLRM_Net


class Scorer(Protocol):
    """Predicts. Batches come from the host, in the form this asks the source for."""

    device: torch.device

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch] | Iterator[RawBatch]:
        """Return the batches of `epoch` from number `first` on, in the form that `score` takes."""
        ...

    def score(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities of a click and the labels, float32 [B] each, on the device."""
        ...

    def check(self) -> None:
        """Wait for the device. RunError if a row since the last check held what is not allowed."""
        ...


class GeneralScorer:
    """The model as it is written. bf16: its matrix products in bfloat16 by PyTorch's autocast."""

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
        """Return the probabilities of a click and the labels, float32 [B] each, on the device."""
        batch = batch.to(self.device)
        with torch.no_grad(), self.autocast():
            return self.model(batch).squeeze(1), batch.labels.squeeze(1)

    def check(self) -> None:
        """Batches were checked as they were read."""

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which matrix products have the precision."""
        if self._precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
