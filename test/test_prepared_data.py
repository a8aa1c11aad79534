"""Existing prepared data is used or refused, and never overwritten."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import raw_text
from preparations import DAYS, preparation
from program import GOLDEN, ROOT, run_program

from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepare.id_mapping import IdMapper
from mlperf.data.prepare.open_prepared import open_prepared
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.schema import CRITEO
from mlperf.util.errors import RunError


def test_prepared_data_is_used_until_flags_or_inputs_change(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=8)
    wanted = preparation(tmp_path / "day", tmp_path / "x")
    first = prepare(wanted).train.stat().st_mtime_ns
    assert prepare(wanted).train.stat().st_mtime_ns == first
    limited = preparation(tmp_path / "day", tmp_path / "x", max_ind_range=5)
    assert prepare(limited).train.stat().st_mtime_ns != first
    before = prepare(wanted).train.read_bytes()
    raw_text.write_days(tmp_path, DAYS, seed=9)
    assert prepare(wanted).train.read_bytes() != before


def test_input_that_changed_after_the_preparation_is_reported(terabyte: Path, tmp_path: Path) -> None:
    for path in (GOLDEN / "terabyte").glob("day_*"):
        shutil.copy2(path, tmp_path)
    flags = (
        *("--data-generation=dataset", "--data-set=terabyte", "--arch-mlp-bot=13-2", "--num-batches=1"),
        *(f"--raw-data-file={tmp_path}/day", f"--processed-data-file={terabyte}"),
    )
    assert "was prepared" not in run_program(*flags, cwd=tmp_path).stderr
    with (tmp_path / "day_3").open("ab") as day:
        day.write(b"\n")
    run = run_program(*flags, cwd=tmp_path)
    assert run.status == 0
    assert f"{tmp_path}/day_3: has changed since {terabyte}_train.bin was prepared" in run.stderr


@pytest.mark.parametrize("split", ["train", "test", "val"])
@pytest.mark.parametrize("how", ["shorter", "other bytes"])
def test_file_that_differs_from_its_manifest_is_refused(
    split: str, how: str, terabyte: Path, tmp_path: Path
) -> None:
    for path in terabyte.parent.iterdir():
        shutil.copy2(path, tmp_path)
    damaged = tmp_path / f"processed_{split}.bin"
    contents = damaged.read_bytes()
    damaged.write_bytes(contents[:-160] if how == "shorter" else contents[:-1] + bytes([contents[-1] ^ 1]))
    with pytest.raises(RunError, match=str(damaged)):
        open_prepared(tmp_path / "processed")


def test_copied_files_are_accepted(terabyte: Path, tmp_path: Path) -> None:
    for path in terabyte.parent.iterdir():
        shutil.copy(path, tmp_path)
        os.utime(tmp_path / path.name, ns=(1, 1))
    assert open_prepared(tmp_path / "processed") is not None


def test_manifest_without_its_files_is_not_prepared_data(terabyte: Path, tmp_path: Path) -> None:
    shutil.copy(f"{terabyte}.json", tmp_path)
    with pytest.raises(RunError, match=r"processed_train\.bin"):
        open_prepared(tmp_path / "processed")


def test_damaged_manifest_is_refused(terabyte: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(Path(f"{terabyte}.json").read_text()[:100])
    with pytest.raises(RunError, match="damaged manifest"):
        Manifest.read(DatasetPaths.from_name(tmp_path / "x").manifest)


def test_manifest_with_any_bit_flipped_is_damaged(terabyte: Path, tmp_path: Path) -> None:
    content, draw = Path(f"{terabyte}.json").read_bytes(), random.Random(1)
    path = tmp_path / "x.json"
    own_checksum = range(content.index(b"manifest_crc32"), len(content))
    for at in [*own_checksum, *(draw.randrange(len(content)) for _ in range(300))]:
        damaged = bytearray(content)
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"x\.json: (damaged manifest|format version)") as caught:
            Manifest.read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("flags", None), ("flags", []), ("flags", {}), ("flags", {"data_set": 1})),
        *(("inputs", 3), ("inputs", [{}]), ("inputs", [{"name": 1, "size": 1, "mtime_ns": 1, "crc32": 1}])),
        *(("rows_per_day", "x"), ("rows_per_day", [1.5]), ("counts", []), ("counts", [True] * 26)),
        *(("files", []), ("files", {"train": {"name": "x", "size": "1"}}), ("bad_rows", []), ("archive", 1)),
        *(("bad_rows", {"x": {"y": "z"}}), ("format_version", "1"), ("format_version", None)),
        ("files", {split: {"name": "x", "size": 1, "mtime_ns": 1, "crc32": None} for split in SPLITS}),
    ],
)
def test_manifest_with_values_of_wrong_types_is_refused_in_one_line(
    key: str, value: object, terabyte: Path, tmp_path: Path
) -> None:
    content = json.loads(Path(f"{terabyte}.json").read_text())
    del content["manifest_crc32"]
    (tmp_path / "x.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(RunError, match=r"x\.json: (damaged manifest|format version)") as caught:
        open_prepared(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[1]", b"3", b"\xff\xfe", b"", b"[" * 100_000, b'{"format_version": 1}'])
def test_file_that_is_not_a_manifest_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RunError, match=r"x\.json: damaged manifest") as caught:
        open_prepared(tmp_path / "x")
    assert "\n" not in str(caught.value)


def test_older_manifest_without_its_own_checksum_is_accepted(terabyte: Path, tmp_path: Path) -> None:
    content = json.loads(Path(f"{terabyte}.json").read_text())
    for key in ("manifest_crc32", "archive", "bad_rows"):
        del content[key]
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert Manifest.read(tmp_path / "x.json") == Manifest.read(Path(f"{terabyte}.json"))


def test_disk_error_is_reported_in_one_line(terabyte: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> int:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("mlperf.data.prepared.manifest.file_crc32", fail)
    monkeypatch.setattr("os.stat_result.st_mtime_ns", 0, raising=False)
    with pytest.raises(RunError, match=r"_train\.bin: the prepared data cannot be opened: Input/output error"):
        open_prepared(terabyte)


def test_finished_data_in_a_read_only_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=8)
    made = prepare(preparation(tmp_path / "day", tmp_path / "x"))

    def refuse(paths: DatasetPaths) -> NoReturn:
        raise OSError(30, "Read-only file system", str(paths.prefix))

    monkeypatch.setattr("mlperf.data.prepare.pipeline.locked", refuse)
    assert prepare(preparation(tmp_path / "day", tmp_path / "x")) == made
    with pytest.raises(RunError, match=r"y: the data cannot be prepared: Read-only file system"):
        prepare(preparation(tmp_path / "day", tmp_path / "y"))


def test_lack_of_memory_is_reported_in_one_line_and_the_preparation_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=8)

    def refuse(self: IdMapper, *block: object) -> None:
        raise MemoryError("Unable to allocate 8.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(IdMapper, "map", refuse)
        with pytest.raises(RunError, match=r"x: the data cannot be prepared: not enough memory: Unable"):
            prepare(preparation(tmp_path / "day", tmp_path / "x"))
    prepare(preparation(tmp_path / "day", tmp_path / "x"))


def test_ids_are_numbered_in_order_of_appearance_while_hash_tables_grow() -> None:
    ids = np.random.default_rng(1).integers(0, 2**32, 3000) // 2**24 * 2**24
    rows = np.zeros((len(ids), CRITEO.columns), np.uint32)
    rows[:, CRITEO.first_id] = ids
    mapper = IdMapper(initial_slots=4)
    mapper.map(rows.view(np.int32), [0])
    indices: dict[int, int] = {}
    assert rows[:, CRITEO.first_id].tolist() == [
        indices.setdefault(number, len(indices)) for number in ids.tolist()
    ]
    assert mapper.counts == (len(indices), *([0] * 25))


def test_more_ids_than_fit_in_a_hash_table_are_refused() -> None:
    rows = np.zeros((9, CRITEO.columns), np.int32)
    rows[:, 20] = range(9)
    mapper = IdMapper(initial_slots=4, max_slots=16)
    mapper.map(rows[:8], range(CRITEO.tables))
    with pytest.raises(RunError, match=r"column 21: more than 8 distinct ids.* --max-ind-range"):
        mapper.map(rows, range(CRITEO.tables))


def test_files_of_another_tool_are_used_and_never_overwritten(tmp_path: Path) -> None:
    for path in (GOLDEN / "terabyte").glob("*.bin"):
        shutil.copy(path, tmp_path)
    shutil.copy(GOLDEN / "terabyte" / "day_fea_count.npz", tmp_path)
    place = tmp_path / "terabyte_processed"
    made = open_prepared(place)
    assert made is not None
    with np.load(GOLDEN / "terabyte" / "day_fea_count.npz") as golden:
        assert list(made.counts) == golden["counts"].tolist()
    before = made.train.stat().st_mtime_ns
    assert prepare(preparation(GOLDEN / "terabyte" / "day", place)).train.stat().st_mtime_ns == before


@pytest.mark.parametrize("there", ["train", "test", "val"])
def test_incomplete_files_of_another_tool_are_not_overwritten(there: str, tmp_path: Path) -> None:
    found = tmp_path / f"x_{there}.bin"
    shutil.copy(GOLDEN / "terabyte" / f"terabyte_processed_{there}.bin", found)
    before = found.read_bytes()
    with pytest.raises(RunError, match=rf"no such file, but x_{there}\.bin exists without a manifest"):
        prepare(preparation(GOLDEN / "terabyte" / "day", tmp_path / "x"))
    with pytest.raises(RunError, match="no such file, but"):
        open_prepared(tmp_path / "x")
    assert found.read_bytes() == before
    assert list(tmp_path.iterdir()) == [found]


def test_second_preparation_of_the_same_data_set_is_refused(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=8)
    script = (
        "import fcntl, pathlib, sys\n"
        "from mlperf.data.prepare.work_folder import locked\n"
        "from mlperf.data.prepared.paths import DatasetPaths\n"
        "with locked(DatasetPaths.from_name(pathlib.Path(sys.argv[1]))):\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "x")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="another preparation"):
            prepare(preparation(tmp_path / "day", tmp_path / "x"))
        other.communicate("")
    prepare(preparation(tmp_path / "day", tmp_path / "x"))
