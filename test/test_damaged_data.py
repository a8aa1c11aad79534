"""Damaged manifests, archives and counts, and things in place of them, are refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from damaged_data import ARCHIVES, COUNTS, MANIFESTS, npy, zipped
from easy_data import write_easy_data
from odd_files import ODD_FILES
from package_maker import SYSTEM
from preparations import read_rows
from program import GOLDEN, Finished, run_program

from mlperf.data.prepare.open_prepared import open_prepared
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.npz import read_counts
from mlperf.util.errors import RunError

KAGGLE = GOLDEN / "kaggle" / "kaggleAdDisplayChallenge_processed.npz"


def arrays(rows: int = 300) -> dict[str, np.ndarray]:
    """Return the arrays of a small archive."""
    with np.load(KAGGLE) as golden:
        return {name: golden[name] if name == "counts" else golden[name][:rows] for name in golden}


def assert_one_line(run: Finished, name: str) -> None:
    assert run.status == 1, run.stderr
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert name in run.stderr
    assert run.stderr.rstrip("\n").isprintable()


@pytest.mark.parametrize("name", MANIFESTS)
def test_damaged_manifest_is_refused_in_one_line(name: str, terabyte: Path, tmp_path: Path) -> None:
    for split in ("train", "test", "val"):
        shutil.copy2(f"{terabyte}_{split}.bin", tmp_path / f"x_{split}.bin")
    content = json.loads(Path(f"{terabyte}.json").read_text())
    del content["manifest_crc32"]
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert Manifest.read(tmp_path / "x.json") is not None
    (tmp_path / "x.json").write_bytes(MANIFESTS[name](content))
    with pytest.raises(
        RunError, match=r"x\.json: (damaged manifest: |format version |cannot be read: )"
    ) as caught:
        open_prepared(tmp_path / "x")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    run = run_program("x", cwd=tmp_path, program="tools/verify_data.py")
    assert_one_line(run, "x.json: ")


@pytest.mark.parametrize("name", ARCHIVES)
def test_damaged_archive_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(ARCHIVES[name](arrays()))
    with pytest.raises(RunError, match=r"x\.npz: ") as caught:
        open_prepared(tmp_path / "x")
    assert str(caught.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("name", COUNTS)
def test_damaged_counts_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "day_fea_count.npz").write_bytes(COUNTS[name](arrays(2)))
    with pytest.raises(RunError, match=r"day_fea_count\.npz: (cannot read counts|expected 26 counts)") as caught:
        read_counts(tmp_path / "day_fea_count.npz")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [">i4", ">f8", "<i8", "<u2"])
def test_archive_in_another_byte_order_or_by_column_is_read_rightly(kind: str, order: str, tmp_path: Path) -> None:
    whole = arrays()
    whole["X_int"] %= 1000
    (tmp_path / "x.npz").write_bytes(zipped({name: npy(array) for name, array in whole.items()}))
    changed = {name: npy(np.array(array, kind, order=order)) for name, array in whole.items()}  # type: ignore[call-overload]
    (tmp_path / "y.npz").write_bytes(zipped(changed))
    first, second = open_prepared(tmp_path / "x"), open_prepared(tmp_path / "y")
    assert first is not None
    assert second is not None
    assert second.counts == first.counts
    assert np.array_equal(read_rows(second.train), read_rows(first.train))
    assert np.array_equal(read_rows(second.val), read_rows(first.val))


def test_archive_whose_rows_do_not_fit_on_the_disk_is_refused_before_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(KAGGLE, tmp_path / "x.npz")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(RunError, match=r"0\.00024 GB are needed for the rows of the archives and 1e-06 GB"):
        open_prepared(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


# What a program reads, and the call that reads it.
TRAINER = ("dlrm_s_pytorch.py", "--arch-mlp-bot=13-2", "--data-generation=dataset")
SUBMISSION = ("tools/make_submission.py", "--submitter=a", "--system=b")
DISTANCES = "tools/stack_distances.py"
READERS = {
    "manifest": ("x.json", *TRAINER, "--processed-data-file=x"),
    "manifest to verify": ("x.json", "tools/verify_data.py", "x"),
    "counts": ("easy_fea_count.npz", *TRAINER, "--processed-data-file=easy"),
    "named counts": ("day_fea_count.npz", "tools/verify_data.py", "easy", "--raw-data-file=day"),
    "train": ("easy_train.bin", *TRAINER, "--processed-data-file=easy"),
    "test": ("easy_test.bin", *TRAINER, "--processed-data-file=easy"),
    "archive": ("y.npz", *TRAINER, "--processed-data-file=y"),
    "text": ("r.txt", "tools/prepare_criteo.py", "--raw-data-file=r.txt", "--processed-data-file=z"),
    "distribution": ("d_0.log", TRAINER[0], "--data-generation=synthetic", "--data-trace-file=d_j.log"),
    "distribution to draw from": ("d.log", DISTANCES, "generate", "d.log", "t.log"),
    "trace": ("t.log", DISTANCES, "profile", "t.log", "d.log"),
    "binary trace": ("t.log", DISTANCES, "profile", "t.log", "d.log", "--binary"),
    "log": ("r.log", "tools/check_submission.py", "r.log"),
    "log to plot": ("r.log", "tools/plot_run.py", "r.log"),
    "metrics to report": ("m.jsonl", "tools/report.py", "m.jsonl"),
    "sample": ("sample.json", "tools/make_sample.py", "--folder=."),
    "system": ("s.json", *SUBMISSION, "--system-file=s.json", "--logs", "l"),
    "logs": ("l.log", *SUBMISSION, *SYSTEM, "--logs", *["l.log"] * 5),
}


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_a_file_is_refused_without_waiting_for_it(reader: str, kind: str, tmp_path: Path) -> None:
    if (reader, kind) == ("sample", "link to nothing"):
        pytest.skip("there is no sample yet")
    name, program, *flags = READERS[reader]
    write_easy_data(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    ODD_FILES[kind](tmp_path / name)
    run = run_program(*flags, cwd=tmp_path, program=program)
    assert run.status in (1, 2), run.stdout + run.stderr
    assert "error: " in run.stderr
    assert len(run.stderr.splitlines()) == 1, run.stderr


@pytest.mark.parametrize(
    "trace", [b"x" * 10**6, b"1 2 \xff\x1b[31m", b"1, 2.5", b"9" * 5000, b"1 9223372036854775808", b""]
)
def test_damaged_trace_is_refused_in_one_short_line(trace: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.log").write_bytes(trace)
    run = run_program("profile", "t.log", "d.log", cwd=tmp_path, program="tools/stack_distances.py")
    assert_one_line(run, "t.log: ")
    assert len(run.stderr) < 200
