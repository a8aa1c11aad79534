"""The six test metrics, exact and fast: accuracy, recall, precision, F1, average precision, ROC AUC.

Average precision and AUC are scikit-learn's (`average_precision_score`, `roc_auc_score`), ties included. N scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import torch

from mlperf.util.errors import DivergedError

_DIGIT_BITS = 11
_BUCKETS = 1 << _DIGIT_BITS


@dataclass(frozen=True)
class Metrics:
    """Values in [0, 1]; NaN if not computed. AUC and average precision are also NaN if a class is missing.

    only_label: the label of all samples, 0 or 1, if a class is missing; otherwise None.
    """

    accuracy: float
    recall: float
    precision: float
    f1: float
    average_precision: float
    auc: float
    only_label: int | None = None


def only_label(labels: torch.Tensor) -> int | None:
    """Return the label of all samples, None if both labels occur. labels: 0 and 1, float32 [N]."""
    return _only_label(int(labels.sum(dtype=torch.float64)), len(labels))


def _only_label(clicks: int, samples: int) -> int | None:
    return 0 if clicks == 0 else 1 if clicks == samples else None


def is_better(value: float, best: float) -> bool:
    """Return whether a metric exceeds the best so far. A defined value exceeds NaN, and NaN exceeds nothing."""
    return not math.isnan(value) and not value <= best


def accuracy_only(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the fraction of `scores`, rounded (0.5 down), that equal `labels`, float32 [N] each."""
    return float((scores.round() == labels).double().mean())


def binary_metrics(scores: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """Return the metrics of the probabilities `scores` for `labels` of 0 and 1, float32 [N] or [N, 1] each.

    They are computed on the device of the tensors. DivergedError if a score is NaN or outside [0, 1].
    """
    scores, labels = scores.flatten(), labels.flatten()
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        raise DivergedError("a predicted probability is not a number in [0, 1]: the model has diverged")
    predicted = scores.round()
    clicks = int(labels.sum(dtype=torch.float64))
    hits = int((predicted * labels).sum(dtype=torch.float64))
    predicted_clicks = int(predicted.sum(dtype=torch.float64))
    recall = hits / clicks if clicks else 0.0
    precision = hits / predicted_clicks if predicted_clicks else 0.0
    f1 = 2 * hits / (clicks + predicted_clicks) if hits else 0.0
    label = _only_label(clicks, len(labels))
    if label is not None:
        auc = average_precision = math.nan
    elif scores.device.type == "cpu":
        auc, average_precision = _rank_on_cpu(scores, labels)
    else:
        auc, average_precision = rank_on_device(scores, labels)
    return Metrics(
        accuracy=accuracy_only(scores, labels),
        recall=recall,
        precision=precision,
        f1=f1,
        average_precision=average_precision,
        auc=auc,
        only_label=label,
    )


def rank_on_device(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return AUC and average precision, computed by PyTorch on the device of `scores` [N] and `labels` [N]."""
    ordered, order = scores.sort(descending=True)
    hits = labels[order].to(torch.int64).cumsum(0)  # (N,)
    last_of_tie = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=last_of_tie[:-1])
    true = hits[last_of_tie]  # clicks with at least each distinct score
    seen = last_of_tie.nonzero().squeeze(1) + 1
    false = seen - true
    zero = true.new_zeros(1)
    new_true = torch.diff(true, prepend=zero)
    new_false = torch.diff(false, prepend=zero)
    # Each tie is a trapezoid; twice its area is an integer.
    twice_area = (new_false * (2 * true - new_true)).sum()
    auc = twice_area.double() / (2 * true[-1].double() * false[-1].double())
    average_precision = (new_true.double() * true.double() / seen.double()).sum() / true[-1].double()
    return float(auc), float(average_precision)


def _rank_on_cpu(scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Sort (score, label) as one uint32.

    The bits of a non-negative float32 sort like its value, and the sign bit is free for the label.
    """
    bits = scores.contiguous().abs().numpy().view(np.uint32)  # abs: -0.0 is 0.0
    return _area(_sorted_keys(bits, labels.contiguous().numpy()))


@numba.njit(nogil=True, cache=True)
def _sorted_keys(bits: npt.NDArray[np.uint32], labels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Radix-sort the score bits with the label as the lowest bit; one pass counts all histograms."""
    count = len(bits)
    keys = np.empty(count, np.uint32)
    histograms = np.zeros((3, _BUCKETS), np.int64)
    mask = np.uint32(_BUCKETS - 1)
    for position in range(count):
        key = (bits[position] << np.uint32(1)) | np.uint32(labels[position] > 0.5)
        keys[position] = key
        for digit in range(3):
            histograms[digit, (key >> np.uint32(digit * _DIGIT_BITS)) & mask] += 1
    other = np.empty(count, np.uint32)
    for digit in range(3):
        start = 0
        for bucket in range(_BUCKETS):
            start, histograms[digit, bucket] = start + histograms[digit, bucket], start
        shift = np.uint32(digit * _DIGIT_BITS)
        for position in range(count):
            key = keys[position]
            bucket = (key >> shift) & mask
            other[histograms[digit, bucket]] = key
            histograms[digit, bucket] += 1
        keys, other = other, keys
    return keys


@numba.njit(nogil=True, cache=True)
def _area(keys: npt.NDArray[np.uint32]) -> tuple[float, float]:
    """Return AUC and average precision from sorted keys, highest score first, tie by tie; areas are integers."""
    true = 0
    false = 0
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
    return twice_area / (2.0 * true * false), precision_sum / true
