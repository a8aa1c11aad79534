"""What must be equal on all processes of a run. Every process must call these functions."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch.distributed as dist

from mlperf.distributed.processes import current
from mlperf.util.errors import UsageError


def require_all_equal(values: Mapping[str, str]) -> None:
    """Raise the same UsageError on all processes if one of `values` is not that of rank 0 everywhere.

    values: short texts by what they are, for the message, which names the first difference.
    """
    if current().size == 1:
        return
    first, *others = (json.loads(text) for text in values_of_all(json.dumps(values)))
    for rank, other in enumerate(others, 1):
        for what in [*first, *other]:
            expected, found = first.get(what, "none"), other.get(what, "none")
            if found != expected:
                raise UsageError(
                    f"{what}: rank 0 has {expected}, rank {rank} has {found}; must be equal on all processes"
                )


def values_of_all(value: str) -> list[str]:
    """Return the text `value` of each process, by rank."""
    if current().size == 1:
        return [value]
    values: list[str | None] = [None] * current().size
    dist.all_gather_object(values, value)
    return [str(each) for each in values]
