"""Pairs of features that the dot interaction multiplies: their number and order.

F = T + 1 features, the bottom MLP's output first; P pairs (i, j) with j < i (j <= i with `self_interaction`), row
by row of the lower triangle, as in existing checkpoints.
"""

from __future__ import annotations

import torch


def pair_count(features: int, *, self_interaction: bool) -> int:
    """Return P. self_interaction: each feature is also paired with itself."""
    return features * (features + 1 if self_interaction else features - 1) // 2


def pair_indices(features: int, *, self_interaction: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return i and j of the pairs, int64 [P] each."""
    i, j = torch.tril_indices(features, features, 0 if self_interaction else -1)
    return i, j


def pair_positions(features: int, *, self_interaction: bool) -> torch.Tensor:
    """Return the position of each pair in the flattened products [F * F], int64 [P]."""
    i, j = pair_indices(features, self_interaction=self_interaction)
    return i * features + j
