"""A disk that is full, or a folder that may not be written to: older files survive, and nothing else is left."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from easy_data import write_easy_data
from path_cases import TRAIN
from program import ROOT, read_events, run_program

# Limits the size of files, so that writing more fails as on a full disk, without a signal.
_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from mlperf.cli.train import main
from mlperf.training import checkpoint
save = checkpoint.save
def limited(*args, **kwargs):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    try: save(*args, **kwargs)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
checkpoint.save = limited
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_easy_data(tmp_path_factory.mktemp("easy"))


@pytest.mark.parametrize("limit", [0, 3000])
def test_full_disk_while_saving_keeps_the_older_checkpoint_and_aborts_the_log(
    limit: int, easy: Path, tmp_path: Path
) -> None:
    flags = (*TRAIN, f"--processed-data-file={easy}", "--save-model=model.pt")
    assert run_program(*flags, cwd=tmp_path).status == 0
    older = (tmp_path / "model.pt").read_bytes()
    (tmp_path / ".model.pt.0000123.0123abcd.part").write_text("of a killed run")
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(limit), *flags, "--mlperf-log-file=second.log"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "error: model.pt: the checkpoint cannot be written: " in line
    assert "Traceback" not in done.stderr
    assert (tmp_path / "model.pt").read_bytes() == older
    (stop,) = read_events(tmp_path / "second.log", "run_stop")
    assert stop["metadata"]["status"] == "aborted"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlperf_dlrm.log", "model.pt", "second.log"]


@pytest.mark.parametrize("flag", ["--save-model", "--mlperf-log-file"])
def test_file_of_standard_output_is_not_another_output(flag: str, easy: Path, tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "dlrm_s_pytorch.py")]
    with (tmp_path / "out").open("w") as stdout:
        done = subprocess.run(
            [*program, *TRAIN, f"--processed-data-file={easy}", f"{flag}=out"],
            cwd=tmp_path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert f"error: {flag}=out is the same file as the file of standard output" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def private(easy: Path) -> Iterator[Path]:
    """Return a folder that any user can enter, with the data; afterwards this process is its user again."""
    user = os.geteuid()
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copytree(easy.parent, folder / "data")
    (folder / "closed").mkdir()
    (folder / "older.log").write_text("older")
    (folder / "older.log").chmod(0o444)
    yield folder
    os.seteuid(user)
    (folder / "closed").chmod(0o755)
    shutil.rmtree(folder)


def as_other_user(folder: Path) -> None:
    """Give the folder to a user without privileges, if this process has them, and become that user."""
    for module in ("data.criteo.sample.generate", "plots.run_figure", "page.document", "runner.benchmark"):
        importlib.import_module(f"mlperf.{module}")  # while this process may read them
    importlib.import_module("encodings.cp437")  # which zipfile needs
    (folder / "closed").chmod(0o555)
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)
        os.seteuid(65534)


def test_log_may_be_an_empty_file_in_a_closed_folder(private: Path) -> None:
    (private / "closed" / "run.log").touch()
    as_other_user(private)
    run = run_program(*TRAIN, "--processed-data-file=data/easy", "--mlperf-log-file=closed/run.log", cwd=private)
    assert run.status == 0, run.stderr
    assert read_events(private / "closed" / "run.log", "run_stop")


_PERMISSIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "checkpoint in a closed folder": ("dlrm_s_pytorch.py", ("--save-model=closed/x",)),
    "write-protected checkpoint": ("dlrm_s_pytorch.py", ("--save-model=older.log",)),
    "log in a closed folder": ("dlrm_s_pytorch.py", ("--mlperf-log-file=closed/x",)),
    "curves in a closed folder": ("dlrm_s_pytorch.py", ("--tensor-board-filename=closed/x/y",)),
    "checkpoint on a read-only file system": ("dlrm_s_pytorch.py", ("--save-model=/proc/x",)),
    "trace in a closed folder": ("tools/stack_distances.py", ("profile", "data/trace", "closed/x")),
    "sample in a closed folder": ("tools/make_sample.py", ("--folder=closed/x",)),
    "metrics in a closed folder": ("dlrm_s_pytorch.py", ("--metrics-file=closed/x",)),
    "page in a closed folder": ("tools/report.py", ("data", "--output=closed/x.html")),
    "figure in a closed folder": ("tools/plot_run.py", ("data", "--output=closed/x.png")),
}


@pytest.mark.parametrize("which", _PERMISSIONS)
def test_output_that_may_not_be_written_is_refused_before_the_run(which: str, private: Path) -> None:
    program, arguments = _PERMISSIONS[which]
    (private / "data" / "trace").write_text("1, 2")
    as_other_user(private)
    before = sorted(private.rglob("*"))
    base = (*TRAIN, "--processed-data-file=data/easy") if program == "dlrm_s_pytorch.py" else ()
    run = run_program(*base, *arguments, cwd=private, program=program)
    assert run.status == 2, run.stderr
    (line,) = run.stderr.splitlines()
    assert "cannot be written" in line
    assert sorted(private.rglob("*")) == before
