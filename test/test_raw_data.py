"""Raw data and flags that contradict prepared data are refused or named; raw data that is gone is not missed."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest
import raw_text
from preparations import DAYS, preparation
from program import GOLDEN, Finished, run_program

from mlperf.data.prepare.pipeline import prepare

TRAIN = ("--data-generation=dataset", "--arch-mlp-bot=13-2", "--num-batches=1", "--mini-batch-size=8")


@pytest.fixture
def days(tmp_path: Path) -> Path:
    """Return the prefix of data that was prepared from raw/day_0 ... of the same folder."""
    (tmp_path / "raw").mkdir()
    raw_text.write_days(tmp_path / "raw", DAYS, seed=8)
    prepare(preparation(tmp_path / "raw" / "day", tmp_path / "x"))
    return tmp_path / "x"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Return the prefix of data that was prepared from train.txt of the same folder."""
    (tmp_path / "train.txt").write_bytes(raw_text.text(raw_text.random_rows(80, seed=3)))
    prepare(preparation(tmp_path / "train.txt", tmp_path / "x", data_set="kaggle", bin_loader=True))
    return tmp_path / "x"


def train(prepared: Path, *flags: str) -> Finished:
    return run_program(*TRAIN, f"--processed-data-file={prepared}", *flags, cwd=prepared.parent)


def test_raw_data_of_another_name_is_refused(text: Path) -> None:
    other = text.with_name("other.txt")
    other.write_bytes(raw_text.text(raw_text.random_rows(90, seed=4)))
    run = train(text, f"--raw-data-file={other}")
    assert run.status == 2
    assert run.stderr.count(str(other)) == 2
    assert f"{text}_train.bin was prepared from train.txt" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_raw_data_of_another_size_in_another_folder_is_refused(text: Path) -> None:
    (text.parent / "elsewhere").mkdir()
    other = text.parent / "elsewhere" / "train.txt"
    other.write_bytes(raw_text.text(raw_text.random_rows(90, seed=4)))
    run = train(text, f"--raw-data-file={other}")
    assert run.status == 2
    assert f"{other} has {other.stat().st_size} bytes" in run.stderr


def test_other_days_in_another_folder_are_refused(days: Path) -> None:
    other = days.parent / "other"
    other.mkdir()
    raw_text.write_days(other, [rows + 1 for rows in DAYS], seed=9)
    run = train(days, "--data-set=terabyte", f"--raw-data-file={other}/day")
    assert run.status == 2
    assert f"{other}/day_0 has " in run.stderr


def test_raw_data_of_the_other_data_set_is_refused(days: Path) -> None:
    run = train(days, f"--raw-data-file={GOLDEN}/kaggle/train.txt")
    assert run.status == 2
    assert f"{days}_train.bin was prepared from day_0 ... day_23" in run.stderr
    run = train(days, f"--raw-data-file={days.parent}/raw/day_3")
    assert run.status == 2
    assert f"must be the prefix {days.parent}/raw/day of day_0 ... day_23" in run.stderr


def test_moved_raw_data_is_accepted(days: Path) -> None:
    (days.parent / "raw").rename(days.parent / "moved")
    run = train(days, f"--raw-data-file={days.parent}/moved/day")
    assert run.status == 0
    assert "prepared" not in run.stderr


def test_copied_or_renamed_raw_data_is_named(text: Path) -> None:
    copy, renamed = text.parent / "copy" / "train.txt", text.with_name("renamed.txt")
    copy.parent.mkdir()
    shutil.copy(text.parent / "train.txt", copy)
    os.utime(copy, ns=(1, 1))
    shutil.copy2(text.parent / "train.txt", renamed)
    for path, said in (
        (copy, "has another modification time than when"),
        (renamed, "was prepared from train.txt, of the same size"),
    ):
        run = train(text, f"--raw-data-file={path}")
        assert run.status == 0
        (line,) = (line for line in run.stderr.splitlines() if line.startswith(f"{path}: "))
        assert said in line
        assert ("run tools/prepare_criteo.py to prepare it again" in line) == (path == copy)


