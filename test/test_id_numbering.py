"""The ids that prepared data keeps, and preparations with the numbering of another data set (--ids-from)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import raw_text
from interruption import Killed, killed_after_saves, result
from own_columns import (
    COLUMNS,
    PlainNumbering,
    own_preparation,
    prepare_plainly,
    random_rows,
    read_own_rows,
    write_description,
    write_log,
)
from preparations import DAYS, preparation, read_rows
from program import verify_data

from mlperf.cli.prepare import main as prepare_program
from mlperf.data.columns.description import IdKind
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepared.id_numbering import IdNumbering, IdsWriter
from mlperf.runner.data import prepared_data
from mlperf.settings.from_flags import parse
from mlperf.util.errors import RunError, UsageError

OLD, NEW = random_rows(150, seed=1), random_rows(120, seed=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with x, prepared from clicks.csv, and new.csv."""
    write_log(tmp_path / "clicks.csv", OLD)
    write_log(tmp_path / "new.csv", NEW)
    write_description(tmp_path)
    prepare(own_preparation(tmp_path))
    return tmp_path


def read_all_keys(path: Path) -> None:
    ids = IdNumbering.read(path)
    for table in range(len(ids.columns)):
        ids.keys(table)


def write_ids(path: Path, columns: list[np.ndarray]) -> IdNumbering:
    with path.open("wb") as file:
        writer = IdsWriter(file, len(columns))
        for column in columns:
            writer.write(IdKind.INTEGER, 1, column)
        writer.finish()
    return IdNumbering.read(path)


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("smallest", [0, 2**63])
def test_ids_are_stored_in_as_few_bytes_as_their_range_needs(width: int, smallest: int, tmp_path: Path) -> None:
    largest = min(smallest + 2 ** (8 * width) - 1, 2**64 - 1)
    keys = np.array([largest, smallest, *range(smallest + 5, smallest + 105)], np.uint64)
    ids = write_ids(tmp_path / "x.ids", [keys, keys[:1], np.empty(0, np.uint64)])
    assert [ids.keys(table).tolist() for table in range(3)] == [keys.tolist(), [largest], []]
    assert ids.columns[0].width == width
    assert (tmp_path / "x.ids").stat().st_size == 16 + 3 * 32 + len(keys) * width + 1


def test_forty_million_ids_of_32_bits_take_160_megabytes(tmp_path: Path) -> None:
    keys = np.arange(40_000, dtype=np.uint32) * np.uint32(107_374)
    write_ids(tmp_path / "x.ids", [keys])
    assert (tmp_path / "x.ids").stat().st_size - 48 == 40_000 * 4


def test_fingerprint_depends_on_kinds_and_order_of_the_ids(tmp_path: Path) -> None:
    keys = np.arange(9, dtype=np.uint64)
    first = write_ids(tmp_path / "x.ids", [keys, keys])
    assert re.fullmatch("[0-9a-f]{16}", first.fingerprint)
    assert write_ids(tmp_path / "y.ids", [keys, keys]).fingerprint == first.fingerprint
    for others in ([keys, keys[::-1].copy()], [keys, keys[:8]], [keys], [keys, keys, keys[:0]]):
        assert write_ids(tmp_path / "y.ids", others).fingerprint != first.fingerprint


def test_ids_of_another_numbering_than_that_of_the_manifest_are_refused(tmp_path: Path) -> None:
    ids = write_ids(tmp_path / "x.ids", [np.arange(9, dtype=np.uint64)])
    assert IdNumbering.read(ids.path, ids.fingerprint) == ids
    message = f"x.ids: has the numbering {ids.fingerprint}, its manifest says 0123456789abcdef"
    with pytest.raises(RunError, match=message):
        IdNumbering.read(ids.path, "0123456789abcdef")


def test_every_damaged_byte_of_the_ids_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.ids"
    write_ids(path, [np.array([3, 1, 70000], np.uint64), np.array([9], np.uint64)])
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 16
        path.write_bytes(changed)
        with pytest.raises(RunError, match=r"x\.ids: (damaged|not a file|written by a later version)"):
            read_all_keys(path)
    path.write_bytes(content[:-1])
    with pytest.raises(RunError, match="damaged: 89 bytes, its header says 90"):
        IdNumbering.read(path)


