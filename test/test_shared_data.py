"""Data of several processes: prepared and drawn once, verified once for each copy, and refused if it differs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import raw_text
from bytes_read import bytes_read
from preparations import preparation
from processes import in_processes, launched, needs_torchrec, with_ranks
from reference_folders import SIZES, copy_folder, tables

from mlperf.benchmarks import dashed
from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.schema import CRITEO
from mlperf.distributed.group import process_group
from mlperf.distributed.launchers import launched_processes
from mlperf.distributed.processes import current
from mlperf.distributed.turns import first_then_others
from mlperf.runner.data import verified_data
from mlperf.settings.from_flags import parse
from mlperf.util.errors import UsageError

pytestmark = [in_processes, needs_torchrec]

FLAGS = ("--data-generation=dataset", "--data-set=terabyte", "--arch-mlp-bot=13-2", "--mlperf-bin-loader")
MULTI_HOT = f"--multi-hot-sizes={dashed(SIZES)}"


def data(prefix: Path, *flags: str) -> PreparedData:
    return verified_data(parse([*FLAGS, f"--processed-data-file={prefix}", *flags]), ["train"])


def on_nodes(folders: Sequence[Path], function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call a function on processes that run on a node each, in a folder each, and return its results by rank."""
    return launched(len(folders), in_folder, folders, function, *args)


def in_folder(folders: Sequence[Path], function: Callable[..., Any], *args: Any) -> Any:
    with mock.patch.dict(os.environ, LOCAL_RANK="0", LOCAL_WORLD_SIZE="1"):
        os.chdir(folders[int(os.environ["RANK"])])
        with process_group(launched_processes(), "gloo"):
            return function(*args)


def copies(prefix: Path, folder: Path, count: int) -> list[Path]:
    """Copy a prepared data set to `count` folders, with another name for each."""
    folders = [folder / f"copy_{number}" for number in range(count)]
    for each in folders:
        each.mkdir()
        for path in prefix.parent.glob(f"{prefix.name}*"):
            shutil.copy2(path, each / path.name.replace(prefix.name, "x"))
    return folders


def inode_and_rows(prefix: Path, raw: Path) -> tuple[int, int, tuple[int, ...]]:
    found = data(prefix, f"--raw-data-file={raw / 'day'}")
    return found.train.stat().st_ino, found.train_rows, found.counts


def test_missing_data_is_prepared_once(raw: Path, tmp_path: Path) -> None:
    found = with_ranks(3, inode_and_rows, tmp_path / "x", raw)
    assert found[0][0] == (tmp_path / "x_train.bin").stat().st_ino
    assert found == found[:1] * 3


def test_missing_data_is_prepared_on_each_node_with_a_folder_of_its_own(raw: Path, tmp_path: Path) -> None:
    folders = [tmp_path / str(rank) for rank in range(3)]
    for folder in folders:
        folder.mkdir()
    found = on_nodes(folders, inode_and_rows, Path("x"), raw)
    assert [inode for inode, *_ in found] == [(folder / "x_train.bin").stat().st_ino for folder in folders]
    assert len({tuple(rows) for _, *rows in found}) == 1


def failure(function: Callable[..., Any], *args: Any) -> tuple[str, str]:
    """Return the type and the text of the exception with which a function ends."""
    try:
        function(*args)
    except BaseException as error:
        return type(error).__name__, str(error)
    return "", "no failure"


def prepare_without_text(folder: Path) -> None:
    with process_group(launched_processes(), "gloo"):
        data(folder / "x", f"--raw-data-file={folder / 'day'}")


def test_preparation_that_fails_ends_the_others_that_wait(tmp_path: Path) -> None:
    first, *others = launched(3, failure, prepare_without_text, tmp_path)
    assert first[0] == "RunError"
    assert "day_0: no such file" in first[1]
    assert {name for name, _ in others} == {"EndedQuietlyError"}


def file_of_ids(prefix: Path, *flags: str) -> tuple[tuple[int, int], bool]:
    """Return device and inode of the file with the ids, and whether they are right."""
    prepared = data(prefix, *flags)
    assert prepared.reference is not None
    assert prepared.reference.open("train").rows == prepared.train_rows
    found = prepared.multi_hot
    assert found is not None
    assert found.file is not None
    return found.file.status.file, bool((found.table(25) == tables().table(25)).all())


def test_ids_of_several_per_table_are_drawn_once_and_mapped_by_all(tmp_path: Path) -> None:
    folder = copy_folder(tmp_path / "data")
    file = tmp_path / "ids.npz"
    rows = dashed(tables().shape.rows_per_table)
    flags = ("--data-set=terabyte_dcnv2", f"--arch-embedding-size={rows}", MULTI_HOT, f"--multi-hot-tables={file}")
    found = with_ranks(3, file_of_ids, folder, *flags)
    assert found == [((file.stat().st_dev, file.stat().st_ino), True)] * 3


