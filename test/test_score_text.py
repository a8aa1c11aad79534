"""`--score-text`: raw text, with or without labels, scored with the numbering of prepared data."""

from __future__ import annotations

import contextlib
import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import raw_text
from preparations import DAYS, preparation
from program import Finished, run_program
from raw_text import Row

import mlperf
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.scored_text import in_whole_batches
from mlperf.engines.requested import check_engine
from mlperf.settings.from_flags import parse
from mlperf.util.errors import RunError, UsageError

MODEL = (
    *("--arch-sparse-feature-size=8", "--arch-mlp-bot=13-16-8", "--arch-mlp-top=16-1", "--loss-function=bce"),
    *("--data-generation=dataset", "--processed-data-file=x", "--mini-batch-size=4"),
)
# Values of --data-set with further flags of the training.
DATA_SETS = {"terabyte": (), "terabyte_dcnv2": ("--max-ind-range=20",)}


class Log:
    """Prepared days with a model that was trained on them. rows: those of each day of the text."""

    def __init__(self, folder: Path, data_set: str, rows: list[list[Row]] | None = None) -> None:
        self.folder = folder
        self.rows = raw_text.write_days(folder, DAYS, seed=8) if rows is None else rows
        self.flags = (*MODEL, f"--data-set={data_set}", *DATA_SETS[data_set])
        limit = 1000 if data_set == "terabyte" else -1
        prepare(preparation(folder / "day", folder / "x", data_set=data_set, max_ind_range=limit))
        run = run_program(*self.flags, "--save-model=model.pt", "--test-freq=9", cwd=folder)
        assert run.status == 0, run.stderr

    def score(self, *flags: str) -> Finished:
        given = (*self.flags, "--inference-only", "--load-model=model.pt", *flags)
        return run_program(*given, cwd=self.folder)

    def predictions(self, *flags: str) -> np.ndarray:
        run = self.score(*flags, "--save-predictions=p.npy")
        assert run.status == 0, run.stderr
        found: np.ndarray = np.load(self.folder / "p.npy")
        return found

    def write(self, name: str, rows: Sequence[Row]) -> Path:
        path = self.folder / name
        path.write_bytes(raw_text.text(rows))
        return path


@pytest.fixture(scope="module", params=DATA_SETS)
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Log:
    return Log(tmp_path_factory.mktemp("log"), request.param)


@pytest.fixture(scope="module")
def terabyte_log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return Log(tmp_path_factory.mktemp("log"), "terabyte")


def unknown_id(log: Log) -> str:
    """Return an id that column 17 of the days does not have. Ids are taken modulo 1000."""
    known = {int(row[16] or "0", 16) % 1000 for day in log.rows for row in day}
    return f"{7000 + min(set(range(1000)) - known):x}"


def last_day(log: Log) -> np.ndarray:
    """Return the predictions of the last day, which is divided into test and val."""
    parts = [log.predictions(f"--split={split}", "--mini-batch-size=1") for split in ("test", "val")]
    found = np.concatenate(parts)
    found["row"] = np.arange(len(found))
    return found


def test_text_of_prepared_rows_has_their_predictions(log: Log) -> None:
    expected = last_day(log)
    found = log.predictions("--score-text=day_23", "--mini-batch-size=1")
    assert found.tolist() == expected.tolist()
    assert len(found) == DAYS[-1]


def test_text_without_labels_has_the_same_probabilities(log: Log) -> None:
    log.write("new", [row[1:] for row in log.rows[23]])
    run = log.score("--score-text=new", "--save-predictions=p.npy", "--mini-batch-size=1")
    assert (run.status, run.stdout) == (0, "")
    found, expected = np.load(log.folder / "p.npy"), last_day(log)
    assert found["probability"].tolist() == expected["probability"].tolist()
    assert set(found["label"]) == {-1}


def test_batches_are_those_of_a_split(terabyte_log: Log) -> None:
    """Rows 0 to 10 of the training split are those of the first day."""
    whole = terabyte_log.predictions("--split=train", "--mini-batch-size=4")[:8]
    assert terabyte_log.predictions("--score-text=day_0", "--mini-batch-size=4")[:8].tolist() == whole.tolist()


def test_metrics_are_those_of_the_rows(terabyte_log: Log) -> None:
    shutil.copy(terabyte_log.folder / "day_23", terabyte_log.folder / "test")
    run = terabyte_log.score("--score-text=test", "--mlperf-logging")
    assert run.status == 0, run.stderr
    hits = (last_day(terabyte_log)["probability"] > 0.5) == [row[0] == "1" for row in terabyte_log.rows[23]]
    heading, metrics = run.stdout.splitlines()
    assert heading == "Testing on test"
    assert f"accuracy {100 * hits.mean():.3f} %" in metrics


