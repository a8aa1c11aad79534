"""The CPU engine against the autograd engine on random shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
import pytest
import torch
from small_models import (
    EARLIER_STEPS,
    SEED,
    assert_same_training,
    make_batch,
    make_model,
    make_trained_optimizer,
    random_architecture,
    sums_of,
)

from mlperf.data.batch import Batch
from mlperf.engines.autograd.step import AutogradStep
from mlperf.engines.cpu.scorer import CpuScorer
from mlperf.engines.cpu.step import CpuStep
from mlperf.models.dlrm import Architecture
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import make_optimizer
from mlperf.optim.sgd import SGD
from mlperf.registry import OPTIMIZERS


def autograd_step(
    architecture: Architecture, loss: Loss, precision: str = "fp32", optimizer: str = "sgd"
) -> AutogradStep:
    model = make_model(architecture)
    return AutogradStep(model, loss, make_trained_optimizer(optimizer, model), precision)


def cpu_step(architecture: Architecture, loss: Loss, precision: str = "fp32", optimizer: str = "sgd") -> CpuStep:
    model = make_model(architecture)
    return CpuStep(model, loss, make_trained_optimizer(optimizer, model), precision)


HALF_ARCHITECTURE = Architecture((3, 50, 500), 16, (13, 40, 16), (30, 1))


class MakeStep(Protocol):
    """One of the two functions above."""

    def __call__(
        self, architecture: Architecture, loss: Loss, precision: str = "fp32", optimizer: str = "sgd"
    ) -> AutogradStep | CpuStep: ...


@pytest.mark.parametrize("seed", range(10))
def test_cpu_engine_trains_as_autograd_does(seed: int) -> None:
    stream = np.random.default_rng(seed)
    threshold = float(stream.choice([0.0, 0.3]))
    architecture = random_architecture(stream, loss_threshold=threshold)
    loss = Loss(str(stream.choice(["mse", "bce", "wbce"])), (0.5, 2.0))
    general, fast = autograd_step(architecture, loss), cpu_step(architecture, loss)
    require_same_training(fast, general, stream)
    batch = make_batch(130, architecture.rows_per_table, stream)
    torch.testing.assert_close(fast.score(batch)[0], general.score(batch)[0], rtol=1e-4, atol=1e-6)
    assert fast.optimizer.state_dict() == general.optimizer.state_dict()


def require_same_training(fast: CpuStep, general: AutogradStep, stream: np.random.Generator) -> None:
    """Train both on the same batches, and compare losses, weights and Adagrad's sums."""
    for size in (64, 64, 7, 130):
        batch = make_batch(size, general.model.architecture.rows_per_table, stream)
        general.train(batch, 0.1)
        fast.train(batch, 0.1)
    assert_same_training(fast, general, rtol=2e-4, atol=2e-6, sums_atol=0)


