"""Numbers on the command line: one notation, a range for each flag, and both ends of each range work."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import run_program

from mlperf.cli import flag_reference
from mlperf.settings.argument_parser import Parser
from mlperf.settings.flags import Flag, declared_flags
from mlperf.settings.from_flags import settings_from
from mlperf.settings.kinds import MAX_INT32, Kind, at_least, between, choice, positive, two_weights, whole_numbers
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError


def number_flags(parser: Parser) -> Iterator[tuple[str, Kind]]:
    """Yield the flags of a program whose values are numbers."""
    for action in parser._actions:
        if isinstance(action.type, Kind) and action.type.extremes:
            yield action.option_strings[0], action.type


NUMBERS = [
    (program, name, kind)
    for program, make_parser in flag_reference.PROGRAMS.items()
    for name, kind in number_flags(make_parser(program))
]
TRAINER = [flag for _, flag in declared_flags(Settings) if flag.kind.extremes]


def refusal(kind: Kind, text: str) -> str:
    """Return the message with which a kind refuses a text."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        kind(text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 200
    return message


def test_every_flag_with_a_number_has_a_range() -> None:
    """A flag of Python's types int or float would accept numbers that no program can use."""
    for program, make_parser in flag_reference.PROGRAMS.items():
        for action in make_parser(program)._actions:
            name = f"{program} {action.dest}"
            assert action.type not in (int, float, complex), name
            is_number = isinstance(action.default, int | float) and not isinstance(action.default, bool)
            assert not is_number or isinstance(action.type, Kind), name
    for _, flag in declared_flags(Settings):
        values = flag.default if isinstance(flag.default, tuple) else (flag.default,)
        is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        assert not is_number or flag.kind.extremes or "{" in flag.kind.metavar, flag.name
    assert len(NUMBERS) > 45


@pytest.mark.parametrize(("program", "name", "kind"), NUMBERS, ids=[f"{each[0]} {each[1]}" for each in NUMBERS])
def test_range_is_closed_and_named_by_the_message(program: str, name: str, kind: Kind) -> None:
    smallest, largest = kind.extremes
    for text in (smallest, largest, f" {largest} "):
        kind(text)
    for text in ("nan", "inf", "-inf", "1_0", "0x10", "\u0661", "1e400", "9" * 5000, "", "one\ntwo", "1 2"):
        assert kind.allowed in refusal(kind, text)


def test_notations_of_whole_numbers() -> None:
    kind = at_least(0, or_value=-1)
    assert [kind(text) for text in ("8", "+8", "08", " 8", "-0", "-1")] == [8, 8, 8, 8, 0, -1]
    for text in ("1_000", "0x10", "\u0661\u0660", "8.0", "1e3", "--1", "+-1", "1099511627777", "-2", "9" * 5000):
        assert "is not a whole number from 0 to 1099511627776, or -1" in refusal(kind, text)
    assert "..." in refusal(kind, "9" * 5000)
    for text in ("1-+2-03", "1099511627776"):
        whole_numbers(1 << 40)(text)
    for text in ("1-_2", "4--2", "4-\u0663", "0", "1099511627777"):
        assert "whole numbers from 1 to 1099511627776 separated by dashes" in refusal(whole_numbers(1 << 40), text)
    assert choice(4, 8)("+8") == 8
    refusal(choice(4, 8), "0_8")


def test_notations_of_real_numbers() -> None:
    kind = between(-1, 1)
    texts = ("1", "+.5", "1.", "-1e-3", " 0.5 ", "00.5", "0e9999")
    assert [kind(text) for text in texts] == [1, 0.5, 1, -1e-3, 0.5, 0.5, 0]
    assert str(kind("-0.0")) == "0.0"
    for text in ("nan", "inf", "1e400", "0_1", "0x1p0", "\u0661", "1,5", "e5", ".", "1.0000001"):
        assert "is not a number in [-1, 1]" in refusal(kind, text)
    assert [two_weights(text) for text in ("1-2", "1e-3-2E-3")] == [(1, 2), (1e-3, 2e-3)]
    for text in ("1-nan", "1-2-3", "1-1e39", "-1-2", "1-1_0"):
        assert "two numbers in [0, 1e+38]" in refusal(two_weights, text)


@pytest.mark.parametrize("text", ["1e-38", "1e-50", "1e-400", "-1e-50", "0.0001e-40"])
def test_number_that_would_be_0_in_float32_is_refused(text: str) -> None:
    assert "that float32 can represent" in refusal(between(-1, 1), text)


@pytest.mark.parametrize("text", ["1e39", "3.5e38", "1e-38", "1e-50", "0", "-1"])
def test_learning_rate_is_a_float32(text: str) -> None:
    assert "a number in [1e-37, 1e+38]" in refusal(positive, text)


# Flags with which a run at the end of the range would last for ever.
_ENDLESS = {"--nepochs"}
_WITH = {
    "--rand-data": ("--rand-data-dist=gaussian",),
    "--loss-weights": ("--loss-function=wbce",),
    "--qr-": ("--qr-flag", "--arch-embedding-size=4-3-2"),
    "--md-": ("--md-flag",),
    "--lr-decay-start": ("--lr-num-decay-steps=3",),
    "--print-precision": ("--debug-mode",),
}


def companions(flag: Flag) -> tuple[str, ...]:
    """Return the flags that a flag requires."""
    return next((others for beginning, others in _WITH.items() if flag.name.startswith(beginning)), ())


