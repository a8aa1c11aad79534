"""`mlperf.run`: a run from keywords, and what it returns."""

from __future__ import annotations

import doctest
import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
from program import golden_flags

import mlperf
import mlperf.runner.api
from mlperf.settings.from_flags import parse, settings_from
from mlperf.util.errors import UsageError


def test_example_in_the_documentation_is_correct() -> None:
    results = doctest.testmod(mlperf.runner.api, optionflags=doctest.ELLIPSIS)
    assert (results.failed, results.attempted) == (0, 3)


def test_run_with_evaluations_returns_its_metrics(terabyte: Path, tmp_path: Path) -> None:
    settings = parse([*golden_flags("sgd", terabyte), f"--mlperf-log-file={tmp_path}/log"])
    result = mlperf.run(settings)
    assert result.outcome.value == "success"
    assert result.metrics is not None
    assert result.best_metrics is not None
    assert result.metrics.auc == pytest.approx(0.5398, abs=1e-4)
    assert result.best_metrics.auc >= result.metrics.auc
    assert result.training_loss is not None
    assert result.epochs == 1
    assert result.samples > 0


def test_missed_target_is_the_outcome(terabyte: Path) -> None:
    flags = ("--arch-mlp-bot=13-2", "--data-generation=dataset", f"--processed-data-file={terabyte}")
    result = mlperf.run(parse([*flags, "--mini-batch-size=64", "--mlperf-acc-threshold=1"]))
    assert result.outcome.value == "target missed"
    assert result.metrics is not None
    assert math.isnan(result.metrics.auc)


def test_evaluation_returns_only_metrics(terabyte: Path) -> None:
    result = mlperf.run(
        arch_mlp_bot="13-2",
        data_generation="dataset",
        processed_data_file=terabyte,
        inference_only=True,
        mini_batch_size=64,
    )
    assert result.metrics is not None
    assert (result.training_loss, result.samples) == (None, 0)


def test_invalid_keyword_or_value_is_rejected() -> None:
    with pytest.raises(UsageError, match="batch_size: unknown flag"):
        mlperf.run(batch_size=2)
    with pytest.raises(UsageError, match="--mini-batch-size: 0 is not a whole number from 1 to 2147483647"):
        mlperf.run(mini_batch_size=0)
    with pytest.raises(UsageError, match="--arch-mlp-bot: '13-x' is not a list"):
        mlperf.run(arch_mlp_bot="13-x")


def test_settings_created_in_python_are_converted_like_flags() -> None:
    settings = parse(["--mini-batch-size=2", "--data-size=4"])
    as_text = replace(settings, data=replace(settings.data, batch_size="2"))  # type: ignore[arg-type]
    assert mlperf.run(as_text) == mlperf.run(settings)


def test_true_stands_for_a_flag_without_a_value() -> None:
    settings = settings_from({"tensor_board_filename": True, "round_targets": True})
    assert settings == parse(["--tensor-board-filename", "--round-targets"])


def test_argument_that_is_not_settings_is_rejected_by_type() -> None:
    with pytest.raises(TypeError, match="flags as keywords, not a dict"):
        mlperf.run({"mini_batch_size": 2})  # type: ignore[arg-type]


def test_settings_created_in_python_are_checked_like_flags() -> None:
    with pytest.raises(TypeError):
        mlperf.run(parse([]), mini_batch_size=2)


def test_engine_is_a_keyword(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    small = {"mini_batch_size": 2, "data_size": 4, "arch_mlp_bot": (4, 3, 2)}
    assert mlperf.run(**small, engine="autograd") == mlperf.run(**small)
    assert "engine: autograd, chosen by --engine=autograd" in caplog.messages
    with pytest.raises(UsageError, match=r"^--engine=cpu: --data-generation=random can have"):
        mlperf.run(**small, engine="cpu")
    with pytest.raises(UsageError, match="--engine: 'fast' is unknown; allowed: auto, cpu, gpu, autograd"):
        mlperf.run(**small, engine="fast")
