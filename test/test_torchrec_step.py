"""The step of several processes: whole weights, batches read ahead, warm-up, and a loss that is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
from equal_runs import DCN, MODEL, RATES
from processes import in_processes, launched, needs_torchrec, with_ranks
from trained_steps import Parts, joined, parts_of, start

from mlperf.engines.warm_up import warm_up
from mlperf.evaluation.evaluate import evaluate
from mlperf.evaluation.metrics import Metrics
from mlperf.settings.from_flags import parse
from mlperf.training.loop import TrainingLoop
from mlperf.training.state import TrainingState
from mlperf.util.errors import DivergedError

pytestmark = [in_processes, needs_torchrec]

OTHER_ENGINE = "--engine=autograd"


@pytest.fixture
def flags(terabyte: Path) -> tuple[str, ...]:
    return (*MODEL, "--mini-batch-size=100", f"--processed-data-file={terabyte}")


def trained(flags: Sequence[str], rate: float) -> tuple[dict[str, Parts], list[float]]:
    """Train on parts of two epochs and evaluate in between. Return weights, state and losses."""
    started = start(flags)
    step, losses = started.step, []
    # The second epoch is entered in its middle, while the first one has been left with batches read ahead.
    for epoch, first, batches in ((0, 0, 3), (1, 2, 4)):
        for number, batch in enumerate(islice(step.training_batches(started.splits.train, epoch, first), batches)):
            step.train(batch, rate / (number + 1))
            losses.append(step.sums.totals()[0] / batch.size)
            step.sums.clear()
            if number % 2 == 0:
                assert started.splits.test is not None
                losses.append(evaluate(step, started.splits.test, all_metrics=True).auc)
    return parts_of(started), losses


@cache
def trained_alone(flags: tuple[str, ...], rate: float) -> tuple[dict[str, np.ndarray], list[float]]:
    """Train on one process, and return whole weights and state, and losses."""
    ((parts, losses),) = launched(1, trained, flags, rate)
    return joined([parts]), losses


def warmed_up(flags: Sequence[str], batch_size: int) -> tuple[dict[str, Parts], dict[str, Parts], float, int]:
    """Return weights and state before and after the warm-up, the sum of the losses, and the number of steps."""
    started = start(flags)
    before = parts_of(started)
    warm_up(started.step, batch_size)
    return before, parts_of(started), started.step.sums.totals()[0], started.optimizer.steps


def diverged(flags: Sequence[str]) -> str:
    """Train with a learning rate that is too large, and return the error."""
    started = start(flags)

    def no_evaluation() -> Metrics:
        raise AssertionError

    loop = TrainingLoop(
        step=started.step,
        settings=parse(flags).training,
        test_frequency=0,
        print_frequency=1,
        state=TrainingState(),
        listeners=[],
        evaluate=no_evaluation,
    )
    with pytest.raises(DivergedError) as raised:
        loop.run(started.splits.train)
    return str(raised.value)


# column-wise and grid are refused with rwsadagrad: test_sharding_refusals.py.
@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        *product(("sgd", "adagrad"), ("table-wise", "row-wise", "column-wise", "table-row-wise", "grid")),
        *product(("rwsadagrad",), ("table-wise", "row-wise", "table-row-wise")),
    ],
)
def test_whole_weights_are_those_of_one_process(optimizer: str, kind: str, flags: tuple[str, ...]) -> None:
    run = (*flags, f"--optimizer={optimizer}", "--mlperf-bin-shuffle")
    expected, losses = trained_alone((*run, OTHER_ENGINE), RATES[optimizer])
    size = {"sgd": 2, "adagrad": 4, "rwsadagrad": 3}[optimizer]
    by_rank = with_ranks(size, trained, (*run, f"--sharding={kind}"), RATES[optimizer])
    found = joined([parts for parts, _ in by_rank])
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=2e-6, err_msg=name)
    for _, others in by_rank:
        assert others == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 100])
def test_warm_up_changes_nothing(batch_size: int, flags: tuple[str, ...]) -> None:
    run = (*flags, *DCN, f"--multi-hot-sizes={'-'.join(['2'] * 26)}", "--sharding=row-wise")
    for before, after, loss, steps in with_ranks(3, warmed_up, run, batch_size):
        assert before.keys() == after.keys()
        for name, (_, parts) in before.items():
            for (_, values), (_, others) in zip(parts, after[name][1], strict=True):
                assert np.array_equal(values, others), name
        assert (loss, steps) == (0, 0)


def test_loss_that_is_not_finite_ends_all_processes_at_the_same_batch(flags: tuple[str, ...]) -> None:
    errors = with_ranks(3, diverged, (*flags, "--learning-rate=1e30"))
    assert len(set(errors)) == 1
    assert errors[0].startswith("the training loss is nan by batch 2 of epoch 0")
