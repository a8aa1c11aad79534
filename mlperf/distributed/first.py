"""Decisions that one process takes for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from mlperf.distributed.processes import current
from mlperf.util.errors import RunError, UsageError

Result = TypeVar("Result")


def decided_by_first(work: Callable[[], Result]) -> Result:
    """Call `work` in the first process and return its result, which must be picklable, in all of them.

    Every process must call it. RunError and UsageError are raised in all processes.
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
    return result
