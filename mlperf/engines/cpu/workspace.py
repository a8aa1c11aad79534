"""Memory for intermediate results that every step uses again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


class Workspace:
    """Allocates each named tensor once, for the largest batch so far."""

    def __init__(self) -> None:
        self._flat: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor of this shape; its values are those that the last step left."""
        count = math.prod(shape)
        if name not in self._flat or len(self._flat[name]) < count:
            self._flat[name] = torch.empty(count, dtype=dtype)
        return self._flat[name][:count].view(*shape)
