"""When an interrupted preparation continues, and when it starts over."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from interruption import Killed, result, shuffled, stop_at_move, stop_at_save
from preparations import preparation
from program import GOLDEN

from mlperf.data.prepare.open_prepared import open_prepared
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepare.row_file import RowFile
from mlperf.data.prepared.file_facts import FileFacts
from mlperf.data.prepared.manifest import Manifest
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError
from mlperf.util.progress import Progress


@pytest.mark.parametrize("change", ["seed", "input", "touched"])
def test_changed_flags_or_inputs_start_over(
    change: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    days = tmp_path / "days"
    shutil.copytree(raw, days)
    stop_at_save(shuffled(days, tmp_path / "x"), monkeypatch)
    seed = 8 if change == "seed" else 7
    if change == "input":
        lines = (days / "day_0").read_bytes().splitlines(keepends=True)
        (days / "day_0").write_bytes(b"".join(lines[::-1]))
    elif change == "touched":
        os.utime(days / "day_5", ns=(1, 1))
    prepare(shuffled(days, tmp_path / "x", seed))
    prepare(shuffled(days, tmp_path / "y", seed))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_full_disk_leaves_no_finished_data_and_the_preparation_continues_later(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    settings = shuffled(raw, tmp_path / "x")
    stop_at_save(settings, monkeypatch)

    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RunError, match="No space left on device"):
            prepare(settings)
    assert open_prepared(tmp_path / "x") is None
    assert not list(tmp_path.glob("x_*"))
    prepare(settings)
    prepare(shuffled(raw, tmp_path / "y"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


@pytest.mark.parametrize("when", ["reading", "after reading"])
def test_temporary_input_failure_loses_no_progress(
    when: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    """Like a file on a network drive."""
    settings, shown = shuffled(raw, tmp_path / "x"), r"day_\d+: the data cannot be prepared: "
    stop_at_save(settings, monkeypatch)
    state = (tmp_path / "x.preparation" / "state.json").read_bytes()
    facts_of, calls = FileFacts.of, []

    def fail(file: object, target: object) -> int:
        raise OSError(5, "Input/output error")

    def missing_the_second_time(path: Path, crc32: int | None = None) -> FileFacts:
        calls.append(path.name)
        if calls.count("day_3") == 2:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return facts_of(path, crc32)

    with monkeypatch.context() as patch:
        if when == "reading":
            patch.setattr("mlperf.data.text.blocks.read_fully", fail)
        else:
            patch.setattr(FileFacts, "of", missing_the_second_time)
        with pytest.raises(RunError, match=shown):
            prepare(settings)
    assert (tmp_path / "x.preparation" / "state.json").read_bytes() == state
    prepare(settings)
    prepare(shuffled(raw, tmp_path / "y"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_progress_speed_excludes_earlier_work(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "mlperf")
    now = 100.0
    monkeypatch.setattr("mlperf.util.progress.time.monotonic", lambda: now)
    progress = Progress("x", 1_000_000_000, done_bytes=800_000_000, done_rows=3000)
    now = 102.0
    progress.add(100_000_000, 500)
    progress.close()
    assert caplog.messages == ["x: 3,500 rows, 900 of 1,000 MB, 50 MB/s, 2 s left"]
    progress.add(100_000_001, 0)  # the total was estimated too low, or the last newline is missing
    progress.close()
    assert caplog.messages[-1].endswith(", 0 s left")


def test_too_small_disk_is_reported_with_both_sizes(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    settings = shuffled(raw, tmp_path / "x")
    with pytest.raises(RunError, match=r"0\.000\d+ GB are needed .* 0\.0001 GB are free; .*--force"):
        prepare(settings)
    assert not list(tmp_path.iterdir())
    prepare(shuffled(raw, tmp_path / "x", force=True))
    assert open_prepared(tmp_path / "x") is not None


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_kill_while_replacing_an_older_result_leaves_no_mix(
    moves: int, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    place = tmp_path / "x"
    older = prepare(replace(shuffled(raw, place, seed=6), max_ind_range=3))
    prepare(shuffled(raw, tmp_path / "y", seed=7))
    expected = result(tmp_path / "y")
    assert older.val.stat().st_size == (tmp_path / "y_val.bin").stat().st_size
    stop_at_move(lambda: prepare(shuffled(raw, place)), monkeypatch, moves)
    assert open_prepared(place) is None
    prepare(shuffled(raw, place))
    assert result(place) == expected
    assert {path.name for path in tmp_path.glob("*x*")} == {
        "x_train.bin",
        "x_test.bin",
        "x_val.bin",
        "x.json",
        "x.ids",
    }


def test_preparation_can_follow_one_killed_while_moving_files(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    prepare(shuffled(raw, tmp_path / "x", seed=6))
    prepare(shuffled(raw, tmp_path / "y", seed=6))
    stop_at_move(lambda: prepare(shuffled(raw, tmp_path / "x")), monkeypatch, 1)
    prepare(shuffled(raw, tmp_path / "x", seed=6))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_two_killed_preparations_leave_no_mix(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    prepare(replace(shuffled(raw, tmp_path / "x", seed=6), max_ind_range=3))
    prepare(shuffled(raw, tmp_path / "y"))
    stop_at_move(lambda: prepare(shuffled(raw, tmp_path / "x")), monkeypatch, 1)

    def kill(self: Path, **_: object) -> None:
        if self.suffix == ".preparation":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", kill)
        with pytest.raises(Killed):
            prepare(shuffled(raw, tmp_path / "x", seed=8))
    assert open_prepared(tmp_path / "x") is None
    prepare(shuffled(raw, tmp_path / "x"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_file_replaced_while_the_others_are_being_moved_is_detected(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    stop_at_move(lambda: prepare(shuffled(raw, tmp_path / "x")), monkeypatch, 2)
    train = tmp_path / "x_train.bin"
    train.write_bytes(bytes(train.stat().st_size))
    with pytest.raises(RunError, match=r"x_train\.bin: was replaced during the preparation"):
        prepare(shuffled(raw, tmp_path / "x"))
    prepare(shuffled(raw, tmp_path / "x"))
    prepare(shuffled(raw, tmp_path / "y"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


@pytest.mark.parametrize("damage", ["flipped", "cut", "spill", "ids", "test.bin"])
def test_damaged_work_files_start_over(
    damage: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    settings = shuffled(raw, tmp_path / "x")
    stop_at_save(settings, monkeypatch)
    work = tmp_path / "x.preparation"
    state = (work / "state.json").read_bytes()
    if damage == "flipped":
        at = state.index(b'"offset": ') + len(b'"offset": ')
        (work / "state.json").write_bytes(state[:at] + bytes([state[at] ^ 1]) + state[at + 1 :])
    elif damage == "cut":
        (work / "state.json").write_bytes(state[:-1])
    else:
        name = {"spill": "shuffle"}.get(damage, damage)
        os.truncate(work / name, (work / name).stat().st_size // 2)
    if damage == "test.bin":  # it is still empty, so it cannot be truncated
        (work / name).unlink()
    prepare(settings)
    prepare(shuffled(raw, tmp_path / "y"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


@pytest.mark.parametrize("damage", ["missing", "shorter"])
@pytest.mark.parametrize("phase", ["permute", "publish"])
def test_damaged_training_rows_start_over(
    damage: str, phase: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    settings = shuffled(raw, tmp_path / "x")
    stop_at_save(settings, monkeypatch, phase)
    train = tmp_path / "x.preparation" / "train.bin"
    if damage == "missing":
        train.unlink()
    else:
        os.truncate(train, train.stat().st_size // 2)
    prepare(settings)
    prepare(shuffled(raw, tmp_path / "y"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_input_that_grows_while_it_is_read_is_detected(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(raw, tmp_path / "days")
    append = RowFile.append

    def append_and_grow(self: RowFile, rows: npt.NDArray[np.int32]) -> None:
        append(self, rows)
        with (tmp_path / "days" / "day_3").open("ab") as file:
            file.write(b"\n")

    with monkeypatch.context() as patch:
        patch.setattr(RowFile, "append", append_and_grow)
        with pytest.raises(RunError, match=r"day_3: changed while it was read"):
            prepare(shuffled(tmp_path / "days", tmp_path / "x"))
    assert not list(tmp_path.glob("x*"))


def kaggle(place: Path, **flags: object) -> PreparationSettings:
    raw = GOLDEN / "kaggle" / "train.txt"
    return preparation(raw, place, data_set="kaggle", **flags)


def rows_in(archive: Path) -> list[object]:
    with np.load(archive) as found:
        return [found[name].tolist() for name in ("X_int", "X_cat", "y", "counts")]


@pytest.mark.parametrize("moves", [0, 1, 3])
def test_archive_is_written_again_if_the_preparation_was_killed_before_it_was_moved(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(kaggle(tmp_path / "x", max_ind_range=5))
    prepare(kaggle(tmp_path / "y"))
    stop_at_move(lambda: prepare(kaggle(tmp_path / "x")), monkeypatch, moves)
    assert open_prepared(tmp_path / "x") is None
    prepare(kaggle(tmp_path / "x"))
    assert rows_in(tmp_path / "x.npz") == rows_in(tmp_path / "y.npz")


def test_archive_of_a_replaced_preparation_is_removed(tmp_path: Path) -> None:
    prepare(kaggle(tmp_path / "x", max_ind_range=5))
    prepare(kaggle(tmp_path / "x", bin_loader=True))
    assert not (tmp_path / "x.npz").exists()
    np.savez(tmp_path / "x.npz", mine=1)  # another file than the one written by the preparation
    prepare(kaggle(tmp_path / "x", max_ind_range=6, bin_loader=True))
    assert (tmp_path / "x.npz").exists()


def test_archive_of_a_preparation_whose_successor_was_killed_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(kaggle(tmp_path / "x", max_ind_range=5))
    stop_at_move(lambda: prepare(kaggle(tmp_path / "x", max_ind_range=6)), monkeypatch, 0)
    prepare(kaggle(tmp_path / "x", bin_loader=True))
    assert not (tmp_path / "x.npz").exists()
    prepare(kaggle(tmp_path / "x"))


def test_archive_of_another_tool_is_not_overwritten(tmp_path: Path) -> None:
    prepare(kaggle(tmp_path / "x", bin_loader=True))
    np.savez(tmp_path / "x.npz", mine=1)
    before = (tmp_path / "x.npz").read_bytes()
    with pytest.raises(
        RunError, match=r"x\.npz: was not written by this program and is not overwritten; .*--mlperf-bin-loader"
    ):
        prepare(kaggle(tmp_path / "x", max_ind_range=6))
    assert (tmp_path / "x.npz").read_bytes() == before
    prepare(kaggle(tmp_path / "x", max_ind_range=6, bin_loader=True))
    assert (tmp_path / "x.npz").read_bytes() == before


def test_archive_is_added_to_finished_data_without_one(tmp_path: Path) -> None:
    first = prepare(kaggle(tmp_path / "x", bin_loader=True))
    before = first.train.stat().st_mtime_ns
    assert prepare(kaggle(tmp_path / "x")) == first
    assert first.train.stat().st_mtime_ns == before
    prepare(kaggle(tmp_path / "y"))
    assert rows_in(tmp_path / "x.npz") == rows_in(tmp_path / "y.npz")
    assert Manifest.read(tmp_path / "x.json").archive is not None  # type: ignore[union-attr]


def test_kill_while_importing_a_changed_archive_leaves_no_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(kaggle(tmp_path / "golden"))
    shutil.copy(tmp_path / "golden.npz", tmp_path / "x.npz")
    open_prepared(tmp_path / "x")
    with np.load(tmp_path / "golden.npz") as golden:
        arrays = {name: golden[name] if name == "counts" else golden[name][::-1] for name in golden}
    np.savez(tmp_path / "x.npz", **arrays)
    np.savez(tmp_path / "y.npz", **arrays)
    stop_at_move(lambda: open_prepared(tmp_path / "x"), monkeypatch, 1)
    found, expected = open_prepared(tmp_path / "x"), open_prepared(tmp_path / "y")
    assert found is not None
    assert expected is not None
    assert found.train.read_bytes() == expected.train.read_bytes()
    assert found.test.read_bytes() == expected.test.read_bytes()
