"""The golden check of DLRM-DCNv2 (test/golden_dcnv2.py): it agrees, and notices whatever differs or is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import golden_dcnv2
import numpy as np
import pytest
from golden_maker import Sizes, make_golden
from program import GOLDEN, ROOT, run_program

SMALL = Sizes()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the programs in this process, which saves the seconds of their imports."""

    def run(program: str, flags: Sequence[str], folder: Path) -> str:
        done = run_program(*flags, cwd=folder, program=program)
        if done.status != 0:
            raise golden_dcnv2.Disagreement(done.stderr)
        return done.stdout

    monkeypatch.setattr(golden_dcnv2, "run", run)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_golden(tmp_path_factory.mktemp("golden") / "data", SMALL)


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def check(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, list[str]]:
    """Return the exit status, and the lines of what failed."""
    status = golden_dcnv2.main([str(folder), *flags])
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("FAILED ")]
    assert lines[-1] == ("something DISAGREES" if failed else "everything agrees")
    assert len(lines) > 1
    return status, failed


@pytest.mark.usefixtures("in_process")
def test_golden_data_of_the_reference_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    raw = GOLDEN / "terabyte" / "day"
    status = golden_dcnv2.main([str(GOLDEN / "dcnv2"), f"--raw-data-file={raw}"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "agrees golden data",
        *(
            f"agrees {run} {what}"
            for run in ("adagrad", "sgd")
            for what in ("losses", "weights", "AUC on val", "AUC on test")
        ),
        *(
            "agrees rows of all days",
            "agrees expanded ids",
            "agrees lookup tables",
            "agrees onehot_train_4096.bin",
        ),
        "agrees reference files",
        "everything agrees",
    ]
    assert status == 0


@pytest.mark.parametrize(
    "sizes",
    [
        SMALL,
        Sizes(bottom=(), cross_layers=1, cross_rank=1, top=(), batch=50, steps=2, optimizers=("sgd",), rate=0.3),
        Sizes(
            rows_per_day=30,
            dimension=3,
            bottom=(7, 5),
            cross_layers=4,
            top=(8, 6, 3),
            optimizers=("sgd", "adagrad"),
        ),
    ],
    ids=["small", "no hidden layers", "more layers"],
)
@pytest.mark.usefixtures("in_process")
def test_data_of_other_sizes_agrees(sizes: Sizes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_golden(tmp_path / "data", sizes, seed=2)
    assert check(folder, capsys) == (0, [])


def test_programs_are_started_from_any_folder(made: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "test" / "golden_dcnv2.py"), str(made)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "everything agrees"
    assert list(tmp_path.iterdir()) == []


def changed(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file or an array file."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    elif path.suffix == ".npy":
        array = np.load(path)
        change(array)
        np.save(path, array)
    else:
        with np.load(path) as archive:
            arrays: dict[str, Any] = dict(archive)
        change(arrays)
        np.savez(path, **arrays)


def add(amount: float, *keys: Any) -> Callable[[Any], None]:
    """Return a function that adds to the element of a nested structure that `keys` select."""

    def change(content: Any) -> None:
        *outer, last = keys
        for key in outer:
            content = content[key]
        content[last] = content[last] + amount

    return change


RUN = ("runs", "adagrad")


def put(value: Any, *keys: Any) -> Callable[[Any], None]:
    """Return a function that replaces the element of a nested structure that `keys` select."""

    def change(content: Any) -> None:
        *outer, last = keys
        for key in outer:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.usefixtures("in_process")
def test_every_comparison_notices_a_difference(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for change in (
        *(add(3e-5, *RUN, "loss", 3), add(-0.3, *RUN, "val", "auc"), add(-0.3, *RUN, "test", "auc")),
        *(add(1, *RUN, "val", "positives"), put("0", "files", "day_9_sparse_multi_hot.npz", "arrays_sha256")),
        put("0", "multi_hot", "lookup_tables", 4, "sha256"),
    ):
        changed(copied / "golden.json", change)
    changed(copied / "final_adagrad.npz", add(2e-4, "top.1.bias"))
    status, failed = check(copied, capsys)
    assert status == 1
    for line, beginning in zip(
        failed,
        (
            *("adagrad losses: iteration 4 has loss ", "adagrad weights: top.1.bias differs by 2.0e-04"),
            *("adagrad AUC on val: ", "adagrad AUC on test: ", "rows of all days: split test has "),
            *("expanded ids: the ids of day 9 do not ", "lookup tables: table 4 does not "),
        ),
        strict=True,
    ):
        assert line.startswith(f"FAILED {beginning}")


@pytest.mark.parametrize(
    ("file", "change", "what"),
    [
        ("golden.json", add(1, "steps"), "adagrad losses: golden.json has 4 losses for 5 iterations"),
        ("golden.json", add(1, "model", "multi_hot_sizes", 3), "adagrad losses: iteration 1 has loss "),
        ("golden.json", add(1e-3, *RUN, "eps"), "adagrad losses: iteration 2 has loss "),
        ("golden.json", put({}, "runs"), "golden data: golden.json has runs []"),
        ("golden.json", put({}, "runs", "adam"), "golden data: KeyError: "),
        ("golden.json", put(None, "batch"), "golden data: TypeError: "),
        (
            "golden.json",
            put(1, "model", "cross_layers"),
            "golden data: golden.json has cross_layers 1, initial.npz 2",
        ),
        ("final_adagrad.npz", add(np.nan, "emb.7.weight"), "adagrad weights: emb.7.weight differs by nan"),
        (
            "final_adagrad.npz",
            lambda arrays: arrays.pop("top.0.bias"),
            "golden data: final_adagrad.npz has other ",
        ),
        ("multihot/day_23_sparse_multi_hot.npz", add(1, "5"), "expanded ids: the ids of table 5 on day 23 differ"),
        ("onehot/day_3_sparse.npy", add(1, (0, 0)), "golden data: "),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_every_difference_is_noticed(
    file: str, change: Callable[[Any], None], what: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(copied / file, change)
    status, failed = check(copied, capsys)
    assert status == 1
    assert any(line.startswith(f"FAILED {what}") for line in failed), failed


@pytest.mark.parametrize(
    "file",
    [
        *("initial.npz", "final_adagrad.npz", "onehot/day_11_labels.npy", "multihot/day_0_sparse_multi_hot.npz"),
        "onehot/day_23_dense.npy",
    ],
)
@pytest.mark.usefixtures("in_process")
def test_a_missing_file_is_noticed(file: str, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / file).unlink()
    status, failed = check(copied, capsys)
    assert status == 1
    assert len(failed) == 1
    assert Path(file).name in failed[0]


@pytest.mark.usefixtures("in_process")
def test_rows_of_the_binary_file_are_compared(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / "onehot_train_20.bin"
    original = np.fromfile(path, "<i4").reshape(-1, 40)
    for column in (0, 7, 30):
        rows = original.copy()
        rows[3, column] = 1 - rows[3, column]
        rows.tofile(path)
        assert check(copied, capsys)[1][0].startswith("FAILED onehot_train_20.bin: ")


@pytest.mark.usefixtures("in_process")
def test_files_of_the_preparation_are_compared(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = GOLDEN / "terabyte" / "day"
    status, failed = check(copied, capsys, f"--raw-data-file={raw}")
    assert status == 1
    assert failed == ["FAILED reference files: day_0_dense.npy differs"]


@pytest.mark.parametrize(
    "arguments",
    [(), ("missing",), (".",), ("{made}", "--raw-data-file=missing"), ("{made}", "--raw=x", "--unknown")],
)
def test_wrong_calls_are_refused(
    arguments: tuple[str, ...], made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        golden_dcnv2.main([argument.format(made=made) for argument in arguments])
    assert raised.value.code == 2
    assert "error: " in capsys.readouterr().err
