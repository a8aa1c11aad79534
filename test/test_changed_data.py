"""Prepared data that is replaced, written to or removed under a running program."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from easy_data import write_easy_data
from preparations import read_rows

import mlperf
from mlperf.data.binary import BinaryFile
from mlperf.data.prepare.open_prepared import open_prepared
from mlperf.data.prepared.verify import scan
from mlperf.data.schema import CRITEO
from mlperf.data.watched_file import FileStatus, WatchedFile
from mlperf.runner.data import open_split
from mlperf.runner.result import Result
from mlperf.settings.from_flags import parse
from mlperf.util.errors import RunError

SMALL = {
    "data_generation": "dataset",
    "data_set": "terabyte",
    "arch_sparse_feature_size": 4,
    "arch_mlp_bot": "13-4",
    "arch_mlp_top": "4-1",
    "mini_batch_size": 256,
    "nepochs": 2,
    "test_freq": 4,
    "print_freq": 4,
    "mlperf_bin_shuffle": True,
}


def replace_file(path: Path) -> None:
    """Put other rows in place of a file, as a preparation does."""
    rows = read_rows(path)
    rows[:, 1:14] += 100
    rows.tofile(path.with_name("new"))
    path.with_name("new").replace(path)


def write_into(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(np.int32(1 - read_rows(path)[0, 0]).tobytes())


def write_and_restore_time(path: Path) -> None:
    before = path.stat()
    write_into(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def extend(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 160)


CHANGES = {
    write_into: "written to",
    write_and_restore_time: "modification time restored",
    truncate: r"it had \d+ bytes and has \d+ now",
    extend: r"it had \d+ bytes and has \d+ now",
}
HARMLESS = {
    "replaced": replace_file,
    "removed": Path.unlink,
    "linked": lambda path: path.with_suffix(".link").hardlink_to(path),
    "made read-only": lambda path: path.chmod(0o444),
}


@pytest.fixture
def easy(tmp_path: Path) -> Path:
    """Return the prefix of 4,096 training rows and 512 test rows without a manifest."""
    return write_easy_data(tmp_path)


def train_and(change: Callable[[], None], at: str, prefix: Path) -> tuple[Result, str]:
    """Train; call `change` when the output contains `at`. Return the result and the output without times."""

    class Output(io.StringIO):
        done = False

        def write(self, text: str) -> int:
            if at in text and not self.done:
                self.done = True
                change()
            return super().write(text)

    output = Output()
    with contextlib.redirect_stdout(output):
        result = mlperf.run(**SMALL, processed_data_file=prefix)
    assert output.done
    return result, output.getvalue()


@pytest.mark.parametrize("change", HARMLESS.values(), ids=list(HARMLESS))
def test_run_continues_with_the_data_that_it_opened(change: Callable[[Path], None], easy: Path) -> None:
    _, undisturbed = train_and(lambda: None, "Finished", easy)

    def change_both() -> None:
        for split in ("train", "test"):
            change(Path(f"{easy}_{split}.bin"))

    _, output = train_and(change_both, "Finished training it 4/16 of epoch 0", easy)
    assert output == undisturbed


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("change", "words"), CHANGES.items())
def test_data_that_changes_during_a_run_ends_it_in_one_line(
    change: Callable[[Path], None], words: str, split: str, easy: Path
) -> None:
    path = Path(f"{easy}_{split}.bin")
    with pytest.raises(RunError, match=rf"easy_{split}\.bin: changed while it was read: .*{words}") as caught:
        train_and(lambda: change(path), "Testing at - 4/16 of epoch 0", easy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [*CHANGES, replace_file])
def test_data_that_changes_between_its_check_and_its_opening_is_refused(
    change: Callable[[Path], None], copied: Path
) -> None:
    prepared = open_prepared(copied)
    assert prepared is not None
    settings = parse(["--data-generation=dataset", "--processed-data-file=x", "--arch-mlp-bot=13-2"])
    change(prepared.test)
    with pytest.raises(RunError, match=r"processed_test\.bin: changed before it was opened"):
        open_split(settings, prepared, "test")
    open_split(settings, prepared, "train")


@pytest.mark.parametrize("readers", [1, 4])
def test_invalid_value_is_named_after_the_file_is_replaced(readers: int, easy: Path) -> None:
    path = Path(f"{easy}_train.bin")
    rows = read_rows(path)
    rows[4000, 20] = 77
    rows.tofile(path)
    source = BinaryFile(path, len(rows), 1000, (4,) * 26, readers=readers)
    path.unlink()
    with pytest.raises(RunError, match=r"row 4001, column 21: index 77 is not in table 6"):
        list(source.batches(0))


def test_file_that_its_file_system_numbers_anew_is_the_same_file(easy: Path) -> None:
    status = FileStatus.of(Path(f"{easy}_train.bin"))
    WatchedFile(Path(f"{easy}_train.bin"), replace(status, file=(1, 2)))
    with pytest.raises(RunError, match="replaced by another file"):
        WatchedFile(Path(f"{easy}_train.bin"), replace(status, file=(1, 2), changed_ns=3))


def test_files_of_a_run_are_closed_at_its_end(easy: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        source = BinaryFile(Path(f"{easy}_train.bin"), 4096, 1000, (4,) * 26, readers=2)
        next(iter(source.batches(0)))
        del source
    assert len(os.listdir("/proc/self/fd")) <= len(before)


@pytest.mark.parametrize("change", CHANGES)
def test_file_that_changes_during_its_verification_is_refused(change: Callable[[Path], None], easy: Path) -> None:
    file = WatchedFile(Path(f"{easy}_train.bin"))
    change(file.path)
    with pytest.raises(RunError, match=r"easy_train\.bin: changed while it was read"):
        scan(file, CRITEO, stores_floats=False)
