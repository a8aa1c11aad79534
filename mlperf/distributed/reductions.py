"""Values of all processes, and their sums. Every process of a run must call these functions."""

from __future__ import annotations

import torch
import torch.distributed as dist

from mlperf.distributed.processes import current


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of `values` over all processes, equal everywhere."""
    if current().size == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def of_all_processes(values: torch.Tensor) -> torch.Tensor:
    """Return the `values` [k] of all processes by rank, [R, k], exactly: other ranks only add zeros."""
    rows = values.new_zeros(current().size, *values.shape)
    rows[current().rank] = values
    return sum_over_processes(rows)


def exchanged(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Send the first counts[0] of `values` [n] to rank 0, the next counts[1] to rank 1, ...; return what came.

    counts: int64 [R] with the sum n. The result is ordered by sender.
    """
    received = of_all_processes(counts)[:, current().rank].tolist()
    result = values.new_empty(sum(received))
    dist.all_to_all_single(result, values, received, counts.tolist())
    return result
