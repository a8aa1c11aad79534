"""The training step of the GPU against the general one; without a GPU, Triton's interpreter runs its kernels.

What the interpreter cannot show (pinned memory, streams, the captured graph) is not tested without a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from program import GOLDEN, RUNS, golden_flags
from small_models import CPU, make_model, random_architecture

from mlperf.cli.train import parse
from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.schema import COLUMNS, DENSE_FEATURES, FIRST_ID
from mlperf.engines.gpu import step as gpu_step
from mlperf.engines.gpu.step import GpuStep
from mlperf.engines.protocol import GeneralStep
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.optimizers import Optimizer
from mlperf.run.data import open_splits, prepared_data
from mlperf.run.model import architecture_of, initialize_model, make_scorer, make_step
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TINY = Architecture((3, 50, 5000), 16, (13, 20, 16), (24, 10, 1))


def on_device(model: DLRM_Net) -> DLRM_Net:
    """Return a model with the same weights where the kernels run."""
    moved = DLRM_Net(model.architecture, DEVICE)
    moved.load_state_dict(model.state_dict())
    return moved


def both_steps(
    architecture: Architecture, loss: Loss, precision: str = "fp32", max_ind_range: int = -1
) -> tuple[GeneralStep, GpuStep]:
    models = make_model(architecture), on_device(make_model(architecture))
    assert gpu_step.serves(models[1])
    optimizers = [Optimizer("sgd", model) for model in models]
    return (
        GeneralStep(models[0], loss, optimizers[0], "fp32"),
        GpuStep(models[1], loss, optimizers[1], precision, max_ind_range),
    )


def both_batches(
    size: int, rows_per_table: tuple[int, ...], stream: np.random.Generator, max_ind_range: int = -1
) -> tuple[Batch, RawBatch]:
    """Return the same samples as the general step takes them and as the file has them."""
    rows = np.zeros((size, COLUMNS), np.int32)
    rows[:, 0] = stream.random(size) < 0.3
    rows[:, 1:FIRST_ID] = stream.integers(-3, 1000, (size, DENSE_FEATURES))
    ids = rows[:, FIRST_ID : FIRST_ID + len(rows_per_table)]
    for table, count in enumerate(rows_per_table):
        ids[:, table] = stream.integers(0, count, size)
    if max_ind_range > 0:
        ids += max_ind_range * stream.integers(-2, 3, ids.shape, np.int32)
        ids[:] = ids % max_ind_range + max_ind_range * stream.integers(-2, 3, ids.shape, np.int32)
    dense = np.log(1 + np.maximum(rows[:, 1:FIRST_ID], 0).astype(np.float32))
    indices = ids.T.astype(np.int64) % (max_ind_range if max_ind_range > 0 else 2**31)
    labels = rows[:, :1].astype(np.float32)
    batch = Batch(torch.from_numpy(dense), torch.from_numpy(indices.copy()), None, torch.from_numpy(labels))
    raw = RawBatch(torch.from_numpy(rows), 0, RowSource(Path("made up"), rows_per_table, max_ind_range))
    return batch, raw


def check_equal(general: GeneralStep, fast: GpuStep) -> None:
    torch.testing.assert_close(fast.sums.both.cpu(), general.sums.both, rtol=1e-5, atol=0)
    expected = general.model.state_dict()
    for name, value in fast.model.state_dict().items():
        torch.testing.assert_close(
            value.cpu(), expected[name], rtol=2e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert fast.optimizer.state_dict() == general.optimizer.state_dict()


@pytest.mark.filterwarnings("ignore:(overflow|divide by zero) encountered:RuntimeWarning")
@pytest.mark.parametrize("seed", range(6))
def test_step_on_the_gpu_does_what_autograd_does(seed: int) -> None:
    stream = np.random.default_rng(seed)
    threshold = float(stream.choice([0.0, 0.3]))
    architecture = random_architecture(stream, loss_threshold=threshold)
    rows = architecture.rows_per_table[:26]  # as many as the file has columns for
    max_ind_range = int(stream.choice([-1, 4000]))
    architecture = replace(architecture, rows_per_table=rows)
    loss = Loss(str(stream.choice(["mse", "bce", "wbce"])), (0.5, 2.0))
    general, fast = both_steps(architecture, loss, max_ind_range=max_ind_range)
    fast.warm_up(20)  # on a GPU steps of this size are replayed from a graph, the others are not
    for size in (20, 7, 20, 40):
        valid = tuple(min(count, max_ind_range) if max_ind_range > 0 else count for count in rows)
        batch, raw = both_batches(size, valid, stream, max_ind_range)
        expected, labels = general.score(batch)
        found, found_labels = fast.score(raw)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(found_labels.cpu(), labels)
        general.train(batch, 0.1)
        fast.train(raw, 0.1)
    fast.check()
    check_equal(general, fast)


def test_gradients_of_a_row_are_summed_however_often_it_occurs() -> None:
    """One row in all samples, so that its run crosses many chunks of the update; and rows that share a chunk."""
    architecture = replace(TINY, rows_per_table=(1, 2, 40))
    general, fast = both_steps(architecture, Loss("bce"))
    batch, raw = both_batches(100, architecture.rows_per_table, np.random.default_rng(3))
    general.train(batch, 0.5)
    fast.train(raw, 0.5)
    check_equal(general, fast)


def test_programs_may_sum_over_several_tiles_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do in large batches."""
    monkeypatch.setattr(gpu_step, "_steps", lambda samples: 3)
    general, fast = both_steps(TINY, Loss("bce"))
    batch, raw = both_batches(250, TINY.rows_per_table, np.random.default_rng(4))
    general.train(batch, 0.5)
    fast.train(raw, 0.5)
    check_equal(general, fast)