def test_rows_are_scored_in_whole_batches() -> None:
    parts = [np.full((size, 2), number, np.int32) for number, size in enumerate((3, 9, 1, 20, 2, 1))]
    found = list(in_whole_batches(iter(parts), batch_size=4, rows_at_a_time=10))
    assert [len(rows) for rows in found] == [12, 20, 4]
    assert (np.concatenate(found) == np.concatenate(parts)).all()
    assert [len(rows) for rows in in_whole_batches(iter(parts), 50, 10)] == [36]


def test_gzipped_text_and_windows_line_ends_are_read(terabyte_log: Log) -> None:
    expected = terabyte_log.predictions("--score-text=day_3")
    text = raw_text.text(terabyte_log.rows[3], "\r\n").removesuffix(b"\r\n")
    (terabyte_log.folder / "day.gz").write_bytes(gzip.compress(text))
    assert terabyte_log.predictions("--score-text=day.gz").tolist() == expected.tolist()


def test_small_blocks_and_several_threads_keep_the_order(
    terabyte_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    terabyte_log.write("long", [row for _ in range(20) for day in terabyte_log.rows for row in day])
    expected = terabyte_log.predictions("--score-text=long")
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", 2000)
    assert terabyte_log.predictions("--score-text=long", "--test-num-workers=4").tolist() == expected.tolist()
    assert len(expected) == 20 * sum(DAYS)


def test_unknown_id_gets_the_row_of_the_empty_id_and_is_counted(terabyte_log: Log) -> None:
    rows = [list(row) for row in terabyte_log.rows[23]]
    for row in rows[:4]:
        row[16] = ""
    terabyte_log.write("empty", rows)
    unknown = unknown_id(terabyte_log)
    for row in rows[:4]:
        row[16] = unknown
    terabyte_log.write("unknown", rows)
    expected = terabyte_log.predictions("--score-text=empty")
    run = terabyte_log.score("--score-text=unknown", "--save-predictions=p.npy")
    assert np.load(terabyte_log.folder / "p.npy").tolist() == expected.tolist()
    assert "unknown: ids that x.ids lacks: 4 (column 17 4); they get the row of the empty id\n" in run.stderr


def test_loaded_model_counts_the_unknown_ids_of_each_text(
    terabyte_log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = unknown_id(terabyte_log)
    path = terabyte_log.write("new", [[*row[:16], unknown, *row[17:]] for row in terabyte_log.rows[23]])
    model = mlperf.load(terabyte_log.folder / "model.pt", data=terabyte_log.folder / "x")
    first, second = model.predict(path), model.predict(path)
    assert first.tolist() == second.tolist()
    counts = [message.partition(" lacks: ")[2].partition(";")[0] for message in caplog.messages]
    assert counts == ["9 (column 17 9)"] * 2


@pytest.mark.parametrize("labels", [True, False])
def test_bad_row_is_named_and_no_predictions_are_written(labels: bool, terabyte_log: Log) -> None:
    rows = [row[1 - labels :] for row in terabyte_log.rows[23]]
    rows[5][labels + 2] = "x"
    terabyte_log.write("bad", rows)
    rows[5][labels + 2] = ""
    (terabyte_log.folder / "p.csv").unlink(missing_ok=True)
    run = terabyte_log.score("--score-text=bad", "--save-predictions=p.csv")
    assert run.status == 1
    assert f"error: bad: row 6, column {3 + labels}: 'x': not a whole number" in run.stderr
    assert not (terabyte_log.folder / "p.csv").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--score-text=none", "none: no such file"),
        ("--score-text=folder", "folder: not a file"),
        ("--score-text=nothing", "nothing: empty file; expected rows of 40 columns separated by tabs"),
        ("--score-text=day_0 --split=test", "--split=test cannot be combined with --score-text=day_0, which is"),
        ("--score-text=day_0 --verify-data", "--verify-data cannot be combined with --score-text=day_0, which"),
        ("--score-text=day_0 --dry-run", "--dry-run cannot be combined with --score-text=day_0, whose number"),
        ("--score-text=day_0 --save-onnx", "--save-onnx cannot be combined with --score-text=day_0, which scores"),
        ("--score-text=day_0 --save-predictions=x.npy/p.csv", "--save-predictions=x.npy/p.csv: folder x.npy does"),
        ("--score-text=new.csv --save-predictions=new.csv", "--save-predictions=new.csv is the same file as"),
        ("--score-text=unlabelled", "--score-text=unlabelled: has no labels, so there are no metrics; pass"),
    ],
)
def test_wrong_use_is_refused_by_name(flags: str, message: str, terabyte_log: Log) -> None:
    (terabyte_log.folder / "nothing").touch()
    (terabyte_log.folder / "folder").mkdir(exist_ok=True)
    terabyte_log.write("unlabelled", [row[1:] for row in terabyte_log.rows[0]])
    terabyte_log.write("new.csv", terabyte_log.rows[0])
    run = terabyte_log.score(*flags.split())
    assert run.status in (1, 2)
    assert run.stderr.splitlines()[-1].startswith(f"dlrm_s_pytorch.py: error: {message}")


