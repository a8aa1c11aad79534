"""Texts with any columns: the compiled parser gives the rows of a simple one, and never a row of bad text."""

from __future__ import annotations

import csv
import gzip
import io
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import raw_text
import zstandard
from plain_columns import parse_log, plain_parse, xxh64

from mlperf.data.columns.description import (
    CRITEO_COLUMNS,
    CategoricalColumn,
    ColumnsDescription,
    DenseColumn,
    IdKind,
    LabelColumn,
    SplitByValue,
    Transform,
)
from mlperf.data.columns.log_file import open_log
from mlperf.data.prepare.parse import BlockParser
from mlperf.data.text.blocks import text_blocks
from mlperf.util.errors import RunError, UsageError

NAMES = ["clicked", "price", "age", "income", "site", "user", "when", "tags", "unused", "more"]
DESCRIPTION = ColumnsDescription(
    label=LabelColumn("clicked", ("no", "yes")),
    dense=(
        DenseColumn("price", Transform.STANDARDIZE, is_integer=False),
        DenseColumn("age"),
        DenseColumn("income", Transform.NONE, is_integer=False),
    ),
    categorical=(
        CategoricalColumn("site"),
        CategoricalColumn("user", IdKind.INTEGER),
        CategoricalColumn("tags", IdKind.WORD, "|", 3),
        CategoricalColumn("more", IdKind.HEXADECIMAL, ";", 2),
    ),
    split=SplitByValue("when", ("tue", "wed"), ("thu",)),
    has_header=True,
    missing=("NA", "?"),
)
POSITIONS = [0, 1, 2, 3, 4, 5, 7, 9, 6]


def draw_row(draw: random.Random, separator: str) -> list[str]:
    """Return the fields of a good row, in the order of NAMES."""
    word = "".join(draw.choice(["a", "é", '"', " ", separator, "'", "x" * 40]) for _ in range(draw.randrange(6)))
    decimal = draw.choice(
        [f"{draw.gauss(0, 10 ** draw.randrange(-30, 30))}", f"{draw.random():.{draw.randrange(30)}f}", "+.5e-3"]
    )
    return [
        draw.choice(["no", "yes"]),
        draw.choice([decimal, "", "NA"]),
        draw.choice([str(draw.randrange(-(2**31), 2**31)), "000000000012", "?"]),
        draw.choice([decimal, "?"]),
        word,
        draw.choice([str(draw.randrange(-(2**63), 2**64)), "", "7"]),
        draw.choice(["mon", "tue", "wed", "thu", ""]),
        "|".join(draw.choice(["a", "b", "NA", ""]) for _ in range(draw.randrange(6))),
        draw.choice(["anything", "", '"']),
        ";".join(f"{draw.getrandbits(draw.choice([4, 32, 64])):x}" for _ in range(draw.randrange(4))),
    ]


