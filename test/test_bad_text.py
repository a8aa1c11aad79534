"""Invalid text: the preparation skips it or stops, and never converts it to a row."""

from __future__ import annotations

import gzip
import json
import logging
import random
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import raw_text
from preparations import preparation, read_rows
from program import run_program

from mlperf.data.prepare.parse import BlockParser
from mlperf.data.prepare.pipeline import prepare
from mlperf.data.prepare.plan import make_plan
from mlperf.data.prepare.request import Request
from mlperf.data.text import compressed
from mlperf.data.text.blocks import text_blocks
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import RunError

DAYS = [60, 3, 2, 7, *([5] * 19), 9]
_INTEGER, _ID = re.compile(rb"-?[0-9]+|"), re.compile(rb"[0-9a-fA-F]{0,8}")


def number(field: bytes) -> int:
    """Return the value of a whole number; very long ones are shortened but still exceed 32 bits."""
    return int((field.lstrip(b"-").lstrip(b"0") or b"0")[:12]) * (-1 if field[:1] == b"-" else 1)


def plain_parse(text: bytes) -> list[list[int]]:
    """Return the rows of the good lines, with a simple parser."""
    rows = []
    for line in text.removesuffix(b"\n").split(b"\n"):
        fields = line.removesuffix(b"\r").split(b"\t")
        good = len(fields) == 40 and fields[0] in (b"0", b"1")
        good = good and all(
            _INTEGER.fullmatch(field) and -(2**31) <= number(field) < 2**31 for field in fields[1:14]
        )
        if good and all(_ID.fullmatch(field) for field in fields[14:]):
            integers = [max(0, number(field)) for field in fields[1:14]]
            rows.append([int(fields[0]), *integers, *(int(field or b"0", 16) for field in fields[14:])])
    return rows


def parse(path: Path) -> tuple[npt.NDArray[np.uint32], int]:
    parser = BlockParser(-1)
    parsed = [(found.rows.copy(), found.lines) for found in map(parser.parse, text_blocks(path))]
    return np.concatenate([rows for rows, _ in parsed]).view(np.uint32), sum(lines for _, lines in parsed)


def damaged(text: bytes, draw: random.Random) -> bytes:
    """Return the text with some random faults."""
    content = bytearray(text)
    for _ in range(draw.randrange(1, 30)):
        at = draw.randrange(len(content))
        kind = draw.randrange(8)
        if kind == 0:
            content[at] = draw.randrange(256)
        elif kind == 1:
            del content[at : at + draw.randrange(300)]
        elif kind == 2:
            content[at:at] = bytes(draw.randrange(256) for _ in range(draw.randrange(20)))
        elif kind == 3:
            content[at:at] = draw.choice([b"\x00", b"\xff\xfe", b"\n\n", b"\r", b"\t", b"\r\n", b"-", b" "])
        elif kind == 4:
            content[at:at] = draw.choice([b"9", b"0", b"f", b"-1"]) * draw.choice([1, 8, 11, 5000])
        elif kind == 5:
            content[at:at] = text[: draw.randrange(400)]
        elif kind == 6:
            content[at] ^= 1 << draw.randrange(8)
        else:
            content[at : at + 1] = b"\n"
    return bytes(content) or b"\n"


