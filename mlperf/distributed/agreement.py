"""What must be equal on all processes of a run."""

from __future__ import annotations

import torch.distributed as dist

from mlperf.distributed.processes import current
from mlperf.util.errors import UsageError


def require_equal(what: str, value: str) -> None:
    """Raise the same UsageError on all processes if `value` is not that of rank 0 everywhere.

    Every process must call it. what: what is compared, for the message. value: a short text.
    """
    first, *others = values_of_all(value)
    for rank, other in enumerate(others, 1):
        if other != first:
            raise UsageError(
                f"{what}: rank 0 has {first}, rank {rank} has {other}; must be equal on all processes"
            )


def values_of_all(value: str) -> list[str]:
    """Return the text `value` of each process, by rank. Every process must call it."""
    if current().size == 1:
        return [value]
    values: list[str | None] = [None] * current().size
    dist.all_gather_object(values, value)
    return [str(each) for each in values]