def test_bfloat16_stays_close_to_float32_and_keeps_weights_in_float32() -> None:
    stream = np.random.default_rng(5)
    exact, low = both_steps(TINY, Loss("bce"), "bf16")
    for _ in range(3):
        batch, raw = both_batches(40, TINY.rows_per_table, stream)
        exact.train(batch, 0.1)
        low.train(raw, 0.1)
    torch.testing.assert_close(low.sums.loss.cpu(), exact.sums.loss, rtol=0.02, atol=0)
    for name, value in low.model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.cpu(), exact.model.state_dict()[name], rtol=0.05, atol=0.01)
    difference = (low.score(raw)[0].cpu() - exact.score(batch)[0]).abs().max()
    assert 0 < difference < 0.05


@pytest.mark.parametrize("mlp_top", [(24, 10, 1), (1,)])
def test_no_memory_is_read_before_it_is_written(mlp_top: tuple[int, ...]) -> None:
    """Every fresh tensor begins as NaN here; what pads a row is not written by all kernels."""
    architecture = replace(TINY, mlp_top=mlp_top)
    general, fast = both_steps(architecture, Loss("bce"))
    batch, raw = both_batches(20, architecture.rows_per_table, np.random.default_rng(6))
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        fast.train(raw, 0.1)
    finally:
        torch.use_deterministic_algorithms(False)
    general.train(batch, 0.1)
    check_equal(general, fast)