def test_known_ids_get_their_rows_and_unknown_ones_that_of_the_empty_id(folder: Path) -> None:
    number = PlainNumbering()
    prepare_plainly(OLD, number)
    number.known = True
    expected = prepare_plainly(NEW, number)
    made = prepare(own_preparation(folder, "y", raw_data_file=folder / "new.csv", ids_from=folder / "x"))
    rows = np.concatenate([read_own_rows(path) for path in (made.train, made.test, made.val)])
    assert rows.tolist() == expected.tolist()
    old, new = (json.loads((folder / f"{name}.json").read_text()) for name in "xy")
    assert new["numbering"]["unknown"] == number.unknown
    assert min(number.unknown[:2]) > 0
    assert new["numbering"]["fingerprint"] == old["numbering"]["fingerprint"]
    assert [new[name] for name in ("counts", "means", "deviations")] == [
        old[name] for name in ("counts", "means", "deviations")
    ]
    assert (folder / "y.ids").read_bytes() == (folder / "x.ids").read_bytes()


def test_unknown_ids_are_printed_by_column(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {
        "--data-set": "columns",
        "--columns": folder / "columns.toml",
        "--raw-data-file": folder / "new.csv",
        "--processed-data-file": folder / "y",
        "--ids-from": folder / "x",
    }
    assert prepare_program([f"{flag}={value}" for flag, value in arguments.items()]) == 0
    counts = json.loads((folder / "y.json").read_text())["numbering"]["unknown"]
    printed = capsys.readouterr().out
    assert f"ids that x lacks: {sum(counts)} (site {counts[0]}, user {counts[1]}" in printed
    assert "fields with more ids than are kept: tags " in printed
    assert re.search(
        r"probability that two words of a column have the same key: site \S+e-\d+, tags \S+e-", printed
    )


def test_preparation_with_a_given_numbering_continues_after_a_kill(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", 900)
    flags = {"raw_data_file": folder / "new.csv", "ids_from": folder / "x"}
    with killed_after_saves(monkeypatch, "text", 3), pytest.raises(Killed):
        prepare(own_preparation(folder, "y", checkpoint_seconds=0.0, **flags))
    prepare(own_preparation(folder, "y", **flags))
    prepare(own_preparation(folder, "z", **flags))
    assert result(folder / "y") == result(folder / "z")


def test_other_numbering_or_none_prepares_the_data_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    flags = {"raw_data_file": folder / "new.csv"}
    prepare(own_preparation(folder, "y", **flags))
    made = prepare(own_preparation(folder, "y", ids_from=folder / "x", **flags))
    assert "y_train.bin: was prepared with no --ids-from; preparing it again" in caplog.text
    assert prepare(own_preparation(folder, "y", ids_from=folder / "x", **flags)) == made
    prepare(own_preparation(folder, "y", **flags))
    assert "y_train.bin: was prepared with --ids-from=x; preparing it again" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('column = "site"', 'column = "tags"\n[[categorical]]\ncolumn = "site"', "3 categorical columns, not 4"),
        ('column = "user"\ntype = "integer"', 'column = "user"', "categorical column 2 has another type"),
        ('type = "decimal"\ntransform = "standardize"', 'type = "decimal"', "dense column 1 has another type or"),
        ('column = "site"', 'column = "day"', "categorical column 1 is 'site', not 'day'"),
    ],
)
def test_numbering_of_other_columns_is_refused(old: str, new: str, said: str, folder: Path) -> None:
    columns = COLUMNS.replace(old, new)
    if "tags" in new:
        columns = COLUMNS.replace("[[categorical]]", '[[categorical]]\ncolumn = "day"\n[[categorical]]', 1)
    write_description(folder, columns=columns)
    with pytest.raises(UsageError, match=rf"--ids-from=\S+x has other columns than --columns=\S+: {said}"):
        prepare(own_preparation(folder, "y", raw_data_file=folder / "new.csv", ids_from=folder / "x"))


