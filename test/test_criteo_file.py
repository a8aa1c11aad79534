"""Criteo's text without labels: the same rows and the same refusals as with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import raw_text

from mlperf.benchmarks.data_sets import TERABYTE, TERABYTE_DCNV2, DataSetTraits
from mlperf.data.prepare.criteo_file import CriteoFile

ROWS = raw_text.random_rows(300, seed=5)


def unlabelled(rows: list[list[str]], line_end: str = "\n") -> bytes:
    return raw_text.text([row[1:] for row in rows], line_end)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("traits", [TERABYTE, TERABYTE_DCNV2])
def test_rows_are_those_of_the_labelled_text(line_end: str, traits: DataSetTraits, tmp_path: Path) -> None:
    (tmp_path / "with").write_bytes(raw_text.text(ROWS, line_end))
    (tmp_path / "without").write_bytes(unlabelled(ROWS, line_end).rstrip())
    labelled, other = (CriteoFile(tmp_path / name, traits, 1000) for name in ("with", "without"))
    assert labelled.has_label
    assert not other.has_label
    (block,) = labelled.blocks()
    expected = labelled.parser().parse(block).rows
    (block,) = other.blocks()
    found = other.parser().parse(block)
    assert found.lines == len(ROWS)
    assert (found.rows[:, 1:] == expected[:, 1:]).all()
    assert (found.rows[:, 0] == 0).all()


@pytest.mark.parametrize(
    ("column", "field", "message"),
    [
        (
            1,
            "x",
            "row 3, column 1: 'x': not a whole number; allowed are digits with or without a minus, or nothing",
        ),
        (9, "3000000000", "row 3, column 9: '3000000000': the number does not fit in 32 bits; allowed is"),
        (14, "123456789", "row 3, column 14: '123456789': an id of more than 8 digits; allowed are up to 8"),
        (39, "g", "row 3, column 39: 'g': not an id; allowed are up to 8 hexadecimal digits, or nothing"),
        (39, "a\tb", "row 3, column 39: 'a': too many columns; expected 39"),
    ],
)
def test_bad_field_is_named_with_its_column_in_the_text(
    column: int, field: str, message: str, tmp_path: Path
) -> None:
    path, rows = tmp_path / "text", [list(row) for row in ROWS[:5]]
    rows[2][column] = field
    path.write_bytes(unlabelled(rows))
    assert error_of(path).startswith(f"{path}: {message}")


@pytest.mark.parametrize("line", ["", "1\t2"])
def test_row_with_too_few_columns_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(unlabelled(ROWS[:2]) + line.encode() + b"\n" + unlabelled(ROWS[2:4]))
    assert error_of(path).startswith(f"{path}: row 3, column ")
    assert error_of(path).endswith(": too few columns; expected 39")


def error_of(path: Path) -> str:
    """Return the error of the only bad row of a text."""
    file = CriteoFile(path, TERABYTE, -1)
    (block,) = file.blocks()
    parsed = file.parser().parse(block)
    (fault,) = parsed.faults
    assert len(parsed.rows) == parsed.lines - 1
    return str(file.fault_error(0, block, fault))
