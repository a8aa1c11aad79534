"""The synthetic sample: its format, and the AUCs in its description."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from preparations import preparation, read_rows
from program import run_program
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from mlperf.data.criteo.sample.generate import Sample, SampleSettings, make_sample
from mlperf.data.prepare.pipeline import prepare
from mlperf.util.errors import RunError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a sample of 48,000 rows."""
    place = tmp_path_factory.mktemp("sample")
    make_sample(SampleSettings(place, rows=48_000, seed=5))
    return place


def test_quantized_tables_change_the_auc_only_a_little(folder: Path, tmp_path: Path) -> None:
    model = ["--arch-sparse-feature-size=16", "--arch-mlp-bot=13-64-16", "--arch-mlp-top=64-32-1"]
    model += [
        "--data-generation=dataset",
        "--data-set=terabyte",
        "--test-mini-batch-size=2048",
        "--mlperf-logging",
    ]
    model += [f"--raw-data-file={folder / 'day'}", f"--processed-data-file={tmp_path / 'processed'}"]
    training = ["--mini-batch-size=256", "--learning-rate=0.5", "--loss-function=bce", "--test-freq=60"]
    run = run_program(*model, *training, "--save-model=m.pt", cwd=tmp_path)
    assert run.status == 0, run.stderr
    for bits, most in ((8, 0.001), (4, 0.005)):
        flags = [*model, "--load-model=m.pt", "--inference-only", f"--quantize-emb-with-bit={bits}"]
        run = run_program(*flags, cwd=tmp_path)
        assert run.status == 0, run.stderr
        change = re.search(r"change ([-+][\d.]+)", run.stderr)
        size = re.search(r"embedding tables: ([\d.]+) MB in 32 bits, ([\d.]+) MB in", run.stderr)
        assert change
        assert size
        assert abs(float(change[1])) <= most
        assert float(size[2]) / float(size[1]) == pytest.approx(bits / 32 + 8 / 64, rel=0.01)


def fields(folder: Path) -> np.ndarray:
    lines = [line for day in range(24) for line in (folder / f"day_{day}").read_text().splitlines()]
    return np.array([line.split("\t") for line in lines])


def test_text_has_the_layout_of_the_real_data(folder: Path) -> None:
    table = fields(folder)
    assert table.shape == (48_000, 40)
    integers, ids = table[:, 1:14], table[:, 14:]
    assert set(table[:, 0]) == {"0", "1"}
    assert (integers == "").mean() > 0.1
    assert np.char.startswith(integers, "-").sum() > 100
    assert 0.01 < (ids == "").mean() < 0.1
    assert set(np.char.str_len(ids).ravel()) == {0, 8}
    known = np.array([int(value, 16) for value in np.unique(ids[ids != ""])])
    for bit in range(32):
        assert 0.4 < (known >> bit & 1).mean() < 0.6
    _, counts = np.unique(ids[:, 0], return_counts=True)
    assert np.sort(counts)[-len(counts) // 100 :].sum() > 0.3 * len(ids)  # 1 % of the ids, 30 % of the rows


def test_every_column_has_its_own_ids(folder: Path) -> None:
    ids = fields(folder)[:, 14:]
    seen: set[str] = set()
    for column in ids.T:
        column_ids = set(column) - {""}
        assert not seen & column_ids
        seen |= column_ids


def test_best_possible_aucs_are_in_the_documented_range(folder: Path) -> None:
    said = json.loads((folder / "sample.json").read_text())
    assert 0.83 <= said["best_auc"] <= 0.88
    assert 0.60 <= said["dense_auc"] <= 0.70


@pytest.mark.parametrize("seed", range(10, 13))
def test_every_seed_gives_aucs_in_the_documented_range(seed: int, tmp_path: Path) -> None:
    said = make_sample(SampleSettings(tmp_path, rows=240_000, seed=seed))
    assert 0.83 <= said.best_auc <= 0.88
    assert said.dense_auc <= 0.70


def test_boosted_trees_on_dense_features_reach_the_stated_auc_and_no_more(folder: Path, tmp_path: Path) -> None:
    said = json.loads((folder / "sample.json").read_text())
    made = prepare(preparation(folder / "day", tmp_path / "x"))
    train, test = (read_rows(path) for path in (made.train, made.test))
    trees = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(train[:, 1:14], train[:, 0])
    auc = roc_auc_score(test[:, 0], trees.predict_proba(test[:, 1:14])[:, 1])
    assert said["dense_auc"] - 0.03 < auc < said["dense_auc"] + 0.01


def test_same_seed_gives_the_same_text_and_the_sample_is_made_once(folder: Path, tmp_path: Path) -> None:
    wanted = SampleSettings(tmp_path, rows=48_000, seed=5)
    said = make_sample(wanted)
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in said.files)
    before = (tmp_path / "day_0").stat().st_mtime_ns
    assert make_sample(wanted) == said
    assert (tmp_path / "day_0").stat().st_mtime_ns == before


def test_another_seed_replaces_the_sample_and_a_missing_day_is_made_again(tmp_path: Path) -> None:
    first = make_sample(SampleSettings(tmp_path, rows=2000, seed=1))
    day = (tmp_path / "day_3").read_bytes()
    (tmp_path / "day_3").unlink()
    assert make_sample(SampleSettings(tmp_path, rows=2000, seed=1)) == first
    assert (tmp_path / "day_3").read_bytes() == day
    make_sample(SampleSettings(tmp_path, rows=2000, seed=2))
    assert (tmp_path / "day_3").read_bytes() != day


def test_days_that_do_not_belong_to_a_sample_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "day_3").write_text("mine")
    with pytest.raises(RunError, match="day_3: does not belong to a sample"):
        make_sample(SampleSettings(tmp_path, rows=2000, seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["day_3"]
    assert (tmp_path / "day_3").read_text() == "mine"


@pytest.mark.parametrize(
    "changes",
    [
        *({"files": []}, {"files": {"../day_0": 1}}, {"files": {"day_0": "x"}}, {"files": {"day_0": None}}),
        *({"best_auc": "x"}, {"best_auc": None}, {"colour": "red"}, {"format_version": 9}),
    ],
    ids=str,
)
def test_days_beside_a_damaged_description_are_not_overwritten(changes: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "day_0").write_text("as it was")
    files = {f"day_{day}": 9 for day in range(24)}
    whole = Sample(seed=1, rows=24_000, click_rate=0.2, best_auc=0.8, dense_auc=0.6, files=files)
    (tmp_path / "sample.json").write_text(json.dumps({**asdict(whole), **changes}))
    with pytest.raises(RunError, match="day_0: does not belong to a sample"):
        make_sample(SampleSettings(tmp_path, rows=24_000, seed=1))
    assert (tmp_path / "day_0").read_text() == "as it was"


def test_program_prints_the_best_possible_auc(tmp_path: Path) -> None:
    run = run_program("--folder=x", "--rows=2000", program="tools/make_sample.py", cwd=tmp_path)
    assert run.status == 0, run.stderr
    said = Sample(**json.loads((tmp_path / "x" / "sample.json").read_text()))
    assert f"best reachable AUC is {said.best_auc:.4f}" in run.stdout
    assert f"integers alone {said.dense_auc:.4f}" in run.stdout
    assert run_program("--rows=3", program="tools/make_sample.py", cwd=tmp_path).status == 2
