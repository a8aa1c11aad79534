"""DLRM-DCNv2 on the GPU engine against autograd. Without a GPU, Triton's interpreter runs the kernels."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_folder import Golden
from gpu_models import (
    DEVICE,
    TINY,
    assert_equal_steps,
    both_bag_batches,
    both_batches,
    both_steps,
    make_gpu_step,
    on_device,
    random_rows,
)
from program import GOLDEN
from small_models import CPU, make_model, random_architecture

from mlperf.cli.train import parse
from mlperf.data.batch import RawBatch, RowSource
from mlperf.data.day_files import DayFiles
from mlperf.data.schema import CRITEO, DenseFormat
from mlperf.engines.choose import choose_engine, make_step
from mlperf.engines.gpu.bags import Bags
from mlperf.engines.gpu.engine import GpuEngine
from mlperf.engines.gpu.kernels.cross import cross_backward, cross_forward
from mlperf.engines.gpu.kernels.decode import number_rows
from mlperf.engines.gpu.kernels.pooling import pool
from mlperf.engines.gpu.step import GpuStep
from mlperf.models import make
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import make_optimizer
from mlperf.registry import OPTIMIZERS
from mlperf.runner.data import open_split, verified_data
from mlperf.runner.model import architecture_of
from mlperf.settings.model import Architecture
from mlperf.training.initial_weights import load_initial_weights
from mlperf.util.errors import RunError

ON_GPU = DEVICE.type == "cuda"
DATA_SET = ("--use-gpu", "--arch-mlp-bot=13-2", "--data-generation=dataset", "--processed-data-file=x")
CROSS = replace(TINY, interaction_op="dcn", cross_layers=2, cross_rank=5)
IDS = (3, 1, 4)  # of the tables of TINY


def drawn(*shape: int) -> torch.Tensor:
    """Return normally distributed values; the same shapes in the same order give the same values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE)


