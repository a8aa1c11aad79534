"""--config: flags in a file, and the file that a run writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import run_program

from mlperf.settings.config_file import settings_text
from mlperf.settings.flags import flag_values
from mlperf.settings.from_flags import parse, settings_from
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError, UsageError

DATASET = "--data-generation=dataset --arch-mlp-bot=13-4-2"


def values(settings: Settings) -> dict[str, object]:
    return {flag.name: value for flag, value in flag_values(settings) if flag.name != "--config"}


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--mini-batch-size=512", "--learning-rate=1e-10", "--lr-num-warmup-steps=0", "--use-gpu"],
        [
            "--loss-function=wbce",
            "--loss-weights=0.5-2",
            "--arch-embedding-size=5-6-7",
            "--sync-dense-params=false",
        ],
        ["--qr-flag", "--qr-threshold=10", "--weighted-pooling=learned", "--round-targets"],
        [
            *DATASET.split(),
            '--raw-data-file=a "quoted" \\ név\x7f\n.txt',
            "--multi-hot-sizes=" + "-".join("1" * 26),
        ],
        ["--tensor-board-filename", "--dist-backend=", "--rand-data-mu=-1"],
        [*DATASET.split(), "--processed-data-file=x", "--tensor-board-filename=y", "--mlperf-logging"],
        [*DATASET.split(), "--processed-data-file=x", "--mlperf-logging", "--mlperf-submitter=A # B"],
    ],
)
def test_settings_that_are_written_are_read_back(flags: list[str], tmp_path: Path) -> None:
    settings, path = parse(flags), tmp_path / "settings.toml"
    path.write_text(settings_text(settings))
    again = parse([f"--config={path}"])
    assert values(again) == values(settings)
    assert again.given - {"config"} == settings.given
    assert settings_text(again) == settings_text(settings)


def test_flags_on_the_command_line_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("mini-batch-size = 4\nlearning-rate = 0.5\narch-mlp-bot = [4, 3, 2]\nround-targets = true\n")
    settings = parse([f"--config={path}", "--mini-batch-size=8", "--round-targets=false"])
    assert (settings.data.batch_size, settings.data.generated.round_targets) == (8, False)
    assert settings.training.schedule.learning_rate == 0.5
    assert settings.model.architecture.mlp_bot == (4, 3, 2)
    assert settings_from({"config": str(path), "learning_rate": 0.25}).training.schedule.learning_rate == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mini-batch-sice = 4", "mini-batch-sice is not the name of a flag"),
        ("mini_batch_size = 4", "mini_batch_size is not the name of a flag; write dashes"),
        ("mini-batch-size = 0", "mini-batch-size: 0 is not a whole number from 1 to 2147483647"),
        ("mini-batch-size = 4.5", "mini-batch-size: '4.5' is not a whole number from 1 to 2147483647"),
        ("mini-batch-size = true", "mini-batch-size: 'true' is not a whole number"),
        ("use-gpu = 3", "use-gpu: '3' is not true or false"),
        ("learning-rate = nan", "learning-rate: 'NaN' is not a number in "),
        ("arch-mlp-bot = ['a']", "arch-mlp-bot: must be a number, a text, true, false or a list of numbers"),
        ("arch-mlp-top = [4, 0]", "arch-mlp-top: '4-0' is not a list of whole numbers"),
        ("data-trace-file = 2026-11-27", "data-trace-file: must be a number, a text, true, false or a list"),
        ("[model]\nloss-function = 'bce'", "model is not the name of a flag"),
        ("output-dir = 'x'", "output-dir must be given on the command line, not in a file"),
        ("nepochs = 1\nnepochs = 2", "is not TOML: Cannot overwrite a value (at "),
        ("nepochs =", "is not TOML: Invalid value (at end of document)"),
        ("nepochs = " + "9" * 5000, "is not TOML: "),
        ("x = " + "[" * 5000, "is not TOML: "),
        (b"x = '\xff'", "byte 5 is not UTF-8, which TOML requires"),
    ],
)
def test_error_in_the_file_names_file_and_flag(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as raised:
        parse([f"--config={path}"])
    assert str(raised.value).startswith(f"{path}: {message}")


def test_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("mini-batch-size = 4\n", encoding="utf-8-sig")
    assert parse([f"--config={path}"]).data.batch_size == 4


def test_emptied_settings_of_a_run_are_not_continued(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").touch()
    with pytest.raises(
        UsageError, match=r"settings\.toml: lacks version, so these are not the settings that a run"
    ):
        parse([f"--output-dir={tmp_path}", "--resume"])


def test_contradiction_between_file_and_command_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("qr-flag = true\n")
    run = run_program("--config=run.toml", "--md-flag", cwd=tmp_path)
    assert run.status == 2
    assert "--md-flag cannot be combined with --qr-flag" in run.stderr


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"x\.toml: the settings cannot be read: No such file or directory"):
        parse([f"--config={tmp_path / 'x.toml'}"])


def test_path_that_is_not_utf8_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--raw-data-file: .* is not UTF-8, so it cannot be kept in a file"):
        settings_text(parse([*DATASET.split(), "--raw-data-file=\udcff"]))
