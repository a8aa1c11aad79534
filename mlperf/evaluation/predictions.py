"""Predictions in the order of the rows, on the first process, while a split is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist

from mlperf.data.source import BatchSource, SharedSource
from mlperf.distributed.processes import Processes, current
from mlperf.distributed.reductions import exchanged
from mlperf.evaluation.metrics import are_probabilities, diverged

# Called with the probabilities and the labels of the next rows, float32 [n] each, in the memory of the host; None
# if the labels are not known.
Receiver = Callable[[torch.Tensor, torch.Tensor | None], None]

# Rows that are handed over at a time: a copy from a GPU waits for it.
ROWS_AT_A_TIME = 1 << 18


class Delivery:
    """Hands predictions to `receive`, on rank 0, in the order of the rows. Every process must have one.

    data: the rows that are scored, batch after batch. rows_at_a_time: number that `receive` gets at least, but for
    the last ones.
    """

    def __init__(self, data: BatchSource, receive: Receiver, rows_at_a_time: int = ROWS_AT_A_TIME) -> None:
        self._rows_at_a_time = rows_at_a_time
        self._receive = receive
        self._sizes: Iterator[int] | None = None  # of whole batches, of which each process scores its share
        if current().size > 1:
            assert isinstance(data, SharedSource)
            self._sizes = data.sizes(0)
        self._waiting: list[int] = []
        self._delivered = 0

    def scored(self, scores: torch.Tensor, labels: torch.Tensor, *, is_last: bool = False) -> None:
        """Hand over what is not delivered yet, if it is enough. Called after each batch, then once with `is_last`.

        scores, labels: those of all samples of this process so far, float32 [n] each. DivergedError, on rank 0, if
        a score is not a probability.
        """
        if self._sizes is not None and not is_last:
            self._waiting.append(next(self._sizes))
        rows = len(scores) - self._delivered if self._sizes is None else sum(self._waiting)
        if rows == 0 or (rows < self._rows_at_a_time and not is_last):
            return
        both = torch.stack((scores[self._delivered :], labels[self._delivered :]), 1)  # (n, 2)
        self._delivered = len(scores)
        if self._sizes is not None:
            both = _rows_of_batches(both, self._waiting)
            self._waiting = []
        if not current().is_first:
            return
        probabilities, labels = both.cpu().unbind(1)
        if not are_probabilities(probabilities):
            raise diverged()
        self._receive(probabilities, labels)


def _rows_of_batches(values: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Return, on rank 0, the values of all rows of some batches in their order, [N, k]; elsewhere, no values.

    values: those of the shares of this process, [n, k]. sizes: number of rows of each batch.
    """
    if dist.get_backend() == "gloo":  # has no all_to_all for GPUs
        values = values.cpu()
    counts = torch.zeros(current().size, dtype=torch.int64, device=values.device)
    counts[0] = values.numel()
    received = exchanged(values.flatten(), counts).view(-1, values.shape[1])
    if not current().is_first:
        return received
    ranks = [Processes(rank, current().size) for rank in range(current().size)]
    shares = [[rank.share(size)[1] for size in sizes] for rank in ranks]
    of_ranks = received.split([sum(share) for share in shares])
    by_rank = [part.split(share) for part, share in zip(of_ranks, shares, strict=True)]
    return torch.cat([part for of_batch in zip(*by_rank, strict=True) for part in of_batch])
