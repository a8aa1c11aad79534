"""Verification of the files of the DLRM-DCNv2 reference."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from program import verify_data
from reference_folders import ONE_HOT, SIZES, copy_folder

from mlperf.benchmarks import DLRM_DCNV2
from mlperf.data.prepared.dataset import describe_reference
from mlperf.data.prepared.reference_files import ReferenceFiles
from mlperf.data.prepared.reference_paths import reference_prefix
from mlperf.data.prepared.verify import compare_with_published, is_full_data
from mlperf.data.prepared.verify_reference import ReferenceFacts, compare_ids_with_published
from mlperf.util.errors import RunError


def test_verification_prints_the_contents_and_compares_checksums(multi_hot: Path, tmp_path: Path) -> None:
    for folder in (ONE_HOT, multi_hot):
        listed = [
            f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())
        ]
        (tmp_path / "some.txt").write_text("\n".join(listed[:5]) + "\n")
        (tmp_path / "others.txt").write_text(
            "# others\n\n" + "\n".join(listed[5:]).replace("  ", " *some/folder/")
        )
        run = verify_data(folder, "--checksums=some.txt", "--checksums=others.txt", cwd=tmp_path)
        assert run.status == 0, run.stderr
        assert f"{folder}: train: 6,998 rows, 41.2261% of label 1" in run.stdout
        assert f"{folder}: test: 152 rows, 38.8158% of label 1" in run.stdout
        assert f"{folder}: val: 151 rows, 48.3444% of label 1" in run.stdout
        assert "checksums: 72 of 72 files are in the list" in run.stdout
        assert run.stdout.splitlines()[-1] == f"{folder}: SUCCESS"
    assert f"ids per table: {'-'.join(map(str, SIZES))}" in run.stdout


def test_verification_names_what_is_invalid(tmp_path: Path) -> None:
    folder = copy_folder(tmp_path / "x")
    listed = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    for part, row, column, value in (("dense", 7, 3, np.nan), ("labels", 2, 0, 3), ("sparse", 0, 25, -2)):
        path = folder / f"day_5_{part}.npy"
        array = np.load(path)
        array[row, column] = value
        array[-1, 0] = value
        np.save(path, array)
    run = verify_data("x", "--checksums=list.txt", cwd=tmp_path)
    assert run.status == 1
    errors = [line for line in run.stderr.splitlines() if "left" not in line]
    assert errors[0] == "x/day_5_labels.npy: row 3, column 1: label 3 is not 0 or 1, and 1 more"
    assert errors[1] == "x/day_5_dense.npy: row 8, column 4: nan is not a finite number, and 1 more"
    assert errors[2] == "x/day_5_sparse.npy: row 1, column 26: id -2 is not from 0 to 2147483647, and 1 more"
    assert [line.split(": its MD5 sum is")[0] for line in errors[3:]] == [
        f"x/day_5_{part}.npy" for part in ("dense", "labels", "sparse")
    ]
    assert run.stdout.splitlines()[-1] == "x: FAILED"
    (folder / "day_9_labels.npy").unlink()
    run = verify_data("x", cwd=tmp_path)
    assert (run.status, run.stdout) == (1, "")
    assert run.stderr.splitlines() == [
        "verify_data.py: error: x/day_9_labels.npy: cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0123 day_0_dense.npy", "line 1: '0123 day_0_dense.npy' is not an MD5 sum of 32 hexadecimal digits"),
        ("\n" + "0" * 32 + "  a\n" + "1" * 32 + "  a\n", "line 3: another checksum of 'a' than before"),
        ("0" * 32 + "  other.npy", "has no checksum of a file in"),
    ],
)
def test_wrong_list_of_checksums_is_named(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(text)
    run = verify_data(ONE_HOT, "--checksums=list.txt", cwd=tmp_path)
    assert run.status == 1
    assert f"list.txt: {problem}" in run.stderr


def test_lists_of_checksums_must_not_contradict_each_other(tmp_path: Path) -> None:
    for name, digit in (("a.txt", "0"), ("b.txt", "1")):
        (tmp_path / name).write_text(f"{digit * 32}  day_0_dense.npy\n")
    run = verify_data(ONE_HOT, "--checksums=a.txt", "--checksums=b.txt", cwd=tmp_path)
    assert (run.status, run.stdout) == (1, "")
    assert "b.txt: line 1: another checksum of 'day_0_dense.npy' than before" in run.stderr


def test_archives_are_compared_with_the_checksums_in_them(multi_hot: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    shutil.copytree(multi_hot, folder)
    path = folder / "day_3_sparse_multi_hot.npz"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("20.npy").header_offset
    position = next(n for n in range(start + 300, len(content)) if content[n] > 1)
    content[position] -= 1  # another id, but a valid one
    path.write_bytes(content)
    run = verify_data("x", cwd=tmp_path)
    assert run.status == 1
    (line,) = [line for line in run.stderr.splitlines() if "left" not in line]
    assert line.startswith("x/day_3_sparse_multi_hot.npz: damaged: the checksum of 20.npy is ")


def test_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    problem = re.escape(f"{tmp_path}: cannot be read: Permission denied")
    denied = mock.patch("os.listdir", side_effect=PermissionError(13, "Permission denied"))
    with denied, pytest.raises(RunError, match=problem):
        reference_prefix(tmp_path)


def test_checksums_are_refused_for_data_with_a_manifest(copied: Path, tmp_path: Path) -> None:
    run = verify_data(copied, "--checksums=list.txt", cwd=tmp_path)
    assert (run.status, run.stdout) == (2, "")
    assert "--checksums=list.txt requires a folder with day_0_dense.npy" in run.stderr


def test_full_data_is_compared_with_published_numbers() -> None:
    published = DLRM_DCNV2.data
    days = (4_195_197_692 - 22, *([1] * 22), 178_274_637)
    files = ReferenceFiles(Path("folder/day"), days, published.ids_per_table, {})
    full = describe_reference(files)
    assert is_full_data(full)
    assert [met for _, met in compare_with_published(full)] == [True] * 3
    wrong = describe_reference(ReferenceFiles(Path("folder/day"), (*days[:-1], 178_274_635), None, {}))
    assert [met for _, met in compare_with_published(wrong)] == [True, False, False]
    facts = ReferenceFacts(id_max=np.array(published.table_rows) - 1)
    assert [met for _, met in compare_ids_with_published(files, [facts])] == [True, True]
    facts.id_max[5] += 1
    assert [met for _, met in compare_ids_with_published(files, [facts])] == [True, False]
