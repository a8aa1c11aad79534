"""A table that is divided among several processes."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from mlperf.util.divided_tensor import DividedTensor


class ShardedTable(nn.Module):
    """One table, of which this process stores some parts, none to all of its rows. It cannot be looked up alone.

    weight: [R, D]; the state_dict has it like the weight of a table that is whole.
    sums: what the optimizer keeps for it: [R, D] for Adagrad, [R] for row-wise Adagrad, None for SGD.
    """

    def __init__(self, weight: DividedTensor, sums: DividedTensor | None) -> None:
        super().__init__()
        self.weight = weight
        self.sums = sums

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight

    @property
    def initial_range(self) -> tuple[float, float]:
        """±sqrt(1 / rows)."""
        bound = math.sqrt(1 / self.weight.shape[0])
        return -bound, bound