@pytest.mark.parametrize(("samples", "dimension"), [(1, 1), (37, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_of_a_bag_are_summed_beside_the_bottom_mlp(samples: int, dimension: int, dtype: torch.dtype) -> None:
    """Ids occur in several bags, and several times in one; they are numbered by table."""
    sizes, starts = (1, 7, 2), (0, 4, 54)
    bags = Bags.of(sizes, DEVICE)
    ids = [torch.randint(4, (samples, size), generator=torch.Generator().manual_seed(size)) for size in sizes]
    flat = torch.cat([one.flatten() for one in ids]).int().to(DEVICE)
    rows = number_rows(ids=flat, table_starts=torch.tensor(starts, dtype=torch.int32, device=DEVICE), bags=bags)
    numbered = [one.to(DEVICE) + start for one, start in zip(ids, starts, strict=True)]
    assert rows.tolist() == torch.cat([one.flatten() for one in numbered]).tolist()
    tables, bottom = drawn(60, dimension).to(dtype), drawn(samples, dimension)
    found = pool(tables=tables, embedding_rows=rows, bags=bags, bottom=bottom)
    expected = [bottom, *(tables[one].float().sum(1) for one in numbered)]
    torch.testing.assert_close(found, torch.cat(expected, 1))


@pytest.mark.parametrize("adds_gradient", [False, True])
@pytest.mark.parametrize("overwrites", [False, True])
def test_cross_layer_is_differentiated_in_one_pass(overwrites: bool, adds_gradient: bool) -> None:
    x0, up, x, gradient = (drawn(53, 140 + number)[:, :140].contiguous() for number in range(4))
    torch.testing.assert_close(cross_forward(x0=x0, up=up, x=x), x0 * up + x)
    before = drawn(53, 140)
    d_x0, d_up, d_bias = before.clone(), up.clone(), torch.full((140,), torch.nan, device=DEVICE)
    if overwrites:
        d_x0.fill_(torch.nan)
    cross_backward(
        gradient=gradient,
        x0=x0,
        up=d_up,
        d_x0=d_x0,
        d_bias=d_bias,
        overwrites=overwrites,
        adds_gradient=adds_gradient,
        tiles=2,
    )
    torch.testing.assert_close(d_up, gradient * x0)
    torch.testing.assert_close(d_bias, d_up.sum(0))
    torch.testing.assert_close(d_x0, gradient * up + before * (not overwrites) + gradient * adds_gradient)


@pytest.mark.filterwarnings("ignore:(overflow|divide by zero) encountered:RuntimeWarning")
@pytest.mark.parametrize("seed", range(4))
def test_step_equals_autograd_on_random_shapes(seed: int) -> None:
    """With another optimizer for each seed, and one or several ids per table."""
    stream = np.random.default_rng(seed)
    architecture = random_architecture(
        stream, interaction_op="dcn", cross_layers=1 + seed % 3, cross_rank=int(stream.integers(1, 40))
    )
    rows = architecture.rows_per_table[: CRITEO.tables if seed == 0 else 7]
    architecture = replace(architecture, rows_per_table=rows, interaction_itself=False)
    ids = None if seed == 0 else tuple(stream.integers(1, 6, len(rows)).tolist())
    loss = Loss("wbce", (0.5, 2.0)) if seed == 3 else Loss("bce_logits")
    general, fast = both_steps(
        architecture, loss, optimizer=tuple(OPTIMIZERS)[seed % 3], last_layer_scale=0.02, ids_per_table=ids
    )
    before = copy.deepcopy(general.model.state_dict())
    fast.warm_up(12)  # on a GPU, batches of this size replay a graph and the others do not
    for size in (12, 17):
        batch, raw = both_batches(size, rows, stream) if ids is None else both_bag_batches(size, rows, ids, stream)
        expected, labels = general.score(batch)
        found, found_labels = fast.score(raw)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(found_labels.cpu(), labels)
        general.train(batch, 0.02)
        fast.train(raw, 0.02)
    fast.check()
    for name, value in general.model.state_dict().items():
        assert not torch.equal(value, before[name]) or "bot_l" in name, f"{name} is not trained"
    assert_equal_steps(general, fast)


@pytest.mark.parametrize(("optimizer", "precision"), [("sgd", "bf16"), ("adagrad", "fp16")])
def test_tables_in_16_bits_are_trained_as_by_autograd(optimizer: str, precision: str) -> None:
    architecture = replace(CROSS, embedding_precision=precision, rows_per_table=(3, 50, 70))
    general, fast = both_steps(architecture, optimizer=optimizer, last_layer_scale=0.1, ids_per_table=IDS)
    stream = np.random.default_rng(7)
    for _ in range(2):
        batch, raw = both_bag_batches(10, architecture.rows_per_table, IDS, stream)
        general.train(batch, 0.1)
        fast.train(raw, 0.1)
    assert_equal_steps(general, fast)


def test_bfloat16_stays_close_to_float32_and_keeps_weights_in_float32() -> None:
    stream = np.random.default_rng(5)
    exact, low = both_steps(CROSS, Loss("bce_logits"), precision="bf16", ids_per_table=IDS)
    for _ in range(3):
        batch, raw = both_bag_batches(40, CROSS.rows_per_table, IDS, stream)
        exact.train(batch, 0.05)
        low.train(raw, 0.05)
    torch.testing.assert_close(low.sums.loss.cpu(), exact.sums.loss, rtol=0.02, atol=0)
    for name, value in low.model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.cpu(), exact.model.state_dict()[name], rtol=0.05, atol=0.02)
    difference = (low.score(raw)[0].cpu() - exact.score(batch)[0]).abs().max()
    assert 0 < difference < 0.1


def test_uninitialized_memory_is_never_read() -> None:
    """Every new tensor is filled with NaN."""
    general, fast = both_steps(CROSS, ids_per_table=IDS, optimizer="adagrad")
    batch, raw = both_bag_batches(20, CROSS.rows_per_table, IDS, np.random.default_rng(6))
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        fast.train(raw, 0.05)
    finally:
        torch.use_deterministic_algorithms(False)
    general.train(batch, 0.05)
    assert_equal_steps(general, fast)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_warming_up_changes_nothing(optimizer: str) -> None:
    general, fast = both_steps(CROSS, optimizer=optimizer, ids_per_table=IDS)
    fast.warm_up(10)
    assert fast.sums.both.tolist() == [0.0, 0.0]
    for name, value in fast.model.state_dict().items():
        assert torch.equal(value.cpu(), general.model.state_dict()[name]), name
    state = general.optimizer.state_dict()
    torch.testing.assert_close(fast.optimizer.state_dict(), state, rtol=0, atol=0, check_device=False)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("name", ["V.0.weight", "W.1.weight", "W.0.bias"])
def test_nonfinite_cross_weight_makes_the_loss_nan(name: str) -> None:
    model = on_device(make_model(CROSS))
    model.get_parameter(f"interaction.{name}").data.view(-1)[0] = torch.nan
    fast = make_gpu_step(model, ids_per_table=IDS)
    fast.train(both_bag_batches(20, CROSS.rows_per_table, IDS, np.random.default_rng(0))[1], 0.1)
    fast.check()
    assert not torch.isfinite(fast.sums.loss)


def test_tables_and_cross_network_are_equal_in_every_run() -> None:
    """The sums over samples for tables and cross network have a fixed order: no atomic additions."""
    found = []
    for _ in range(2):
        fast = both_steps(CROSS, precision="bf16", optimizer="adagrad", ids_per_table=IDS)[1]
        fast.train(both_bag_batches(40, CROSS.rows_per_table, IDS, np.random.default_rng(0))[1], 0.1)
        found.append([value for name, value in fast.model.state_dict().items() if name[0] in "ei"])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def scores_of(rows: np.ndarray, source: RowSource) -> torch.Tensor:
    fast = make_gpu_step(on_device(make_model(replace(TINY, rows_per_table=source.rows_per_table))))
    tensor = torch.from_numpy(rows)
    scores = fast.score(RawBatch(tensor.pin_memory() if ON_GPU else tensor, 0, source))[0].cpu()
    fast.check()
    return scores


def test_dense_features_are_decoded_in_the_format_of_their_source() -> None:
    rows_per_table = (3, 5)
    rows = random_rows(20, rows_per_table, np.random.default_rng(0))
    values = rows[:, CRITEO.dense_columns]
    expected = scores_of(rows, RowSource(Path("rows.bin"), rows_per_table))
    for shift, dense in ((3, DenseFormat(smallest=-3, offset=4)), (0, DenseFormat(is_float=True))):
        other = rows.copy()
        of_other = other[:, CRITEO.dense_columns]
        if dense.is_float:
            of_other[:] = np.log(1 + np.maximum(values, 0).astype(np.float32)).view(np.int32)
        else:
            of_other[:] = np.where(values > 0, values - shift, -7)
        found = scores_of(other, RowSource(Path("rows.bin"), rows_per_table, dense=dense))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_ids_are_taken_modulo_the_rows_of_their_table(tmp_path: Path) -> None:
    rows_per_table = (3, 50)
    source = RowSource(tmp_path / "rows.bin", rows_per_table, modulo_rows=True)
    rows = random_rows(20, rows_per_table, np.random.default_rng(0))
    expected = scores_of(rows, replace(source, modulo_rows=False))
    for column, count in enumerate(rows_per_table, CRITEO.first_id):
        rows[:, column] += count * np.arange(20, dtype=np.int32)
    assert torch.equal(scores_of(rows, source), expected)
    rows[7, CRITEO.first_id + 1] = -50
    rows.tofile(source.path)
    with pytest.raises(RunError, match="row 8, column 16: index -50 "):
        scores_of(rows, source)


@pytest.mark.parametrize("name", ["adagrad", "sgd"] if ON_GPU else ["adagrad"])
def test_golden_run_is_reproduced(name: str, tmp_path: Path) -> None:
    """The files are read in place. The interpreter runs the samples whose logits are known, forward."""
    golden = Golden(GOLDEN / "dcnv2")
    settings = parse([*golden.flags(name, tmp_path / "ids.npz"), "--use-gpu"])
    prepared = verified_data(settings, ("train",))
    model = make.make_model(architecture_of(settings, prepared), DEVICE)
    load_initial_weights(golden.folder / "initial.npz", model)
    step = make_step(model, settings, make_optimizer(name, model, epsilon=settings.training.adagrad_epsilon))
    assert isinstance(step, GpuStep)
    logits = torch.tensor(golden.content["runs"][name]["first_logits"])
    train = open_split(settings, prepared, "train")
    assert isinstance(train, DayFiles)
    source = replace(train, pin_memory=ON_GPU, batch_size=train.batch_size if ON_GPU else len(logits))
    scores = step.score(next(step.batches(source, 0)))[0][: len(logits)]
    torch.testing.assert_close(scores.cpu().logit(), logits, rtol=0, atol=2e-6)
    step.check()
    if not ON_GPU:
        return
    step.warm_up(source.batch_size)
    for raw, expected in zip(step.batches(source, 0), golden.runs[name].losses, strict=False):
        step.sums.clear()
        step.train(raw, golden.runs[name].rate)
        step.check()
        assert float(step.sums.loss) / raw.size == pytest.approx(expected, abs=2e-5)
    final = make.make_model(model.architecture, DEVICE)
    load_initial_weights(golden.folder / f"final_{name}.npz", final)
    tolerance = 1e-4 if name == "adagrad" else 1e-5
    for key, value in final.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=tolerance)


def test_profiled_step_names_the_parts_of_the_cross_network() -> None:
    sizes = (3, *[1] * 25)
    architecture = replace(CROSS, rows_per_table=(50,) * 26, dimension=2, mlp_bot=(13, 2), ids_per_table=sizes)
    model = on_device(make_model(architecture))
    settings = parse([*DATA_SET, *DCN, SEVERAL, "--enable-profiling"])
    step = make_step(model, settings, make_optimizer("adagrad", model))
    batch = both_bag_batches(4, (50,) * 26, sizes, np.random.default_rng(0))[1]
    with torch.profiler.profile() as found:
        step.train(batch, 0.1)
        step.score(batch)
        step.check()
    assert {"cross network", "gradient of the cross network"} < set(step.ranges.values())
    assert set(step.ranges.values()) <= {event.key for event in found.key_averages()}


DCN = ("--arch-interaction-op=dcn", "--loss-function=bce_logits", "--optimizer=adagrad")
SEVERAL = "--multi-hot-sizes=" + "-".join(["3", *["1"] * 25])


@pytest.mark.parametrize("flags", [(), (SEVERAL,), (SEVERAL, "--inference-only")])
def test_gpu_engine_supports_one_and_several_ids_per_table(flags: tuple[str, ...]) -> None:
    settings = parse([*DATA_SET, *DCN, *flags])
    sizes = settings.data.multi_hot.sizes
    model = make_model(replace(CROSS, ids_per_table=sizes))
    engine = choose_engine(model, settings)
    assert isinstance(engine, GpuEngine)
    assert engine.make_scorer(model, settings).ids_per_table == sizes


@pytest.mark.parametrize(
    ("flags", "model", "reason"),
    [
        (DCN, replace(CROSS, rows_per_table=(2,) * 1025), "1,025 tables exceed the limit of 1,024"),
        ((), replace(TINY, rows_per_table=(2,) * 32), "32 tables exceed the limit of 31"),
        (
            DCN,
            replace(CROSS, rows_per_table=(2,) * 26, dimension=40, mlp_top=(1,)),
            "1080 inputs of the last layer",
        ),
    ],
)
def test_what_the_gpu_engine_does_not_support_is_named(
    flags: tuple[str, ...], model: Architecture, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    choose_engine(make.make_model(model, CPU), parse([*DATA_SET, *flags]))
    assert caplog.messages[-1].startswith(f"engine: autograd on the GPU, because {reason}")
