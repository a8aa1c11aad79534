"""Criteo's text without labels: the same rows and the same refusals as with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import raw_text
from preparations import preparation

from mlperf.data.prepare.text_format import CriteoText
from mlperf.data.prepare.unlabelled_text import UnlabelledCriteoText, lacks_label
from mlperf.data.text.blocks import text_blocks

ROWS = raw_text.random_rows(300, seed=5)


def unlabelled(rows: list[list[str]], line_end: str = "\n") -> bytes:
    return raw_text.text([row[1:] for row in rows], line_end)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("data_set", ["terabyte", "terabyte_dcnv2"])
def test_rows_are_those_of_the_labelled_text(line_end: str, data_set: str, tmp_path: Path) -> None:
    settings = preparation(tmp_path / "x", tmp_path / "y", data_set=data_set, max_ind_range=1000)
    (tmp_path / "with").write_bytes(raw_text.text(ROWS, line_end))
    (tmp_path / "without").write_bytes(unlabelled(ROWS, line_end).rstrip())
    assert not lacks_label(tmp_path / "with")
    assert lacks_label(tmp_path / "without")
    (first,) = text_blocks(tmp_path / "with")
    expected = CriteoText(settings).parser().parse(first).rows
    (second,) = text_blocks(tmp_path / "without")
    found = UnlabelledCriteoText(settings).parser().parse(second)
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
    text = UnlabelledCriteoText(preparation(path, path))
    (block,) = text.blocks(path, 0)
    parsed = text.parser().parse(block)
    (fault,) = parsed.faults
    assert len(parsed.rows) == parsed.lines - 1
    assert np.issubdtype(parsed.rows.dtype, np.int32)
    return str(text.error(path, 1, block, fault))
