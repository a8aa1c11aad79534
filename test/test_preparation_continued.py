"""What an interrupted preparation goes on from, and when it begins anew."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from interruption import Killed, result, stop_at_move, stop_at_save
from program import GOLDEN

from mlperf.data.criteo.prepare import ingest
from mlperf.data.criteo.prepare.pipeline import _Preparation, prepare
from mlperf.data.criteo.prepare.plan import PreparationSettings
from mlperf.data.criteo.prepared.dataset import open_prepared
from mlperf.data.criteo.prepared.manifest import Manifest
from mlperf.util.errors import RunError
from mlperf.util.progress import Progress


def wanted(raw: Path, place: Path, seed: int = 7) -> PreparationSettings:
    return PreparationSettings("terabyte", raw / "day", place, seed=seed)


@pytest.mark.parametrize("change", ["seed", "input", "touched"])
def test_changed_flags_or_inputs_begin_anew(
    change: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    days = tmp_path / "days"
    shutil.copytree(raw, days)
    stop_at_save(wanted(days, tmp_path / "x"), monkeypatch)
    seed = 8 if change == "seed" else 7
    if change == "input":
        lines = (days / "day_0").read_bytes().splitlines(keepends=True)
        (days / "day_0").write_bytes(b"".join(lines[::-1]))
    elif change == "touched":
        os.utime(days / "day_5", ns=(1, 1))
    prepare(PreparationSettings("terabyte", days / "day", tmp_path / "x", seed=seed))
    prepare(PreparationSettings("terabyte", days / "day", tmp_path / "y", seed=seed))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_full_disk_leaves_nothing_that_looks_finished_and_goes_on_later(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    settings = wanted(raw, tmp_path / "x")
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
    prepare(PreparationSettings("terabyte", raw / "day", tmp_path / "y", seed=7))
    assert result(tmp_path / "x") == result(tmp_path / "y")


@pytest.mark.parametrize("when", ["reading", "all is read"])
def test_input_that_is_gone_for_a_while_costs_no_work(
    when: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    """As on a network drive."""
    settings, shown = wanted(raw, tmp_path / "x"), r"day_\d+: the data cannot be prepared: "
    stop_at_save(settings, monkeypatch)
    state = (tmp_path / "x.preparation" / "state.json").read_bytes()
    check = _Preparation._check_inputs

    def fail(file: object, target: object) -> int:
        raise OSError(5, "Input/output error")

    def check_without_one(self: _Preparation) -> None:
        (raw / "day_3").rename(raw / "away")
        try:
            check(self)
        finally:
            (raw / "away").rename(raw / "day_3")

    with monkeypatch.context() as patch:
        if when == "reading":
            patch.setattr("mlperf.data.criteo.prepare.text_blocks.read_fully", fail)
        else:
            patch.setattr(_Preparation, "_check_inputs", check_without_one)
        with pytest.raises(RunError, match=shown):
            prepare(settings)
    assert (tmp_path / "x.preparation" / "state.json").read_bytes() == state
    prepare(settings)
    prepare(wanted(raw, tmp_path / "y"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_progress_counts_what_was_done_before_but_not_as_done_now(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("mlperf.util.progress.time.monotonic", lambda: now)
    progress = Progress("x", 1_000_000_000, done=800_000_000, rows=3000)
    now = 102.0
    progress.add(100_000_000, 500)
    progress.close()
    assert capsys.readouterr().err == "x: 3,500 rows, 900 of 1,000 MB, 50 MB/s, 2 s left\n"
    progress.add(100_000_001, 0)  # an estimate that was too low, or a last newline that was missing
    progress.close()
    assert capsys.readouterr().err.endswith(", 0 s left\n")


def test_disk_too_small_is_said_before_with_both_figures(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    settings = PreparationSettings("terabyte", raw / "day", tmp_path / "x")
    with pytest.raises(RunError, match=r"about 0\.000\d+ GB are needed .* 0\.0001 GB are free; .*--force"):
        prepare(settings)
    assert not list(tmp_path.iterdir())
    prepare(PreparationSettings("terabyte", raw / "day", tmp_path / "x", force=True))
    assert open_prepared(tmp_path / "x") is not None


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_killed_while_it_replaces_an_older_result_of_the_same_sizes_it_is_never_a_mix(
    moves: int, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    place = tmp_path / "x"
    older = prepare(replace(wanted(raw, place, seed=6), max_ind_range=3))
    prepare(wanted(raw, tmp_path / "y", seed=7))
    expected = result(tmp_path / "y")
    assert older.val.stat().st_size == (tmp_path / "y_val.bin").stat().st_size
    stop_at_move(lambda: prepare(wanted(raw, place)), monkeypatch, moves)
    assert open_prepared(place) is None
    prepare(wanted(raw, place))
    assert result(place) == expected
    assert {path.name for path in tmp_path.glob("*x*")} == {"x_train.bin", "x_test.bin", "x_val.bin", "x.json"}


def test_killed_among_its_last_moves_another_preparation_may_take_over(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    prepare(wanted(raw, tmp_path / "x", seed=6))
    prepare(wanted(raw, tmp_path / "y", seed=6))
    stop_at_move(lambda: prepare(wanted(raw, tmp_path / "x")), monkeypatch, 1)
    prepare(wanted(raw, tmp_path / "x", seed=6))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_killed_among_its_last_moves_and_then_another_as_it_begins_it_is_never_a_mix(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    prepare(replace(wanted(raw, tmp_path / "x", seed=6), max_ind_range=3))
    prepare(wanted(raw, tmp_path / "y"))
    stop_at_move(lambda: prepare(wanted(raw, tmp_path / "x")), monkeypatch, 1)

    def kill(self: Path, **_: object) -> None:
        if self.suffix == ".preparation":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", kill)
        with pytest.raises(Killed):
            prepare(wanted(raw, tmp_path / "x", seed=8))
    assert open_prepared(tmp_path / "x") is None
    prepare(wanted(raw, tmp_path / "x"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_file_replaced_while_the_others_were_to_be_moved_is_noticed(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    stop_at_move(lambda: prepare(wanted(raw, tmp_path / "x")), monkeypatch, 1)
    train = tmp_path / "x_train.bin"
    train.write_bytes(bytes(train.stat().st_size))
    with pytest.raises(RunError, match=r"x_train\.bin: replaced while it was being prepared"):
        prepare(wanted(raw, tmp_path / "x"))
    prepare(wanted(raw, tmp_path / "x"))
    prepare(wanted(raw, tmp_path / "y"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


@pytest.mark.parametrize("damage", ["flipped", "cut", "spill", "ids", "test.bin"])
def test_damaged_working_files_begin_anew(
    damage: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    settings = wanted(raw, tmp_path / "x")
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
    if damage == "test.bin":  # empty so early: gone, then
        (work / name).unlink()
    prepare(settings)
    prepare(wanted(raw, tmp_path / "y"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


@pytest.mark.parametrize("damage", ["missing", "shorter"])
@pytest.mark.parametrize("phase", ["permute", "publish"])
def test_damaged_training_rows_begin_anew(
    damage: str, phase: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    settings = wanted(raw, tmp_path / "x")
    stop_at_save(settings, monkeypatch, phase)
    train = tmp_path / "x.preparation" / "train.bin"
    if damage == "missing":
        train.unlink()
    else:
        os.truncate(train, train.stat().st_size // 2)
    prepare(settings)
    prepare(wanted(raw, tmp_path / "y"))
    assert result(tmp_path / "x") == result(tmp_path / "y")


def test_input_that_grows_while_it_is_read_is_noticed(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(raw, tmp_path / "days")
    add = ingest.RowFile.add

    def add_and_grow(self: ingest.RowFile, rows: npt.NDArray[np.int32]) -> None:
        add(self, rows)
        with (tmp_path / "days" / "day_3").open("ab") as file:
            file.write(b"\n")

    with monkeypatch.context() as patch:
        patch.setattr(ingest.RowFile, "add", add_and_grow)
        with pytest.raises(RunError, match=r"day_3: changed while it was read"):
            prepare(wanted(tmp_path / "days", tmp_path / "x"))
    assert not list(tmp_path.glob("x*"))


def kaggle(place: Path, **flags: object) -> PreparationSettings:
    raw = GOLDEN / "kaggle" / "train.txt"
    return PreparationSettings("kaggle", raw, place, randomize="none", **flags)  # type: ignore[arg-type]


def rows_in(archive: Path) -> list[object]:
    with np.load(archive) as found:
        return [found[name].tolist() for name in ("X_int", "X_cat", "y", "counts")]


@pytest.mark.parametrize("moves", [0, 1, 3])
def test_killed_before_the_archive_is_moved_it_is_written_again(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(kaggle(tmp_path / "x", max_ind_range=5))
    prepare(kaggle(tmp_path / "y"))
    stop_at_move(lambda: prepare(kaggle(tmp_path / "x")), monkeypatch, moves)
    assert open_prepared(tmp_path / "x") is None
    prepare(kaggle(tmp_path / "x"))
    assert rows_in(tmp_path / "x.npz") == rows_in(tmp_path / "y.npz")


def test_archive_of_a_preparation_that_is_replaced_goes_with_it(tmp_path: Path) -> None:
    prepare(kaggle(tmp_path / "x", max_ind_range=5))
    prepare(kaggle(tmp_path / "x"))
    assert not (tmp_path / "x.npz").exists()
    np.savez(tmp_path / "x.npz", mine=1)  # not what was written here
    prepare(kaggle(tmp_path / "x", max_ind_range=6))
    assert (tmp_path / "x.npz").exists()


def test_archive_of_a_preparation_whose_successor_was_killed_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(kaggle(tmp_path / "x", max_ind_range=5))
    stop_at_move(lambda: prepare(kaggle(tmp_path / "x", max_ind_range=6)), monkeypatch, 0)
    prepare(kaggle(tmp_path / "x"))
    assert not (tmp_path / "x.npz").exists()
    prepare(kaggle(tmp_path / "x"))


def test_archive_of_another_program_is_not_overwritten(tmp_path: Path) -> None:
    prepare(kaggle(tmp_path / "x"))
    np.savez(tmp_path / "x.npz", mine=1)
    before = (tmp_path / "x.npz").read_bytes()
    with pytest.raises(RunError, match=r"x\.npz: not of this program, and not overwritten: .*--mlperf-bin-loader"):
        prepare(kaggle(tmp_path / "x", max_ind_range=6))
    assert (tmp_path / "x.npz").read_bytes() == before
    prepare(kaggle(tmp_path / "x", max_ind_range=6))
    assert (tmp_path / "x.npz").read_bytes() == before


def test_archive_is_added_to_finished_data_that_lacks_it(tmp_path: Path) -> None:
    first = prepare(kaggle(tmp_path / "x"))
    before = first.train.stat().st_mtime_ns
    assert prepare(kaggle(tmp_path / "x")) == first
    assert first.train.stat().st_mtime_ns == before
    prepare(kaggle(tmp_path / "y"))
    assert rows_in(tmp_path / "x.npz") == rows_in(tmp_path / "y.npz")
    assert Manifest.read(tmp_path / "x.json").archive is not None  # type: ignore[union-attr]


def test_killed_while_it_replaces_rows_of_an_older_archive_it_is_never_a_mix(
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
