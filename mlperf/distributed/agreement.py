"""What the processes of a run agree on. Every process must call these functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch.distributed as dist

from mlperf.distributed.processes import current
from mlperf.util.errors import RunError, UsageError

T = TypeVar("T")


def values_of_all(value: T) -> list[T]:
    """Return the `value` of each process, by rank. It is sent with pickle."""
    if current().size == 1:
        return [value]
    values: list[Any] = [None] * current().size
    dist.all_gather_object(values, value)
    return values


def require_all_equal(values: Mapping[str, str]) -> None:
    """Raise the same UsageError on all processes if one of `values` is not that of rank 0 everywhere.

    values: short texts by what they are, for the message, which names the first difference.
    """
    first, *others = values_of_all(dict(values))
    for rank, other in enumerate(others, 1):
        for what in [*first, *other]:
            expected, found = first.get(what, "none"), other.get(what, "none")
            if found != expected:
                raise UsageError(
                    f"{what}: rank 0 has {expected}, rank {rank} has {found}; must be equal on all processes"
                )


def decided_by_first(work: Callable[[], T]) -> T:
    """Call `work` in the first process and return its result, sent with pickle, in all of them.

    RunError and UsageError are raised in all processes.
    """
    if current().size == 1:
        return work()
    outcome: list[Any] = [None, None]
    if current().is_first:
        try:
            outcome[0] = work()
        except (RunError, UsageError) as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    result, failure = outcome
    if failure is not None:
        raise failure
    decided: T = result
    return decided
