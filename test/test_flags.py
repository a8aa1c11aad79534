"""Flags are declared once: parser, help, reference, Python keywords and settings objects follow from that."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass

import pytest
from program import ROOT

from mlperf.cli import reference
from mlperf.cli.train import main
from mlperf.settings.flags import build, changed_flags, flag, part, variants
from mlperf.settings.kinds import at_least, choice, switch
from mlperf.settings.parse import parse
from mlperf.settings.parser import Parser
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError


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


def test_a_settings_class_and_those_it_contains_are_filled_by_their_flags() -> None:
    assert parse_example("--weight=3") == Example(weight=3)
    assert parse_example("--threads=2", "--fast", "--weight", "-1") == Example(Engine(2, fast=True))
    assert parse_example("--coloured", "--colour=blue", "--weight=0") == Example(Engine(), Colour("blue"), 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--weight=-2", "--weight: -2 is not a whole number of at least 0, or -1"),
        ("--weight=1 --threads=many", "--threads: 'many' is not a whole number of at least 1"),
        ("--weight=1 --colour=blue", "--colour: only with --coloured"),
        ("--weight=1 --coloured --colour=pink", "--colour: 'pink' is unknown; allowed: red, blue"),
        ("--fast", "the following arguments are required: --weight"),
        ("--weight=1 --thread=2", "unrecognized arguments: --thread=2"),
    ],
)
def test_a_wrong_value_is_refused_by_the_declaration(wrong: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_example(*wrong.split())
    assert str(caught.value) == message


def test_settings_turn_into_the_flags_that_make_them() -> None:
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


@pytest.mark.parametrize("program", reference.PROGRAMS)
def test_help_fits_into_80_columns_and_offers_the_version(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = reference.PROGRAMS[program](program).format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert "--version" in text


def test_help_shows_defaults_as_they_are_typed_and_says_what_is_required() -> None:
    trainer = reference.PROGRAMS["dlrm_s_pytorch.py"]("x").format_help()
    assert "(default: 4-3-2)" in trainer
    assert "{random,synthetic,dataset}" in trainer
    assert "internal" not in trainer
    for heading in ("model:", "training:", "MLPerf log:"):
        assert f"\n{heading}\n" in trainer
    preparation = " ".join(reference.PROGRAMS["tools/prepare_criteo.py"]("x").format_help().split())
    assert preparation.count("(required)") == 2


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.split()[-1].count(".") >= 2


def test_help_needs_no_package() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'numba', 'sklearn', 'tqdm')));"
        "from mlperf.cli.train import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--mini-batch-size" in done.stdout


def test_a_package_that_is_missing_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "mlperf.runner.benchmark", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dlrm_s_pytorch.py: error: torch is not installed in this Python (")
    assert error.count("\n") == 1


def test_reference_of_the_flags_is_up_to_date() -> None:
    assert reference.main(["--check"]) == 0, "run python -m mlperf.cli.reference"


def test_stale_reference_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(reference.PROGRAMS, "another.py", lambda name: Parser(name, argparse.SUPPRESS))
    assert reference.main(["--check"]) == 1
    assert "flags.md: is stale" in capsys.readouterr().err