def test_warming_up_changes_nothing() -> None:
    general, fast = both_steps(TINY, Loss("bce"))
    fast.warm_up(10)
    assert fast.sums.both.tolist() == [0.0, 0.0]
    for name, value in fast.model.state_dict().items():
        assert torch.equal(value.cpu(), general.model.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("layer", ["bot_l.0", "bot_l.2", "top_l.0", "top_l.2", "top_l.4"])
def test_weights_that_are_not_finite_show_in_the_loss(layer: str) -> None:
    model = on_device(make_model(TINY))
    model.get_parameter(f"{layer}.weight").data[0, 0] = torch.nan
    fast = GpuStep(model, Loss("bce"), Optimizer("sgd", model), "fp32", -1)
    fast.train(both_batches(20, TINY.rows_per_table, np.random.default_rng(0))[1], 0.1)
    fast.check()
    assert not torch.isfinite(fast.sums.loss)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_a_prediction_that_is_not_a_number_is_not_clamped_to_one(threshold: float) -> None:
    model = on_device(make_model(replace(TINY, loss_threshold=threshold)))
    model.get_parameter("top_l.4.bias").data[0] = torch.nan
    fast = GpuStep(model, Loss("bce"), Optimizer("sgd", model), "fp32", -1)
    _, raw = both_batches(20, TINY.rows_per_table, np.random.default_rng(0))
    assert torch.isnan(fast.score(raw)[0]).all()
    fast.train(raw, 0.1)
    assert torch.isnan(fast.sums.loss)


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (17, 0, 2, "row 18, column 1: label 2 is not 0 or 1"),
        (18, FIRST_ID, 3, "row 19, column 15: index 3 is not in table 0, which has 3 rows"),
        (19, FIRST_ID + 25, -1, "row 20, column 40: index -1 is not in table 25, which has 5 rows"),
    ],
)
def test_an_invalid_value_is_named_by_its_place_in_the_file(
    row: int, column: int, value: int, message: str, tmp_path: Path
) -> None:
    architecture = replace(TINY, rows_per_table=(3, *[5] * 25))
    _, raw = both_batches(40, architecture.rows_per_table, np.random.default_rng(1))
    raw.rows[row, column] = value
    raw.rows[row + 10, column] = value  # a later one is not the first
    path = tmp_path / "rows.bin"
    raw.rows.numpy().tofile(path)
    _, fast = both_steps(architecture, Loss("bce"))
    part = RawBatch(raw.rows[16:], 16, RowSource(path, architecture.rows_per_table))
    fast.train(part, 0.1)
    with pytest.raises(RunError) as caught:
        fast.check()
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("name", ["sgd", "itself_wbce"])
def test_golden_run_is_reproduced(name: str, terabyte: Path) -> None:
    """Its first batches: the interpreter takes seconds for each."""
    batches = 3 if DEVICE.type == "cpu" else len(RUNS[name]["train_loss"])
    settings = parse([*golden_flags(name, terabyte), "--use-gpu"])
    prepared = prepared_data(settings.data)
    model = DLRM_Net(architecture_of(settings, prepared), CPU)
    initialize_model(settings, model, np.random.RandomState(settings.seed))
    model = on_device(model)
    step = make_step(settings, model, Optimizer("sgd", model))
    assert isinstance(step, GpuStep)
    source = replace(open_splits(settings, prepared).train, pin_memory=DEVICE.type == "cuda", limit=batches)
    losses = []
    for raw in step.batches(source, 0):
        step.sums.clear()
        step.train(raw, settings.training.schedule.learning_rate)
        losses.append(float(step.sums.loss) / raw.size)
    assert losses == pytest.approx(RUNS[name]["train_loss"][:batches], abs=2e-5)


DATA_SET = ("--data-generation=dataset", "--data-set=terabyte", f"--raw-data-file={GOLDEN}/terabyte/day")


def settings_of(*flags: str) -> Settings:
    return parse(["--use-gpu", "--arch-mlp-bot=13-4-2", *flags])


def test_the_flags_decide_on_the_step() -> None:
    architecture = Architecture((2, 3), 2, (13, 4, 2), (4, 1))

    def chosen(*flags: str) -> type:
        settings = settings_of(*flags)
        model = DLRM_Net(architecture, CPU)
        return type(make_step(settings, model, Optimizer(settings.training.optimizer, model)))

    assert chosen(*DATA_SET) is GpuStep
    assert chosen(*DATA_SET, "--optimizer=adagrad") is GeneralStep
    assert chosen(*DATA_SET, "--mlperf-grad-accum-iter=2") is GeneralStep
    assert chosen("--arch-embedding-size=2-3") is GeneralStep  # random data, several ids a sample