@pytest.mark.parametrize("optimizer", ["adagrad", "rwsadagrad"])
@pytest.mark.parametrize("seed", range(4))
def test_cpu_engine_trains_with_adagrad_as_autograd_does(seed: int, optimizer: str) -> None:
    stream = np.random.default_rng(seed)
    stream.choice([0.0, 0.3])  # architectures as above: loops are compiled for each
    architecture = random_architecture(stream)
    loss = Loss("wbce", (0.5, 2.0))
    general = autograd_step(architecture, loss, optimizer=optimizer)
    fast = cpu_step(architecture, loss, optimizer=optimizer)
    require_same_training(fast, general, stream)
    assert fast.optimizer.steps == general.optimizer.steps == EARLIER_STEPS + 4


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("embedding_precision", ["bf16", "fp16"])
def test_cpu_engine_trains_tables_in_16_bits_as_autograd_does(embedding_precision: str, optimizer: str) -> None:
    """Both draw the same random numbers, so a value differs only where a rounding difference decides."""
    architecture = replace(HALF_ARCHITECTURE, embedding_precision=embedding_precision)
    general = autograd_step(architecture, Loss("bce"), optimizer=optimizer)
    fast, stream = cpu_step(architecture, Loss("bce"), optimizer=optimizer), np.random.default_rng(0)
    for _ in range(4):
        batch = make_batch(100, architecture.rows_per_table, stream)
        torch.testing.assert_close(fast.score(batch)[0], general.score(batch)[0], rtol=1e-3, atol=1e-4)
        for step in (general, fast):
            step.train(batch, 0.1)
    changed = fast.tables.weight != general.model.row_parameters()[0].values
    initial = make_model(architecture).row_parameters()[0].values
    assert (fast.tables.weight != initial).float().mean() > 0.1
    assert changed.float().mean() < 0.01
    expected = general.model.state_dict()
    for name, value in fast.model.state_dict().items():
        torch.testing.assert_close(value.float(), expected[name].float(), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_continued_step_of_16_bit_tables_equals_an_undisturbed_one(precision: str, optimizer: str) -> None:
    architecture = replace(HALF_ARCHITECTURE, embedding_precision="bf16")
    whole, stream = cpu_step(architecture, Loss("bce"), precision, optimizer), np.random.default_rng(0)
    batches = [make_batch(100, architecture.rows_per_table, stream) for _ in range(6)]
    for batch in batches[:3]:
        whole.train(batch, 0.1)
    model = make_model(architecture)
    model.load_state_dict(whole.model.state_dict())
    resumed_optimizer = make_optimizer(optimizer, model, seed=SEED)
    resumed_optimizer.load_state_dict(whole.optimizer.state_dict(), "saved")
    resumed_optimizer.continue_at(EARLIER_STEPS + 3)
    resumed = CpuStep(model, Loss("bce"), resumed_optimizer, precision)
    resumed.warm_up(100)
    for batch in batches[3:]:
        for step in (whole, resumed):
            step.train(batch, 0.1)
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert all(map(torch.equal, sums_of(resumed_optimizer), sums_of(whole.optimizer)))


@pytest.mark.parametrize("make_step", [autograd_step, cpu_step])
def test_bfloat16_stays_close_to_float32_and_keeps_weights_in_float32(
    make_step: MakeStep,
) -> None:
    stream = np.random.default_rng(5)
    architecture = Architecture((3, 50, 5000), 16, (13, 64, 16), (64, 32, 1))
    exact = autograd_step(architecture, Loss("bce"))
    low = make_step(architecture, Loss("bce"), "bf16")
    for _ in range(20):
        batch = make_batch(256, architecture.rows_per_table, stream)
        for step in (exact, low):
            step.train(batch, 0.1)
    assert low.sums.loss != exact.sums.loss
    torch.testing.assert_close(low.sums.loss, exact.sums.loss, rtol=2e-3, atol=0)
    for name, value in low.model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact.model.state_dict()[name], rtol=0.05, atol=0.01)
    difference = (low.score(batch)[0] - exact.score(batch)[0]).abs()
    assert 1e-4 < difference.max() < 0.02


@pytest.mark.parametrize("make_step", [autograd_step, cpu_step])
def test_bf16_rounds_the_inputs_of_matrix_products(make_step: MakeStep) -> None:
    """Inputs that are equal in bfloat16 give the same probability."""
    architecture = Architecture((3, 50), 16, (13, 64, 16), (64, 32, 1))
    batch = make_batch(64, architecture.rows_per_table, np.random.default_rng(1))
    coarse = Batch(batch.dense.bfloat16().float(), batch.indices, None, batch.labels)
    fine = Batch(coarse.dense * (1 + 2.0**-11), batch.indices, None, batch.labels)
    for precision, same in (("bf16", True), ("fp32", False)):
        step = make_step(architecture, Loss("bce"), precision)
        assert torch.equal(step.score(coarse)[0], step.score(fine)[0]) is same


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("make_step", [autograd_step, cpu_step])
def test_warming_up_changes_nothing(make_step: MakeStep, optimizer: str) -> None:
    architecture = Architecture((3, 50), 4, (13, 8, 4), (8, 1))
    step = make_step(architecture, Loss("bce"), optimizer=optimizer)
    sums_before = [sums.clone() for sums in sums_of(step.optimizer)]
    step.warm_up(32)
    assert all(map(torch.equal, sums_of(step.optimizer), sums_before))
    assert step.sums.both.tolist() == [0.0, 0.0]
    assert all(parameter.grad is None for parameter in step.model.parameters())
    expected = make_model(architecture).state_dict()
    for name, value in step.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("logit", [-5, 5])  # the gradients have opposite signs