@pytest.mark.parametrize("end", [0, 1], ids=["smallest", "largest"])
@pytest.mark.parametrize("flag", TRAINER, ids=lambda flag: flag.name)
def test_both_ends_of_a_range_run_or_end_with_one_line(flag: Flag, end: int, tmp_path: Path) -> None:
    if flag.name in _ENDLESS and end == 1:
        pytest.skip("trains for ever")
    run = run_program(f"{flag.name}={flag.kind.extremes[end]}", *companions(flag), cwd=tmp_path)
    assert run.status in (0, 1, 2)
    if run.status:
        last = run.stderr.splitlines()[-1]
        assert last.startswith("dlrm_s_pytorch.py: error: ")
        assert flag.name in last or "the training loss is" in last
    else:
        assert len(run.losses) == 1


DATASET = ("--data-generation=dataset", "--data-set=terabyte", "--arch-mlp-bot=13-2")


def test_batches_far_beyond_the_data_are_not_allocated(terabyte: Path, tmp_path: Path) -> None:
    data = (*DATASET, f"--processed-data-file={terabyte}")

    def losses(*flags: str) -> tuple[list[str], list[str]]:
        run = run_program(*data, *flags, "--test-freq=1", "--mlperf-logging", cwd=tmp_path)
        assert run.status == 0, run.stderr
        return run.progress_lines, run.metric_lines

    huge = losses(f"--mini-batch-size={MAX_INT32}", "--test-mini-batch-size=1000000000", "--num-workers=1024")
    assert len(huge[0]) == 1
    assert huge == losses("--mini-batch-size=100000", "--test-mini-batch-size=4000")
    for flags in ((f"--mini-batch-size={MAX_INT32}",), ("--test-mini-batch-size=1000000000",)):
        run = run_program(*data, *flags, "--inference-only", cwd=tmp_path)
        assert run.status == 0, run.stderr


def test_memory_for_batches_counts_only_those_that_are_read(
    terabyte: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch of 8 rows is read, trained and kept, whatever the numbers of threads, batches and rows."""
    monkeypatch.setattr("mlperf.util.memory.available_memory", lambda: 2_000_000)
    flags = ("--num-workers=1024", "--mlperf-grad-accum-iter=1000000", f"--processed-data-file={terabyte}")
    few = run_program(*DATASET, *flags, "--mini-batch-size=8", "--num-batches=1", cwd=tmp_path)
    assert few.status == 0, few.stderr
    many = run_program(*DATASET, *flags, "--mini-batch-size=8", cwd=tmp_path)
    assert many.status == 1
    assert "for accumulated gradients (--mlperf-grad-accum-iter)" in many.stderr


def test_batch_size_beyond_the_samples_of_generated_data_is_not_allocated(tmp_path: Path) -> None:
    first, second = (
        run_program(f"--mini-batch-size={size}", "--data-size=3", cwd=tmp_path) for size in (3, MAX_INT32)
    )
    assert second.status == 0, second.stderr
    assert first.losses == second.losses


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--mini-batch-size=2147483647 --data-size=1000000000000", "a training batch (--mini-batch-size"),
        ("--data-size=1000000000000", "random data (--num-batches, --data-size"),
        ("--arch-mlp-bot=4-16777216-16777216-2", "the MLPs (--arch-mlp-bot, --arch-mlp-top)"),
        ("--arch-mlp-top=16777216-16777216-1", "the MLPs (--arch-mlp-bot, --arch-mlp-top)"),
        (
            "--arch-embedding-size=1099511627776-3",
            "the embedding tables (--embedding-precision, --arch-sparse-feature-size",
        ),
        ("--arch-embedding-size=1099511627776-3 --qr-flag --qr-collisions=2", "the embedding tables"),
        ("--arch-embedding-size=1099511627776-3 --md-flag", "the embedding tables"),
        (
            "--arch-embedding-size=1000000000000-3 --weighted-pooling=learned --qr-flag --qr-collisions=1000000",
            "the embedding tables",
        ),
        (
            "--mlperf-grad-accum-iter=1000000000 --mini-batch-size=200000 --num-batches=1000000",
            "accumulated gradients (--mlperf-grad-accum-iter)",
        ),
        ("--arch-embedding-size=" + "-".join(["1"] * 10**6), "the pairs of features (--arch-embedding-size)"),
    ],
    ids=lambda value: value[:40],
)
def test_sizes_beyond_the_memory_are_refused_by_the_part_that_needs_it(
    flags: str, named: str, tmp_path: Path
) -> None:
    run = run_program(*flags.split(), cwd=tmp_path)
    assert run.status == 1
    assert len(run.stderr.splitlines()) == 1
    assert named in run.stderr
    assert "GB of memory" in run.stderr


def test_path_that_a_library_cannot_use_is_refused(tmp_path: Path) -> None:
    run = run_program("--tensor-board-filename=a\udce9", cwd=tmp_path)
    assert run.status == 2
    assert "'a\\udce9' is not a path in UTF-8" in run.stderr
    with pytest.raises(
        UsageError, match=r"--load-model: the name is 'a.x00b'; must be the name of a file or folder"
    ):
        settings_from({"load_model": "a\0b"})


def test_error_with_line_ends_and_escapes_is_one_line(tmp_path: Path) -> None:
    run = run_program("--no-such\nflag\x1b[31m", cwd=tmp_path)
    assert run.stderr == "dlrm_s_pytorch.py: error: unrecognized arguments: --no-such\\nflag\\x1b[31m\n"
    run = run_program("--load-model=no\nsuch \u00e9\t\x85", cwd=tmp_path)
    assert run.stderr == "dlrm_s_pytorch.py: error: --load-model=no\\nsuch \u00e9\\t\\x85: no such file\n"
