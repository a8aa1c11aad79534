"""Raw text to the binary files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import raw_text
from program import GOLDEN, ROOT, run_program

from mlperf.data.criteo.manifest import Manifest, Place
from mlperf.data.criteo.plan import PreparationSettings
from mlperf.data.criteo.prepare import prepare
from mlperf.data.criteo.prepared import open_prepared
from mlperf.data.criteo.sample import SampleSettings, make_sample
from mlperf.data.criteo.sampling import RowSampler
from mlperf.errors import RunError

DAYS = [11, 3, 2, 7, *([5] * 19), 9]


def read(path: Path) -> npt.NDArray[np.int32]:
    return np.fromfile(path, "<i4").reshape(-1, 40)


def settings(raw: Path, place: Path, **flags: object) -> PreparationSettings:
    chosen = {"data_set": "terabyte", "randomize": "none", **flags}
    return PreparationSettings(raw_data_file=raw, processed_data_file=place, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_terabyte_files_equal_the_golden_ones(terabyte: Path, split: str) -> None:
    golden = GOLDEN / "terabyte" / f"terabyte_processed_{split}.bin"
    assert Path(f"{terabyte}_{split}.bin").read_bytes() == golden.read_bytes()


def test_terabyte_counts_equal_the_golden_ones(terabyte: Path) -> None:
    with np.load(GOLDEN / "terabyte" / "day_fea_count.npz") as golden:
        assert json.loads(Path(f"{terabyte}.json").read_text())["counts"] == golden["counts"].tolist()
    with np.load(GOLDEN / "terabyte" / "day_day_count.npz") as golden:
        assert json.loads(Path(f"{terabyte}.json").read_text())["rows_per_day"] == list(golden["total_per_file"])


def test_kaggle_rows_equal_the_golden_ones(kaggle: Path) -> None:
    rows = np.concatenate([read(Path(f"{kaggle}_{split}.bin")) for split in ("train", "test", "val")])
    with np.load(GOLDEN / "kaggle" / "kaggleAdDisplayChallenge_processed.npz") as golden:
        assert np.array_equal(rows[:, 0], golden["y"])
        assert np.array_equal(rows[:, 1:14], golden["X_int"].clip(min=0))
        assert np.array_equal(rows[:, 14:], golden["X_cat"])
        assert json.loads(Path(f"{kaggle}.json").read_text())["counts"] == golden["counts"].tolist()


@pytest.mark.parametrize("limit", [-1, 1, 7, 1000, 40_000_000, 2**32 - 1, 2**40])
def test_any_limit_gives_what_a_plain_preparation_gives(limit: int, tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=5)
    made = prepare(settings(tmp_path / "day", tmp_path / "x", max_ind_range=limit))
    expected = raw_text.prepare_slowly(days, limit)
    assert list(made.counts) == expected.counts
    for path, rows in ((made.train, expected.train), (made.test, expected.test), (made.val, expected.val)):
        assert np.array_equal(read(path), rows)


def test_kaggle_text_is_cut_into_seven_days(tmp_path: Path) -> None:
    rows = raw_text.random_rows(31, seed=3)  # days of 5, 5, 5, 4, 4, 4, 4
    (tmp_path / "train.txt").write_bytes(raw_text.text(rows))
    made = prepare(settings(tmp_path / "train.txt", tmp_path / "x", data_set="kaggle"))
    assert (made.train_rows, made.test_rows, made.val_rows) == (27, 2, 2)
    assert np.array_equal(read(made.test), raw_text.prepare_slowly([rows[:27], rows[27:]], -1).test)


@pytest.mark.parametrize("name", ["x", "x.npz", "x.bin"])
def test_three_names_stand_for_the_same_files(name: str, tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=1)
    prepare(settings(tmp_path / "day", tmp_path / name))
    made = {path.name for path in tmp_path.iterdir() if path.name.startswith(("x", ".x"))}
    assert made == {"x_train.bin", "x_test.bin", "x_val.bin", "x.json"}


def keyed(rows: npt.NDArray[np.int32]) -> Counter[bytes]:
    return Counter(row.tobytes() for row in rows)


@pytest.mark.parametrize("data_set", ["terabyte", "kaggle"])
@pytest.mark.parametrize("cores", [1, 3])
def test_rows_of_label_0_are_dropped_before_the_numbering(
    data_set: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr("mlperf.data.criteo.text.BLOCK_BYTES", 4000)
    sampler = RowSampler(seed=9, rate=0.6)
    if data_set == "terabyte":
        days = raw_text.write_days(tmp_path, DAYS, seed=5)
        place_of = [(file, 0) for file in range(len(days))]
    else:
        (rows,) = raw_text.write_days(tmp_path, [201], seed=5)
        bounds = [0, 29, 58, 87, 116, 145, 173, 201]
        days = [rows[first:last] for first, last in pairwise(bounds)]
        place_of = [(0, first) for first in bounds[:-1]]
    kept = []
    for rows, (file, first) in zip(days, place_of, strict=True):
        mask = sampler.kept(np.array([int(row[0]) for row in rows], np.int32), file, first)
        assert all(stays for row, stays in zip(rows, mask, strict=True) if row[0] == "1")
        kept.append([row for row, stays in zip(rows, mask, strict=True) if stays])
    raw = tmp_path / ("day" if data_set == "terabyte" else "day_0")
    made = prepare(settings(raw, tmp_path / "x", data_set=data_set, sub_sample_rate=0.6, seed=9))
    expected = raw_text.prepare_slowly(kept, -1)
    assert np.array_equal(read(made.train), expected.train)
    assert np.array_equal(read(made.test), expected.test)
    assert np.array_equal(read(made.val), expected.val)
    assert list(made.counts) == expected.counts


def test_the_share_that_is_dropped_is_the_one_asked_for() -> None:
    labels = np.zeros(40_000, np.int32)
    first = RowSampler(seed=1, rate=0.875).kept(labels, 0, 0)
    assert abs(first.mean() - 0.125) < 5 * np.sqrt(0.125 * 0.875 / len(labels))
    for seed, file in ((2, 0), (1, 1)):  # another stream: as often equal as chance has it
        other = RowSampler(seed=seed, rate=0.875).kept(labels, file, 0)
        assert abs((first & other).mean() - 0.125**2) < 5 * 0.125 / np.sqrt(len(labels))
    assert np.array_equal(RowSampler(seed=1, rate=0.875).kept(labels[:100], 0, 700), first[700:800])


def test_dropping_all_rows_of_a_split_is_refused(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=5)
    for day in range(23):
        path = tmp_path / f"day_{day}"
        path.write_bytes(b"".join(b"0" + line[1:] for line in path.read_bytes().splitlines(keepends=True)))
    with pytest.raises(RunError, match=r"--data-sub-sample-rate=0\.99999 leaves no rows for the training split"):
        prepare(settings(tmp_path / "day", tmp_path / "x", sub_sample_rate=0.99999))
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize("randomize", ["total", "day"])
def test_randomized_rows_are_the_same_rows_in_another_order(randomize: str, tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, [200, *([30] * 23)], seed=2)
    expected = raw_text.prepare_slowly(days, -1)
    made = prepare(settings(tmp_path / "day", tmp_path / "x", randomize=randomize))
    found = read(made.train)
    assert keyed(found) == keyed(expected.train)
    assert not np.array_equal(found, expected.train)
    assert np.array_equal(read(made.test), expected.test)
    if randomize == "day":
        assert keyed(found[:200]) == keyed(expected.train[:200])
        assert keyed(found[200:230]) == keyed(expected.train[200:230])
    else:
        assert keyed(found[:200]) != keyed(expected.train[:200])


@pytest.mark.parametrize("bucket_bytes", [1000, 8 << 20])
def test_total_shuffle_puts_every_row_anywhere(
    bucket_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chi-squared test of row against position, to five standard deviations, in one bucket and in eight."""
    monkeypatch.setattr("mlperf.data.criteo.shuffle._SMALL_BUCKET_BYTES", bucket_bytes)
    raw_text.write_days(tmp_path, [2] * 24, seed=2)
    first = settings(tmp_path / "day", tmp_path / "plain")
    rows = [row.tobytes() for row in read(prepare(first).train)]
    position = np.zeros((len(rows), len(rows)))
    trials = 400
    for seed in range(trials):
        made = prepare(settings(tmp_path / "day", tmp_path / "x", randomize="total", seed=seed))
        for at, row in enumerate(read(made.train)):
            position[rows.index(row.tobytes()), at] += 1
    expected = trials / len(rows)
    chi_squared = ((position - expected) ** 2 / expected).sum()
    freedom = (len(rows) - 1) ** 2
    assert abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)