def test_raw_data_that_is_gone_is_no_reason_to_refuse(days: Path) -> None:
    shutil.rmtree(days.parent / "raw")
    run = train(days, f"--raw-data-file={days.parent}/raw/day")
    assert run.status == 0
    assert "prepared" not in run.stderr
    run = train(days, f"--raw-data-file={days.parent}/raw/another")
    assert run.status == 0
    assert f"{days.parent}/raw/another: no such file; {days}_train.bin was prepared from day_0 ..." in run.stderr
    assert "to prepare it again" not in run.stderr


def test_raw_data_that_was_compressed_since_is_accepted(text: Path) -> None:
    (text.parent / "train.txt").rename(text.parent / "train.txt.gz")
    assert train(text, f"--raw-data-file={text.parent}/train.txt").status == 0


@pytest.mark.parametrize("name", ["train.txt", "train.txt.gz"])
def test_compressed_raw_data_may_be_named_with_its_ending(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.txt.gz").write_bytes(gzip.compress(raw_text.text(raw_text.random_rows(80, seed=3))))
    prepare(preparation(tmp_path / name, tmp_path / "x", data_set="kaggle", bin_loader=True))
    for raw in ("train.txt", "train.txt.gz"):
        run = train(tmp_path / "x", f"--raw-data-file={raw}")
        assert run.status == 0
        assert "prepared" not in run.stderr


@pytest.mark.parametrize(
    ("flag", "actual"),
    [
        ("--data-randomize=total", "none"),
        ("--data-randomize=day", "none"),
        ("--data-set=kaggle", "terabyte"),
        ("--max-ind-range=-1", "40000000"),
        ("--max-ind-range=5", "40000000"),
        ("--data-sub-sample-rate=0.5", "0.0"),
    ],
)
def test_flag_that_contradicts_the_preparation_is_refused(
    flag: str, actual: str, terabyte: Path, tmp_path: Path
) -> None:
    run = run_program(*TRAIN, f"--processed-data-file={terabyte}", flag, cwd=tmp_path)
    assert run.status == 2
    assert f"{flag}: {terabyte}_train.bin was prepared with {actual}; " in run.stderr


def test_other_seed_with_a_flag_of_the_shuffle_is_named(tmp_path: Path) -> None:
    raw, text = tmp_path / "train.txt", tmp_path / "x"
    raw.write_bytes(raw_text.text(raw_text.random_rows(80, seed=3)))
    prepare(preparation(raw, text, data_set="kaggle", bin_loader=True, randomize="total"))
    other = f"{text}_train.bin: was prepared with --numpy-rand-seed=123; --numpy-rand-seed=5 is only that of the"
    run = train(text, "--numpy-rand-seed=5", "--data-randomize=total")
    assert run.status == 0
    assert other in run.stderr
    assert other not in train(text, "--numpy-rand-seed=5").stderr


def test_preparation_flags_that_other_tools_data_cannot_follow_are_named(tmp_path: Path) -> None:
    for path in (GOLDEN / "terabyte").glob("*.bin"):
        shutil.copy(path, tmp_path)
    shutil.copy(GOLDEN / "terabyte" / "day_fea_count.npz", tmp_path)
    run = train(tmp_path / "terabyte_processed", "--data-sub-sample-rate=0.5", "--data-randomize=day")
    assert run.status == 0
    assert (
        "by another tool; these flags have no effect: --data-sub-sample-rate=0.5 --data-randomize=day"
        in run.stderr
    )
    run = train(tmp_path / "terabyte_processed", "--raw-data-file=text/day", "--data-set=terabyte")
    assert (
        f"text/day_fea_count.npz: no such file; the rows per table are those of {tmp_path}/day_fea" in run.stderr
    )


@pytest.mark.parametrize("data_set", ["kaggle", "terabyte"])
@pytest.mark.parametrize("program", ["dlrm_s_pytorch.py", "tools/prepare_criteo.py"])
def test_folders_are_refused_with_what_to_write_instead(data_set: str, program: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "train.txt").touch()
    more = TRAIN if program == "dlrm_s_pytorch.py" else ()
    for wrong, instead in (
        ("--raw-data-file=folder", f"folder/{'train.txt' if data_set == 'kaggle' else 'day'}"),
        ("--processed-data-file=folder", "folder/NAME"),
        ("--processed-data-file=folder/", "folder/NAME"),
        ("--processed-data-file=missing/", "missing/NAME"),
    ):
        flags = {"--raw-data-file": "train.txt", "--processed-data-file": "x", **dict([wrong.split("=")])}
        run = run_program(
            *more, f"--data-set={data_set}", *map("=".join, flags.items()), cwd=tmp_path, program=program
        )
        assert run.status == 2
        assert wrong.partition("=")[0] in run.stderr
        assert "folder" in run.stderr
        assert run.stderr.endswith(f"{instead}\n")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "train.txt"]


