"""The fast training step on the CPU against the general one, which autograd differentiates, on random shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from small_models import CPU, make_batch, make_model, random_architecture

from mlperf.data.batch import Batch
from mlperf.engines.cpu import step as cpu_step
from mlperf.engines.cpu.step import CpuScorer, CpuStep
from mlperf.engines.protocol import GeneralStep
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.sgd import SGD


def both_steps(architecture: Architecture, loss: Loss, precision: str = "fp32") -> tuple[GeneralStep, CpuStep]:
    models = [make_model(architecture) for _ in range(2)]
    assert cpu_step.serves(models[0])
    optimizers = [SGD(model) for model in models]
    return (
        GeneralStep(models[0], loss, optimizers[0], precision),
        CpuStep(models[1], loss, optimizers[1], precision),
    )


@pytest.mark.parametrize("seed", range(10))
def test_fast_step_does_what_autograd_does(seed: int) -> None:
    stream = np.random.default_rng(seed)
    threshold = float(stream.choice([0.0, 0.3]))
    architecture = random_architecture(stream, loss_threshold=threshold)
    loss = Loss(str(stream.choice(["mse", "bce", "wbce"])), (0.5, 2.0))
    general, fast = both_steps(architecture, loss)
    for size in (64, 64, 7, 130):
        batch = make_batch(size, architecture.rows_per_table, stream)
        general.train(batch, 0.1)
        fast.train(batch, 0.1)
    torch.testing.assert_close(fast.sums.both, general.sums.both, rtol=1e-5, atol=0)
    expected = general.model.state_dict()
    for name, value in fast.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=2e-4, atol=2e-6, msg=partial("{}: {}".format, name))
    torch.testing.assert_close(fast.score(batch)[0], general.score(batch)[0], rtol=1e-4, atol=1e-6)
    assert fast.optimizer.state_dict() == general.optimizer.state_dict()


def test_bfloat16_stays_close_to_float32_and_keeps_weights_in_float32() -> None:
    stream = np.random.default_rng(5)
    architecture = Architecture((3, 50, 5000), 16, (13, 64, 16), (64, 32, 1))
    exact, fast = both_steps(architecture, Loss("bce"))
    _, low = both_steps(architecture, Loss("bce"), "bf16")
    for _ in range(20):
        batch = make_batch(256, architecture.rows_per_table, stream)
        for step in (exact, fast, low):
            step.train(batch, 0.1)
    torch.testing.assert_close(low.sums.loss, exact.sums.loss, rtol=2e-3, atol=0)
    for name, value in low.model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact.model.state_dict()[name], rtol=0.05, atol=0.01)
    difference = (low.score(batch)[0] - exact.score(batch)[0]).abs().max()
    assert 0 < difference < 0.02


def test_warming_up_changes_nothing() -> None:
    architecture = Architecture((3, 50), 4, (13, 8, 4), (8, 1))
    general, fast = both_steps(architecture, Loss("bce"))
    fast.warm_up(32)
    assert fast.sums.both.tolist() == [0.0, 0.0]
    for name, value in fast.model.state_dict().items():
        assert torch.equal(value, general.model.state_dict()[name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layer", ["bot_l.0", "bot_l.2", "top_l.0", "top_l.2", "top_l.4"])
def test_weights_that_are_not_finite_show_in_the_loss(layer: str, precision: str) -> None:
    architecture = Architecture((3, 50), 16, (13, 300, 16), (300, 200, 1))
    _, fast = both_steps(architecture, Loss("bce"), precision)
    fast.model.get_parameter(f"{layer}.weight").data[0, 0] = torch.nan
    fast = CpuStep(fast.model, fast.loss, fast.optimizer, precision)
    fast.train(make_batch(64, architecture.rows_per_table, np.random.default_rng(0)), 0.1)
    fast.check()
    assert not torch.isfinite(fast.sums.loss)


@pytest.mark.parametrize(
    "change",
    [
        {"interaction_op": "cat"},
        {"activation": "tanh"},
        {"weighted_pooling": "learned"},
        {"rows_per_table": (2,) * 33},
    ],
)
def test_what_the_fast_step_cannot_do_is_left_to_the_general_one(change: dict[str, object]) -> None:
    sizes: dict[str, object] = {"rows_per_table": (2, 3), "dimension": 4, "mlp_bot": (13, 4), "mlp_top": (1,)}
    assert cpu_step.serves(DLRM_Net(Architecture(**sizes), CPU))  # type: ignore[arg-type]
    assert not cpu_step.serves(DLRM_Net(Architecture(**{**sizes, **change}), CPU))  # type: ignore[arg-type]


STEPS_ON_THREADS = """
import torch, sys
torch.set_num_threads(int(sys.argv[1]))
import numpy as np
from small_models import make_batch
from test_cpu_step import both_steps
from mlperf.models.dlrm import Architecture
from mlperf.models.loss import Loss
architecture = Architecture((3, 50, 5000), 48, (13, 40, 48), (40, 1))
_, fast = both_steps(architecture, Loss("bce"))
stream = np.random.default_rng(0)
for _ in range(3):
    fast.train(make_batch(100, architecture.rows_per_table, stream), 0.1)
print(repr(fast.sums.both.tolist()), repr(float(fast.tables.weight.double().sum())))
"""


def test_any_number_of_threads_gives_the_same_step() -> None:
    found = []
    for threads in (1, 2, 3, 7):
        done = subprocess.run(
            [sys.executable, "-c", STEPS_ON_THREADS, str(threads)],
            env={**os.environ, "PYTHONPATH": ".:test"},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append([float(number) for number in done.stdout.translate({91: None, 93: None, 44: None}).split()])
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)


def test_scores_do_not_depend_on_the_size_of_the_batch() -> None:
    architecture = Architecture((3, 50, 5000), 16, (13, 32, 16), (32, 1))
    scorer = CpuScorer(make_model(architecture), "fp32")
    batch = make_batch(90, architecture.rows_per_table, np.random.default_rng(2))
    whole, labels = scorer.score(batch)
    part = Batch(batch.dense[:40], batch.indices[:, :40].contiguous(), None, batch.labels[:40])
    torch.testing.assert_close(scorer.score(part)[0], whole[:40], rtol=1e-5, atol=1e-7)
    assert torch.equal(labels, batch.labels.squeeze(1))
