"""The pairs of features that the dot interaction multiplies: how many there are, and in what order.

F = T + 1 features, the bottom MLP's output first; P pairs (i, j) with j < i, or j <= i with `itself`, row by row
of the lower triangle. The order is that of existing models.
"""

from __future__ import annotations

import torch


def pair_count(features: int, *, itself: bool) -> int:
    """Return P. itself: each feature is also paired with itself."""
    return features * (features + 1 if itself else features - 1) // 2


def pair_indices(features: int, *, itself: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return i and j of the pairs, int64 [P] each."""
    i, j = torch.tril_indices(features, features, 0 if itself else -1)
    return i, j


def pair_positions(features: int, *, itself: bool) -> torch.Tensor:
    """Return the position of each pair in the flattened products [F * F], int64 [P]."""
    i, j = pair_indices(features, itself=itself)
    return i * features + j
