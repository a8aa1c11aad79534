"""Preparation for DLRM-DCNv2: negative integers are kept and ids are numbered from 2."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import raw_text
from interruption import result, shuffled, stop_at_save
from preparations import DAYS, preparation, read_rows

from mlperf.data.prepare.id_mapping import IdMapper
from mlperf.data.prepare.open_prepared import open_prepared
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepared.manifest import json_crc32
from mlperf.data.schema import CRITEO
from mlperf.settings.dataset import DatasetSettings, PreparationSettings
from mlperf.settings.from_flags import parse_preparation
from mlperf.util.errors import RunError, UsageError

DCNV2: dict[str, Any] = {"data_set": "terabyte_dcnv2"}


def write_manifest(path: Path, **changes: object) -> None:
    """Change entries of a manifest; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    content = {key: value for key, value in content.items() if value is not None and key != "manifest_crc32"}
    path.write_text(json.dumps({**content, "manifest_crc32": json_crc32(content)}))


@pytest.mark.parametrize("cores", [1, 3])
def test_negative_integers_are_kept_and_ids_numbered_from_2(
    cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    days = raw_text.write_days(tmp_path, DAYS, seed=5)
    days[7][2][3] = "-2147483648"
    (tmp_path / "day_7").write_bytes(raw_text.text(days[7]))
    made = prepare(preparation(tmp_path / "day", tmp_path / "x", **DCNV2))
    expected = raw_text.prepare_slowly(days, dcnv2=True)
    for path, rows in ((made.train, expected.train), (made.test, expected.test), (made.val, expected.val)):
        assert np.array_equal(read_rows(path), rows)
    assert list(made.counts) == expected.counts
    assert made.smallest_integer == -(2**31)
    reopened = open_prepared(tmp_path / "x")
    assert reopened is not None
    assert (reopened.smallest_integer, reopened.counts) == (-(2**31), made.counts)


def test_smallest_integer_is_that_of_the_rows_that_are_kept(tmp_path: Path) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=5)
    for day, rows in enumerate(days):
        for row in rows:
            row[1:14] = [str(abs(int(field or 0)) + 5) for field in row[1:14]]
        rows[0][0] = "1"  # stays whatever is dropped
        (tmp_path / f"day_{day}").write_bytes(raw_text.text(rows))
    days[3][1][0], days[3][1][9] = "0", "4"
    (tmp_path / "day_3").write_bytes(raw_text.text(days[3]))
    assert prepare(preparation(tmp_path / "day", tmp_path / "x", **DCNV2)).smallest_integer == 4
    dropped = prepare(preparation(tmp_path / "day", tmp_path / "y", **DCNV2, sub_sample_rate=0.999))
    assert dropped.smallest_integer == 5


def test_interrupted_preparation_gives_the_same_files_and_smallest_integer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pieces: None
) -> None:
    days = raw_text.write_days(tmp_path, DAYS, seed=3)
    days[0][0][5] = "-77"
    (tmp_path / "day_0").write_bytes(raw_text.text(days[0]))
    stop_at_save(shuffled(tmp_path, tmp_path / "x", **DCNV2), monkeypatch)
    made = prepare(shuffled(tmp_path, tmp_path / "x", **DCNV2))
    prepare(shuffled(tmp_path, tmp_path / "y", **DCNV2))
    assert result(tmp_path / "x") == result(tmp_path / "y")
    assert made.smallest_integer == -77
    rows, expected = read_rows(made.train), raw_text.prepare_slowly(days, dcnv2=True).train
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


def test_manifests_of_the_other_data_sets_are_unchanged(terabyte: Path, kaggle: Path) -> None:
    for prefix in (terabyte, kaggle):
        assert list(json.loads(Path(f"{prefix}.json").read_text())) == [
            *("flags", "inputs", "rows_per_day", "counts", "files", "bad_rows", "archive", "ids", "numbering"),
            *("format_version", "manifest_crc32"),
        ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"smallest_integer": None}, "it needs an entry smallest_integer with flags.data_set 'terabyte_dcnv2'"),
        ({"smallest_integer": 2**31}, "smallest_integer is 2147483648, must be a whole number from -2147483648"),
        ({"smallest_integer": "-1"}, "smallest_integer is '-1', must be a whole number"),
        ({"flags": {"data_set": "terabyte"}}, "it must not have an entry smallest_integer"),
        ({"flags": {"max_ind_range": 5}}, "flags.max_ind_range must be -1 with flags.data_set 'terabyte_dcnv2'"),
    ],
)
def test_wrong_smallest_integer_in_the_manifest_is_refused(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=5)
    prepare(preparation(tmp_path / "day", tmp_path / "x", **DCNV2))
    manifest = tmp_path / "x.json"
    if isinstance(flags := changes.get("flags"), dict):
        changes = {"flags": {**json.loads(manifest.read_text())["flags"], **flags}}
    write_manifest(manifest, **changes)
    with pytest.raises(RunError, match=said):
        open_prepared(tmp_path / "x")


def test_ids_beyond_31_bits_are_refused() -> None:
    """The largest number is 2^31 - 1; here as if it were 7."""
    mapper = IdMapper(2, initial_slots=4, max_slots=16)
    rows = np.zeros((6, CRITEO.columns), np.int32)
    rows[:, CRITEO.first_id] = 10 * np.arange(6)
    mapper.map(rows, [0])
    assert rows[:, CRITEO.first_id].tolist() == [2, 3, 4, 5, 6, 7]
    rows[:, CRITEO.first_id] = 60
    with pytest.raises(
        RunError, match=r"column 15: more than 6 distinct ids do not fit the int32 of the binary file$"
    ):
        mapper.map(rows, [0])


def test_preparation_refuses_a_limit_and_the_training_prepares_without_one(tmp_path: Path) -> None:
    flags = ["--data-set=terabyte_dcnv2", "--raw-data-file=day", "--processed-data-file=x"]
    with pytest.raises(
        UsageError, match="--max-ind-range=5: --data-set=terabyte_dcnv2 is prepared without a limit"
    ):
        parse_preparation([*flags, "--max-ind-range=5"], "prepare_criteo.py", None)
    raw = tmp_path / "day"
    trained = DatasetSettings(data_set="terabyte_dcnv2", raw_data_file=raw, max_ind_range=40_000_000)
    assert PreparationSettings.of(trained, tmp_path / "x").max_ind_range == -1
    others = DatasetSettings(data_set="terabyte", raw_data_file=raw, max_ind_range=40_000_000)
    assert PreparationSettings.of(others, tmp_path / "x").max_ind_range == 40_000_000