def draw_text(draw: random.Random, rows: int, separator: str, line_end: str) -> str:
    """Return a text with a header, as Python's csv module writes it, of rows of which some are damaged."""
    file = io.StringIO()
    if draw.random() < 0.5:
        writer = csv.writer(file, delimiter=separator, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    else:
        writer = csv.writer(file, delimiter=separator, lineterminator=line_end)
    writer.writerow(NAMES)
    writer.writerows(draw_row(draw, separator) for _ in range(rows))
    header, _, text = file.getvalue().partition(line_end)
    characters = list(text)
    for _ in range(draw.randrange(10, rows // 4)):
        at = draw.randrange(len(characters))
        new = draw.choice(["", "\n", '"', separator, "x", "9" * 30, "\x00", " ", "-", "e", ".", "\r\n", "ÿ"])
        characters[at : at + draw.randrange(2)] = [new]
    return header + line_end + "".join(characters)


@pytest.mark.parametrize("seed", range(12))
def test_text_gives_the_rows_of_a_plain_parser_whatever_is_wrong_with_it(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    separator, line_end = draw.choice(",\t;|~ "), draw.choice(["\n", "\r\n"])
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", draw.choice([6000, 2 << 20]))
    text = draw_text(draw, 400, separator, line_end)
    text = text.removesuffix(line_end) if seed % 2 else text
    path = tmp_path / "log.txt"
    path.write_bytes(b"\xef\xbb\xbf" * (seed % 3 == 0) + text.encode())
    description = replace(DESCRIPTION, separator=separator)
    body = text.partition(line_end)[2].encode()
    expected = plain_parse(body, description, separator, POSITIONS, len(NAMES))
    assert 100 < len(expected.rows) < 400
    assert parse_log(open_log(path, description)) == expected


def frames(text: bytes) -> bytes:
    """Return text compressed by zstd in several frames."""
    return b"".join(zstandard.compress(text[at : at + 1000]) for at in range(0, len(text), 1000))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "log.csv": bytes,
    "log.csv.gz": gzip.compress,
    "log.csv.zst": frames,
    "log.zst": frames,
}


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_texts_give_the_rows_of_the_plain_one_from_the_end_of_any_block_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlperf.data.text.blocks.BLOCK_BYTES", 3000)
    separator = "," if ".csv" in name else "\t"
    text = draw_text(random.Random(5), 200, separator, "\n").encode()
    (tmp_path / name).write_bytes(PACKERS[name](text))
    (tmp_path / "plain").write_bytes(text)
    plain = open_log(tmp_path / "plain", replace(DESCRIPTION, separator=separator))
    log = open_log(tmp_path / name, DESCRIPTION)
    assert parse_log(log) == parse_log(plain)
    ends = [block.end for block in log.blocks()]
    assert len(ends) > 5
    assert parse_log(log, ends[3]) == parse_log(plain, ends[3])


@pytest.mark.parametrize("kept", [4, 2000, -3])
def test_zstd_file_that_is_cut_off_is_damaged(kept: int, tmp_path: Path) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(
        random.Random(1).randbytes(5000).hex().encode()
    )
    (tmp_path / "x.zst").write_bytes(packed[:kept])
    with pytest.raises(RunError, match=r"x\.zst: damaged zstd file: it ends within a frame"):
        open_log(tmp_path / "x.zst", ColumnsDescription(LabelColumn(1), (), (CategoricalColumn(2),)))


def test_criteo_text_gives_the_rows_of_the_criteo_parser(tmp_path: Path) -> None:
    text = raw_text.text(raw_text.random_rows(500, seed=3)) + b"2\n0\t" + b"\t" * 38 + b"\n"
    (tmp_path / "day_0").write_bytes(text)
    (block,) = text_blocks(tmp_path / "day_0")
    for keeps_negative in (False, True):
        criteo = BlockParser(-1, keep_negative=keeps_negative).parse(block)
        found = open_log(tmp_path / "day_0", CRITEO_COLUMNS).parser(keeps_negative=keeps_negative).parse(block)
        assert np.array_equal(found.rows[:, :14], criteo.rows[:, :14])
        assert np.array_equal(found.keys, criteo.rows[:, 14:].view(np.uint32))
        assert not found.rows[-1, 14:].any()
        assert (found.lines, found.faults[:, 0].tolist()) == (criteo.lines, criteo.faults[:, 0].tolist())


@pytest.mark.parametrize("seed", range(3))
def test_decimals_are_rounded_like_a_float_of_python_and_then_to_float32(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    texts = [text for _ in range(4000) for text in near_ties(draw)]
    texts += ["0", "-0.0", "1e-45", "7.0064923216240853e-46", "7.0064923216240854e-46", "1e-400", "0e999999999999"]
    texts += ["3.4028235677973366e38", "3.4028235677973365e38", "-3.402823567797336616375e38", "1e39", "1e400"]
    texts += ["0." + "0" * 400 + "1e400", "1" + "0" * 400 + "e-400", "9007199254740993", "16777217", "5.e2", "+7"]
    texts += ["16777217." + "0" * 30 + "1", "16777216.9999999999999999999999", "1e", "e5", ".", "-", "+-1", "1e+"]
    texts += ["nan", "inf", "1_0", " 1", "1 ", "0x1p3", "1.5.2", "1e5e5", "--1", "1,5", "٣"]
    (tmp_path / "x").write_bytes("".join(f"1\t{text}\n" for text in texts).encode())
    description = ColumnsDescription(LabelColumn(1), (DenseColumn(2, Transform.NONE, is_integer=False),), ())
    expected = plain_parse((tmp_path / "x").read_bytes(), description, "\t", [0, 1], 2)
    assert sum(line >= 24_000 for line in expected.bad) == 22
    assert parse_log(open_log(tmp_path / "x", description)) == expected


def near_ties(draw: random.Random) -> list[str]:
    """Return decimals that are, or nearly are, in the middle between two float32 values, and others."""
    bits = draw.getrandbits(31) % 0x7F7FFFFF
    low, high = (float(np.int32(bits + step).view(np.float32)) for step in (0, 1))
    middle = f"{(low + high) / 2:.{draw.choice([8, 16, 17, 40, 200])}e}"
    return [
        middle,
        f"{np.nextafter((low + high) / 2, draw.choice([-np.inf, np.inf])):.{draw.choice([16, 17, 30])}e}",
        repr(low),
        f"{draw.randrange(10 ** draw.randrange(1, 25))}e{draw.randrange(-60, 25)}",
        f"-{draw.random():.{draw.randrange(25)}f}",
        middle.replace("e", draw.choice(["0e", "1e", "00000000000000000001e"])),
    ]


def test_words_are_hashed_by_xxh64(tmp_path: Path) -> None:
    """The hashes below are those of the xxHash library, version 0.8.3."""
    known = {b"": 0xEF46DB3751D8E999, b"a": 0xD24EC4F1A98C6E5B, b"abc": 0x44BC2CF5AD770999}
    known[b"The quick brown fox jumps over the lazy dog"] = 0x0B242D361FDA71BC
    assert {word: xxh64(word) for word in known} == known
    words = [bytes(97 + (7 * at + size) % 26 for at in range(size)) for size in range(1, 200)]
    (tmp_path / "x").write_bytes(b"".join(b"1\t%s\n" % word for word in words))
    log = open_log(tmp_path / "x", ColumnsDescription(LabelColumn(1), (), (CategoricalColumn(2),)))
    assert parse_log(log).keys == [[xxh64(word)] for word in words]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "maybe,1,2,3,s,4,mon,t,,a",
            r"line 3, column 1 \('clicked'\): 'maybe': not a label; allowed are no and",
        ),
        ("no,1.5x,2,3,s,4,mon,t,,a", r"line 3, column 2 \('price'\): '1\.5x': not a decimal; allowed are"),
        ('no,"1,5",2,3,s,4,mon,t,,a', r"column 2 \('price'\): '\"1,5\"': not a decimal"),
        ("no,1e39,2,3,s,4,mon,t,,a", r"column 2 .*'1e39': the number does not fit in a float of 32 bits"),
        ("no,1,2.5,3,s,4,mon,t,,a", r"column 3 .*'2\.5': not a whole number; type = \"decimal\" allows others"),
        ("no,1,4000000000,3,s,4,mon,t,,a", r"column 3 .*: the number is not in -2147483648 to 2147483647"),
        (
            "no,1,2,3,s,u4,mon,t,,a",
            r"column 6 \('user'\): 'u4': not a whole number; type = \"word\" allows",
        ),
        ("no,1,2,3,s,-9223372036854775809,mon,t,,a", r"column 6 .*: the id does not fit in 64 bits"),
        ("no,1,2,3,s,18446744073709551616,mon,t,,a", r"column 6 .*: the id does not fit in 64 bits"),
        (
            "no,1,2,3,s,4,mon,t,,a;xyz",
            r"column 10 \('more'\): 'a;xyz': not a hexadecimal id; allowed are up",
        ),
        (
            "no,1,2,3,s,4,mon,t,,12345678901234567",
            r"column 10 .*: not a hexadecimal id; allowed are up to",
        ),
        ("no,1,2,3,s,4,mon,t,", r"column 9 \('unused'\): '': too few columns; expected 10"),
        ("no,1,2,3,s,4,mon,t,,a,b", r"column 10 \('more'\): 'a': too many columns; expected 10"),
        (
            'no,1,2,3,"s,4,mon,t,,a',
            r"column 5 \('site'\): '\"s,4,mon,t,,a': the quoted field does not end in",
        ),
        ('no,1,2,3,"s"s,4,mon,t,,a', r"column 5 \('site'\): '\"s\"s,4.*: there is text after the quoted field"),
        ("", r"line 3, column 1 \('clicked'\): '': too few columns; expected 10"),
    ],
)
def test_bad_row_is_named_with_line_column_and_what_is_allowed(line: str, message: str, tmp_path: Path) -> None:
    good = "no,1,2,3,s,4,mon,t,,a"
    (tmp_path / "x.csv").write_text("\n".join([",".join(NAMES), good, line, good]))
    log = open_log(tmp_path / "x.csv", DESCRIPTION)
    (block,) = log.blocks()
    parsed = log.parser().parse(block)
    assert (len(parsed.rows), parsed.lines, len(parsed.faults)) == (2, 3, 1)
    with pytest.raises(RunError, match=message):
        raise log.fault_error(0, block, parsed.faults[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file; expected a header with the names of the columns"),
        (b"\r\n\r\n", "empty lines only; expected a header"),
        (b"PAR1....", r"contains Parquet data; its name must end in \.parquet"),
        (b"\x1f\x8b....", r"contains gzip data; its name must end in \.gz"),
        ("clicked,price".encode("utf-16"), "contains UTF-16 text; convert it to UTF-8"),
        (b"clicked,pri\xffce\n", "the header is not UTF-8 text: byte 12 is 0xff"),
        (b'clicked,"price\n', "column 2 of the header has a quote without an end"),
        (b"clicked,price,price\n", "2 columns have the name 'price'; use their positions"),
        (
            b"clicked;price\n",
            "there is no column 'clicked'; the columns are 'clicked;price'; the separator is ','; ",
        ),
        (b'"clicked";"price"\n', "column 1 of the header has text after a quote; the separator is ','; "),
    ],
)
def test_file_that_is_not_the_described_text_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(RunError, match=message):
        open_log(tmp_path / "x.csv", DESCRIPTION)


def test_column_used_by_name_and_by_position_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("clicked\tprice\n0\t1\n")
    description = ColumnsDescription(
        LabelColumn("clicked"), (DenseColumn(2),), (CategoricalColumn("price"),), has_header=True
    )
    with pytest.raises(RunError, match=r"column 2 \('price'\) is used twice, by name and by position"):
        open_log(tmp_path / "x", description)


@pytest.mark.parametrize("has_header", [True, False])
def test_text_without_the_column_of_the_label_has_label_minus_one(has_header: bool, tmp_path: Path) -> None:
    dense = (DenseColumn("a" if has_header else 1),)
    categorical = (CategoricalColumn("b" if has_header else 3),)
    label = LabelColumn("clicked" if has_header else 2)
    description = ColumnsDescription(label, dense, categorical, has_header=has_header, width=3)
    (tmp_path / "x.csv").write_text("a,clicked,b\n" * has_header + "5,1,x\n7,0,y\n")
    (tmp_path / "y.csv").write_text("a,b\n" * has_header + "5,x\n7,y\n")
    with_labels = open_log(tmp_path / "x.csv", description, label_optional=True)
    without = open_log(tmp_path / "y.csv", description, label_optional=True)
    assert (with_labels.has_label, without.has_label) == (True, False)
    rows, unlabelled = parse_log(with_labels), parse_log(without)
    assert rows.rows == [[1, 5, 1], [0, 7, 1]]
    assert unlabelled.rows == [[-1, 5, 1], [-1, 7, 1]]
    assert unlabelled.keys == rows.keys
    if has_header:
        with pytest.raises(RunError, match="there is no column 'clicked'; the columns are 'a', 'b'; rows without"):
            open_log(tmp_path / "y.csv", description)
    else:
        assert parse_log(open_log(tmp_path / "y.csv", description)).bad == [0, 1]


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "x.zst").touch()
    with pytest.raises(UsageError, match=r"x\.zst: \.zst requires the package zstandard \(pip install"):
        open_log(tmp_path / "x.zst", DESCRIPTION)


def test_several_ids_need_a_separator(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1\ta\n")
    description = ColumnsDescription(LabelColumn(1), (), (CategoricalColumn(2, ids=3),))
    with pytest.raises(RunError, match="column 2 has ids = 3 but no separator; --columns must give one"):
        open_log(tmp_path / "x", description)


def test_first_line_that_is_no_row_may_be_a_header(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("clicked\tsite\n1\ta\n")
    log = open_log(tmp_path / "x", ColumnsDescription(LabelColumn(1), (), (CategoricalColumn(2),)))
    (block,) = log.blocks()
    parsed = log.parser().parse(block)
    with pytest.raises(RunError, match=r'line 1, column 1: .*; if this line .* needs "header = true" in'):
        raise log.fault_error(0, block, parsed.faults[0])