@pytest.mark.parametrize("ending", ["_train.bin", "_train", "_val.bin", ".json"])
def test_one_of_the_prepared_files_is_answered_with_the_prefix(ending: str, days: Path) -> None:
    before = sorted(days.parent.iterdir())
    run = train(Path(f"{days}{ending}"), f"--raw-data-file={days.parent}/raw/day")
    assert run.status == 2
    assert run.stderr.endswith(
        f"--processed-data-file={days}{ending} is one of the prepared files; must be a prefix of file names: "
        f"write {days}\n"
    )
    assert sorted(days.parent.iterdir()) == before
    run = run_program(f"{days}{ending}", cwd=days.parent, program="tools/verify_data.py")
    assert (run.status, run.stderr.endswith(f"write {days}\n")) == (2, True)


def test_folder_with_prepared_data_is_answered_with_its_prefix(days: Path) -> None:
    run = train(days.parent)
    assert run.status == 2
    assert run.stderr.endswith(
        f"--processed-data-file={days.parent} is a folder; must be a prefix of file names: write {days}\n"
    )
    run = run_program(str(days.parent), cwd=days.parent, program="tools/verify_data.py")
    assert run.status == 2
    assert run.stderr.endswith(f"write {days}\n")


def test_prefix_may_be_the_name_of_a_folder(days: Path) -> None:
    days.mkdir()
    (days.parent / "raw" / "day").mkdir()
    assert train(days, f"--raw-data-file={days.parent}/raw/day").status == 0


def test_verification_compares_the_raw_data(days: Path) -> None:
    flags = (str(days), f"--raw-data-file={days.parent}/raw/day")
    assert run_program(*flags, cwd=days.parent, program="tools/verify_data.py").status == 0
    with (days.parent / "raw" / "day_3").open("ab") as day:
        day.write(b"\n")
    run = run_program(*flags, cwd=days.parent, program="tools/verify_data.py")
    assert run.status == 1
    assert f"{days.parent}/raw/day_3: has changed since {days}_train.bin was prepared" in run.stderr


def test_preparation_says_why_it_replaces_prepared_data(days: Path) -> None:
    flags = ("--data-set=terabyte", f"--raw-data-file={days.parent}/raw/day", f"--processed-data-file={days}")
    run = run_program(*flags, "--max-ind-range=9", cwd=days.parent, program="tools/prepare_criteo.py")
    assert f"{days}_train.bin: was prepared with --max-ind-range=-1, --data-randomize=none; prep" in run.stderr
    (days.parent / "raw" / "day_3").write_bytes(raw_text.text(raw_text.random_rows(6, seed=1)))
    run = run_program(*flags, "--max-ind-range=9", cwd=days.parent, program="tools/prepare_criteo.py")
    assert f"{days}_train.bin: was prepared with another day_3; preparing it again" in run.stderr
    text = days.parent / "train.txt"
    text.write_bytes(raw_text.text(raw_text.random_rows(80, seed=3)))
    flags = (f"--raw-data-file={text}", f"--processed-data-file={days}", "--mlperf-bin-loader")
    run = run_program(*flags, "--max-ind-range=9", cwd=days.parent, program="tools/prepare_criteo.py")
    assert f"{days}_train.bin: was prepared with --data-set=terabyte and other raw data (day_0); pr" in run.stderr


def test_preparation_whose_raw_data_is_gone_is_finished(days: Path) -> None:
    shutil.rmtree(days.parent / "raw")
    flags = ("--data-set=terabyte", f"--raw-data-file={days.parent}/raw/day", f"--processed-data-file={days}")
    run = run_program(*flags, "--data-randomize=none", cwd=days.parent, program="tools/prepare_criteo.py")
    assert run.status == 0
    assert "no such file any more; using the data prepared from it" in run.stderr
    run = run_program(*flags, "--data-randomize=day", cwd=days.parent, program="tools/prepare_criteo.py")
    assert run.status == 1
