"""Profile of the first steps of a run with PyTorch's profiler."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from mlperf.training.events import Listener, Outcome, Position
from mlperf.util.errors import RunError
from mlperf.util.new_file import first_free_together, write_new

_log = logging.getLogger(__name__)

TABLE_FILE = Path("dlrm_s_pytorch.prof")
TRACE_FILE = Path("dlrm_s_pytorch.json")
# A trace takes about 100 KB per step, and much more in a viewer.
_MAX_STEPS = 100
_ROWS = 50


def profile_files(folder: Path) -> tuple[Path, Path]:
    """Return the names of the next table and trace in a folder, which no earlier profile has."""
    table_file, trace_file = first_free_together(folder / TABLE_FILE, folder / TRACE_FILE)
    return table_file, trace_file


class Profile(Listener):
    """Profiles the first 100 steps. Writes a table to stderr and a file, and a Chrome trace, in `folder`.

    An earlier profile is kept: the files of the next are dlrm_s_pytorch_2.prof and dlrm_s_pytorch_2.json.
    """

    def __init__(self, device: torch.device, folder: Path) -> None:
        self._folder = folder
        self._sort_by = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile: profile | None = profile(activities=activities, record_shapes=True)
        self._running = False
        self._steps = 0

    def epoch_start(self, position: Position) -> None:
        """Start profiling with the first step."""
        if self._profile is not None and not self._running:
            self._profile.start()
            self._running = True

    def step_stop(self, position: Position) -> None:
        """Count the step; write the files after the last profiled step."""
        self._steps += 1
        if self._steps == _MAX_STEPS:
            self._write()

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Write the files if the run had fewer steps."""
        if self._steps > 0:
            self._write()

    def _write(self) -> None:
        if self._profile is None:
            return
        finished, self._profile = self._profile, None
        finished.stop()
        table = finished.key_averages().table(sort_by=self._sort_by, row_limit=_ROWS)
        for line in table.split("\n"):  # a message is one line
            _log.info("%s", line)
        try:
            table_file, trace_file = _write_table(table, self._folder)
        except OSError as error:
            name = self._folder / TABLE_FILE
            raise RunError(f"--enable-profiling: {name} cannot be written: {error.strerror}") from None
        _write_trace(finished, trace_file)
        _log.info("profile of %d steps: table in %s, Chrome trace in %s", self._steps, table_file, trace_file)


def _write_table(table: str, folder: Path) -> tuple[Path, Path]:
    """Write the table; return its file and that for the trace, whose names no earlier profile has."""
    while True:
        table_file, trace_file = profile_files(folder)
        with suppress(FileExistsError):
            write_new(table_file, table)
            return table_file, trace_file


def _write_trace(profiled: profile, file: Path) -> None:
    """Write the Chrome trace. PyTorch reports some failures only by writing no file, or half of one."""
    try:
        profiled.export_chrome_trace(str(file))
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
    else:
        if file.is_file() and _ends_object(file):
            return
        reason = "the file is incomplete; is the disk full?"
    for incomplete in (file, file.with_name(f"{file.name}.tmp")):
        incomplete.unlink(missing_ok=True)
    raise RunError(f"--enable-profiling: {file} cannot be written: {reason}")


def _ends_object(file: Path) -> bool:
    """Return whether a JSON file ends like an object that is complete."""
    with file.open("rb") as trace:
        trace.seek(max(0, file.stat().st_size - 100))
        return trace.read().rstrip().endswith(b"}")
