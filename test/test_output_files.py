"""Outputs that would harm a file are refused in one line, and nothing is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from path_cases import PATH_CASES, PathCase, copy_files, make_files, refusal


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


@pytest.mark.parametrize("case", PATH_CASES, ids=lambda case: case.name)
def test_output_that_would_harm_a_file_is_refused(case: PathCase, files: Path, tmp_path: Path) -> None:
    assert refusal(case, copy_files(files, tmp_path / "files")) is None
