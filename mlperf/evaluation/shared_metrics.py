"""The test metrics of several processes, each of which has the scores of some samples. N samples in all, R ranks.

No process gets all scores. The range of the scores is divided into R consecutive parts with about equal numbers
of samples; each process gets the samples of one part and computes its sums for the AUC and the average precision.
Sums of integers are exact, so the AUC is that of one process bit for bit; the average precision differs by
rounding.
"""

from __future__ import annotations

import math
from dataclasses import astuple

import numba
import numpy as np
import torch
import torch.distributed as dist

from mlperf.distributed.processes import current
from mlperf.distributed.reductions import exchanged, of_all_processes, sum_over_processes
from mlperf.evaluation.metrics import Counts, Metrics, are_probabilities, diverged
from mlperf.evaluation.ranking import IntArray, Keys, TieSums, score_keys, tie_sums_of_keys

# Keys with the same upper bits are in one bin, and a bin in one part, so that ties are never divided. There are
# 1024 bins between a power of two and the next; the last one has the score 1.
_BIN_SHIFT = 14
_BINS = ((0x3F800000 << 1) >> _BIN_SHIFT) + 1


def shared_metrics(scores: torch.Tensor, labels: torch.Tensor, *, all_metrics: bool) -> Metrics:
    """Return the metrics of the samples of all processes, equal everywhere; every process must call it.

    scores, labels: those of this process, float32 [n], n >= 0. all_metrics: if false, all but the accuracy are
    NaN. DivergedError on all processes if a score of one of them is NaN or outside [0, 1] and `all_metrics`.
    """
    if dist.get_backend() == "gloo":  # has no all_to_all for GPUs
        scores, labels = scores.cpu(), labels.cpu()
    if not all_metrics:
        return _sum_of_counts(Counts.of_accuracy(scores, labels), scores.device).accuracy_only()
    if int(sum_over_processes(torch.tensor(int(not are_probabilities(scores))).to(scores.device))):
        raise diverged()
    counts = _sum_of_counts(Counts.of(scores, labels), scores.device)
    if counts.only_label is not None:
        return counts.metrics(auc=math.nan, average_precision=math.nan)
    keys = _keys_of_part(score_keys(scores, labels), counts.samples)
    clicks = (keys & 1).sum()
    clicks_and_others = of_all_processes(torch.stack((clicks, len(keys) - clicks)))  # (R, 2)
    ties = tie_sums_of_keys(keys, *clicks_and_others[current().rank + 1 :].sum(0).tolist())
    return counts.metrics(*_sum_of_parts(ties, keys.device).metrics(counts.clicks, counts.others))


def _sum_of_counts(counts: Counts, device: torch.device) -> Counts:
    return Counts(*sum_over_processes(torch.tensor(astuple(counts)).to(device)).tolist())


def _sum_of_parts(ties: TieSums, device: torch.device) -> TieSums:
    areas = sum_over_processes(torch.tensor([ties.twice_area]).to(device))
    precisions = of_all_processes(torch.tensor([ties.precision_sum], dtype=torch.float64).to(device))
    return TieSums(int(areas), math.fsum(precisions.flatten().tolist()))


def _keys_of_part(keys: torch.Tensor, samples: int) -> torch.Tensor:
    """Return the keys of the part of this process, int32 [m]. Rank 0 has the lowest scores.

    keys: those of its samples, int32 [n]. samples: N.
    """
    own = _bin_counts(keys)
    bins = sum_over_processes(own)
    # The number of samples below the middle of a bin decides to which part it belongs.
    ranks = (2 * bins.cumsum(0) - bins) * current().size // (2 * samples)  # (bins,)
    ranks.clamp_(max=current().size - 1)  # empty bins above all scores
    counts = own.new_zeros(current().size).index_add_(0, ranks, own)
    return exchanged(_ordered_by_rank(keys, ranks, counts), counts)


def _bin_counts(keys: torch.Tensor) -> torch.Tensor:
    """Return the number of keys in each bin, int64 [bins]."""
    if keys.device.type != "cpu":
        return torch.bincount(keys >> _BIN_SHIFT, minlength=_BINS)
    return torch.from_numpy(_count(_array(keys)))


def _ordered_by_rank(keys: torch.Tensor, ranks: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the keys ordered by the rank of their bin. counts: number of keys of each rank."""
    if keys.device.type != "cpu":
        return keys.sort().values  # higher keys never have lower ranks
    starts = counts.cumsum(0) - counts
    return torch.from_numpy(_partitioned(_array(keys), ranks.numpy(), starts.numpy()).view(np.int32))


def _array(keys: torch.Tensor) -> Keys:
    array: Keys = keys.numpy().view(np.uint32)
    return array


@numba.njit(nogil=True, cache=True)
def _count(keys: Keys) -> IntArray:
    bins = np.zeros(_BINS, np.int64)
    for key in keys:
        bins[key >> np.uint32(_BIN_SHIFT)] += 1
    return bins


@numba.njit(nogil=True, cache=True)
def _partitioned(keys: Keys, ranks: IntArray, starts: IntArray) -> Keys:
    """Return the keys of rank r from position starts[r] on. `starts` is overwritten."""
    ordered = np.empty(len(keys), np.uint32)
    for key in keys:
        rank = ranks[key >> np.uint32(_BIN_SHIFT)]
        ordered[starts[rank]] = key
        starts[rank] += 1
    return ordered