@pytest.mark.parametrize("block", [300, 5000, 2 << 20])
def test_damaged_text_gives_the_rows_of_a_plain_parser(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", block)
    draw = random.Random(block)
    for seed in range(60):
        text = damaged(raw_text.text(raw_text.random_rows(30, seed)), draw)
        (tmp_path / "x").write_bytes(text)
        rows, lines = parse(tmp_path / "x")
        expected = plain_parse(text)
        if block > 10**6:
            assert rows.tolist() == expected
            assert lines == text.removesuffix(b"\n").count(b"\n") + 1
        else:  # a line longer than a block may be skipped, whatever it contains; the others keep their order
            rest = iter(expected)
            assert all(row in rest for row in rows.tolist())
            shorter = b"\n".join(line for line in text.split(b"\n") if len(line) < block)
            assert len(rows) >= len(plain_parse(shorter))


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_never_become_a_row(seed: int, tmp_path: Path) -> None:
    content = random.Random(seed).randbytes(300_000)
    (tmp_path / "x").write_bytes(content)
    rows, _ = parse(tmp_path / "x")
    assert len(rows) == 0
    alphabet = b"0123456789abcdef\t\t\n-"
    (tmp_path / "x").write_bytes(bytes(alphabet[byte % len(alphabet)] for byte in content))
    rows, _ = parse(tmp_path / "x")
    assert rows.tolist() == plain_parse((tmp_path / "x").read_bytes())


def test_line_longer_than_a_block_is_a_bad_row_and_the_next_is_good(tmp_path: Path) -> None:
    row = raw_text.text(raw_text.random_rows(1, seed=1))
    (tmp_path / "x").write_bytes(row + b"7" * (5 << 20) + b"\n" + row)
    rows, lines = parse(tmp_path / "x")
    assert rows.tolist() == plain_parse(row) * 2
    assert lines == 3
    raw_text.write_days(tmp_path, DAYS, seed=1)
    (tmp_path / "day_0").write_bytes((tmp_path / "x").read_bytes())
    with pytest.raises(RunError, match=r"day_0: row 2, column 1: .*line longer than 2 MB"):
        prepare(preparation(tmp_path / "day", tmp_path / "y"))


@pytest.mark.parametrize("block", [80, 300])
def test_reading_from_the_end_of_any_block_gives_the_same_lines(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some lines are longer than a block: each is one bad row, wherever reading begins."""
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", block)
    draw = random.Random(block)
    for seed in range(40):
        lines = raw_text.text(raw_text.random_rows(12, seed)).split(b"\n")
        for _ in range(4):
            lines[draw.randrange(len(lines))] = b"0" * draw.randrange(4 * block)
        content = b"\n".join(lines)
        (tmp_path / "x").write_bytes(content)
        whole = outcomes(tmp_path / "x", 0)
        assert sum(kind == "overlong" for _, kind in whole) == sum(len(line) >= block for line in lines)
        for block_end in {block.end for block in text_blocks(tmp_path / "x")}:
            assert outcomes(tmp_path / "x", block_end) == [one for one in whole if one[0] > block_end]


def outcomes(path: Path, start: int) -> list[tuple[int, str]]:
    """Return the end of each line and its content, or a marker if it is too long."""
    found = []
    for block in text_blocks(path, start):
        if block.overlong:
            found.append((block.end, "overlong"))
            continue
        end = block.end - block.length
        for line in block.text[: block.length].tobytes().splitlines(keepends=True):
            end += len(line)
            found.append((end, line.decode()))
    return found


def spoil(folder: Path) -> list[list[list[str]]]:
    """Write days with three bad rows; return the good rows."""
    days = raw_text.write_days(folder, DAYS, seed=4)
    good = [list(rows) for rows in days]
    for day, row, change in ((0, 5, "2"), (0, 40, "x"), (23, 2, "")):
        days[day][row] = [change, *days[day][row][1:39]] if change else []
        good[day][row] = []
    for day in (0, 23):
        (folder / f"day_{day}").write_bytes(raw_text.text(days[day]))
    return [[row for row in rows if row] for rows in good]


def skipping(folder: Path, place: str, **more: object) -> PreparationSettings:
    return preparation(folder / "day", folder / place, bad_rows="skip", **more)


def test_bad_rows_are_left_out_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = raw_text.prepare_slowly(spoil(tmp_path), -1)
    made = prepare(skipping(tmp_path, "x", max_bad_rows=0.05))
    for path, rows in ((made.train, expected.train), (made.test, expected.test), (made.val, expected.val)):
        assert np.array_equal(read_rows(path), rows)
    assert list(made.counts) == expected.counts
    manifest = json.loads((tmp_path / "x.json").read_text())
    assert manifest["bad_rows"] == {"day_0": {"not a label": 2}, "day_23": {"too few columns": 1}}
    assert made.bad_rows == 3
    said = [line for line in caplog.messages if line.startswith("left out: ")]
    assert len(said) == 3
    assert f"{tmp_path / 'day_0'}: row 6, column 1: '2': not a label" in said[0]


def test_more_bad_rows_than_allowed_stop_the_preparation(tmp_path: Path) -> None:
    spoil(tmp_path)
    with pytest.raises(
        RunError,
        match=r"3 of the 176 rows so far are bad, more than --max-bad-rows=0\.001 allows, most of them in day_0: ",
    ):
        prepare(skipping(tmp_path, "x"))
    assert not list(tmp_path.glob("x*"))


def test_limit_on_bad_rows_applies_to_all_rows_read_so_far(tmp_path: Path) -> None:
    """Many bad rows at the beginning, but no more than allowed: 1500 of 2000 in one block."""
    days = raw_text.write_days(tmp_path, DAYS, seed=4)
    (tmp_path / "day_0").write_bytes(b"2\n" * 1500 + raw_text.text(raw_text.random_rows(500, seed=9)))
    made = prepare(skipping(tmp_path, "x", max_bad_rows=0.75))
    assert made.bad_rows == 1500
    assert made.train_rows == 500 + sum(len(day) for day in days[1:-1])


@pytest.mark.parametrize(("bad", "split"), [(range(23), "training"), ([23], "test")])
def test_split_without_good_rows_is_refused_with_its_cause(bad: list[int], split: str, tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=4)
    for day in bad:
        (tmp_path / f"day_{day}").write_bytes(b"2\n")
    with pytest.raises(RunError, match=rf"no rows are left for the {split} split by --bad-rows=skip"):
        prepare(skipping(tmp_path, "x", max_bad_rows=1))


def test_day_without_a_good_row_is_refused_with_its_reasons(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=4)
    (tmp_path / "day_3").write_bytes(b"<html>\n<body>404 Not Found</body>\n")
    with pytest.raises(RunError, match=r"day_3: no rows are left of this file by --bad-rows=skip: 2 not a label"):
        prepare(skipping(tmp_path, "x", max_bad_rows=1))
    assert not list(tmp_path.glob("x*"))


def test_kaggle_file_without_good_rows_is_refused_with_their_number(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"not a click log\n" * 50)
    with pytest.raises(
        RunError, match=r"train\.txt: fewer than 7 rows besides 50 bad rows, which --bad-rows=skip"
    ):
        prepare(preparation(tmp_path / "train.txt", tmp_path / "x", data_set="kaggle", bad_rows="skip"))


def test_kaggle_days_are_divided_by_good_rows(tmp_path: Path) -> None:
    rows = raw_text.random_rows(33, seed=3)
    (tmp_path / "train.txt").write_bytes(raw_text.text([rows[0][:20], *rows[:20], ["9"], *rows[20:]]))
    made = prepare(
        preparation(tmp_path / "train.txt", tmp_path / "x", data_set="kaggle", bad_rows="skip", max_bad_rows=0.1)
    )
    expected = raw_text.prepare_slowly([rows[:29], rows[29:]], -1)
    assert np.array_equal(read_rows(made.train), expected.train)
    assert np.array_equal(read_rows(made.test), expected.test)


def test_prepare_program_supports_the_flags_for_bad_rows(tmp_path: Path) -> None:
    spoil(tmp_path)
    flags = ("--data-set=terabyte", "--raw-data-file=day", "--processed-data-file=x", "--bad-rows=skip")
    run = run_program(*flags, "--max-bad-rows=0.05", cwd=tmp_path, program="tools/prepare_criteo.py")
    assert run.status == 0, run.stderr
    assert "3 bad rows left out" in run.stdout
    run = run_program(*flags, "--processed-data-file=y", cwd=tmp_path, program="tools/prepare_criteo.py")
    assert run.status == 1
    assert run.stderr.splitlines()[-1].startswith("prepare_criteo.py: error: ")


@pytest.fixture(params=["isal", "gzip"])
def unpacker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Decompress with isal and, as if it were not installed, with gzip."""
    assert compressed.igzip is not None
    if request.param == "gzip":
        monkeypatch.setattr(compressed, "igzip", None)
    return str(request.param)


@pytest.mark.parametrize("randomize", ["none", "total"])
def test_gzipped_and_plain_days_give_the_same_files(
    randomize: str, unpacker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlperf")
    for name in ("plain", "mixed"):
        (tmp_path / name).mkdir()
        raw_text.write_days(tmp_path / name, DAYS, seed=2)
    for day in (0, 3, 23):
        path = tmp_path / "mixed" / f"day_{day}"
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    made = [
        prepare(preparation(tmp_path / name / "day", tmp_path / f"{name}_x", randomize=randomize))
        for name in ("plain", "mixed")
    ]
    for split in ("train", "test", "val"):
        assert getattr(made[0], split).read_bytes() == getattr(made[1], split).read_bytes()
    manifest = json.loads((tmp_path / "mixed_x.json").read_text())
    assert [facts["name"] for facts in manifest["inputs"]][:4] == ["day_0.gz", "day_1", "day_2", "day_3.gz"]
    said = "day_0.gz, day_3.gz, day_23.gz: decompressed with Python's gzip; isal (pip install isal) is"
    assert (said in caplog.text) == (unpacker == "gzip")


def test_plain_day_is_preferred_over_gzipped_day_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=2)
    for day in (4, 17):
        (tmp_path / f"day_{day}.gz").write_bytes(b"not even gzip")
    made = prepare(preparation(tmp_path / "day", tmp_path / "x"))
    assert made.train_rows == sum(DAYS[:-1])
    assert "the file exists with and without .gz; reading the one without: day_4, day_17" in caplog.messages


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip", "checksum", "flipped far in", "header only"])
def test_damaged_gzip_file_is_named(damage: str, unpacker: str, tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, DAYS, seed=2)
    rows = (tmp_path / "day_4").read_bytes()
    content = bytearray(gzip.compress(rows * 100 if damage == "flipped far in" else rows, compresslevel=1))
    if damage.startswith("flipped"):
        content[len(content) // 2 : len(content) // 2 + 20] = b"\xff" * 20
    elif damage == "checksum":
        content[-6] ^= 1
    shorter = {"cut": content[: len(content) // 2], "not gzip": bytearray(b"day_4"), "header only": content[:3]}
    (tmp_path / "day_4.gz").write_bytes(shorter.get(damage, content))
    (tmp_path / "day_4").unlink()
    with pytest.raises(RunError, match=r"day_4\.gz") as caught:
        prepare(preparation(tmp_path / "day", tmp_path / "x"))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("x*"))


def test_text_of_several_gzip_members_is_read_completely_and_its_size_estimated(
    unpacker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parallel compressors write such files, which end with the size of the last, possibly empty, member."""
    monkeypatch.setattr("mlperf.data.text.compressed.SAMPLE_BYTES", 400_000)
    rows = raw_text.text(raw_text.random_rows(400, seed=1)) * 20
    parts = [rows[at : at + 100_000] for at in range(0, len(rows), 100_000)]
    for last in (b"", gzip.compress(b"")):
        path = tmp_path / "train.txt.gz"
        path.write_bytes(b"".join(map(gzip.compress, parts)) + last)
        settings = preparation(tmp_path / "train.txt", tmp_path / "x", data_set="kaggle")
        request = Request(settings)
        (size,) = make_plan(request, [path], request.text_format([path])).text_bytes
        assert 0.5 < size / len(rows) < 2
        made = prepare(settings)
        assert made.train_rows + made.test_rows + made.val_rows == 8000
