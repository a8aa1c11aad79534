"""The tour of the program (tools/tour.sh)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from program import ROOT


@pytest.mark.slow
def test_the_tour_shows_every_feature_on_a_sample(tmp_path: Path) -> None:
    folder = tmp_path / "tour of all"
    environment = {**os.environ, "DLRM_PYTHON": sys.executable}
    done = subprocess.run(
        ["tools/tour.sh", str(folder)], cwd=ROOT, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"Done: open {folder}/report.html in a browser"
    events = [json.loads(line)["event"] for line in (folder / "first" / "metrics.jsonl").read_text().splitlines()]
    assert events.count("run_start") == 2  # started and continued
    with (folder / "sample" / "day_22").open() as text:
        assert len(np.load(folder / "unlabelled.npy")) == sum(1 for _ in text)
    assert "second" in (folder / "report.html").read_text()


def test_the_tour_names_pages_that_exist() -> None:
    pages = re.findall(r'^step .* "?([a-z_., ]+\.md)"?$', (ROOT / "tools" / "tour.sh").read_text(), re.MULTILINE)
    names = {name for page in pages for name in page.split(", ")}
    assert len(pages) > 10
    assert all((ROOT / "mlperf" / "docs" / name).is_file() for name in names)


def test_the_tour_refuses_a_folder_that_exists(tmp_path: Path) -> None:
    done = subprocess.run(["tools/tour.sh", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"tour.sh: error: {tmp_path} exists; name a new folder\n"
