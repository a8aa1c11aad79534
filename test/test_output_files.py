"""Outputs that would harm a file are refused in one line, and nothing is changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import raw_text
from path_cases import PATH_CASES, PathCase, copy_files, make_files
from program import ROOT, run_program
from refused_call import refusal


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


@pytest.mark.parametrize("case", PATH_CASES, ids=lambda case: case.name)
def test_output_that_would_harm_a_file_is_refused(case: PathCase, files: Path, tmp_path: Path) -> None:
    assert refusal(case, copy_files(files, tmp_path / "files")) is None


_IN_NEW_NAMESPACE = ("unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind x x && exec "$@"', "sh")


def test_file_that_alone_is_mounted_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    try:
        subprocess.run([*_IN_NEW_NAMESPACE, "true"], cwd=tmp_path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this user may not mount: {error}")
    program = [sys.executable, str(ROOT / "tools" / "stack_distances.py"), "profile", "trace", "x"]
    (tmp_path / "trace").write_text("1, 2, 1")
    run = subprocess.run([*_IN_NEW_NAMESPACE, *program], cwd=tmp_path, capture_output=True, text=True, check=False)
    words = "cannot be replaced: it is a mount point; mount its folder instead"
    assert (run.returncode, run.stderr) == (2, f"stack_distances.py: error: result x: {words}\n")


def test_folder_of_prepared_data_is_named_with_the_value_of_the_flag(tmp_path: Path) -> None:
    raw_text.write_days(tmp_path, [3] * 24, seed=1)
    (tmp_path / "link").symlink_to("nowhere")
    flags = ("--data-set=terabyte", "--raw-data-file=day", "--processed-data-file=link/x")
    run = run_program(*flags, program="tools/prepare_criteo.py", cwd=tmp_path)
    words = "--processed-data-file=link/x: link is a link to nothing; must be a folder"
    assert (run.status, run.stderr) == (2, f"prepare_criteo.py: error: {words}\n")
