"""--reference-files writes what the three steps of DLRM-DCNv2's reference write, byte for byte."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import raw_text
from interruption import Killed, killed_after_saves
from program import GOLDEN, ROOT, run_program
from reference_steps import prepare_like_the_reference, shuffled, write_days

from mlperf.cli import verify
from mlperf.data.prepare.reference.gather import Gather
from mlperf.data.prepare.reference.logarithm import natural_logarithm
from mlperf.data.prepare.reference.npy_files import all_files
from mlperf.data.prepare.reference.permutation import inverse_pieces, shuffled_rows
from mlperf.data.prepare.reference.preparation import prepare_reference_files
from mlperf.data.prepare.reference.scatter import PositionScatter, Scatter
from mlperf.data.prepare.row_file import RowFile
from mlperf.data.prepared.dataset import describe_reference
from mlperf.data.prepared.reference_files import ReferenceFiles
from mlperf.data.schema import CRITEO
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError, UsageError

FLAGS = ("--data-set=terabyte_dcnv2", "--reference-files")


def settings(raw: Path, folder: Path, **flags: object) -> PreparationSettings:
    """Return the settings of a preparation of the files."""
    return PreparationSettings(
        "terabyte_dcnv2",
        raw,
        folder,
        reference_files=True,
        **flags,  # type: ignore[arg-type]
    )


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of the NumPy files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with text whose days differ in length and in their smallest integers."""
    folder = tmp_path_factory.mktemp("text")
    rows = raw_text.write_days(folder, [300, 20, 250, *([40] * 20), 101], seed=11)
    for day, smallest in ((0, -40), (3, -2_000_000_000), (4, 1), (23, -9)):
        for row in rows[day]:
            row[1:14] = [str(max(int(field or smallest), smallest)) for field in row[1:14]]
        (folder / f"day_{day}").write_bytes(raw_text.text(rows[day]))
    write_days(folder / "expected", prepare_like_the_reference(rows))
    return folder


def test_golden_files_come_out_identical(tmp_path: Path) -> None:
    run = run_program(
        *FLAGS,
        f"--raw-data-file={GOLDEN}/terabyte/day",
        f"--processed-data-file={tmp_path}/out",
        program="tools/prepare_criteo.py",
        cwd=tmp_path,
    )
    assert run.status == 0, run.stderr
    expected = files(GOLDEN / "dcnv2" / "onehot")
    assert len(expected) == 72
    assert files(tmp_path / "out") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*expected, "reference_files.json"}
    assert f"{tmp_path}/out: day_0 to day_22: 6,998 rows, shuffled" in run.stdout


@pytest.mark.parametrize("cores", [1, 3])
def test_files_equal_those_of_the_steps_in_memory(
    cores: int, days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    made = prepare_reference_files(settings(days / "day", tmp_path / "out"))
    assert files(tmp_path / "out") == files(days / "expected")
    assert made.smallest_integers[:5] == [-40, -3, -3, -2_000_000_000, 1]
    assert made.rows_per_day == [300, 20, 250, *([40] * 20), 101]


def test_ids_above_2_to_the_24_are_rounded_to_float32(tmp_path: Path) -> None:
    """Rows with made-up ids pass through buckets that do not end where days do."""
    stream, rows_per_day = np.random.default_rng(5), [1, 90, 13, 200]
    rows = np.zeros((sum(rows_per_day), CRITEO.columns), np.int32)
    rows[:, 0] = stream.integers(0, 2, len(rows))
    rows[:, CRITEO.dense_columns] = stream.integers(-3, 1 << 27, (len(rows), 13))
    rows[:, CRITEO.id_columns] = 2 ** stream.uniform(1, 31, (len(rows), 26)) - 129
    file = RowFile(tmp_path / "rows")
    file.append(rows)
    file.close()
    order = shuffled_rows(len(rows), 0)
    np.concatenate([piece.copy() for piece in inverse_pieces(order, 2, 100)]).tofile(tmp_path / "positions")
    smallest = [int(part[:, CRITEO.dense_columns].min()) for part in np.split(rows, np.cumsum(rows_per_day)[:-1])]
    target = PositionScatter(tmp_path / "spill", len(rows), 5)
    texts = [Path("day")] * len(rows_per_day)
    scatter = Scatter(tmp_path / "rows", tmp_path / "positions", target, rows_per_day, smallest, texts)
    scatter.run(60, threads=2)
    target.flush()
    scatter.close()
    target.close()
    gather = Gather(tmp_path / "spill", tmp_path, all_files([*rows_per_day, 1])[:-1], 5, None)
    gather.write(gather.remaining(), threads=2)
    gather.close(finished=True)
    ends = np.cumsum(rows_per_day)[:-1]
    logarithms = [
        np.log((part.astype(np.int64) - low + 2).astype(np.float32))
        for part, low in zip(np.split(rows[:, CRITEO.dense_columns], ends), smallest, strict=True)
    ]
    ids, labels = np.split(rows[:, CRITEO.id_columns], ends), np.split(rows[:, :1], ends)
    for day, (dense, sparse, label) in enumerate(shuffled(list(zip(logarithms, ids, labels, strict=True)))):
        found = {kind: np.load(tmp_path / f"day_{day}_{kind}.npy") for kind in ("dense", "sparse", "labels")}
        assert np.array_equal(found["sparse"], sparse)
        assert np.array_equal(found["labels"], label)
        assert np.allclose(found["dense"], dense, rtol=1e-6)
    everything = np.concatenate([np.load(tmp_path / f"day_{day}_sparse.npy") for day in range(4)])
    large = everything[everything > 1 << 24]
    assert len(large) > 1000
    assert not (large % 2).any()
    assert not (everything[everything > 1 << 28] % 32).any()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 255, 256, 257, 70_000])
