"""Metrics against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from mlperf.evaluation.evaluate import evaluate
from mlperf.evaluation.metrics import binary_metrics
from mlperf.evaluation.ranking import tie_sums_on_device
from mlperf.util.errors import RunError


def scores_and_labels(count: int, distinct: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    stream = np.random.default_rng(seed)
    scores = stream.integers(0, distinct + 1, count) / distinct
    labels = stream.random(count) < scores**2
    labels[:2] = (False, True)
    return torch.from_numpy(scores.astype(np.float32)), torch.from_numpy(labels.astype(np.float32))


@pytest.mark.parametrize(("count", "distinct"), [(2, 1), (3, 2), (100, 3), (5000, 40), (5000, 2**24)])
@pytest.mark.parametrize("seed", [1, 2])
def test_all_metrics_equal_scikit_learn(count: int, distinct: int, seed: int) -> None:
    scores, labels = scores_and_labels(count, distinct, seed)
    found = binary_metrics(scores.unsqueeze(1), labels.unsqueeze(1))
    score, label = scores.double().numpy(), labels.numpy()
    rounded = score.round()
    assert found.auc == pytest.approx(sk.roc_auc_score(label, score), abs=1e-9)
    assert found.average_precision == pytest.approx(sk.average_precision_score(label, score), abs=1e-9)
    assert found.accuracy == pytest.approx(sk.accuracy_score(label, rounded), abs=1e-12)
    assert found.recall == pytest.approx(sk.recall_score(label, rounded, zero_division=0), abs=1e-12)
    assert found.precision == pytest.approx(sk.precision_score(label, rounded, zero_division=0), abs=1e-12)
    assert found.f1 == pytest.approx(sk.f1_score(label, rounded, zero_division=0), abs=1e-12)
    clicks = int(labels.sum())
    on_device = tie_sums_on_device(scores, labels).metrics(clicks, count - clicks)
    assert on_device == pytest.approx((found.auc, found.average_precision), abs=1e-12)


def test_metrics_of_ten_million_scores_equal_scikit_learn() -> None:
    stream = np.random.default_rng(7)
    scores = torch.from_numpy(stream.beta(1, 20, 10_000_000).astype(np.float32))
    labels = torch.from_numpy((stream.random(10_000_000) < scores.numpy()).astype(np.float32))
    found = binary_metrics(scores, labels)
    assert found.auc == pytest.approx(sk.roc_auc_score(labels.numpy(), scores.numpy()), abs=1e-9)


def test_probability_of_one_half_counts_as_no_click() -> None:
    found = binary_metrics(torch.tensor([0.5, 0.5, 0.75]), torch.tensor([0.0, 1.0, 1.0]))
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.recall == 0.5


def test_smallest_and_largest_scores_are_ranked() -> None:
    scores = torch.tensor([0.0, -0.0, 1e-45, 1.1754944e-38, 1.0, 1.0])
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    expected = sk.roc_auc_score(labels.numpy(), scores.double().numpy())
    assert binary_metrics(scores, labels).auc == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_auc_of_one_class_is_undefined(label: float) -> None:
    found = binary_metrics(torch.tensor([0.2, 0.8]), torch.tensor([label, label]))
    assert math.isnan(found.auc)
    assert math.isnan(found.average_precision)
    assert found.only_label == label
    assert binary_metrics(torch.tensor([0.2, 0.8]), torch.tensor([0.0, 1.0])).only_label is None


@pytest.mark.parametrize("score", [math.nan, -0.1, 1.5])
def test_score_outside_0_and_1_is_refused(score: float) -> None:
    with pytest.raises(RunError, match="diverged"):
        binary_metrics(torch.tensor([0.2, score]), torch.tensor([0.0, 1.0]))


class RefusingScorer:
    """A scorer that reports an invalid value only in `check`."""

    device = torch.device("cpu")

    def batches(self, data: Any, epoch: int, first: int = 0) -> Iterator[Any]:
        return iter([SimpleNamespace(size=3)])

    def score(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.0, 1.0, 0.0])

    def check(self) -> None:
        raise RunError("invalid row")


def test_evaluation_of_an_invalid_batch_fails() -> None:
    data: Any = SimpleNamespace(samples=3)
    with pytest.raises(RunError, match="invalid row"):
        evaluate(RefusingScorer(), data, all_metrics=True)
