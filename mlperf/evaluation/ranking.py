"""AUC and average precision of N scores, exact, ties included: sums over the ties from the highest score down.

The sums of a range of scores need only the numbers of clicks and of other samples with higher scores. Each tie is
a trapezoid under the ROC curve; twice its area is an integer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import torch

_DIGIT_BITS = 11
_BUCKETS = 1 << _DIGIT_BITS

Keys = npt.NDArray[np.uint32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TieSums:
    """Sums over the ties of a range of scores.

    twice_area: twice the area under the ROC curve, in pairs of a click and another sample.
    precision_sum: for each click, the fraction of clicks among the samples with at least its score.
    """

    twice_area: int
    precision_sum: float

    def metrics(self, clicks: int, others: int) -> tuple[float, float]:
        """Return AUC and average precision of all samples: `clicks` with label 1 and `others`, neither 0."""
        return self.twice_area / (2.0 * clicks * others), self.precision_sum / clicks


def tie_sums(scores: torch.Tensor, labels: torch.Tensor) -> TieSums:
    """Return the sums of all scores in [0, 1], float32 [N], with `labels` of 0 and 1, float32 [N]."""
    if scores.device.type == "cpu":
        return TieSums(*_sums(_sorted(*_keys_and_digits(*_arrays(scores, labels))), 0, 0))
    return tie_sums_on_device(scores, labels)


def score_keys(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return a key for each sample, int32 [N]: the bits of its score, then its label as the lowest bit.

    The bits of a non-negative float32 sort like its value, and the sign bit is free. Arguments as in `tie_sums`.
    """
    if scores.device.type == "cpu":
        keys, _ = _keys_and_digits(*_arrays(scores, labels))
        return torch.from_numpy(keys.view(np.int32))
    return (scores.abs().view(torch.int32) << 1) | (labels > 0.5).int()


def tie_sums_of_keys(keys: torch.Tensor, clicks_above: int, others_above: int) -> TieSums:
    """Return the sums of a range of scores from its keys, int32 [N] in any order.

    clicks_above, others_above: samples with label 1 and 0 whose scores are above the range.
    """
    if keys.device.type == "cpu":
        values = keys.numpy().view(np.uint32)
        return TieSums(*_sums(_sorted(values, _digits(values)), clicks_above, others_above))
    return tie_sums_on_device((keys >> 1).view(torch.float32), (keys & 1).float(), clicks_above, others_above)


def tie_sums_on_device(
    scores: torch.Tensor, labels: torch.Tensor, clicks_above: int = 0, others_above: int = 0
) -> TieSums:
    """Return the sums of a range of scores, computed by PyTorch on the device of `scores` [N] and `labels` [N]."""
    ordered, order = scores.sort(descending=True)
    hits = labels[order].to(torch.int64).cumsum(0)  # (N,)
    last_of_tie = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=last_of_tie[:-1])
    true = hits[last_of_tie]  # clicks with at least each distinct score
    seen = last_of_tie.nonzero().squeeze(1) + 1
    zero = true.new_zeros(1)
    new_true = torch.diff(true, prepend=zero)
    new_false = torch.diff(seen - true, prepend=zero)
    true = true + clicks_above
    seen = seen + (clicks_above + others_above)
    twice_area = (new_false * (2 * true - new_true)).sum()
    precision_sum = (new_true.double() * true.double() / seen.double()).sum()
    return TieSums(int(twice_area), float(precision_sum))


def _arrays(scores: torch.Tensor, labels: torch.Tensor) -> tuple[Keys, npt.NDArray[np.float32]]:
    bits = scores.contiguous().abs().numpy().view(np.uint32)  # abs: -0.0 is 0.0
    return bits, labels.contiguous().numpy()


@numba.njit(nogil=True, cache=True)
def _keys_and_digits(bits: Keys, labels: npt.NDArray[np.float32]) -> tuple[Keys, IntArray]:
    """Return the keys and, counted in the same pass, how often each digit has each value."""
    count = len(bits)
    keys = np.empty(count, np.uint32)
    histograms = np.zeros((3, _BUCKETS), np.int64)
    mask = np.uint32(_BUCKETS - 1)
    for position in range(count):
        key = (bits[position] << np.uint32(1)) | np.uint32(labels[position] > 0.5)
        keys[position] = key
        for digit in range(3):
            histograms[digit, (key >> np.uint32(digit * _DIGIT_BITS)) & mask] += 1
    return keys, histograms


@numba.njit(nogil=True, cache=True)
def _digits(keys: Keys) -> IntArray:
    """Return how often each digit of the keys has each value."""
    histograms = np.zeros((3, _BUCKETS), np.int64)
    mask = np.uint32(_BUCKETS - 1)
    for key in keys:
        for digit in range(3):
            histograms[digit, (key >> np.uint32(digit * _DIGIT_BITS)) & mask] += 1
    return histograms


@numba.njit(nogil=True, cache=True)
def _sorted(keys: Keys, histograms: IntArray) -> Keys:
    """Radix-sort the keys. Both arguments are overwritten."""
    other = np.empty(len(keys), np.uint32)
    mask = np.uint32(_BUCKETS - 1)
    for digit in range(3):
        start = 0
        for bucket in range(_BUCKETS):
            start, histograms[digit, bucket] = start + histograms[digit, bucket], start
        shift = np.uint32(digit * _DIGIT_BITS)
        for key in keys:
            bucket = (key >> shift) & mask
            other[histograms[digit, bucket]] = key
            histograms[digit, bucket] += 1
        keys, other = other, keys
    return keys


@numba.njit(nogil=True, cache=True)
def _sums(keys: Keys, clicks_above: int, others_above: int) -> tuple[int, float]:
    """Return the sums of sorted keys, highest score first, tie by tie."""
    true = clicks_above
    false = others_above
    twice_area = 0
    precision_sum = 0.0
    position = len(keys) - 1
    while position >= 0:
        score = keys[position] >> np.uint32(1)
        new_true = 0
        new = 0
        while position >= 0 and keys[position] >> np.uint32(1) == score:
            new_true += int(keys[position] & np.uint32(1))
            new += 1
            position -= 1
        twice_area += (new - new_true) * (2 * true + new_true)
        true += new_true
        false += new - new_true
        precision_sum += new_true * (true / (true + false))
    return twice_area, precision_sum
