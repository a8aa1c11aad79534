"""Several processes train like one: the same losses and metrics, for everything that torchrec supports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from equal_runs import DCN, MODEL, RATES, TRAIN, assert_equal_runs, run_on
from golden_folder import Golden
from processes import in_processes, launched, needs_torchrec
from program import GOLDEN, ROOT, RUNS, golden_flags, run_program
from test_golden_runs import check_metrics

pytestmark = [in_processes, needs_torchrec]

SEVERAL_IDS = f"--multi-hot-sizes={'-'.join(['3', '1', '2', '1', '7', '1'] * 4 + ['1', '9'])}"


@pytest.fixture
def flags(terabyte: Path) -> tuple[str, ...]:
    return (*MODEL, *TRAIN, f"--processed-data-file={terabyte}")


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rwsadagrad"])
def test_every_optimizer_trains_alike_on_any_number_of_processes(optimizer: str, flags: tuple[str, ...]) -> None:
    run = (*flags, f"--optimizer={optimizer}", f"--learning-rate={RATES[optimizer]}")
    assert_equal_runs([1, 2, 3, 4], (*run, "--sharding=table-wise"), (*run, "--sharding=row-wise"))


def test_schedules_losses_and_the_order_of_batches_are_the_same(flags: tuple[str, ...]) -> None:
    run = (*flags, "--learning-rate=0.1")
    assert_equal_runs(
        [2, 3],
        (*run, "--lr-num-warmup-steps=3", "--lr-decay-start-step=4", "--lr-num-decay-steps=3"),
        (*run, "--mlperf-bin-shuffle", "--nepochs=2"),
        (*run, "--loss-function=wbce", "--loss-weights=0.5-2", "--loss-threshold=0.4"),
        (*run, "--loss-function=mse"),
        (*run, "--arch-interaction-op=cat"),
        (*run, "--arch-interaction-itself", "--activation-function=tanh"),
    )


def test_dcnv2_with_several_ids_per_table_trains_alike(flags: tuple[str, ...]) -> None:
    assert_equal_runs([2, 3], (*flags, *DCN), (*flags, *DCN, SEVERAL_IDS, "--sharding=row-wise"))


def test_batches_that_do_not_divide_among_the_ranks_lose_no_rows(flags: tuple[str, ...]) -> None:
    run = (*flags, "--learning-rate=0.1")
    assert_equal_runs(
        [2, 3, 4],
        # The last batch of the golden data is smaller than the others, and there are fewer samples than ranks.
        (*run, "--num-batches=0", "--mini-batch-size=333", "--test-mini-batch-size=151", "--test-freq=2"),
        (*run, "--mini-batch-size=1", "--test-mini-batch-size=50"),
        (*flags, *DCN, SEVERAL_IDS, "--mini-batch-size=3", "--test-mini-batch-size=61"),
    )


@pytest.mark.parametrize("generation", ["random", "synthetic"])
def test_generated_batches_are_divided(generation: str) -> None:
    trace = [f"--data-trace-file={ROOT}/input/dist_emb_j.log"] if generation == "synthetic" else []
    run = (
        *trace,
        *("--arch-sparse-feature-size=8", "--arch-mlp-bot=5-16-8", "--arch-mlp-top=16-1", "--print-freq=1"),
        *("--arch-embedding-size=40-3-200", f"--data-generation={generation}", "--learning-rate=0.1"),
        *("--mini-batch-size=10", "--data-size=43"),
    )
    assert_equal_runs([2, 4], run, (*run, "--num-indices-per-lookup-fixed=1", "--sharding=row-wise"))


def test_products_in_bf16_differ_only_by_the_rounding_of_sums(flags: tuple[str, ...]) -> None:
    run = (*flags, "--learning-rate=0.1", "--test-freq=0")
    run = tuple(flag for flag in run if flag != "--mlperf-logging")
    in_fp32, in_bf16 = assert_equal_runs([2], run, (*run, "--precision=bf16"), engine="autograd", tolerance=5e-4)
    assert in_fp32 != in_bf16


# weighted_learned has pooling weights, which torchrec does not support.
@pytest.mark.parametrize("name", ["sgd", "rwsadagrad", "lr_policy", "cat", "itself_wbce", "kaggle_sgd"])
def test_two_processes_meet_the_golden_losses(name: str, terabyte: Path, kaggle: Path) -> None:
    data = terabyte if RUNS[name]["data"] == "terabyte" else kaggle
    run = run_on(2, golden_flags(name, data))
    assert run.losses == pytest.approx(RUNS[name]["train_loss"], abs=2e-5)
    check_metrics(run, name)


def test_two_processes_meet_the_golden_losses_of_adagrad_until_rounding_shows(terabyte: Path) -> None:
    # The first steps have the size of the learning rate, whatever the gradient: another order of summation is
    # enough to change a ReLU, from batch 24 on.
    run = run_on(2, golden_flags("adagrad", terabyte))
    expected = RUNS["adagrad"]["train_loss"]
    assert run.losses[:20] == pytest.approx(expected[:20], abs=2e-5)
    assert run.losses == pytest.approx(expected, abs=0.02)


def profiled(flags: Sequence[str], folder: Path) -> None:
    run = run_program(*flags, "--enable-profiling", cwd=folder)
    assert run.status == 0, run.stderr


def test_rank_0_writes_a_profile_of_its_steps(flags: tuple[str, ...], tmp_path: Path) -> None:
    launched(2, profiled, (*flags, "--num-batches=3", "--test-freq=2"), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["dlrm_s_pytorch.json", "dlrm_s_pytorch.prof", "mlperf_dlrm.log"]
    table = (tmp_path / "dlrm_s_pytorch.prof").read_text()
    for name in ("training on a batch", "evaluation of a batch"):
        assert name in table


@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_two_processes_meet_the_golden_losses_of_dcnv2(name: str, tmp_path: Path) -> None:
    golden = Golden(GOLDEN / "dcnv2")
    flags = (
        *golden.flags(name, tmp_path / "ids.npz"),
        *(f"--load-weights={golden.folder / 'initial.npz'}", f"--num-batches={golden.steps}", "--print-freq=1"),
    )
    run = run_on(2, flags)
    assert run.losses == pytest.approx(golden.runs[name].losses, abs=2e-5)
