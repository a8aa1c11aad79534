"""Rules for the sources that linters do not check."""

from __future__ import annotations

from program import ROOT

MAX_LINES = 400


def test_no_source_file_is_longer_than_400_lines() -> None:
    files = [
        ROOT / "dlrm_s_pytorch.py",
        ROOT / "run_and_time.sh",
        *(file for room in ("mlperf", "bench", "tools") for file in (ROOT / room).rglob("*.*")),
        *(ROOT / "test").glob("*.*"),
    ]
    lengths = {file: len(file.read_text().splitlines()) for file in files if file.suffix in (".py", ".sh", ".md")}
    assert {str(file): lines for file, lines in lengths.items() if lines > MAX_LINES} == {}
