"""`--save-predictions`: the row number, label and probability of every row of a split, in three formats."""

from __future__ import annotations

import contextlib
import csv
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from easy_data import write_easy_data
from preparations import read_rows
from processes import in_processes, launched, needs_torchrec, with_ranks
from program import run_program
from small_runs import SHAPE, train

import mlperf
from mlperf.cli.train import parse
from mlperf.data.binary import BinaryFile
from mlperf.distributed.processes import current
from mlperf.evaluation.predictions import Delivery
from mlperf.export.csv_rows import csv_rows
from mlperf.export.predictions import ROW, file_bytes, predictions_file
from mlperf.util.errors import RunError


@pytest.fixture(scope="module")
def model(terabyte: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint."""
    folder = tmp_path_factory.mktemp("model")
    train(terabyte, folder, "--save-model=model.pt", "--mlperf-log-file=train.log")
    return folder / "model.pt"


def score_flags(terabyte: Path, model: Path, *flags: str) -> tuple[str, ...]:
    given = (*SHAPE, f"--processed-data-file={terabyte}", f"--load-model={model}", "--inference-only")
    return (*given, "--mini-batch-size=64", *flags)


def predictions(terabyte: Path, model: Path, folder: Path, name: str, *flags: str) -> tuple[Any, str]:
    """Return what a run has written to the file `name`, as an array of ROW, and what it has printed."""
    run = run_program(*score_flags(terabyte, model, f"--save-predictions={name}", *flags), cwd=folder)
    assert run.status == 0, run.stderr
    return read(folder / name), run.stdout


def read(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(path)
        rows = np.empty(len(table), ROW)
        for name in ROW.fields or ():
            rows[name] = table[name].to_numpy()
        return rows
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["row", "label", "probability"]
    return np.array([tuple(line) for line in lines[1:]], ROW)


@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_every_row_of_a_split_has_a_prediction_in_order(
    split: str, terabyte: Path, model: Path, tmp_path: Path
) -> None:
    rows = read_rows(Path(f"{terabyte}_{split}.bin"))
    flags = (f"--split={split}", "--mlperf-logging", "--mlperf-bin-shuffle", "--num-batches=2")
    found, printed = predictions(terabyte, model, tmp_path, "p.npy", *flags)
    assert found.dtype == ROW
    assert found["row"].tolist() == list(range(len(rows)))
    assert found["label"].tolist() == rows[:, 0].tolist()
    hits = ((found["probability"] > 0.5) == found["label"]).mean()
    assert f", accuracy {100 * hits:.3f} %" in printed


def test_folder_of_a_run_has_the_predictions(terabyte: Path, model: Path, tmp_path: Path) -> None:
    expected, _ = predictions(terabyte, model, tmp_path, "p.npy")
    for flags, name in (((), "predictions.npy"), (("--output-dir=run",), "run/predictions.npy")):
        run = run_program(*score_flags(terabyte, model, "--save-predictions", *flags), cwd=tmp_path)
        assert run.status == 0, run.stderr
        assert (read(tmp_path / name) == expected).all()


def test_dry_run_names_the_file(terabyte: Path, model: Path, tmp_path: Path) -> None:
    run = run_program(*score_flags(terabyte, model, "--save-predictions=p.npy", "--dry-run"), cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert not list(tmp_path.iterdir())
    rows = len(read_rows(Path(f"{terabyte}_test.bin")))
    assert f"disk      {13 * rows / 1e3:.1f} kB for p.npy; " in run.stdout


@pytest.mark.parametrize("name", ["p.npy", "p.csv"])
def test_size_of_a_file_is_known_before(name: str, tmp_path: Path) -> None:
    rows = 20_000
    with predictions_file(tmp_path / name) as file:
        file.append(torch.rand(rows), torch.ones(rows))
    assert (tmp_path / name).stat().st_size == pytest.approx(file_bytes(tmp_path / name, rows), rel=0.05)


def test_formats_have_equal_rows(terabyte: Path, model: Path, tmp_path: Path) -> None:
    expected, _ = predictions(terabyte, model, tmp_path, "p.npy")
    for name in ("p.csv", "p.parquet"):
        assert (predictions(terabyte, model, tmp_path, name)[0] == expected).all()


def test_predictions_change_nothing_that_is_printed(terabyte: Path, model: Path, tmp_path: Path) -> None:
    flags = score_flags(terabyte, model, "--mlperf-logging")
    plain = run_program(*flags, cwd=tmp_path)
    saved = run_program(*flags, "--save-predictions=p.npy", cwd=tmp_path)
    assert saved.stdout == plain.stdout
    rows = len(np.load(tmp_path / "p.npy"))
    assert saved.stderr == f"{plain.stderr}predictions of {rows} rows in p.npy\n"


def test_engines_predict_the_same(terabyte: Path, model: Path, tmp_path: Path) -> None:
    cpu, _ = predictions(terabyte, model, tmp_path, "p.npy", "--engine=cpu")
    autograd, _ = predictions(terabyte, model, tmp_path, "p.npy", "--engine=autograd")
    np.testing.assert_allclose(cpu["probability"], autograd["probability"], atol=1e-6)


def test_predictions_are_those_of_the_quantized_model(terabyte: Path, model: Path, tmp_path: Path) -> None:
    flags = ("--quantize-emb-with-bit=4", "--mlperf-logging")
    found, printed = predictions(terabyte, model, tmp_path, "p.csv", *flags)
    exact, _ = predictions(terabyte, model, tmp_path, "q.csv")
    assert len(found) == len(exact)
    assert (found["probability"] != exact["probability"]).any()
    assert f", accuracy {100 * ((found['probability'] > 0.5) == found['label']).mean():.3f} %" in printed


def test_earlier_file_is_replaced_only_by_a_whole_one(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_text("kept")
    easy = write_easy_data(tmp_path)
    rows = read_rows(Path(f"{easy}_val.bin"))
    rows[-1, 14] = 4
    rows.tofile(f"{easy}_val.bin")
    flags = ("--data-generation=dataset", "--arch-mlp-bot=13-2", "--inference-only", "--mini-batch-size=64")
    given = (*flags, f"--processed-data-file={easy}", "--split=val", "--save-predictions=p.parquet")
    run = run_program(*given, cwd=tmp_path)
    assert run.status == 1
    assert run.stderr.splitlines()[-1].endswith("column 15: index 4 is not in table 0, which has 4 rows")
    assert (tmp_path / "p.parquet").read_text() == "kept"
    assert not list(tmp_path.glob(".p*"))


def test_model_that_has_diverged_writes_no_predictions(terabyte: Path, model: Path, tmp_path: Path) -> None:
    contents = torch.load(model, weights_only=True)
    contents["state_dict"]["top_l.0.bias"][:] = torch.nan
    torch.save(contents, tmp_path / "nan.pt")
    run = run_program(*score_flags(terabyte, tmp_path / "nan.pt", "--save-predictions=p.npy"), cwd=tmp_path)
    assert run.status == 1
    assert run.stderr.splitlines()[-1].endswith("not a number in [0, 1]: the model has diverged")
    assert not (tmp_path / "p.npy").exists()


def write_beyond(path: Path, limit: int) -> None:
    """Write predictions of more than `limit` bytes, which the system refuses."""
    with predictions_file(path) as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        file.append(torch.rand(limit), None)


@pytest.mark.parametrize("name", ["p.npy", "p.csv", "p.parquet"])
def test_full_disk_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    if name == "p.parquet":
        pytest.importorskip("pyarrow")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / name
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(RunError, match=rf"^{path}: the predictions cannot be written: File too large$"):
            write_beyond(path, 3000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--save-predictions=p.npy", "--save-predictions=p.npy requires --inference-only"),
        ("--split=train", "--split=train requires --inference-only: a training evaluates on test"),
        (
            "--inference-only --save-predictions=p.txt",
            "--save-predictions: 'p.txt' is not a file name that ends in .npy, .csv or .parquet",
        ),
        ("--inference-only --save-predictions=x/p.csv", "--save-predictions=x/p.csv: folder x does not exist"),
        (
            "--inference-only --load-model=p.npy --save-predictions=./p.npy",
            "--save-predictions=p.npy is the same file as --load-model=p.npy; name another file",
        ),
    ],
)
def test_wrong_use_is_refused_by_name(flags: str, message: str, terabyte: Path, tmp_path: Path) -> None:
    given = ("--data-generation=dataset", "--arch-mlp-bot=13-2", f"--processed-data-file={terabyte}")
    run = run_program(*given, *flags.split(), cwd=tmp_path)
    assert (run.status, run.stderr) == (2, f"dlrm_s_pytorch.py: error: {message}\n")


def test_missing_package_is_named_before_the_run(
    terabyte: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run = run_program(*score_flags(terabyte, model, "--save-predictions=p.parquet"), cwd=tmp_path)
    assert run.status == 2
    message = "--save-predictions=p.parquet: requires the package pyarrow (pip install pyarrow)"
    assert run.stderr == f"dlrm_s_pytorch.py: error: {message}\n"


def test_text_of_probabilities_is_that_of_python() -> None:
    stream = np.random.default_rng(2)
    bits = stream.integers(0, 0x3F800001, 20_000, np.uint32)  # any float32 from 0 to 1
    near = (1 - 0.5 ** np.arange(30)).astype(np.float32)
    values = np.concatenate(
        [bits.view(np.float32), stream.random(20_000, np.float32), near, np.array([0, 1e-4], np.float32)]
    )
    numbers, labels = np.arange(len(values)) * 7919**3, (np.arange(len(values)) % 3 - 1).astype(np.int8)
    lines = csv_rows(numbers, labels, values).tobytes().decode().splitlines()
    columns = zip(numbers.tolist(), labels.tolist(), values.tolist(), strict=True)
    assert lines == [f"{number},{label},{value:.9g}" for number, label, value in columns]
    assert [np.float32(line.split(",")[2]) for line in lines] == values.tolist()


def delivered(prefix: Path, rows_at_a_time: int, batch_size: int) -> tuple[list[int], list[float]]:
    """Return the sizes of the parts and the values that rank 0 gets if row n has the score n / 1000."""
    parts: list[torch.Tensor] = []
    source = BinaryFile(Path(f"{prefix}_val.bin"), 512, batch_size, (4,) * 26, processes=current())
    delivery = Delivery(source, lambda scores, labels: parts.append(scores), rows_at_a_time)
    own: list[float] = []
    for number, size in enumerate(source.sizes(0)):
        first, count = current().share(size)
        own += [(number * batch_size + first + row) / 1000 for row in range(count)]
        delivery.scored(torch.tensor(own), torch.zeros(len(own)))
    delivery.scored(torch.tensor(own), torch.zeros(len(own)), is_last=True)
    return [len(part) for part in parts], [value for part in parts for value in part.tolist()]


@in_processes
@pytest.mark.parametrize("size", [1, 3])
def test_first_process_gets_all_rows_in_order_while_they_are_scored(size: int, tmp_path: Path) -> None:
    easy = write_easy_data(tmp_path)
    arguments = (easy, 100, 34)
    first, *others = [delivered(*arguments)] if size == 1 else with_ranks(size, delivered, *arguments)
    assert first == ([102] * 5 + [2], torch.arange(512).div(1000).tolist())
    assert others == [([], [])] * (size - 1)


def score_on_each(flags: list[str], folder: Path) -> None:
    with contextlib.chdir(folder):
        mlperf.run(parse(flags))


@in_processes
@needs_torchrec
def test_several_processes_write_one_file(terabyte: Path, tmp_path: Path) -> None:
    flags = [*SHAPE, f"--processed-data-file={terabyte}", "--inference-only", "--mini-batch-size=33"]
    mlperf.run(parse([*flags, f"--save-predictions={tmp_path}/one.npy"]))
    launched(3, score_on_each, [*flags, "--save-predictions=three.npy"], tmp_path)
    one, three = np.load(tmp_path / "one.npy"), np.load(tmp_path / "three.npy")
    assert (three[["row", "label"]] == one[["row", "label"]]).all()
    np.testing.assert_allclose(three["probability"], one["probability"], atol=1e-6)
