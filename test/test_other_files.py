"""Files that are not logs of the benchmark are named as what they are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from foreign_logs import as_package, changed, foreign_entries, foreign_results, unchanged, write_log
from program import check_submission as check

EVENT = b':::MLLOG {"key": "run_start"}\n'
FILES = {
    "the file is empty": b"",
    "the file is blank": b"\n \n",
    "a JSON file": b'{"status": "done",\n "rows": [1, 2]}\n',
    "JSON lines without :::MLLOG": b'{"key": "run_start"}\n{"key": "run_stop"}\n',
    "gzip data": gzip.compress(EVENT),
    "a ZIP archive": b"PK\x03\x04\x14\0",
    "UTF-16 text, must be UTF-8": EVENT.decode().encode("utf-16"),
    "binary data": bytes(range(256)) * 100,
    "text without a line with :::MLLOG": b"Finished training it 100/200\r\n\x1b[32mdone\x1b[0m caf\xe9\n",
    "a log of MLPerf 0.6.0: :::MLPv0.6.0 instead of :::MLLOG": b":::MLPv0.6.0 resnet 1.5 (a.py:1) run_start\n",
    "no MLPerf event can be read: 2 lines with :::MLLOG, none with valid JSON and all its fields": EVENT * 2,
}


@pytest.mark.parametrize(("kind", "content"), FILES.items(), ids=FILES)
def test_file_that_is_no_log_is_named_in_one_line(kind: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(content)
    run = check("a.log", "--edition=all", cwd=tmp_path)
    assert run.status == 1
    assert run.stdout == ""
    assert run.stderr == f"check_submission.py: error: a.log: not an MLPerf log: {kind}\n"


@pytest.mark.parametrize("kind", ["the file is empty", "binary data", next(reversed(FILES))])
def test_file_that_is_no_log_is_one_finding_among_the_logs_of_a_result(kind: str, tmp_path: Path) -> None:
    package = as_package(foreign_results(tmp_path / "Else" / "results" / "box" / "dlrm", "2.0.0", unchanged))
    file = package / "results" / "box" / "dlrm" / "result_2.txt"
    file.write_bytes(FILES[kind])
    run = check(package, "--edition=2.0.0", cwd=tmp_path)
    assert run.status == 1
    lines = [line for line in run.stdout.splitlines() if line.startswith(f"{file}:")]
    assert lines[0] == f"{file}:1: target reached: not an MLPerf log: {kind}"
    assert not [line for line in lines if "Required" in line]


@pytest.mark.parametrize("name", ["resnet", "dlrmv4"])
def test_log_of_another_benchmark_is_named_before_anything_else(name: str, tmp_path: Path) -> None:
    entries = changed("submission_benchmark", name, (0,))(0, foreign_entries(1, edition="2.0.0"))
    write_log(
        tmp_path / "a.log", [entry for entry in entries if not entry[0].startswith(("opt_", "sgd_", "eval"))]
    )
    run = check("a.log", "--edition=2.1.0", cwd=tmp_path)
    assert run.status == 1
    findings = [line for line in run.stdout.splitlines() if line.startswith("a.log:") and "edition" not in line]
    assert findings == [f"a.log:3: target reached: the log is of '{name}', not of dlrm"]


def test_log_of_the_inference_benchmark_is_named(tmp_path: Path) -> None:
    event = {"key": "loadgen_version", "value": "1.1", "time_ms": 0.01, "metadata": {}}
    (tmp_path / "a.log").write_text(f":::MLLOG {json.dumps(event)}\n")
    run = check("a.log", "--edition=2.1.0", cwd=tmp_path)
    assert run.status == 1
    assert "a.log:1: target reached: the log is of MLPerf Inference, not of dlrm" in run.stdout
    assert "Required" not in run.stdout
