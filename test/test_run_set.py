"""Resuming sets of runs, and atomic writing of packages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from foreign_logs import foreign_entries, write_log
from program import same_signal_handlers

from mlperf.benchmarks import DLRM, default_edition
from mlperf.compliance.log_reader import read_log
from mlperf.submission.package import Package, write_package
from mlperf.submission.run_inputs import RunInputs
from mlperf.submission.run_set import RunSettings, make_runs
from mlperf.util.errors import RunError, UsageError
from mlperf.util.locking import exclusive
from mlperf.util.program import run_program


def settings(data: Path) -> RunSettings:
    return RunSettings("dlrm", "2.1.0", str(data), "", "", ())


def package(folder: Path) -> Package:
    """Return the description of a package without runs."""
    return Package(
        folder=folder,
        submitter="Ours",
        system="box",
        edition=default_edition(DLRM),
        description={},
        configuration=None,
        trainer_flags=(),
        data="",
        bypass_reason=None,
    )


def test_settings_can_change_while_no_run_has_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRM_PYTHON", sys.executable)
    folder = tmp_path / "runs"
    for data in ("nowhere", "elsewhere"):
        with pytest.raises(UsageError, match="rejected its arguments"):
            make_runs(folder, settings(tmp_path / data), 5)
    (folder / "run_0").mkdir(exist_ok=True)
    entries = foreign_entries(1, edition="2.0.0")
    ended = {"status": "success", "outcome": "success"}
    write_log(folder / "run_0" / "a.log", [(k, v, ended if k == "run_stop" else m, t) for k, v, m, t in entries])
    with pytest.raises(UsageError, match=r"its runs were made with data .*elsewhere', now it is .*third"):
        make_runs(folder, settings(tmp_path / "third"), 5)


def test_signal_while_a_run_is_being_started_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Started(subprocess.Popen[str]):
        """Receives a signal when the process exists and its caller does not know it yet."""

        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords)
            processes.append(self)
            os.kill(os.getpid(), signal.SIGHUP)

    processes: list[Started] = []
    (tmp_path / "dlrm_s_pytorch.py").touch()
    script = tmp_path / "run_and_time.sh"
    script.write_text("#!/bin/bash\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr("mlperf.submission.run_set.ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "Popen", Started)

    def work() -> None:
        make_runs(tmp_path / "runs", settings(tmp_path), 1)

    with same_signal_handlers():
        assert run_program("x.py", work) == 128 + signal.SIGHUP
    assert [process.returncode for process in processes] == [-signal.SIGTERM]


def test_flags_of_a_configuration_from_windows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.sh").write_bytes(b"\xef\xbb\xbfTRAINER_FLAGS=(--num-workers=2 '--precision=bf16')\r\n")
    monkeypatch.setenv("CONFIG", str(tmp_path / "mine.sh"))
    assert RunInputs.of_environment().trainer_flags == ("--num-workers=2", "--precision=bf16")


def test_concurrent_call_with_the_same_folder_fails(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    with (
        exclusive(folder / "set.lock", "ours"),
        pytest.raises(RunError, match=r"runs/set.lock: another process is making runs in this folder"),
    ):
        make_runs(folder, settings(tmp_path), 5)


def test_older_package_survives_an_interrupted_write(tmp_path: Path) -> None:
    before = tmp_path / ".Ours.old" / "results" / "other" / "dlrm"  # between the two renames
    before.mkdir(parents=True)
    (before / "result_0.txt").write_text("as it was")
    written = write_package(package(tmp_path), [])
    assert (written / "results" / "other" / "dlrm" / "result_0.txt").read_text() == "as it was"
    assert [file.name for file in tmp_path.iterdir()] == ["Ours"]


def test_log_that_changes_while_the_package_is_written_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path / "a.log", foreign_entries(1, edition="2.0.0"))
    log = read_log(tmp_path / "a.log")
    with (tmp_path / "a.log").open("a") as file:
        file.write("one more line\n")
    with pytest.raises(RunError, match=r"a\.log: changed while the package was written"):
        write_package(package(tmp_path / "out"), [log])
    assert not (tmp_path / "out" / "Ours").exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"\xff", b'{"rows": 5}', b'{"rows": "1; rm x", "seed": 1}', b'{"rows": 5, "seed": true}'),
        *(b'{"rows": 0, "seed": 1}', b'{"rows": 1e3, "seed": 1}', b"[" * 10**5, b"{}" + b" " * (2 << 20)),
    ],
    ids=lambda content: repr(content[:30]),
)
def test_damaged_description_of_a_sample_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "sample.json").write_bytes(content)
    with pytest.raises(RunError, match=r"sample\.json: (invalid: |cannot be read: .* are expected)") as caught:
        _ = RunInputs(str(tmp_path), "").sample
    assert str(caught.value).isprintable()