def test_other_splits_and_positions_of_the_columns_are_no_other_columns(folder: Path) -> None:
    columns = COLUMNS.replace('column = "site"', "column = 5")
    write_description(folder, '[split]\ncolumn = "day"\ntest = ["d4"]\n', columns)
    flags = {"raw_data_file": folder / "new.csv", "ids_from": folder / "x"}
    assert prepare(own_preparation(folder, "y", **flags)).test_rows == 24


def test_data_that_cannot_give_its_numbering_is_refused(folder: Path) -> None:
    settings = own_preparation(folder, "y", raw_data_file=folder / "new.csv", ids_from=folder / "x")
    content = (folder / "x.ids").read_bytes()
    (folder / "x.ids").write_bytes(content[:-1] + b"?")
    with pytest.raises(RunError, match=r"--ids-from=\S+x: \S+x\.ids: does not match its manifest"):
        prepare(settings)
    (folder / "x.ids").unlink()
    with pytest.raises(RunError, match=r"x\.ids: no such file, but its manifest \S+x.json exists"):
        prepare(settings)
    manifest = json.loads((folder / "x.json").read_text())
    for name in ("ids", "numbering", "manifest_crc32"):
        del manifest[name]
    (folder / "x.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="an earlier version; prepare it again from its text, under another name"):
        prepare(settings)
    (folder / "x.json").unlink()
    with pytest.raises(RunError, match=r"x\.json: no such file"):
        prepare(settings)


def test_data_is_not_prepared_over_the_one_that_gives_the_numbering(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"x_train\.bin of --ids-from="):
        prepare(own_preparation(folder, "x", raw_data_file=folder / "new.csv", ids_from=folder / "x"))


def test_file_of_another_program_with_the_name_of_the_ids_is_kept(tmp_path: Path) -> None:
    write_log(tmp_path / "clicks.csv", OLD)
    write_description(tmp_path)
    (tmp_path / "x.ids").write_text("mine")
    with pytest.raises(RunError, match=r"x\.ids: was not written by this program and is not overwritten; move it"):
        prepare(own_preparation(tmp_path))
    assert (tmp_path / "x.ids").read_text() == "mine"


def prepare_days(folder: Path, seed: int, name: str, *, has_empty_ids: bool = True, **flags: object) -> Path:
    """Prepare Terabyte days; return the prefix of the files."""
    (folder / name).mkdir()
    days = raw_text.write_days(folder / name, DAYS, seed)
    if not has_empty_ids:
        for day, rows in enumerate(days):
            full = [[*row[:14], *(field or "1" for field in row[14:])] for row in rows]
            (folder / name / f"day_{day}").write_bytes(raw_text.text(full))
    prepare(preparation(folder / name / "day", folder / name / "x", **flags))
    return folder / name / "x"


@pytest.mark.parametrize("data_set", ["terabyte", "terabyte_dcnv2"])
def test_unknown_ids_of_criteo_columns_get_the_row_of_the_empty_id(data_set: str, tmp_path: Path) -> None:
    old = prepare_days(tmp_path, 5, "old", data_set=data_set)
    new = prepare_days(tmp_path, 6, "new", data_set=data_set, ids_from=old)
    first = 2 if data_set == "terabyte_dcnv2" else 0
    numbers: list[dict[int, int]] = [{} for _ in range(26)]
    for row in (row for day in raw_text.read_days(old.parent) for row in day):
        for seen, field in zip(numbers, row[14:], strict=True):
            seen.setdefault(int(field or "0", 16), len(seen) + first)
    unknown = [0] * 26
    expected = []
    for row in (row for day in raw_text.read_days(new.parent) for row in day):
        ids = [int(field or "0", 16) for field in row[14:]]
        for table, each in enumerate(ids):
            unknown[table] += each not in numbers[table]
        empty = [0 if first else seen.get(0, 0) for seen in numbers]
        expected.append([seen.get(each, row0) for seen, each, row0 in zip(numbers, ids, empty, strict=True)])
    rows = np.concatenate([read_rows(Path(f"{new}_{split}.bin")) for split in ("train", "test", "val")])
    assert rows[:, 14:].tolist() == expected
    manifest = json.loads(Path(f"{new}.json").read_text())
    assert manifest["numbering"]["unknown"] == unknown
    assert manifest["counts"] == [len(seen) for seen in numbers]
    assert sum(unknown) > 100


def test_warning_names_columns_without_a_row_of_the_empty_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = prepare_days(tmp_path, 5, "old", has_empty_ids=False)
    assert not caplog.text
    prepare_days(tmp_path, 6, "new", ids_from=old)
    assert "x.ids has no empty ids in some columns, whose unknown ids get row 0" in caplog.text
    assert "columns, with these ids: 15 (" in caplog.text


def test_numbering_of_another_data_set_or_limit_is_refused(tmp_path: Path) -> None:
    old = prepare_days(tmp_path, 5, "old")
    with pytest.raises(UsageError, match=r"--ids-from=\S+x was prepared with --max-ind-range=-1, not 100"):
        prepare_days(tmp_path, 6, "a", max_ind_range=100, ids_from=old)
    with pytest.raises(UsageError, match=r"was prepared with --data-set=terabyte, not terabyte_dcnv2"):
        prepare_days(tmp_path, 6, "b", data_set="terabyte_dcnv2", ids_from=old)


def test_ids_of_criteo_columns_are_kept_in_order_of_their_numbers(tmp_path: Path) -> None:
    prefix = prepare_days(tmp_path, 5, "old")
    ids = IdNumbering.read(Path(f"{prefix}.ids"))
    for table in range(26):
        seen: dict[int, int] = {}
        for row in (row for day in raw_text.read_days(prefix.parent) for row in day):
            seen.setdefault(int(row[14 + table] or "0", 16), len(seen))
        assert ids.keys(table).tolist() == list(seen)
    assert (ids.columns[0].kind, ids.columns[0].first_index) == (IdKind.HEXADECIMAL, 0)


def test_run_refuses_another_numbering_and_other_columns_than_those_of_the_data(folder: Path) -> None:
    prepare(own_preparation(folder, "y", raw_data_file=folder / "new.csv"))
    flags = ["--data-generation=dataset", "--data-set=columns", f"--processed-data-file={folder}/y"]
    columns = f"--columns={folder}/columns.toml"
    assert prepared_data(parse([*flags, f"--ids-from={folder}/y", columns]).data).ids_from is None
    with pytest.raises(UsageError, match=r"--ids-from=\S+ has the numbering \w{16}, \S+y_train.bin has"):
        prepared_data(parse([*flags, f"--ids-from={folder}/x"]).data)
    write_description(folder, columns=COLUMNS.replace("ids = 2", "ids = 3"))
    with pytest.raises(UsageError, match=r"--columns=\S+ describes other columns than those with which"):
        prepared_data(parse([*flags, columns]).data)


def test_verification_compares_the_ids_with_the_manifest(folder: Path) -> None:
    prepare(own_preparation(folder, "y", raw_data_file=folder / "new.csv", ids_from=folder / "x"))
    assert verify_data("y", cwd=folder).status == 0
    content = bytearray((folder / "y.ids").read_bytes())
    content[-1] ^= 1
    (folder / "y.ids").write_bytes(content)
    run = verify_data("y", cwd=folder)
    assert (run.status, "y.ids: does not match the manifest (checksum differs)" in run.stderr) == (1, True)
    (folder / "y.ids").unlink()
    assert "y.ids: no such file, but the manifest lists it" in verify_data("y", cwd=folder).stderr


def test_lost_ids_are_noticed_before_the_data_counts_as_prepared(folder: Path) -> None:
    (folder / "x.ids").unlink()
    with pytest.raises(RunError, match=r"x\.ids: no such file, but its manifest \S+x.json exists"):
        prepare(own_preparation(folder))


def test_name_of_the_ids_is_no_prefix(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--ids-from=\S+x.ids is one of the prepared files; .* write \S+x$"):
        prepare(own_preparation(folder, "y", raw_data_file=folder / "new.csv", ids_from=folder / "x.ids"))
