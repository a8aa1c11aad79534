"""Flags that run_and_time.sh accepts and refuses."""

from __future__ import annotations

import pytest

from mlperf.benchmarks import DLRM_DCNV2
from mlperf.cli.check_flags import main as check_flags

TINY = ("--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--arch-mlp-top=2-1")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--inference-only", "a timed run trains"),
        ("--numpy-rand-seed=7", "set by SEED"),
        ("--mlperf-edition=1.0.0", "set by EDITION"),
        ("--mlperf-log-file=x.log", "set by LOGDIR"),
        ("--mlperf-cache-cleared", "drops the page cache itself"),
        ("--data-generation=random", "selected by DATADIR"),
        ("--data-set=kaggle", "selected by DATADIR"),
        ("--raw-data-file=x", "selected by DATADIR"),
        ("--processed-data-file=x", "selected by DATADIR"),
        ("--max-ind-range=100", "MAX_IND_RANGE"),
        ("--data-randomize=none", "prepared without it"),
        ("--data-sub-sample-rate=0.5", "prepared without it"),
        ("--load=model.pt", "unrecognized"),
    ],
)
def test_flag_that_would_make_the_output_of_a_timed_run_untrue_is_refused(
    flag: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_flags(["--test-freq=5", "--", flag]) == 2
    error = capsys.readouterr().err
    assert flag in error
    assert words in error
    assert len(error.splitlines()) == 1


def test_flags_of_experiments_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_flags(["--numpy-rand-seed=7", "--", *TINY, "--precision=bf16", "--num-batches=4"]) == 0
    assert capsys.readouterr().err == ""


def test_flag_that_the_user_has_not_typed_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    of_benchmark = DLRM_DCNV2.flags
    assert check_flags([*of_benchmark, "--", "--optimizer=sgd"]) == 2
    assert capsys.readouterr().err == (
        "dlrm_s_pytorch.py: error: --adagrad-epsilon=1e-08 requires --optimizer=adagrad or rwsadagrad "
        "(the benchmark and its configuration set --adagrad-epsilon=1e-08)\n"
    )
    assert check_flags([*of_benchmark, "--", "--adagrad-epsilon=1", "--optimizer=sgd"]) == 2
    assert "the benchmark" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--embedding-precision=fp16", "--embedding-precision=fp16 is not supported by several processes"),
        ("--mlperf-grad-accum-iter=2", "--mlperf-grad-accum-iter=2 is not supported by several processes"),
        ("--sharding=data-parallel", "--sharding: 'data-parallel' is refused: TorchRec"),
        ("--engine=cpu", "--engine=cpu runs on one process, but 8 were started"),
    ],
)
def test_flag_that_several_processes_do_not_support_is_refused_before_data_is_prepared(
    flag: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_flags(["--processes=8", *TINY, "--", flag]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dlrm_s_pytorch.py: error: {message}")
    assert len(error.splitlines()) == 1


def test_flags_of_several_processes_need_several(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_flags(["--processes=2", *TINY, "--", "--sharding=row-wise"]) == 0
    assert check_flags(["--processes=1", *TINY, "--", "--sharding=row-wise"]) == 2
    assert "--sharding=row-wise requires several processes" in capsys.readouterr().err