def test_several_threads_read_for_a_gpu_unless_told_otherwise() -> None:
    settings = settings_of(*DATA_SET)
    assert (settings.readers, settings.test_readers) == (4, 4)
    settings = settings_of(*DATA_SET, "--num-workers=2", "--test-num-workers=1")
    assert (settings.readers, settings.test_readers) == (2, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"interaction_op": "cat"},
        {"activation": "tanh"},
        {"weighted_pooling": "learned"},
        {"rows_per_table": (2,) * 32},
        {"dimension": 257, "mlp_bot": (13, 257)},
        {"mlp_top": (2000, 1)},
    ],
)
def test_what_the_step_cannot_do_is_left_to_the_general_one(change: dict[str, object]) -> None:
    sizes: dict[str, object] = {"rows_per_table": (2, 3), "dimension": 4, "mlp_bot": (13, 4), "mlp_top": (1,)}
    assert gpu_step.serves(DLRM_Net(Architecture(**sizes), CPU))  # type: ignore[arg-type]
    assert not gpu_step.serves(DLRM_Net(Architecture(**{**sizes, **change}), CPU))  # type: ignore[arg-type]


def scorer_and_note(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    scorer = make_scorer(settings_of(*DATA_SET), DLRM_Net(Architecture((2, 3), 2, (13, 4, 2), (4, 1)), CPU))
    return type(scorer).__name__, capsys.readouterr().err


def test_without_triton_the_general_way_is_taken_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package, name in (("mlperf.engines.gpu", "step"), ("mlperf.engines.gpu", "launch")):
        monkeypatch.setitem(sys.modules, f"{package}.{name}", None)
        monkeypatch.delattr(f"{package}.{name}")
    scorer, note = scorer_and_note(capsys)
    assert scorer == "GeneralScorer"
    assert note.startswith("the general, slower way is taken on the GPU; the fast one needs Triton")
    assert note.count("\n") == 1


@pytest.mark.skipif(DEVICE.type == "cuda", reason="Triton finds the GPU")
def test_where_triton_cannot_launch_the_general_way_is_taken_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    scorer, note = scorer_and_note(capsys)
    assert scorer == "GeneralScorer"
    assert "and a C compiler: 0 active drivers" in note


COMPILE = """
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.loss import Loss
from mlperf.engines.gpu import step as gpu_step
from mlperf.optim.optimizers import Optimizer

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float64: "*fp64"}
TYPES |= {torch.int32: "*i32", torch.int64: "*i64"}
compiled = {}


def compile_for_all(kernel, grid, *arguments, warps=4, **constants):
    # As a launch would: whole numbers and pointers that 16 divides are known to be so.
    signature, hints = {}, {}
    for number, (parameter, value) in enumerate(zip(kernel.params, arguments)):
        if parameter.is_constexpr:
            constants[parameter.name] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
        else:
            signature[parameter.name] = "i32" if isinstance(value, int) else "fp32"
        sixteen = isinstance(value, int) and value % 16 == 0 and not parameter.do_not_specialize
        if isinstance(value, torch.Tensor) or sixteen:
            hints[number,] = [["tt.divisibility", 16]]
    chosen = {name: constants.get(name) for name in ("DOT", "PRECISION", "CLEAR")}
    key = (kernel.fn.__name__, str(signature), str(chosen))  # not for every size
    if key in compiled:
        return
    signature |= dict.fromkeys(constants, "constexpr")
    signature = {name: signature[name] for name in kernel.arg_names}
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, values, hints)
    for capability in (80, 90, 100):
        binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
        compiled[key] = len(binary.asm["cubin"])


gpu_step.launch = compile_for_all
architecture = Architecture((100,) * 26, 128, (13, 512, 128), (1024, 256, 1))
for precision in ("fp32", "tf32", "bf16"):
    model = DLRM_Net(architecture, torch.device("cpu"))
    step = gpu_step.GpuStep(model, Loss("bce"), Optimizer("sgd", model), precision, 40000000)
    step.warm_up(128)
print(*sorted({name for name, _, _ in compiled}))
"""


def test_kernels_compile_for_every_generation_of_gpus(tmp_path: Path) -> None:
    """For compute capability 8.0, 9.0 and 10.0: the interpreter allows what does not compile."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**variables, "PYTHONPATH": ".", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kernels = "decode interact interact_backward last_layer relu_backward score update_rows update_weights"
    assert done.stdout.split() == kernels.split()
