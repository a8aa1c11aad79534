"""Training losses over predicted probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

# Lower bounds of the logarithm of a probability and of the gradient's denominator, those of torch.nn.BCELoss.
LOG_MIN = -100.0
VARIANCE_MIN = 1e-12


class _BinaryCrossEntropy(torch.autograd.Function):
    """Cross-entropy per sample, equal to torch.nn.BCELoss(reduction="none").

    PyTorch's refuses a NaN with an error (on a GPU, with a dead context); here it becomes a NaN loss, which
    the loop reports as such.
    """

    @staticmethod
    def forward(ctx: Any, probability: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(probability, labels)
        log_click = probability.log().clamp(min=LOG_MIN)
        log_no_click = (-probability).log1p().clamp(min=LOG_MIN)
        return (labels - 1) * log_no_click - labels * log_click

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        probability, labels = ctx.saved_tensors
        variance = ((1 - probability) * probability).clamp(min=VARIANCE_MIN)
        return grads[0] * (probability - labels) / variance, None


class Loss(torch.nn.Module):
    """mse, bce, or wbce: bce with the weight of each sample's label. Mean over the batch.

    weights: of labels 0 and 1; both 1 unless the kind is wbce.
    """

    def __init__(self, kind: str, weights: Sequence[float] = (1.0, 1.0)) -> None:
        super().__init__()
        self.kind = kind
        self.weights = tuple(map(float, weights)) if kind == "wbce" else (1.0, 1.0)

    def forward(self, probability: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of `probability` and `labels`, float32 [B, 1] each."""
        if self.kind == "mse":
            return (probability - labels).square().mean()
        per_sample: torch.Tensor = _BinaryCrossEntropy.apply(probability, labels)
        if self.kind == "wbce":
            without_click, with_click = self.weights
            per_sample = per_sample * (without_click + (with_click - without_click) * labels)
        return per_sample.mean()