def test_day_shuffle_puts_every_row_anywhere_in_its_day(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, [20, *([2] * 23)], seed=2)
    rows = [row.tobytes() for row in read(prepare(settings(tmp_path / "day", tmp_path / "plain")).train)]
    position = np.zeros((20, 20))
    trials = 200
    for seed in range(trials):
        made = read(prepare(settings(tmp_path / "day", tmp_path / "x", randomize="day", seed=seed)).train)
        for at, row in enumerate(made[:20]):
            position[rows.index(row.tobytes()), at] += 1
    expected = trials / 20
    chi_squared = ((position - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 19**2) < 5 * np.sqrt(2 * 19**2)


@pytest.mark.parametrize("randomize", ["total", "day"])
def test_same_seed_gives_the_same_file_on_any_number_of_cores_and_another_seed_another(
    randomize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlperf.data.criteo.shuffle._SMALL_BUCKET_BYTES", 3000)
    monkeypatch.setattr("mlperf.data.criteo.text.BLOCK_BYTES", 3000)
    raw_text.write_days(tmp_path, DAYS, seed=4)
    made = []
    for name, seed, cores in (("a", 1, 2), ("b", 1, 1), ("c", 1, 7), ("d", 1, 64), ("e", 2, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))  # noqa: B023
        where = settings(tmp_path / "day", tmp_path / name, randomize=randomize, seed=seed)
        made.append(prepare(where).train.read_bytes())
    assert made[0] == made[1] == made[2] == made[3] != made[4]


MEASURE = """
import resource, sys
from pathlib import Path
from mlperf.data.criteo.plan import PreparationSettings
from mlperf.data.criteo.prepare import prepare
prepare(PreparationSettings("terabyte", Path(sys.argv[1]), Path(sys.argv[2]), max_ind_range=int(sys.argv[3])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("limit", [-1, 40_000_000])
def test_memory_does_not_grow_with_more_rows_of_the_same_ids(limit: int, tmp_path: Path) -> None:
    make_sample(SampleSettings(tmp_path, rows=48_000, seed=1))
    peaks = []
    for times in (1, 1, 10):  # the first one may compile
        path = tmp_path / "day_0"
        path.write_bytes((tmp_path / "day_23").read_bytes() * (4 * times))
        command = [
            sys.executable,
            "-c",
            MEASURE,
            str(tmp_path / "day"),
            str(tmp_path / f"x{len(peaks)}"),
            str(limit),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert path.stat().st_size > 60e6
    assert peaks[2] < peaks[1] + 40, peaks


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (lambda fields: fields[:39], "column 39", "too few columns"),
        (lambda fields: fields[:1], "column 1", "too few columns"),
        (lambda fields: [*fields, "5"], "column 40", "goes on"),
        (lambda fields: ["2", *fields[1:]], "column 1", "not a label"),
        (lambda fields: ["", *fields[1:]], "column 1", "not a label"),
        (lambda fields: [*fields[:3], "12a", *fields[4:]], "column 4", "not a whole number"),
        (lambda fields: [*fields[:3], "-", *fields[4:]], "column 4", "not a whole number"),
        (lambda fields: [*fields[:3], "2147483648", *fields[4:]], "column 4", "does not fit"),
        (lambda fields: [*fields[:3], "-2147483649", *fields[4:]], "column 4", "does not fit"),
        (lambda fields: [*fields[:3], "9" * 40, *fields[4:]], "column 4", "does not fit"),
        (lambda fields: [*fields[:20], "12xy", *fields[21:]], "column 21", "not an id"),
        (lambda fields: [*fields[:20], "123456789", *fields[21:]], "column 21", "more than 8 digits"),
    ],
)
def test_bad_row_is_named_by_file_row_and_column(change, where: str, what: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    days = raw_text.write_days(tmp_path, DAYS, seed=6)
    days[3][4] = change(days[3][4])
    (tmp_path / "day_3").write_bytes(raw_text.text(days[3]))
    with pytest.raises(RunError) as caught:
        prepare(settings(tmp_path / "day", tmp_path / "out" / "x"))
    message = str(caught.value)
    assert f"{tmp_path / 'day_3'}: row 5, {where}: " in message
    assert what in message
    assert "\n" not in message
    assert not list((tmp_path / "out").iterdir())


def test_extremes_of_32_bits_are_allowed(tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=6)
    days[0][0][1:4] = ["2147483647", "-2147483648", "-0"]
    days[0][0][14:16] = ["ffffffff", "FFFFFFFF"]
    (tmp_path / "day_0").write_bytes(raw_text.text(days[0]))
    made = prepare(settings(tmp_path / "day", tmp_path / "x"))
    assert np.array_equal(read(made.train), raw_text.prepare_slowly(days, -1).train)


def test_windows_line_ends_and_a_missing_last_one_just_work(tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=7)
    (tmp_path / "day_1").write_bytes(raw_text.text(days[1], "\r\n"))
    (tmp_path / "day_2").write_bytes(raw_text.text(days[2]).removesuffix(b"\n"))
    (tmp_path / "day_23").write_bytes(raw_text.text(days[23], "\r\n").removesuffix(b"\r\n"))
    made = prepare(settings(tmp_path / "day", tmp_path / "x"))
    expected = raw_text.prepare_slowly(days, -1)
    assert np.array_equal(read(made.train), expected.train)
    assert np.array_equal(read(made.val), expected.val)


def test_last_row_ending_in_an_empty_id_without_newline_just_works(tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=7)
    days[23][-1][39] = ""
    (tmp_path / "day_23").write_bytes(raw_text.text(days[23]).removesuffix(b"\n"))
    made = prepare(settings(tmp_path / "day", tmp_path / "x"))
    assert np.array_equal(read(made.val), raw_text.prepare_slowly(days, -1).val)


@pytest.mark.parametrize("breaking", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_missing_or_empty_day_is_named(breaking, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    raw_text.write_days(tmp_path, DAYS, seed=7)
    breaking(tmp_path / "day_17")
    run = run_program(
        *("--data-set=terabyte", f"--raw-data-file={tmp_path}/day", f"--processed-data-file={tmp_path}/x"),
        program="tools/prepare_criteo.py",
        cwd=tmp_path,
    )
    assert run.status == 1
    assert f"{tmp_path}/day_17: " in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_prepared_data_is_taken_as_it_is_until_flags_or_inputs_change(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=8)
    wanted = settings(tmp_path / "day", tmp_path / "x")
    first = prepare(wanted).train.stat().st_mtime_ns
    assert prepare(wanted).train.stat().st_mtime_ns == first
    assert prepare(settings(tmp_path / "day", tmp_path / "x", max_ind_range=5)).train.stat().st_mtime_ns != first
    before = prepare(wanted).train.read_bytes()
    raw_text.write_days(tmp_path, DAYS, seed=9)
    assert prepare(wanted).train.read_bytes() != before


@pytest.mark.parametrize("split", ["train", "test", "val"])
@pytest.mark.parametrize("how", ["shorter", "other bytes"])
def test_file_that_is_not_what_its_manifest_says_is_refused(
    split: str, how: str, terabyte: Path, tmp_path: Path
) -> None:
    for path in terabyte.parent.iterdir():
        shutil.copy2(path, tmp_path)
    damaged = tmp_path / f"processed_{split}.bin"
    contents = damaged.read_bytes()
    damaged.write_bytes(contents[:-160] if how == "shorter" else contents[:-1] + bytes([contents[-1] ^ 1]))
    with pytest.raises(RunError, match=str(damaged)):
        open_prepared(tmp_path / "processed")


def test_copied_files_are_the_same_files(terabyte: Path, tmp_path: Path) -> None:
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
        Manifest.read(Place.named(tmp_path / "x").manifest)


def test_files_of_another_program_are_taken_and_never_overwritten(tmp_path: Path) -> None:
    for path in (GOLDEN / "terabyte").glob("*.bin"):
        shutil.copy(path, tmp_path)
    shutil.copy(GOLDEN / "terabyte" / "day_fea_count.npz", tmp_path)
    place = tmp_path / "terabyte_processed"
    made = open_prepared(place)
    assert made is not None
    with np.load(GOLDEN / "terabyte" / "day_fea_count.npz") as golden:
        assert list(made.counts) == golden["counts"].tolist()
    before = made.train.stat().st_mtime_ns
    assert prepare(settings(GOLDEN / "terabyte" / "day", place)).train.stat().st_mtime_ns == before


def test_second_preparation_of_one_place_stops(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=8)
    script = (
        "import fcntl, pathlib, sys\n"
        "from mlperf.data.criteo.work import locked\n"
        "from mlperf.data.criteo.manifest import Place\n"
        "with locked(Place.named(pathlib.Path(sys.argv[1]))):\n"
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
            prepare(settings(tmp_path / "day", tmp_path / "x"))
        other.communicate("")
    prepare(settings(tmp_path / "day", tmp_path / "x"))


def test_preparation_does_not_import_torch(tmp_path: Path) -> None:
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['prepare_criteo.py', '--data-set=terabyte', '--raw-data-file={GOLDEN}/terabyte/day', "
        f"'--processed-data-file={tmp_path}/x']\n"
        "try:\n    runpy.run_path('tools/prepare_criteo.py', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x_train.bin").exists()


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """The same ids in four times as many rows; buckets made small, so that both runs fill several."""
    rows = raw_text.text(raw_text.random_rows(2000, seed=1))
    peaks = []
    for times in (150, 600):
        for day in range(24):
            (tmp_path / f"day_{day}").write_bytes(rows * (times if day == 0 else 1))
        script = (
            "import pathlib, re\n"
            "from mlperf.data.criteo import prepare, shuffle\n"
            "shuffle._BUCKET_BYTES = 4 << 20\n"
            f"raw, place = pathlib.Path('{tmp_path}/day'), pathlib.Path('{tmp_path}/x{times}')\n"
            "prepare.prepare(prepare.PreparationSettings('terabyte', raw, place))\n"
            "print(re.search('VmHWM:\\s*(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])\n"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) * 1024)
    more_bytes = 450 * len(rows)
    assert peaks[1] - peaks[0] < 0.1 * more_bytes, peaks
