"""The TOML file that describes the columns of a click log, and its copy in the manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlperf.data.columns.description import (
    CRITEO_COLUMNS,
    CategoricalColumn,
    ColumnsDescription,
    DenseColumn,
    IdKind,
    LabelColumn,
    SplitByFile,
    SplitByShare,
    SplitByValue,
    Transform,
)
from mlperf.data.columns.description_file import read_description
from mlperf.data.columns.description_json import from_json, to_json
from mlperf.util.errors import UsageError
from mlperf.util.strict_json import SchemaError

COMPLETE = """
[text]
separator = ";"
missing = ["NA", -1]

[label]
column = "click"
values = ["no", "yes"]

[[dense]]
columns = ["price", "age"]
type = "decimal"
transform = "standardize"

[[dense]]
columns = "7-9"

[[categorical]]
column = "site"

[[categorical]]
column = 12
type = "hexadecimal"
separator = "|"
ids = 3

[split]
column = "day"
test = ["sat", 7]
val = ["sun"]
"""
DESCRIPTION = ColumnsDescription(
    label=LabelColumn("click", ("no", "yes")),
    dense=(
        DenseColumn("price", Transform.STANDARDIZE, is_integer=False),
        DenseColumn("age", Transform.STANDARDIZE, is_integer=False),
        *(DenseColumn(position) for position in (7, 8, 9)),
    ),
    categorical=(CategoricalColumn("site"), CategoricalColumn(12, IdKind.HEXADECIMAL, "|", 3)),
    split=SplitByValue("day", ("sat", "7"), ("sun",)),
    separator=";",
    has_header=True,
    missing=("NA", "-1"),
)
SHORT = '[label]\ncolumn = 1\n[[categorical]]\ncolumns = "2-4"\n[split]\n'


def read(text: str, folder: Path) -> ColumnsDescription:
    (folder / "c.toml").write_text(text)
    return read_description(folder / "c.toml")


def test_every_key_of_the_file_is_in_the_description(tmp_path: Path) -> None:
    assert read(COMPLETE, tmp_path) == DESCRIPTION


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("test_share = 0.1", SplitByShare(0.1)),
        ("test_share = 0.25\nval_share = 0.5\nrandom = true", SplitByShare(0.25, 0.5, is_random=True)),
        ('train = ["a.csv", "b.csv"]\ntest = ["c.csv"]', SplitByFile(("a.csv", "b.csv"), ("c.csv",))),
        ('column = 5\ntest = ["x"]', SplitByValue(5, ("x",))),
    ],
)
def test_columns_by_position_need_no_header_and_every_form_of_the_split_is_read(
    split: str, expected: object, tmp_path: Path
) -> None:
    columns = tuple(CategoricalColumn(position) for position in (2, 3, 4))
    description = ColumnsDescription(LabelColumn(1), (), columns, split=expected)  # type: ignore[arg-type]
    assert read(SHORT + split, tmp_path) == description


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[split]", "[splits]", "the file lacks split"),
        ("[text]", "[texts]", "the file has unknown entries: 'texts'"),
        ("[text]", "[text", r"it is not TOML: .*\(at line 2, column 6\)"),
        ("ids = 3", f"ids = {'9' * 5000}", "it is not TOML: Exceeds the limit"),
        ("ids = 3", "id = 3", r"\[\[categorical\]\] number 2 has unknown entries: 'id'"),
        ("ids = 3", "ids = 0", r"ids of \[\[categorical\]\] number 2 is 0, must be a whole number from 1"),
        ('"decimal"', '"float"', r"type of \[\[dense\]\] number 1 is 'float', must be 'integer' or 'decimal'"),
        ('"standardize"', '"log"', "must be 'log1p' or 'standardize' or 'none'"),
        ('"hexadecimal"', '"hex"', "must be 'hexadecimal' or 'integer' or 'word'"),
        ('separator = ";"', 'separator = "||"', r"separator of \[text\] is '\|\|', must be one ASCII character"),
        ('"|"', "'\"'", "must be one ASCII character, other than a quote or a line break"),
        ('"7-9"', '"9-7"', r"columns of \[\[dense\]\] number 2 is '9-7', must be a list, or a range of positions"),
        ('["price", "age"]', "[]", r"columns of \[\[dense\]\] number 1 is empty"),
        ("column = 12", "column = 0", "is 0, must be a whole number from 1"),
        ("column = 12", "column = true", "is True, must be"),
        ("column = 12", "", r"\[\[categorical\]\] number 2 must have either column or columns"),
        ("column = 12", "column = 8", "column 8 is used twice"),
        ('"age"', '"site"', "column 'site' is used twice"),
        ('column = "day"', 'column = "click"', "column 'click' is used twice"),
        (
            '["no", "yes"]',
            '["no"]',
            r"values of \[label\] is \['no'\], must be the texts of label 0 and of label 1",
        ),
        ('["no", "yes"]', '["yes", "yes"]', "the values of the label are 'yes' and 'yes', must differ"),
        ("[text]", "[text]\nheader = false", "column 'click' is given by name, but header = false"),
        ('"NA", -1', '"a|b"', r"missing contains the separator '\|' of 12"),
        ('["sun"]', '["sun", "sat"]', "'sat' is listed twice in test, val"),
        ('test = ["sat", 7]', "test = []", "test is empty"),
        ('column = "day"', "test_share = 0.5", r"unknown entries: 'test', 'val'"),
        ('column = "day"', "", r"\[split\] must have test_share or column, test or train, test; found test, val"),
    ],
)
def test_wrong_file_is_refused_with_its_name_and_the_key(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in COMPLETE
    with pytest.raises(UsageError, match=message) as caught:
        read(COMPLETE.replace(old, new, 1), tmp_path)
    assert str(caught.value).startswith(f"--columns={tmp_path / 'c.toml'}: ")
    assert "\n" not in str(caught.value)


def test_dates_and_truth_values_stand_for_their_texts(tmp_path: Path) -> None:
    changed = COMPLETE.replace('["no", "yes"]', "[false, true]").replace('["sat", 7]', "[2026-05-29, 7]")
    description = read(changed, tmp_path)
    assert description.label.values == ("false", "true")
    assert isinstance(description.split, SplitByValue)
    assert description.split.test == ("2026-05-29", "7")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test_share = 1.5", r"test_share of \[split\] is 1\.5, must be a number in \[0, 1\)"),
        ("test_share = 0", "test_share must be greater than 0"),
        ("test_share = 0.5\nval_share = 0.5", "their sum less than 1"),
        ("test_share = 0.5\nrandom = 1", "is 1, must be true or false"),
        ('train = ["a"]\ntest = ["a"]', "'a' is listed twice in train, test, val"),
        (
            'train = ["a"]\ntest = ["../a"]',
            r"a file of test is '\.\./a', must be the name of a file, without a folder",
        ),
    ],
)
def test_wrong_split_is_refused(split: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read(SHORT + split, tmp_path)


def test_description_without_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no dense and no categorical columns"):
        read("[label]\ncolumn = 1\n[split]\ntest_share = 0.5", tmp_path)


def test_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert read("\ufeff" + COMPLETE, tmp_path) == DESCRIPTION


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"[label]\ncolumn = '\xff'")
    with pytest.raises(UsageError, match=r"c\.toml: it is not UTF-8 text: byte 19"):
        read_description(tmp_path / "c.toml")


@pytest.mark.parametrize(
    "description",
    [
        DESCRIPTION,
        replace(DESCRIPTION, split=SplitByShare(0.1, 0.2, is_random=True), width=12, separator=None),
        replace(DESCRIPTION, split=SplitByFile(("a",), ("b",), ("c",)), missing=()),
        CRITEO_COLUMNS,
    ],
)
def test_manifest_keeps_the_description(description: ColumnsDescription) -> None:
    assert from_json(to_json(description)) == description


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("separator", "::", r"columns\.separator is '::'"),
        ("width", 0, r"columns\.width is 0"),
        ("dense", [{"column": 2, "transform": "log", "is_integer": True}], r"columns\.dense\.transform is 'log'"),
        ("split", {"column": 3, "test": [], "val": []}, "test is empty"),
        ("header", 1, r"columns\.header is 1"),
        ("missing", "NA", r"columns\.missing is 'NA', must be a list"),
    ],
)
def test_damaged_description_in_a_manifest_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        from_json({**to_json(DESCRIPTION), key: value})


def test_what_is_not_a_regular_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        read_description(Path("/dev/zero"))
    with (tmp_path / "c.toml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=r"c\.toml: it is larger than 16 MB"):
        read_description(tmp_path / "c.toml")