@pytest.mark.parametrize("embedding_precision", ["fp32", "bf16", "fp16"])
def test_warming_up_keeps_the_sign_of_zeros_in_tables(embedding_precision: str, logit: float) -> None:
    """Small negative values of float16 are rounded to -0.0."""
    architecture = Architecture((3, 50), 4, (13, 8, 4), (8, 1), embedding_precision=embedding_precision)
    step = cpu_step(architecture, Loss("bce"))
    step.model.get_parameter("top_l.2.bias").data.fill_(logit)
    tables = [step.model.get_parameter(f"emb_l.{number}.weight").data for number in range(2)]
    for table in tables:
        table.fill_(-0.0)
    step.warm_up(32)
    assert all(bool(table.signbit().all()) for table in tables)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layer", ["bot_l.0", "bot_l.2", "top_l.0", "top_l.2", "top_l.4"])
def test_nonfinite_weight_makes_the_loss_nan(layer: str, precision: str) -> None:
    architecture = Architecture((3, 50), 16, (13, 300, 16), (300, 200, 1))
    model = make_model(architecture)
    model.get_parameter(f"{layer}.weight").data[0, 0] = torch.nan
    step = CpuStep(model, Loss("bce"), SGD(model), precision)
    step.train(make_batch(64, architecture.rows_per_table, np.random.default_rng(0)), 0.1)
    step.check()
    assert not torch.isfinite(step.sums.loss)


@pytest.mark.usefixtures("restored_threads")
def test_step_does_not_depend_on_the_number_of_threads() -> None:
    architecture = Architecture((3, 50, 5000), 48, (13, 40, 48), (40, 1))
    found = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        step, stream = cpu_step(architecture, Loss("bce")), np.random.default_rng(0)
        for _ in range(3):
            step.train(make_batch(100, architecture.rows_per_table, stream), 0.1)
        weights = torch.cat([value.double().flatten() for value in step.model.state_dict().values()])
        found.append((step.sums.both, weights))
    for sums, weights in found[1:]:
        torch.testing.assert_close(sums, found[0][0], rtol=1e-6, atol=0)
        torch.testing.assert_close(weights, found[0][1], rtol=1e-4, atol=1e-7)


def test_scores_do_not_depend_on_the_size_of_the_batch() -> None:
    architecture = Architecture((3, 50, 5000), 16, (13, 32, 16), (32, 1))
    scorer = CpuScorer(make_model(architecture), "fp32")
    batch = make_batch(90, architecture.rows_per_table, np.random.default_rng(2))
    whole, labels = scorer.score(batch)
    part = Batch(batch.dense[:40], batch.indices[:, :40].contiguous(), None, batch.labels[:40])
    torch.testing.assert_close(scorer.score(part)[0], whole[:40], rtol=1e-5, atol=1e-7)
    assert torch.equal(labels, batch.labels.squeeze(1))


def test_step_without_a_learning_rate_is_refused() -> None:
    """The CPU engine does not accumulate gradients over batches."""
    architecture = Architecture((3, 50), 4, (13, 8, 4), (8, 1))
    with pytest.raises(AssertionError):
        cpu_step(architecture, Loss("bce")).train(make_batch(4, (3, 50), np.random.default_rng(0)), None)


@pytest.mark.parametrize("layer", ["bot_l.0", "bot_l.2", "top_l.0", "top_l.2"])
def test_check_finds_nonfinite_weights_in_every_layer_with_a_relu(layer: str) -> None:
    step = cpu_step(Architecture((3, 50), 4, (13, 8, 4), (8, 5, 1)), Loss("bce"))
    step.model.get_parameter(f"{layer}.bias").data[0] = torch.inf
    step.check()
    assert torch.isnan(step.sums.loss)


def test_gradients_accumulate_until_a_batch_has_a_rate() -> None:
    architecture = Architecture((3, 50), 4, (13, 8, 4), (8, 1))
    summed, single = autograd_step(architecture, Loss("bce")), autograd_step(architecture, Loss("bce"))
    batch = make_batch(16, (3, 50), np.random.default_rng(0))
    summed.train(batch, None)
    for name, value in summed.model.state_dict().items():
        assert torch.equal(value, single.model.state_dict()[name]), name
    summed.train(batch, 0.1)
    single.train(batch, 0.2)
    for name, value in summed.model.state_dict().items():
        torch.testing.assert_close(value, single.model.state_dict()[name], rtol=1e-5, atol=1e-7)
