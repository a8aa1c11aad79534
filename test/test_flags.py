"""Flags are declared once: parser, help, reference, Python keywords and settings are derived from that."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass

import pytest
from program import ROOT

from mlperf.benchmarks import DLRM
from mlperf.cli import flag_reference
from mlperf.cli.train import main
from mlperf.distributed.processes import Processes, running_as
from mlperf.runner.data import reading_threads
from mlperf.settings.argument_parser import Parser
from mlperf.settings.flags import build, changed_flags, flag, part, variants
from mlperf.settings.from_flags import parse
from mlperf.settings.kinds import at_least, choice, switch
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError
from mlperf.util.threads import available_cores


@dataclass(frozen=True)
class Engine:
    threads: int = flag("--threads", at_least(1), 4, "threads to use")
    fast: bool = flag("--fast", switch, False, "hurry")


@dataclass(frozen=True)
class Colour:
    name: str = flag("--colour", choice("red", "blue"), "red", "its name")


@dataclass(frozen=True)
class Example:
    engine: Engine = part(Engine, group="engine")
    colour: Colour | None = variants({"--coloured": (Colour, "draw in colour")}, conflict="one colour")
    weight: int = flag("--weight", at_least(0, or_value=-1), -1, "its weight", required=True)


def parse_example(*arguments: str) -> Example:
    parser = Parser("example", "An example.")
    parser.add_settings(Example)
    return build(Example, vars(parser.parse_args(arguments)))


def test_flags_fill_a_settings_class_and_nested_classes() -> None:
    assert parse_example("--weight=3") == Example(weight=3)
    assert parse_example("--threads=2", "--fast", "--weight", "-1") == Example(Engine(2, fast=True))
    assert parse_example("--coloured", "--colour=blue", "--weight=0") == Example(Engine(), Colour("blue"), 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--weight=-2", "--weight: -2 is not a whole number from 0 to 1099511627776, or -1"),
        ("--weight=1 --threads=many", "--threads: 'many' is not a whole number from 1 to 1099511627776"),
        ("--weight=1 --colour=blue", "--colour requires --coloured"),
        ("--weight=1 --coloured --colour=pink", "--colour: 'pink' is unknown; allowed: red, blue"),
        ("--fast", "the following arguments are required: --weight"),
        ("--weight=1 --thread=2", "unrecognized arguments: --thread=2"),
        ("--weight=1 --fast=no", "--fast: takes no value; remove 'no'"),
    ],
)
def test_invalid_value_is_rejected_by_the_declaration(wrong: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_example(*wrong.split())
    assert str(caught.value) == message


@pytest.mark.parametrize("typed", ["8", "+8", "08", " 8"])
def test_choice_of_integers_accepts_any_notation(typed: str) -> None:
    assert choice(4, 8, 32)(typed) == 8


def test_settings_are_converted_to_the_flags_that_create_them() -> None:
    flags = (
        "--qr-flag --qr-operation=add --learning-rate=0.123456789 --loss-function=wbce --loss-weights=1-2.5 "
        "--round-targets=yes --rand-data-dist=gaussian --rand-data-min=0.1 --tensor-board-filename --print-time "
        "--arch-mlp-bot=7-3-2 --local_rank=3"
    )
    settings = parse(flags.split())
    assert settings != Settings()
    arguments = [text for flag, value in changed_flags(settings) for text in flag.arguments(value)]
    assert parse(arguments) == settings


def test_without_flags_the_settings_are_the_defaults() -> None:
    assert parse([]) == Settings()


DATASET = ("--data-generation=dataset", "--processed-data-file=x", "--arch-mlp-bot=13-2")


def test_test_batch_size_defaults_to_the_training_batch_size() -> None:
    assert parse(["--mini-batch-size=7"]).data.test_batch_size == 7
    assert parse(["--mini-batch-size=7", "--test-mini-batch-size=3"]).data.test_batch_size == 3


def test_default_mlp_initialization_depends_on_the_kind_of_data() -> None:
    assert parse([]).mlp_init == "uniform"
    assert parse(DATASET).mlp_init == "normal"
    assert parse(["--mlp-init=normal"]).mlp_init == "normal"
    assert parse([*DATASET, "--mlp-init=uniform"]).mlp_init == "uniform"


def test_number_of_readers_depends_on_the_device_and_the_flags() -> None:
    def readers(*flags: str) -> tuple[int, int]:
        settings = parse(flags)
        return reading_threads(settings, train=True), reading_threads(settings, train=False)

    assert readers() == (1, 1)
    assert readers("--use-gpu") == (4, 4)
    assert readers("--num-workers=3") == (3, 3)
    assert readers("--num-workers=3", "--test-num-workers=2") == (3, 2)
    assert readers("--use-gpu", "--num-workers=3", "--test-num-workers=0") == (3, 4)
    cores = available_cores()
    with running_as(Processes(size=2 * cores, local_size=cores)):  # one core for each process of the node
        assert readers("--use-gpu") == (1, 1)
        assert readers("--use-gpu", "--num-workers=3") == (3, 3)


def test_mean_of_random_ids_defaults_to_the_midpoint() -> None:
    flags = ["--rand-data-dist=gaussian", "--rand-data-min=0.2", "--rand-data-max=0.6"]
    assert parse(flags).data.generated.ids.mean == pytest.approx(0.4)
    assert parse([*flags, "--rand-data-mu=0.3"]).data.generated.ids.mean == 0.3


def test_number_of_batches_overrides_the_number_of_samples() -> None:
    assert parse(["--data-size=9", "--mini-batch-size=4"]).data.generated_samples == 9
    flags = ["--data-size=9", "--mini-batch-size=4", "--num-batches=3"]
    assert parse(flags).data.generated_samples == 12


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), 0),
        (("--test-freq=7",), 7),
        (("--mlperf-auc-threshold=0.8",), 5),
        (("--mlperf-acc-threshold=0.8", "--mlperf-grad-accum-iter=4"), 8),
        (("--mlperf-auc-threshold=0.8", "--test-freq=7"), 7),
    ],
)
def test_threshold_without_test_freq_evaluates_as_often_as_the_edition_requires(
    flags: tuple[str, ...], expected: int
) -> None:
    training = parse([*DATASET, *flags]).training
    assert training.batches_between_tests(samples=1591, batch_size=16, benchmark=DLRM) == expected  # 100 batches


def test_only_kaggle_data_is_also_written_as_an_archive() -> None:
    assert parse(DATASET).data.write_npz
    assert not parse([*DATASET, "--mlperf-bin-loader"]).data.write_npz
    assert not parse([*DATASET, "--data-set=terabyte"]).data.write_npz


@pytest.mark.parametrize("program", flag_reference.PROGRAMS)
def test_help_fits_into_80_columns_and_lists_the_version_flag(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = flag_reference.PROGRAMS[program](program).format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert "--version" in text


def test_help_shows_defaults_as_typed_and_marks_required_flags() -> None:
    trainer = flag_reference.PROGRAMS["dlrm_s_pytorch.py"]("x").format_help()
    assert "(default: 4-3-2)" in trainer
    assert "{random,synthetic,dataset}" in trainer
    assert "internal" not in trainer
    for heading in ("model:", "training:", "MLPerf log:"):
        assert f"\n{heading}\n" in trainer
    preparation = " ".join(flag_reference.PROGRAMS["tools/prepare_criteo.py"]("x").format_help().split())
    assert preparation.count("(required)") == 2


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.split()[-1].count(".") >= 2


def test_help_needs_no_third_party_package() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'numba', 'sklearn', 'tqdm')));"
        "from mlperf.cli.train import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--mini-batch-size" in done.stdout


def test_missing_package_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "mlperf.runner.benchmark", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dlrm_s_pytorch.py: error: torch is not installed in this Python (")
    assert error.count("\n") == 1


def test_flag_reference_is_up_to_date() -> None:
    assert flag_reference.main(["--check"]) == 0, "run python -m mlperf.cli.flag_reference"


def test_outdated_flag_reference_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(flag_reference.PROGRAMS, "another.py", lambda name: Parser(name, argparse.SUPPRESS))
    assert flag_reference.main(["--check"]) == 1
    assert "flags.md is out of date" in capsys.readouterr().err
