"""Usage errors exit with status 2 and one line that names the flag, its value and what is allowed."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from program import GOLDEN, run_program, start_program

from mlperf.cli.train import parse
from mlperf.util.errors import UsageError

DATASET = "--data-generation=dataset --processed-data-file=x --arch-mlp-bot=13-2"
WRONG = [
    ("--mini-batch-size=0", "--mini-batch-size"),
    ("--mini-batch-size=two", "--mini-batch-size"),
    ("--mini-batch-size=--", "--mini-batch-size: '--'"),
    ("--loss-function=--", "--loss-function: '--'"),
    ("--round-targets=--", "--round-targets: '--'"),
    ("--test-mini-batch-size=0", "--test-mini-batch-size"),
    ("--nepochs=0", "--nepochs"),
    ("--learning-rate=nan", "--learning-rate"),
    ("--learning-rate=-1", "--learning-rate"),
    ("--learning-rate=inf", "--learning-rate"),
    ("--arch-sparse-feature-size=0", "--arch-sparse-feature-size"),
    ("--arch-embedding-size=4-0-2", "--arch-embedding-size"),
    ("--arch-embedding-size=4--2", "--arch-embedding-size"),
    ("--arch-mlp-bot=4-3-5", "--arch-mlp-bot"),
    ("--arch-mlp-bot=2", "--arch-mlp-bot"),
    ("--arch-mlp-top=4-2", "--arch-mlp-top"),
    ("--arch-interaction-op=mul", "--arch-interaction-op"),
    ("--precision=fp16", "--precision"),
    ("--precision=tf32", "--precision"),
    (f"{DATASET} --inference-only --precision=bf16 --quantize-emb-with-bit=8", "--precision"),
    ("--arch-interaction-op=cat --arch-interaction-itself", "--arch-interaction-itself"),
    ("--activation-function=gelu", "--activation-function"),
    ("--loss-function=hinge", "--loss-function"),
    ("--loss-weights=1-2", "--loss-weights"),
    ("--loss-function=wbce --loss-weights=1-2-3", "--loss-weights"),
    ("--loss-function=wbce --loss-weights=1-x", "--loss-weights"),
    ("--loss-threshold=0.5", "--loss-threshold"),
    ("--loss-threshold=-0.1", "--loss-threshold"),
    ("--round-targets=maybe", "--round-targets"),
    ("--local_rank=first", "--local_rank"),
    ("--data-generation=internal", "--data-generation"),
    ("--arch-interaction-op=cat --arch-mlp-bot=4-3-5", "--arch-mlp-bot"),
    ("--qr-flag --qr-operation=concat", "--arch-mlp-bot"),
    ("--qr-flag --qr-operation=div", "--qr-operation"),
    ("--qr-flag --qr-collisions=0", "--qr-collisions"),
    ("--qr-flag --md-flag", "--md-flag"),
    ("--qr-threshold=10", "--qr-threshold"),
    ("--md-temperature=0.5", "--md-temperature"),
    ("--md-flag --md-temperature=1.5", "--md-temperature"),
    ("--quantize-mlp-with-bit=8", "--quantize-mlp-with-bit"),
    ("--quantize-emb-with-bit=16", "--quantize-emb-with-bit"),
    (f"{DATASET} --inference-only --quantize-emb-with-bit=4 --save-onnx", "--save-onnx"),
    (f"{DATASET} --inference-only --use-gpu --quantize-mlp-with-bit=8", "--quantize-mlp-with-bit=8"),
    (f"{DATASET} --inference-only --debug-mode", "--debug-mode"),
    ("--print-precision=-1", "--print-precision"),
    ("--data-trace-file=x", "--data-trace-file"),
    ("--data-trace-enable-padding", "--data-trace-enable-padding"),
    ("--data-generation=synthetic --rand-data-dist=gaussian", "--rand-data-dist"),
    ("--data-generation=synthetic --test-freq=2", "--test-freq"),
    ("--rand-data-sigma=2", "--rand-data-sigma"),
    ("--rand-data-dist=gaussian --rand-data-min=-0.1", "--rand-data-min"),
    ("--rand-data-dist=gaussian --rand-data-min=0.6 --rand-data-max=0.5", "--rand-data-min"),
    ("--rand-data-dist=gaussian --rand-data-sigma=0", "--rand-data-sigma"),
    ("--rand-data-dist=zipf", "--rand-data-dist"),
    ("--data-size=0", "--data-size"),
    ("--num-batches=-1", "--num-batches"),
    ("--num-indices-per-lookup=0", "--num-indices-per-lookup"),
    ("--optimizer=adam", "--optimizer"),
    ("--lr-num-warmup-steps=-1", "--lr-num-warmup-steps"),
    ("--lr-num-warmup-steps=5 --lr-decay-start-step=3 --lr-num-decay-steps=9", "--lr-decay-start-step"),
    ("--mlperf-grad-accum-iter=0", "--mlperf-grad-accum-iter"),
    ("--numpy-rand-seed=-1", "--numpy-rand-seed"),
    ("--numpy-rand-seed=4294967296", "--numpy-rand-seed"),
    ("--print-freq=0", "--print-freq"),
    ("--test-freq=-2", "--test-freq"),
    (f"{DATASET} --test-freq=0 --mlperf-auc-threshold=0.8", "--test-freq=0"),
    (f"{DATASET} --test-freq=0 --mlperf-acc-threshold=0.7", "--mlperf-acc-threshold=0.7"),
    ("--test-freq=5", "--test-freq"),
    ("--inference-only", "--inference-only"),
    ("--mlperf-auc-threshold=80.25", "--mlperf-auc-threshold"),
    ("--mlperf-acc-threshold=75", "--mlperf-acc-threshold"),
    ("--mlperf-auc-threshold=0.8", "--mlperf-auc-threshold"),
    ("--processed-data-file=x", "--processed-data-file"),
    ("--data-generation=dataset", "--raw-data-file"),
    (f"{DATASET} --arch-mlp-bot=12-2", "--arch-mlp-bot"),
    (f"{DATASET} --max-ind-range=0", "--max-ind-range"),
    (f"{DATASET} --data-sub-sample-rate=1", "--data-sub-sample-rate"),
    (f"{DATASET} --data-randomize=week", "--data-randomize"),
    (f"{DATASET} --data-set=avazu", "--data-set"),
    (f"{DATASET} --save-model=x.pt", "--save-model"),
    (f"{DATASET} --save-model=x.pt --test-freq=0", "--test-freq of at least 1"),
    (f"{DATASET} --save-model=x.pt --inference-only", "--save-model cannot be used with --inference-only"),
    (f"{DATASET} --save-model=x/ --test-freq=5", "--save-model: 'x/' names a folder"),
    (f"{DATASET} --save-model=/dev/null --test-freq=5", "--save-model=/dev/null is a device or pipe; must be a"),
    (f"{DATASET} --load-model=", "--load-model: the name is empty"),
    (f"{DATASET} --processed-data-file=x/", "--processed-data-file: 'x/' names a folder"),
    (f"{DATASET} --raw-data-file=x/.", "such as x/NAME"),
    (f"{DATASET} --mlperf-log-file=x.log", "--mlperf-log-file=x.log requires --mlperf-logging"),
    (f"{DATASET} --mlperf-submitter=Acme", "--mlperf-submitter=Acme requires --mlperf-logging"),
    (f"{DATASET} --mlperf-cache-cleared", "--mlperf-cache-cleared=true requires --mlperf-logging"),
    (f"{DATASET} --mlperf-edition=2.0.0", "--mlperf-edition=2.0.0 requires --mlperf-logging"),
    ("--mlperf-edition=9.9.9", "--mlperf-edition: '9.9.9' is unknown; allowed: 0.7.0, 1.0.0"),
    ("--mlperf-edition=6.1.0", "--mlperf-edition: '6.1.0' includes dlrmv4, which is not supported"),
    (
        "--mlperf-edition=6.0.0",
        "--mlperf-edition=6.0.0 includes dlrm_dcnv2, but --arch-interaction-op=dot belongs to",
    ),
    ("--mlperf-edition=2.1.0 --arch-interaction-op=dcn", "belongs to dlrm_dcnv2: allowed are 3.0.0, 3.1.0"),
    ("--data-generation=synthetic --data-trace-file=x/", "--data-trace-file: 'x/' names a folder"),
    (f"{DATASET} --save-model=none/x --test-freq=5", "--save-model=none/x: folder none does not exist"),
    (f"{DATASET} --save-model=x.pt --test-freq=5 --mlperf-grad-accum-iter=2", "--test-freq"),
    ("--no-such-flag=1", "--no-such-flag"),
    ("--mini-batch=2", "--mini-batch"),
    ("surplus", "surplus"),
]


@pytest.mark.parametrize(("flags", "named"), WRONG)
def test_usage_error_is_one_line_that_names_the_flag(flags: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(flags.split())
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_usage_error_exits_with_status_2_and_prints_only_one_line(tmp_path: Path) -> None:
    run = run_program("--mini-batch-size=0", cwd=tmp_path)
    assert (run.status, run.stdout) == (2, "")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "YES", None])
def test_boolean_flags_accept_words_or_no_value(text: str | None) -> None:
    flag = "--round-targets" if text is None else f"--round-targets={text}"
    assert parse([flag]).data.generated.round_targets is True
    assert parse(["--round-targets=no"]).data.generated.round_targets is False


def test_missing_gpu_is_a_usage_error(tmp_path: Path) -> None:
    run = start_program("--use-gpu", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert run.status == 2
    assert "--use-gpu" in run.stderr


def test_driver_that_does_not_work_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver is too old.\nUpdate it.", stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", warn)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    run = run_program("--use-gpu", cwd=tmp_path)
    assert (run.status, run.stdout) == (2, "")
    assert run.stderr == (
        "dlrm_s_pytorch.py: error: --use-gpu: no GPU is visible to PyTorch: CUDA initialization: The NVIDIA "
        "driver is too old; omit the flag to run on the CPU\n"
    )


LAUNCHED = [
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2"),
    ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE=8"),
    ({"PMI_SIZE": "2", "PMI_RANK": "0"}, "PMI_SIZE=2"),
    ({"MV2_COMM_WORLD_SIZE": "4"}, "MV2_COMM_WORLD_SIZE=4"),
    ({"JSM_NAMESPACE_SIZE": "6"}, "JSM_NAMESPACE_SIZE=6"),
    ({"PMIX_RANK": "1"}, "PMIX_RANK=1"),  # states no total
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM_NTASKS=4"),
    ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_ID": "0"}, "SLURM_NTASKS=4"),
    ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "SLURM_STEP_NUM_TASKS=2"),
]


@pytest.mark.parametrize(("variables", "named"), LAUNCHED, ids=str)
def test_more_than_one_process_is_rejected_however_it_was_started(
    variables: dict[str, str], named: str, tmp_path: Path
) -> None:
    run = run_program(cwd=tmp_path, **variables)
    assert run.status == 2
    assert named in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        ("tools/prepare_criteo.py", ("--raw-data-file=x", "--processed-data-file=y")),
        ("tools/make_sample.py", ()),
        ("tools/make_submission.py", ("--submitter=a", "--system=b")),
        ("tools/stack_distances.py", ("profile", "x", "y")),
        ("tools/plot_run.py", ("x",)),
        ("tools/report.py", ("x",)),
        ("tools/visualize.py", ("--load-model=x", "--data-generation=dataset", "--processed-data-file=y")),
    ],
)
def test_every_program_that_writes_files_rejects_several_processes(
    program: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    run = run_program(*flags, program=program, cwd=tmp_path, OMPI_COMM_WORLD_SIZE="2")
    assert run.status == 2
    assert "OMPI_COMM_WORLD_SIZE=2" in run.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "1", "LOCAL_RANK": "0", "RANK": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0", "PMIX_RANK": "0"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},  # the shell of salloc
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_ID": "1"},
    ],
    ids=str,
)
def test_one_process_of_a_launcher_or_the_shell_of_a_job_is_accepted(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    parse([])


@pytest.mark.parametrize("which", ["--raw-data-file", "--processed-data-file", "--load-model"])
def test_missing_file_is_named(which: str, terabyte: Path, tmp_path: Path) -> None:
    flags = [f"{which}={tmp_path}/none"]
    if which == "--load-model":
        flags += [f"--processed-data-file={terabyte}", "--inference-only"]
    run = run_program(
        *("--data-generation=dataset", "--data-set=terabyte", "--arch-mlp-bot=13-2", *flags), cwd=tmp_path
    )
    assert run.status == 1
    assert f"{tmp_path}/none" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_index_limit_that_differs_from_the_prepared_data_is_rejected(terabyte: Path, tmp_path: Path) -> None:
    run = run_program(
        *("--data-generation=dataset", "--data-set=terabyte", "--arch-mlp-bot=13-2", "--max-ind-range=100"),
        f"--processed-data-file={terabyte}",
        cwd=tmp_path,
    )
    assert run.status == 2
    assert "--max-ind-range=100" in run.stderr
    assert "40000000" in run.stderr


def test_tables_larger_than_memory_are_rejected(tmp_path: Path) -> None:
    run = run_program("--arch-embedding-size=900000000000-3-2", cwd=tmp_path)
    assert run.status == 1
    assert "GB" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_trainer_prepares_missing_data(tmp_path: Path) -> None:
    run = run_program(
        *("--data-generation=dataset", "--data-set=terabyte", "--arch-mlp-bot=13-2", "--num-batches=3"),
        *(f"--raw-data-file={GOLDEN}/terabyte/day", f"--processed-data-file={tmp_path}/x.npz"),
        "--test-freq=2",
        cwd=tmp_path,
    )
    assert run.status == 0, run.stderr
    assert (tmp_path / "x.json").exists()
    assert len(run.losses) == 3


_TOO_LONG = "x" * 256


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("dlrm_s_pytorch.py", (f"--load-model={_TOO_LONG}",)),
        ("dlrm_s_pytorch.py", (*DATASET.split(), f"--processed-data-file={_TOO_LONG}")),
        ("dlrm_s_pytorch.py", ("--data-generation=synthetic", f"--data-trace-file={_TOO_LONG}")),
        ("tools/plot_run.py", (_TOO_LONG,)),
        ("tools/report.py", (_TOO_LONG,)),
        ("tools/plot_run.py", (f"{_TOO_LONG}/x",)),
        ("tools/check_submission.py", (_TOO_LONG,)),
        ("tools/check_submission.py", (".", f"--rcps={_TOO_LONG}")),
        ("tools/verify_data.py", (_TOO_LONG,)),
        ("tools/stack_distances.py", ("profile", _TOO_LONG, "y")),
    ],
    ids=lambda value: " ".join(value).replace(_TOO_LONG, "LONG") if isinstance(value, tuple) else None,
)
def test_name_of_an_input_that_is_too_long_is_an_error_of_one_line(
    program: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    run = run_program(*arguments, cwd=tmp_path, program=program)
    assert run.status in (1, 2)
    assert _TOO_LONG in run.stderr
    assert "File name too long" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
