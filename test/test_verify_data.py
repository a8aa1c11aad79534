"""Verification of prepared data."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import raw_text
from preparations import DAYS, preparation, read_rows
from program import GOLDEN, verify_data

from mlperf.benchmarks import DLRM
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepared.dataset import find_prepared
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.verify import compare_with_published, is_full_data


def test_complete_data_passes_and_its_contents_are_printed(copied: Path, tmp_path: Path) -> None:
    run = verify_data(copied, cwd=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    rows = read_rows(Path(f"{copied}_train.bin"))
    assert f"_train.bin: {len(rows):,} rows, {rows[:, 0].mean():.4%} of label 1" in run.stdout
    assert "nothing published to compare with" in run.stdout
    assert run.stdout.splitlines()[-1].endswith("SUCCESS")


@pytest.mark.parametrize("split", ["train", "test", "val"])
@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "missing"])
def test_damaged_file_is_detected(damage: str, split: str, copied: Path, tmp_path: Path) -> None:
    path = Path(f"{copied}_{split}.bin")
    status = path.stat()
    if damage == "cut":
        os.truncate(path, status.st_size - 1)
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + bytes(160))
    elif damage == "missing":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    run = verify_data(copied, cwd=tmp_path)
    assert run.status == 1
    assert any(line.startswith(f"{path}: ") for line in run.stderr.splitlines())
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_damaged_archive_is_detected(damage: str, tmp_path: Path) -> None:
    raw, archive = GOLDEN / "kaggle" / "train.txt", tmp_path / "x.npz"
    prepare(preparation(raw, tmp_path / "x", data_set="kaggle"))
    assert verify_data("x", cwd=tmp_path).status == 0
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.unlink()
    if damage == "flipped":
        archive.write_bytes(content)
    run = verify_data("x", cwd=tmp_path)
    assert run.status == 1
    assert run.stderr.splitlines()[-1].startswith("x.npz: ")


def test_manifest_that_does_not_match_the_files_is_detected(copied: Path, tmp_path: Path) -> None:
    manifest = Path(f"{copied}.json")
    counts = find_prepared(DatasetPaths(copied), None)[0].counts
    content = json.loads(manifest.read_text())
    content["counts"][0] += 1
    manifest.write_text(json.dumps(content))
    run = verify_data(copied, cwd=tmp_path)
    assert run.status == 1
    assert "processed.json: damaged manifest: its checksum does not match" in run.stderr
    del content["manifest_crc32"]  # as in older manifests
    manifest.write_text(json.dumps(content))
    run = verify_data(copied, cwd=tmp_path)
    assert run.status == 1
    assert f"table 0 has {counts[0] + 1} rows, the files use {counts[0]}" in run.stderr


def test_files_of_other_tools_are_compared_with_their_counts(tmp_path: Path) -> None:
    for split in ("train", "test", "val"):
        shutil.copy(GOLDEN / "terabyte" / f"terabyte_processed_{split}.bin", tmp_path / f"x_{split}.bin")
    shutil.copy(GOLDEN / "terabyte" / "day_fea_count.npz", tmp_path)
    run = verify_data("x", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert "there are no checksums to compare with" in run.stdout
    rows = read_rows(tmp_path / "x_test.bin")
    rows[3, 15] = 10**6
    rows[4, 0] = 7
    rows.tofile(tmp_path / "x_test.bin")
    run = verify_data("x", cwd=tmp_path)
    assert run.status == 1
    assert "indices of table 1 are 0 to 1000000" in run.stderr
    assert "1 labels are neither 0 nor 1" in run.stderr


def test_missing_data_is_reported_in_one_line(tmp_path: Path) -> None:
    run = verify_data("x", cwd=tmp_path)
    assert run.status == 1
    assert run.stderr == "verify_data.py: error: x: neither x.json nor x_train.bin exists\n"


def test_full_terabyte_data_is_compared_with_published_counts(copied: Path) -> None:
    small, _ = find_prepared(DatasetPaths(copied), None)
    assert not is_full_data(small)
    full = replace(
        *(small,),
        **{"train_rows": 4_195_197_692, "test_rows": 89_137_319, "val_rows": 89_137_318},
        counts=DLRM.data.table_rows,
    )
    assert is_full_data(full)
    assert not is_full_data(replace(full, sub_sample_rate=0.5))
    assert all(met for _, met in compare_with_published(full))
    assert len(compare_with_published(full)) == 4
    assert sum(DLRM.data.table_rows) == 187_767_399  # the vocabulary that published logs of the benchmark print
    for wrong in (
        replace(full, train_rows=4_195_197_691),
        replace(full, val_rows=0),
        replace(full, counts=(1, *DLRM.data.table_rows[1:])),
    ):
        assert sum(not met for _, met in compare_with_published(wrong)) == 1


def test_folder_of_raw_data_is_refused_before_the_files_are_read(copied: Path, tmp_path: Path) -> None:
    run = verify_data(copied, f"--raw-data-file={tmp_path}", cwd=tmp_path)
    assert (run.status, run.stdout) == (2, "")
    assert len(run.stderr.splitlines()) == 1
    assert f"--raw-data-file={tmp_path} is a folder" in run.stderr


def test_split_with_one_class_only_is_named(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=5)
    path = tmp_path / "day_23"
    path.write_bytes(b"".join(b"1" + line[1:] for line in path.read_bytes().splitlines(keepends=True)))
    prepare(preparation(tmp_path / "day", tmp_path / "x"))
    run = verify_data(tmp_path / "x", cwd=tmp_path)
    assert run.status == 0
    assert [line for line in run.stderr.splitlines() if "labels" in line] == [
        f"{tmp_path}/x_{split}.bin: all labels are 1, for which the AUC is undefined" for split in ("test", "val")
    ]