def bytes_verified(prefix: Path) -> int:
    return bytes_read(lambda: data(prefix, "--max-ind-range=40000000", "--verify-data"))


def test_checksums_are_verified_by_one_process(terabyte: Path) -> None:
    size = terabyte.with_name("processed_train.bin").stat().st_size
    first, *others = with_ranks(3, bytes_verified, terabyte)
    assert first > size
    assert max(others) < size / 2


def bytes_of_opening(prefix: Path) -> int:
    return bytes_read(lambda: data(prefix, "--max-ind-range=40000000"))


def test_copied_files_are_compared_with_their_manifest_by_one_process(copied: Path, terabyte: Path) -> None:
    """Their checksums are computed if their times have changed."""
    path = copied.with_name("processed_train.bin")
    os.utime(path)
    first, *others = with_ranks(3, bytes_of_opening, copied)
    assert first > path.stat().st_size
    assert max(others) < path.stat().st_size / 2
    assert max(with_ranks(2, bytes_of_opening, terabyte)) < path.stat().st_size / 2


def test_each_copy_is_verified_by_the_first_process_that_reads_it(terabyte: Path, tmp_path: Path) -> None:
    size = terabyte.with_name("processed_train.bin").stat().st_size
    first, second = copies(terabyte, tmp_path, 2)
    found = on_nodes([first, first, second], bytes_verified, Path("x"))
    assert [count > size for count in found] == [True, False, True]


def test_damaged_copy_is_refused_by_the_process_that_reads_it(terabyte: Path, tmp_path: Path) -> None:
    first, second = copies(terabyte, tmp_path, 2)
    path, times = second / "x_train.bin", (second / "x_train.bin").stat()
    contents = bytearray(path.read_bytes())
    contents[80] ^= 1
    path.write_bytes(contents)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    first_error, second_error = launched(2, failure, in_folder, [first, second], bytes_verified, Path("x"))
    assert first_error[0] == "EndedQuietlyError"
    assert second_error[0] == "RunError"
    assert second_error[1].startswith("x_train.bin: damaged: its checksum is")


def refusal(prefix: Path) -> str:
    try:
        data(prefix)
    except UsageError as error:
        return str(error)
    return "accepted"


def refusals(folders: Sequence[Path]) -> str:
    """Return the error of a run in these folders, which must be the same on all processes."""
    (error,) = set(on_nodes(folders, refusal, Path("x")))
    text: str = error
    return text


def test_other_data_on_another_node_is_refused_by_all(raw: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    raw_text.write_days(other, [300, 20, 250, *([40] * 20), 101], seed=12)  # as many rows
    # The last one has the rows of the first one in another order.
    texts, seeds, folders = (raw, other, raw), (1, 1, 2), [tmp_path / str(rank) for rank in range(3)]
    for folder, text, seed in zip(folders, texts, seeds, strict=True):
        prepare(preparation(text / "day", folder / "x", randomize="total", seed=seed))
    first, second, third = folders
    error = refusals([first, first, second])
    assert error.startswith("x_train.bin: rows per table: rank 0 has ")
    assert ", rank 2 has " in error
    assert error.endswith("; must be equal on all processes")
    assert refusals([first, third]).startswith("x_train.bin: checksum: rank 0 has ")
    assert refusals([first, first]) == "accepted"


def test_file_of_another_tool_with_another_size_is_refused_by_all(terabyte: Path, tmp_path: Path) -> None:
    folders = copies(terabyte, tmp_path, 2)
    for folder in folders:
        (folder / "x.json").unlink()
        np.savez(folder / "x_fea_count.npz", counts=np.full(26, 40_000_000))
    size = (folders[1] / "x_val.bin").stat().st_size
    os.truncate(folders[1] / "x_val.bin", size - CRITEO.row_bytes)
    files = [[folder / f"x_{split}.bin" for split in SPLITS] for folder in folders]
    rows = [dashed(path.stat().st_size // CRITEO.row_bytes for path in each) for each in files]
    assert f"rank 0 has {rows[0]}, rank 1 has {rows[1]}; must be equal" in refusals(folders)


def seconds_of_wait(seconds: float) -> float:
    """Return how long this process takes while the first one works for `seconds`."""
    start = time.monotonic()
    first_then_others(lambda: time.sleep(seconds if current().is_first else 0))
    return time.monotonic() - start


def wait_longer_than_a_collective_operation() -> float:
    with (
        mock.patch("mlperf.distributed.group.TIMEOUT", timedelta(seconds=2)),
        process_group(launched_processes(), "gloo"),
    ):
        return seconds_of_wait(3)


def test_wait_for_the_first_process_has_no_time_limit() -> None:
    assert min(launched(2, wait_longer_than_a_collective_operation)) >= 3
