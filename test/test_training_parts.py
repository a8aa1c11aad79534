"""Learning rate schedule and loss, compared with their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlperf.benchmarks import DLRM, DLRM_DCNV2
from mlperf.models.loss import Loss
from mlperf.settings.training import ScheduleSettings, TrainingSettings
from mlperf.training.schedule import learning_rate


def test_schedule_matches_published_values() -> None:
    schedule = ScheduleSettings(18.0, warmup_steps=4, decay_start_step=6, decay_steps=3)
    expected = [18 * 1 / 4, 18 * 2 / 4, 18 * 3 / 4, 18 * 3 / 4, 18 * 3 / 4]
    expected += [18.0, 18 * (2 / 3) ** 2, 18 * (1 / 3) ** 2, 18 * (1 / 3) ** 2, 18 * (1 / 3) ** 2]
    assert [learning_rate(schedule, step) for step in range(1, 11)] == pytest.approx(expected)


def test_learning_rate_does_not_fall_below_its_minimum() -> None:
    assert learning_rate(ScheduleSettings(1e-3, 0, 0, 10**6), 999_999) == 1e-7


@pytest.mark.parametrize(("warmup_steps", "expected"), [(0, 8.0), (1, 8.0), (2, 4.0), (4, 6.0)])
def test_rate_between_warm_up_and_decay_is_that_of_the_last_warm_up_step(
    warmup_steps: int, expected: float
) -> None:
    schedule = ScheduleSettings(8.0, warmup_steps, decay_start_step=9, decay_steps=3)
    assert {learning_rate(schedule, step) for step in range(max(warmup_steps, 1), 9)} == {expected}


def test_warm_up_without_decay_ends_at_the_base_rate() -> None:
    schedule = ScheduleSettings(2.0, warmup_steps=2)
    assert [learning_rate(schedule, step) for step in (1, 2, 3, 100)] == [1.0, 2.0, 2.0, 2.0]


def test_weighted_cross_entropy_is_the_mean_of_weighted_terms() -> None:
    probability, labels = torch.tensor([[0.2], [0.7], [0.9]]), torch.tensor([[0.0], [1.0], [0.0]])
    expected = (0.5 * -np.log(0.8) + 2.0 * -np.log(0.7) + 0.5 * -np.log(0.1)) / 3
    assert float(Loss("wbce", (0.5, 2.0))(probability, labels)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_cross_entropy_and_its_gradient_match_pytorch_even_for_certain_predictions(label: float) -> None:
    values = torch.tensor([[0.0], [1e-20], [0.3], [1.0]])
    ours, theirs = (values.clone().requires_grad_() for _ in range(2))
    labels = torch.full_like(values, label)
    found = Loss("bce")(ours, labels)
    expected = torch.nn.functional.binary_cross_entropy(theirs, labels)
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_cross_entropy_of_nan_is_nan() -> None:
    assert Loss("bce")(torch.tensor([[0.5], [float("nan")]]), torch.ones(2, 1)).isnan()


@pytest.mark.parametrize(
    ("batches", "accumulate", "expected"),
    [(55, 1, 3), (55, 4, 4), (100, 1, 5), (100, 3, 6), (10, 1, 1), (10, 4, 4)],
)
def test_scheduled_evaluations_happen_at_optimizer_steps(batches: int, accumulate: int, expected: int) -> None:
    settings = TrainingSettings(accumulate=accumulate, auc_threshold=0.8)
    for samples in (batches * 8 - 7, batches * 8):
        assert settings.batches_between_tests(samples, batch_size=8, benchmark=DLRM) == expected


@pytest.mark.parametrize(
    ("batch", "steps"),
    [(32768, 6401), (55296, 3793), (65536, 3200), (102400, 2048), (135168, 1551), (160000, 1310)],
)
def test_evaluations_of_dlrm_dcnv2_follow_the_published_intervals(batch: int, steps: int) -> None:
    samples = DLRM_DCNV2.data.train_samples
    assert DLRM_DCNV2.steps_between_evaluations(samples, batch) == steps
    settings = TrainingSettings(accumulate=2, auc_threshold=0.8)
    assert settings.batches_between_tests(samples, batch // 2, DLRM_DCNV2) == 2 * steps