@pytest.mark.parametrize("missing", ["--inference-only", "--load-model=model.pt", "--processed-data-file=x"])
def test_flags_that_it_needs_are_named(missing: str, terabyte_log: Log) -> None:
    flags = [*terabyte_log.flags, "--inference-only", "--load-model=model.pt", "--raw-data-file=day"]
    flags.remove(missing)
    run = run_program(*flags, "--score-text=day_0", cwd=terabyte_log.folder)
    assert run.status == 2
    assert f"error: --score-text=day_0 requires {missing.partition('=')[0]}" in run.stderr


def test_data_without_kept_ids_is_refused(terabyte_log: Log, tmp_path: Path) -> None:
    for split in ("train", "test", "val"):
        shutil.copy(terabyte_log.folder / f"x_{split}.bin", tmp_path)
    rows = np.fromfile(tmp_path / "x_train.bin", "<i4").reshape(-1, 40)
    np.savez(tmp_path / "x_fea_count.npz", counts=rows[:, 14:].max(0) + 100)
    run = run_program(*(*terabyte_log.flags, "--save-model=model.pt", "--test-freq=9"), cwd=tmp_path)
    assert run.status == 0, run.stderr
    shutil.copy(terabyte_log.folder / "day_0", tmp_path)
    given = (*terabyte_log.flags, "--inference-only", "--load-model=model.pt", "--score-text=day_0")
    run = run_program(*given, cwd=tmp_path)
    assert run.status == 1
    assert "x_train.bin: text cannot be scored, because the ids of the data were not kept" in run.stderr


def test_damaged_ids_are_refused(terabyte_log: Log, tmp_path: Path) -> None:
    for path in terabyte_log.folder.glob("x*"):
        shutil.copy2(path, tmp_path)
    for name in ("day_0", "model.pt"):
        shutil.copy2(terabyte_log.folder / name, tmp_path)
    ids = bytearray((tmp_path / "x.ids").read_bytes())
    ids[-1] ^= 1
    (tmp_path / "x.ids").write_bytes(ids)
    given = (*terabyte_log.flags, "--inference-only", "--load-model=model.pt", "--score-text=day_0")
    run = run_program(*given, cwd=tmp_path)
    assert run.status == 1
    assert "x.ids: " in run.stderr.splitlines()[-1]


def test_quantized_model_scores_text(terabyte_log: Log) -> None:
    exact = terabyte_log.predictions("--score-text=day_23")["probability"]
    quantized = terabyte_log.predictions("--score-text=day_23", "--quantize-emb-with-bit=4")["probability"]
    assert (exact != quantized).any()
    np.testing.assert_allclose(exact, quantized, atol=0.1)


def test_several_processes_are_refused() -> None:
    settings = parse([*MODEL, "--inference-only", "--load-model=model.pt", "--score-text=day_0"])
    with pytest.raises(UsageError, match=r"^--score-text=day_0 is not supported by several processes and"):
        check_engine(settings, 2)


def test_row_0_stands_for_an_empty_id_that_the_data_never_had(tmp_path: Path) -> None:
    days = [raw_text.random_rows(count, day) for day, count in enumerate(DAYS)]
    for day, rows in enumerate(days):
        for row in rows:
            row[14] = row[14] or "1"
        (tmp_path / f"day_{day}").write_bytes(raw_text.text(rows))
    log = Log(tmp_path, "terabyte", days)
    first = int(days[0][0][14], 16) % 1000
    log.write("first", [[*row[:14], f"{first:x}", *row[15:]] for row in days[23]])
    log.write("empty", [[*row[:14], "", *row[15:]] for row in days[23]])
    expected = log.predictions("--score-text=first")
    run = log.score("--score-text=empty", "--save-predictions=p.npy")
    assert np.load(tmp_path / "p.npy").tolist() == expected.tolist()
    assert run.stderr.splitlines()[-2:] == [
        "empty: ids that x.ids lacks: 9 (column 15 9); they get the row of the empty id",
        "x.ids has no empty ids in some columns, whose unknown ids get row 0, that of another id; columns, with "
        "these ids: 15 (9)",
    ]


def test_loaded_model_predicts_text(log: Log) -> None:
    flags = {"max_ind_range": 20} if "dcnv2" in log.flags[-2] else {}
    with contextlib.chdir(log.folder):
        model = mlperf.load("model.pt", data="x", test_mini_batch_size=1, **flags)
        expected = last_day(log)["probability"].tolist()
        assert model.predict("day_23").tolist() == expected
        path = log.write("unlabelled", [row[1:] for row in log.rows[23]])
        assert model.predict(path).tolist() == expected
        with pytest.raises(RunError, match=r"^none: no such file$"):
            model.predict(Path("none"))
