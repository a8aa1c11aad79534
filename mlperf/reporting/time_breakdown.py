"""Where the time of a run goes: each part of its steps and evaluations (--time-breakdown).

The parts add up to the wall time between run_start and run_stop.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from mlperf.data.source import BatchSource, ReadAhead
from mlperf.distributed.agreement import values_of_all
from mlperf.distributed.processes import current
from mlperf.engines.device_stopwatch import make_stopwatch
from mlperf.evaluation.metrics import Metrics
from mlperf.reporting.time_table import CHECKPOINTS, EVALUATION, TRAINING, table
from mlperf.settings.run import TIME_FILE
from mlperf.training.events import Listener, Position, RunStart
from mlperf.util.errors import RunError
from mlperf.util.new_file import first_free_together, write_new
from mlperf.util.stopwatch import OTHER
from mlperf.version import __version__

_log = logging.getLogger(__name__)

# The part of an evaluation that is none of the scorer's.
_METRICS = "metrics"


def time_files(folder: Path | None) -> tuple[Path, Path]:
    """Return the names of the next breakdown and its picture, which no earlier one has.

    folder: of the run (--output-dir); None: the current one, where the names say what they belong to.
    """
    name = Path("dlrm_s_pytorch_time.json") if folder is None else folder / TIME_FILE
    time_file, picture_file = first_free_together(name, name.with_suffix(".png"))
    return time_file, picture_file


# Seconds by phase and part, and threads and seconds of reading ahead by phase.
_Measured = tuple[Mapping[str, Mapping[str, float]], Mapping[str, tuple[int, float]]]


class TimeBreakdown(Listener):
    """Measures the phases of the run, in which the step, observed by `stopwatch`, measures its parts.

    `time_breakdown` prints the table and writes the JSON file, whose names no earlier breakdown has.

    folder: as for `time_files`. measured, picture: the breakdown and the name for its picture, once
    the JSON file is written.
    """

    def __init__(self, device: torch.device, folder: Path | None = None) -> None:
        self.stopwatch = make_stopwatch(device)
        self.measured: Mapping[str, Any] | None = None
        self.picture: Path | None = None
        self._device = device
        self._folder = folder
        self._engine = ""
        self._of_all: list[_Measured] = []  # of each process, once stopped
        self._steps = self._evaluations = self._test_batches = 0
        self._sources: dict[str, BatchSource | None] = {}

    def run_start(self, start: RunStart) -> None:
        """Start the clock."""
        self._engine = start.engine
        self.stopwatch.start()

    def data_opened(self, train: BatchSource, test: BatchSource | None) -> None:
        """Note the number of batches of an evaluation, and who reads them."""
        self._sources = {TRAINING: train, EVALUATION: test}
        self._test_batches = 0 if test is None else test.batches_per_epoch

    def epoch_start(self, position: Position) -> None:
        """Begin the time of the training."""
        self.stopwatch.begin_phase(TRAINING)

    def step_stop(self, position: Position) -> None:
        """Count the step."""
        self._steps += 1

    def evaluation_start(self, position: Position) -> None:
        """Begin the time of an evaluation."""
        self.stopwatch.begin_phase(EVALUATION, _METRICS)

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """End the time of an evaluation."""
        self.stopwatch.end_phase()
        self._evaluations += 1

    @contextmanager
    def evaluation(self, engine: str, test: BatchSource) -> Iterator[None]:
        """Context of a run that is one evaluation, on `test`. Every process of the run must use it.

        engine: its description.
        """
        self._engine = engine
        self.data_opened(test, test)
        self.stopwatch.start()
        with self.stopwatch.phase(EVALUATION, _METRICS):
            yield
        self._evaluations += 1
        self.stop()

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """Context in which a checkpoint is saved."""
        with self.stopwatch.phase(CHECKPOINTS):
            yield

    def epoch_stop(self, position: Position) -> None:
        """End the time of the training."""
        self.stopwatch.end_phase()

    def stop(self) -> None:
        """Stop the clock, and learn the times of the other processes. Every process of the run must call it."""
        self._of_all = values_of_all((self.stopwatch.seconds(), self._reading()))

    def _reading(self) -> Mapping[str, tuple[int, float]]:
        """Return the threads that read ahead, and the seconds that they have spent on it."""
        times = {}
        for phase, source in self._sources.items():
            if isinstance(source, ReadAhead):
                times[phase] = (source.readers, source.seconds_reading)
        return times

    def breakdown(self) -> Mapping[str, Any]:
        """Return the time since `run_start` by phase and part, as values that JSON can represent.

        "seconds": of all phases. "phases": of each, "name", "seconds", "percent" of all, "parts" and, of the steps
        of the training and the batches of the evaluations, "count" and "unit". "parts": of each, "name",
        "seconds", "percent" of all, and, where there is a count, "ms" per unit.

        "read_ahead" of a phase: "threads" that read and decode its batches beside it, their "seconds" and "ms".

        "measured_processes": their number. Of several, the times are means, and phases and parts have "min_ms" and
        "max_ms", the least and the greatest of a process. An interrupted run has the times of its first process.
        """
        of_all = self._of_all or [(self.stopwatch.seconds(), self._reading())]
        counts = {
            TRAINING: (self._steps, "step"),
            EVALUATION: (self._evaluations * self._test_batches, "batch"),
        }
        measured, reading = [times for times, _ in of_all], [times for _, times in of_all]
        total = sum(sum(sum(parts.values()) for parts in phases.values()) for phases in measured) / len(of_all)
        phases = []
        for name in sorted(measured[0], key=lambda name: name == OTHER):  # the others keep their order
            count, unit = counts.get(name, (0, ""))
            phase = _phase(name, [times.get(name, {}) for times in measured], total, count, unit)
            if count and name in reading[0]:
                seconds = fmean(times[name][1] for times in reading)
                phase["read_ahead"] = {
                    "threads": reading[0][name][0],
                    "seconds": seconds,
                    "ms": 1e3 * seconds / count,
                }
            phases.append(phase)
        return {
            "version": __version__,
            "engine": self._engine,
            "device": self._device.type,
            "processes": current().size,
            "measured_processes": len(of_all),
            "seconds": total,
            "evaluations": self._evaluations,
            "phases": phases,
        }

    def time_breakdown(self, breakdown: Mapping[str, Any]) -> None:
        """Print the table and write the JSON file. RunError if that is not possible."""
        if not current().is_first:
            return
        for line in table(breakdown):
            print(line)
        content = json.dumps(breakdown, indent=1, allow_nan=False) + "\n"
        while self.picture is None:
            time_file, picture_file = time_files(self._folder)
            try:
                write_new(time_file, content)
                self.measured, self.picture = breakdown, picture_file
            except FileExistsError:  # written meanwhile by another run
                continue
            except OSError as error:
                raise RunError(f"--time-breakdown: {time_file} cannot be written: {error.strerror}") from None
        _log.info("time breakdown in %s", time_file)


def _phase(
    name: str, of_all: Sequence[Mapping[str, float]], total: float, count: int, unit: str
) -> dict[str, Any]:
    """Return a phase and its parts. of_all: seconds of each part in each process."""

    def timed(name: str, seconds: Sequence[float]) -> dict[str, Any]:
        mean = fmean(seconds)
        entry: dict[str, Any] = {"name": name, "seconds": mean, "percent": 100 * mean / total if total else 0.0}
        if count:
            entry["ms"] = 1e3 * mean / count
            if len(seconds) > 1:
                entry |= {"min_ms": 1e3 * min(seconds) / count, "max_ms": 1e3 * max(seconds) / count}
        return entry

    parts = sorted(dict.fromkeys(chain(*of_all)), key=lambda part: part in (OTHER, _METRICS))
    return {
        **timed(name, [sum(parts.values()) for parts in of_all]),
        **({"count": count, "unit": unit} if count else {}),
        "parts": [timed(part, [parts.get(part, 0.0) for parts in of_all]) for part in parts],
    }
