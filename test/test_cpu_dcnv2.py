"""DLRM-DCNv2 on the CPU engine: against the autograd engine on random shapes, and against golden data."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from dlrm_dcnv2_numpy import Data, lookup_tables
from program import GOLDEN
from small_models import (
    CPU,
    EARLIER_STEPS,
    SEED,
    assert_same_training,
    make_bag_batch,
    make_batch,
    make_model,
    make_trained_optimizer,
    random_architecture,
    sums_of,
)

from mlperf.cli.train import parse
from mlperf.data.batch import Batch
from mlperf.engines import choose
from mlperf.engines.autograd.engine import AutogradEngine
from mlperf.engines.autograd.step import AutogradStep
from mlperf.engines.cpu.engine import CpuEngine
from mlperf.engines.cpu.loops import cross, pooling
from mlperf.engines.cpu.row_updater import make_row_updater
from mlperf.engines.cpu.scorer import CpuScorer
from mlperf.engines.cpu.step import CpuStep
from mlperf.engines.warm_up import bag_offsets
from mlperf.models.dlrm import Architecture
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import make_optimizer
from mlperf.registry import OPTIMIZERS
from mlperf.training.initial_weights import array_name, load_initial_weights

IDS = (1, 4, 7)
ARCHITECTURE = Architecture(
    (3, 5, 400), 16, (13, 40, 16), (30, 1), interaction_op="dcn", cross_layers=3, cross_rank=9
)
FOLDER = GOLDEN / "dcnv2"
EXPECTED = json.loads((FOLDER / "golden.json").read_text())
LOSSES = ("bce_logits", "bce", "mse", "wbce")


def cpu_step(
    architecture: Architecture = ARCHITECTURE,
    ids_per_table: tuple[int, ...] | None = IDS,
    *,
    optimizer: str = "adagrad",
    precision: str = "fp32",
    loss: str = "bce_logits",
) -> CpuStep:
    model = make_model(architecture)
    weighted = Loss(loss, (0.5, 2.0))
    return CpuStep(model, weighted, make_trained_optimizer(optimizer, model), precision, ids_per_table)


def autograd_step(architecture: Architecture, optimizer: str, loss: str = "bce_logits") -> AutogradStep:
    model = make_model(architecture)
    return AutogradStep(model, Loss(loss, (0.5, 2.0)), make_trained_optimizer(optimizer, model), "fp32")


def batches(architecture: Architecture, ids: tuple[int, ...] | None, *sizes: int) -> list[Batch]:
    stream, rows = np.random.default_rng(0), architecture.rows_per_table
    if ids is None:
        return [make_batch(size, rows, stream) for size in sizes]
    return [make_bag_batch(size, rows, ids, stream) for size in sizes]


@pytest.mark.parametrize("seed", range(6))
def test_cpu_engine_trains_dcnv2_as_autograd_does(seed: int) -> None:
    """A small table has rows that occur several times in a bag, and in most bags of a batch."""
    stream, optimizer = np.random.default_rng(seed), list(OPTIMIZERS)[seed % len(OPTIMIZERS)]
    layers, rank = int(stream.integers(1, 4)), int(stream.integers(1, 40))
    architecture = random_architecture(stream, interaction_op="dcn", cross_layers=layers, cross_rank=rank)
    ids = tuple(stream.integers(1, 9, len(architecture.rows_per_table)).tolist()) if seed else None
    loss = LOSSES[seed % len(LOSSES)]
    general = autograd_step(architecture, optimizer, loss)
    fast = cpu_step(architecture, ids, optimizer=optimizer, loss=loss)
    fast.warm_up(64)
    *training, last = batches(architecture, ids, 64, 64, 7, 130, 50)
    for batch in training:
        general.train(batch, 0.05)
        fast.train(batch, 0.05)
    assert_same_training(fast, general, rtol=5e-4, atol=5e-6, sums_atol=1e-7)
    assert fast.optimizer.steps == general.optimizer.steps == EARLIER_STEPS + 4
    torch.testing.assert_close(fast.score(last)[0], general.score(last)[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("embedding_precision", ["bf16", "fp16"])
def test_bags_of_tables_in_16_bits_are_trained_as_autograd_does(embedding_precision: str, optimizer: str) -> None:
    """Both draw the same random numbers, so a value differs only where a rounding difference decides."""
    architecture = replace(ARCHITECTURE, embedding_precision=embedding_precision)
    general, fast = autograd_step(architecture, optimizer), cpu_step(architecture, optimizer=optimizer)
    for batch in batches(architecture, IDS, 100, 100, 100):
        for step in (general, fast):
            step.train(batch, 0.1)
    initial = make_model(architecture).row_parameters()[0].values
    assert (fast.tables.weight != initial).float().mean() > 0.1
    assert (fast.tables.weight != general.model.row_parameters()[0].values).float().mean() < 0.01


@pytest.mark.parametrize("name", EXPECTED["runs"])
def test_losses_weights_and_scores_are_those_of_the_reference(name: str) -> None:
    sizes, run = EXPECTED["model"], EXPECTED["runs"][name]
    rows, ids = tuple(sizes["table_rows"]), tuple(sizes["multi_hot_sizes"])
    architecture = Architecture(
        rows,
        sizes["embedding_dim"],
        tuple(sizes["bottom"]),
        tuple(sizes["top"][1:]),
        interaction_op="dcn",
        cross_layers=sizes["cross_layers"],
        cross_rank=sizes["cross_rank"],
    )
    model = make_model(architecture)
    load_initial_weights(FOLDER / "initial.npz", model)
    optimizer = make_optimizer(name, model, epsilon=run.get("eps", 0.0))
    step, lookup = CpuStep(model, Loss("bce_logits"), optimizer, "fp32", ids), lookup_tables(rows, ids)

    def batch_of(data: Data) -> Batch:
        found = [table[one % len(table)].ravel() for table, one in zip(lookup, data.sparse.T, strict=True)]
        size = len(data.labels)
        return Batch(
            torch.from_numpy(data.dense),
            torch.from_numpy(np.concatenate(found)).long(),
            bag_offsets(ids, size, CPU),
            torch.from_numpy(data.labels).float(),
            ids,
        )

    training, size, losses = Data.read(FOLDER / "onehot", range(23)), EXPECTED["batch"], []
    for number in range(EXPECTED["steps"]):
        step.sums.clear()
        step.train(batch_of(training.rows(number * size, (number + 1) * size)), run["lr"])
        losses.append(float(step.sums.loss) / size)
    assert losses == pytest.approx(run["loss"], abs=2e-6)
    with np.load(FOLDER / f"final_{name}.npz") as archive:
        for weight, value in model.state_dict().items():
            np.testing.assert_allclose(value, archive[array_name(weight)], rtol=0, atol=2e-5)
    held_out = Data.read(FOLDER / "onehot", [23])
    scores, labels = step.score(batch_of(held_out.rows(0, run["val"]["samples"])))
    loss = torch.nn.functional.binary_cross_entropy(scores, labels)
    assert float(loss) == pytest.approx(run["val"]["logloss"], abs=1e-5)


def test_bf16_stays_close_to_float32() -> None:
    architecture = replace(ARCHITECTURE, cross_rank=40)
    exact, low = cpu_step(architecture), cpu_step(architecture, precision="bf16")
    *training, last = batches(architecture, IDS, *[256] * 12)
    for batch in training:
        for step in (exact, low):
            step.train(batch, 0.01)
    assert low.sums.loss != exact.sums.loss
    torch.testing.assert_close(low.sums.loss, exact.sums.loss, rtol=2e-3, atol=0)
    difference = (low.score(last)[0] - exact.score(last)[0]).abs()
    assert 1e-4 < difference.max() < 0.03


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("precision", "embedding_precision"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_continued_step_equals_an_undisturbed_one(
    precision: str, embedding_precision: str, optimizer: str
) -> None:
    architecture = replace(ARCHITECTURE, embedding_precision=embedding_precision)
    whole = cpu_step(architecture, optimizer=optimizer, precision=precision)
    training = batches(architecture, IDS, *[100] * 6)
    for batch in training[:3]:
        whole.train(batch, 0.1)
    model = make_model(architecture)
    model.load_state_dict(whole.model.state_dict())
    resumed_optimizer = make_optimizer(optimizer, model, seed=SEED)
    resumed_optimizer.load_state_dict(whole.optimizer.state_dict(), "saved")
    resumed_optimizer.continue_at(EARLIER_STEPS + 3)
    resumed = CpuStep(model, Loss("bce_logits"), resumed_optimizer, precision, IDS)
    resumed.warm_up(100)
    for batch in training[3:]:
        for step in (whole, resumed):
            step.train(batch, 0.1)
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert all(map(torch.equal, sums_of(resumed_optimizer), sums_of(whole.optimizer)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_warming_up_changes_nothing(precision: str, optimizer: str) -> None:
    step = cpu_step(optimizer=optimizer, precision=precision)
    before = [sums.clone() for sums in sums_of(step.optimizer)]
    step.warm_up(32)
    assert all(map(torch.equal, sums_of(step.optimizer), before))
    assert step.sums.both.tolist() == [0.0, 0.0]
    expected = make_model(ARCHITECTURE).state_dict()
    for name, value in step.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_update_of_rows_does_not_depend_on_the_number_of_threads(optimizer: str) -> None:
    found = []
    batch = batches(ARCHITECTURE, IDS, 300)[0]
    gradients = torch.randn(300, 4, 16, generator=torch.Generator().manual_seed(1))[:, 1:]
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        model = make_model(ARCHITECTURE)
        tables = model.tables
        assert isinstance(tables, FlatTables)
        updater = make_row_updater(tables, make_trained_optimizer(optimizer, model), IDS)
        updater.update(batch.indices, gradients, 0.1)
        found.append(tables.weight)
    assert not torch.equal(found[0], make_model(ARCHITECTURE).row_parameters()[0].values)
    assert all(torch.equal(weight, found[0]) for weight in found[1:])


@pytest.mark.usefixtures("restored_threads")
def test_step_does_not_depend_on_the_number_of_threads() -> None:
    found = []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        step = cpu_step()
        for batch in batches(ARCHITECTURE, IDS, 100, 100):
            step.train(batch, 0.1)
        found.append(torch.cat([value.flatten() for value in step.model.state_dict().values()]))
    for weights in found[1:]:
        torch.testing.assert_close(weights, found[0], rtol=1e-4, atol=1e-6)


def test_scores_do_not_depend_on_the_size_of_the_batch() -> None:
    scorer = CpuScorer(make_model(ARCHITECTURE), "fp32", ids_per_table=IDS)
    batch = batches(ARCHITECTURE, IDS, 90)[0]
    whole = scorer.score(batch)[0]
    bags = batch.indices.split([90 * count for count in IDS])
    part = torch.cat([bag[: 40 * count] for bag, count in zip(bags, IDS, strict=True)])
    first = Batch(batch.dense[:40], part, bag_offsets(IDS, 40, CPU), batch.labels[:40], IDS)
    torch.testing.assert_close(scorer.score(first)[0], whole[:40], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("weight", ["interaction.V.1.weight", "interaction.W.0.weight", "interaction.W.2.bias"])
def test_check_finds_nonfinite_weights_of_the_cross_network(weight: str, precision: str) -> None:
    step = cpu_step(precision=precision)
    step.check()
    assert torch.isfinite(step.sums.loss)
    step.model.get_parameter(weight).data.view(-1)[0] = torch.inf
    step.check()
    assert torch.isnan(step.sums.loss)


DATA_SET = ("--data-generation=dataset", "--processed-data-file=x", "--arch-mlp-bot=13-2", "--optimizer=adagrad")
BAGS = f"--multi-hot-sizes={'-'.join(['1', '4'] * 13)}"
CROSS = ("--arch-interaction-op=dcn", BAGS, "--loss-function=bce_logits")


@pytest.mark.parametrize(
    ("flags", "interaction", "engine", "reason"),
    [
        (CROSS, "dcn", CpuEngine, "engine: cpu"),
        (("--arch-interaction-op=dcn",), "dcn", CpuEngine, "engine: cpu"),
        ((*CROSS, "--mini-batch-size=600000000"), "dcn", AutogradEngine, "2,400,000,000 ids of a table"),
        ((BAGS,), "dot", AutogradEngine, "--multi-hot-sizes with --arch-interaction-op=dot reproduces earlier"),
        ((BAGS, "--engine=cpu"), "dot", CpuEngine, "engine: cpu"),
        ((), "dot", AutogradEngine, "reproduces published losses"),
    ],
)
def test_engine_is_chosen_by_interaction_and_ids(
    flags: tuple[str, ...],
    interaction: str,
    engine: type[CpuEngine | AutogradEngine],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    settings = parse([*DATA_SET, *flags])
    model = make_model(
        replace(ARCHITECTURE, interaction_op=interaction, ids_per_table=settings.data.multi_hot.sizes)
    )
    assert isinstance(choose.choose_engine(model, settings), engine)
    assert reason in caplog.text


def test_profile_names_the_parts_of_a_step() -> None:
    settings = parse([*DATA_SET, *CROSS, "--enable-profiling"])
    sizes = settings.data.multi_hot.sizes
    model = make_model(replace(ARCHITECTURE, rows_per_table=(3, 5) * 13, ids_per_table=sizes))
    step = choose.make_step(model, settings, make_optimizer("adagrad", model))
    assert isinstance(step, CpuStep)
    assert {"cross network", "gradient and update of the cross network"} <= set(step.ranges.values())
    batch = batches(model.architecture, sizes, 8)[0]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        step.train(batch, 0.1)
        step.score(batch)
        step.check()
    assert set(step.ranges.values()) <= {event.key for event in found.key_averages()}


def test_loops_of_the_cross_network_are_compiled_only_for_it() -> None:
    loops = (pooling.make_pooling, cross.cross_forward, cross.cross_backward, cross.gradient_sum)
    for loop in loops:
        loop.cache_clear()
    dot = replace(ARCHITECTURE, interaction_op="dot")
    cpu_step(dot, None, loss="bce", precision="bf16").warm_up(8)
    assert [loop.cache_info().misses for loop in loops] == [0, 0, 0, 0]
    cpu_step(precision="bf16").warm_up(8)
    assert [loop.cache_info().misses for loop in loops] == [1, 1, 1, 1]