def test_permutation_is_that_of_the_legacy_shuffle_of_rows(rows: int) -> None:
    expected = np.arange(3 * rows, dtype=np.float32).reshape(-1, 3)
    np.random.RandomState(7).shuffle(expected)
    order = shuffled_rows(rows, 7)
    assert np.array_equal(order, expected[:, 0] / 3)
    positions = np.concatenate([piece.copy() for piece in inverse_pieces(order, 3, 1000)])
    assert np.array_equal(positions[order], np.arange(rows))


LOGARITHM = """
import zlib, numpy as np
from mlperf.data.prepare.reference.logarithm import natural_logarithm
values = (np.arange(3000) * 716827 + 2).astype(np.float32)
print(zlib.crc32(np.array([natural_logarithm(value) for value in values], np.float32).tobytes()))
"""


def test_logarithm_does_not_depend_on_the_cpu(tmp_path: Path) -> None:
    """It is the same without the instructions of newer CPUs. The checksum is that of numpy.log with AVX2."""
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    for environment in ({}, generic):
        run = subprocess.run(
            [sys.executable, "-c", LOGARITHM],
            env={**os.environ, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout == "3782868473\n"


def test_logarithm_is_at_most_4_units_in_the_last_place_off() -> None:
    values = 2.0 ** np.random.default_rng(1).uniform(1, 31, 2000)
    for value in values.astype(np.float32):
        exact = np.log(np.float64(value))
        assert abs(natural_logarithm(value) - exact) <= 4 * np.spacing(np.float32(exact))


@pytest.mark.parametrize(
    ("phase", "saves"),
    [
        ("text", 2),
        ("permutation", 1),
        ("scatter", 1),
        ("scatter", 3),
        ("gather", 1),
        ("gather", 3),
        ("last day", 1),
        ("publish", 1),
    ],
)
def test_interrupted_preparation_continues(
    phase: str,
    saves: int,
    days: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_pieces: None,
    small_buckets: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mlperf")
    chosen = settings(days / "day", tmp_path / "out")
    stops = [("permutation", 1)] if saves > 1 and phase != "text" else []
    for stop_phase, stop_saves in [*stops, (phase, saves)]:  # it saves its state between phases at any rate
        seconds = 0.0 if stop_saves > 1 else 60.0
        with killed_after_saves(monkeypatch, stop_phase, stop_saves), pytest.raises(Killed):
            prepare_reference_files(replace(chosen, checkpoint_seconds=seconds))
    assert not (tmp_path / "out").exists()
    prepare_reference_files(chosen)
    assert files(tmp_path / "out") == files(days / "expected")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert any("continuing the preparation in" in message for message in caplog.messages)


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distribute few rows at a time among many buckets."""
    shift = "mlperf.data.prepare.reference.preparation.bucket_shift"
    monkeypatch.setattr(shift, lambda rows: 8)


@contextmanager
def killed_while_renaming(monkeypatch: pytest.MonkeyPatch, *, before: bool) -> Iterator[None]:
    replace_file = os.replace

    def rename(source: Path, target: Path) -> None:
        if not Path(source).is_dir():
            replace_file(source, target)
            return
        if not before:
            replace_file(source, target)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", rename)
        yield


@pytest.mark.parametrize("before", [True, False])
def test_files_appear_all_at_once(
    before: bool, days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(days / "day", tmp_path / "out")
    with killed_while_renaming(monkeypatch, before=before), pytest.raises(Killed):
        prepare_reference_files(chosen)
    assert (tmp_path / "out").exists() != before
    prepare_reference_files(chosen)
    assert files(tmp_path / "out") == files(days / "expected")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_second_call_leaves_the_files_as_they_are(days: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty folder is replaced
    first = prepare_reference_files(settings(days / "day", tmp_path / "out"))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert prepare_reference_files(settings(days / "day", tmp_path / "out")) == first
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_damaged_or_other_files_are_refused(days: Path, tmp_path: Path) -> None:
    shutil.copytree(days, tmp_path / "text")
    chosen = settings(tmp_path / "text" / "day", tmp_path / "out")
    prepare_reference_files(chosen)
    with pytest.raises(RunError, match="prepared from other text or with other flags; remove it or name another"):
        prepare_reference_files(replace(chosen, bad_rows="skip"))
    damaged = tmp_path / "out" / "day_5_sparse.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(RunError, match=r"day_5_sparse\.npy: does not match its manifest .*reference_files\.json"):
        prepare_reference_files(chosen)
    manifest = tmp_path / "out" / "reference_files.json"
    text = manifest.read_text()
    for damaged_text in (text.replace('"counts"', '"count"'), re.sub(r',\s*"manifest_crc32": \d+', "", text)):
        assert damaged_text != text
        manifest.write_text(damaged_text)
        with pytest.raises(RunError, match=r"reference_files\.json: .* damaged: its checksum does not match"):
            prepare_reference_files(chosen)


@pytest.mark.parametrize(
    ("occupy", "said"),
    [
        (
            lambda out: (out.mkdir(), (out / "mine").touch()),
            "contains mine; with --reference-files it must be new",
        ),
        (lambda out: out.touch(), "is a file; with --reference-files it must be a new or empty folder"),
        (lambda out: out.symlink_to("elsewhere"), "is a link; links are not replaced"),
    ],
)
def test_what_is_at_the_folder_is_not_replaced(
    occupy: Callable[[Path], object], said: str, days: Path, tmp_path: Path
) -> None:
    occupy(tmp_path / "out")
    with pytest.raises(UsageError, match=said):
        prepare_reference_files(settings(days / "day", tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data-set=terabyte"], "--reference-files requires --data-set=terabyte_dcnv2"),
        (["--data-randomize=total"], "--data-randomize cannot be combined with --reference-files"),
        (["--numpy-rand-seed=0"], "--numpy-rand-seed cannot be combined with --reference-files"),
        (["--data-sub-sample-rate=0"], "--data-sub-sample-rate cannot be combined with --reference-files"),
        (["--max-ind-range=9"], "--max-ind-range=9: --data-set=terabyte_dcnv2 is prepared without a limit"),
    ],
)
def test_flags_that_the_reference_does_not_have_are_refused(
    flags: list[str], said: str, days: Path, tmp_path: Path
) -> None:
    given = (*FLAGS, f"--raw-data-file={days}/day", "--processed-data-file=out", *flags)
    run = run_program(*given, program="tools/prepare_criteo.py", cwd=tmp_path)
    assert run.status == 2
    assert run.stderr.startswith(f"prepare_criteo.py: error: {said}")
    assert len(run.stderr.splitlines()) == 1


def test_integers_too_far_apart_for_32_bits_are_refused(days: Path, tmp_path: Path) -> None:
    shutil.copytree(days, tmp_path / "text")
    line = (tmp_path / "text" / "day_3").read_bytes().split(b"\t")
    (tmp_path / "text" / "day_3").write_bytes(b"\t".join([line[0], b"2147483647", *line[2:]]))
    with pytest.raises(
        RunError, match=r"day_3: contains the integers -2000000000 and 2147483647; with --reference"
    ):
        prepare_reference_files(settings(tmp_path / "text" / "day", tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"text"}


def test_too_small_disk_and_memory_are_reported_before_the_start(
    days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(days / "day", tmp_path / "out")
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)._replace(free=400_000)
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(RunError, match=r"0\.000[45]\d+ GB are needed .* 0\.0004 GB are free; .*--force"):
            prepare_reference_files(chosen)
    monkeypatch.setattr("mlperf.util.memory.available_memory", lambda: 5000)
    with pytest.raises(RunError, match=r"out: the permutation of 1,\d+ rows: needs \d+.\d kB of memory"):
        prepare_reference_files(chosen)
    assert not list(tmp_path.iterdir())


def test_manifest_lists_the_files_with_their_checksums(days: Path, tmp_path: Path) -> None:
    made = prepare_reference_files(settings(days / "day", tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "reference_files.json").read_text())
    assert content["flags"] == {"data_set": "terabyte_dcnv2", "reference_files": True, "bad_rows": "stop"}
    assert content["counts"] == made.counts
    for path in (tmp_path / "out").glob("*.npy"):  # so the checksums, not only sizes and times, are compared
        os.utime(path, ns=(1, 1))
    assert prepare_reference_files(settings(days / "day", tmp_path / "out")) == made


def test_program_reads_the_counts_from_the_manifest_and_verifies_the_files(
    days: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare_reference_files(settings(days / "day", tmp_path / "out"))
    opened = describe_reference(ReferenceFiles.read(tmp_path / "out" / "day"))
    assert opened.counts == tuple(made.counts)
    assert (opened.train_rows, opened.test_rows, opened.val_rows) == (1370, 51, 50)
    assert verify.main([str(tmp_path / "out")]) == 0
    damaged = tmp_path / "out" / "day_4_dense.npy"
    times = damaged.stat().st_mtime_ns
    content = bytearray(damaged.read_bytes())
    content[-4] ^= 1
    damaged.write_bytes(content)
    os.utime(damaged, ns=(times, times))
    assert verify.main([str(tmp_path / "out")]) == 1
    assert "day_4_dense.npy: damaged: its checksum is " in capsys.readouterr().err
    (tmp_path / "out" / "day_5_dense.npy").write_bytes(content)
    with pytest.raises(RunError, match=r"day_5_dense\.npy: does not match its manifest .*reference_files\.json"):
        describe_reference(ReferenceFiles.read(tmp_path / "out" / "day"))
