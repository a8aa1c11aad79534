"""Training losses over predicted probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

# torch.nn.BCELoss clamps the logarithms and the denominator of the gradient at the same values.
MIN_LOG = -100.0
MIN_VARIANCE = 1e-12


class _BinaryCrossEntropy(torch.autograd.Function):
    """Cross-entropy per sample, equal to torch.nn.BCELoss(reduction="none").

    For NaN, BCELoss raises an error (on a GPU it also destroys the CUDA context). Here the loss becomes NaN, which
    the training loop reports.
    """

    @staticmethod
    def forward(ctx: Any, probability: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(probability, labels)
        log_click = probability.log().clamp(min=MIN_LOG)
        log_no_click = (-probability).log1p().clamp(min=MIN_LOG)
        return (labels - 1) * log_no_click - labels * log_click

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        probability, labels = ctx.saved_tensors
        variance = ((1 - probability) * probability).clamp(min=MIN_VARIANCE)
        return grads[0] * (probability - labels) / variance, None


class Loss(torch.nn.Module):
    """Mean over the batch of the loss "mse", "bce", "wbce" (bce times the weight of the label) or "bce_logits".

    weights: loss weights of labels 0 and 1; both are 1 unless `kind` is "wbce".
    on_logits: whether the loss takes the output before the sigmoid instead of the probability.
    """

    def __init__(self, kind: str, weights: Sequence[float] = (1.0, 1.0)) -> None:
        super().__init__()
        self.kind = kind
        self.weights = tuple(map(float, weights)) if kind == "wbce" else (1.0, 1.0)

    @property
    def on_logits(self) -> bool:
        """Whether `forward` takes logits."""
        return self.kind == "bce_logits"

    def forward(self, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of `output`, probabilities or logits, and `labels`, float32 [B, 1] each."""
        if self.on_logits:
            return torch.nn.functional.binary_cross_entropy_with_logits(output, labels)
        return self._of_probability(output, labels)

    def _of_probability(self, probability: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.kind == "mse":
            return (probability - labels).square().mean()
        per_sample: torch.Tensor = _BinaryCrossEntropy.apply(probability, labels)
        if self.kind == "wbce":
            without_click, with_click = self.weights
            per_sample = per_sample * (without_click + (with_click - without_click) * labels)
        return per_sample.mean()
