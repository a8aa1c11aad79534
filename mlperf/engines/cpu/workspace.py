"""Memory for intermediate results, reused by every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


class Workspace:
    """Allocates each named tensor once, for the largest batch so far."""

    def __init__(self) -> None:
        self._flat: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialized tensor of this shape."""
        count = math.prod(shape)
        if name not in self._flat or len(self._flat[name]) < count:
            self._flat[name] = torch.empty(count, dtype=dtype)
        return self._flat[name][:count].view(*shape)
