"""The events of a run as records: dictionaries of values that JSON can represent.

Every record has "event", its kind, and "time", in seconds since 1970. An undefined value, such as the AUC of a
split with one class, is None. The metrics file contains these records; TensorBoard and other trackers are told
them. `mlperf/docs/metrics.md` lists their entries.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mlperf.data.source import BatchSource
from mlperf.evaluation.metrics import Metrics
from mlperf.reporting.metrics_reader import Record
from mlperf.reporting.system import system_facts
from mlperf.settings.settings import Settings
from mlperf.settings.values import changed_values
from mlperf.training.events import CheckpointKind, Listener, Outcome, Position, Progress, RunStart
from mlperf.util.clock import UnixClock
from mlperf.version import __version__


class RecordListener(Listener, ABC):
    """Turns each event into a record, which subclasses write or send in `add`."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._settings = settings
        self._device = device
        self._clock = UnixClock()
        self._evaluation_started = math.nan

    @abstractmethod
    def add(self, record: Record) -> None:
        """Take the next record."""

    def run_start(self, start: RunStart) -> None:
        """Add what the run is: its settings, engine, benchmark and system."""
        self._add("run_start", **run_facts(self._settings, self._device, start))

    def data_opened(self, train: BatchSource, test: BatchSource | None) -> None:
        """Add the numbers of samples."""
        test_samples = None if test is None else test.samples
        self._add("data_opened", train_samples=train.samples, test_samples=test_samples)

    def epoch_start(self, position: Position) -> None:
        """Add the start of an epoch, or the point from which a resumed run continues it."""
        self._add("epoch_start", position)

    def progress(self, position: Position, progress: Progress) -> None:
        """Add loss, accuracy, speed and learning rate."""
        self._add("progress", position, **vars(progress))

    def evaluation_start(self, position: Position | None) -> None:
        """Add the start of an evaluation. position: None in a run that does not train."""
        self._evaluation_started = time.perf_counter()
        self._add("evaluation_start", position)

    def evaluation_stop(self, position: Position | None, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """Add all metrics, the best accuracy and AUC so far, and the seconds that the evaluation took."""
        self._add(
            "evaluation_stop",
            position,
            **vars(metrics),
            best_accuracy=best.accuracy,
            best_auc=best.auc,
            improved=improved,
            seconds=round(time.perf_counter() - self._evaluation_started, 6),
        )

    def checkpoint_saved(self, position: Position, path: Path, kind: CheckpointKind) -> None:
        """Add the path and the kind of a checkpoint."""
        self._add("checkpoint", position, path=str(path), kind=kind)

    def time_breakdown(self, breakdown: Mapping[str, Any]) -> None:
        """Add the time of each part of the run."""
        self._add("time_breakdown", breakdown=dict(breakdown))

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Add the outcome of the run."""
        self._add("run_stop", position, outcome=outcome.value)

    def _add(self, event: str, position: Position | None = None, **values: Any) -> None:
        where = {} if position is None else vars(position)
        now = self._clock.milliseconds() / 1e3
        self.add(defined({"event": event, "time": now, **where, **values}))


def run_facts(settings: Settings, device: torch.device, start: RunStart) -> Record:
    """Return the entries of "run_start" besides its time."""
    edition = settings.edition
    return {
        "version": __version__,
        "engine": start.engine,
        "started_from": start.started_from,
        "seed": settings.seed,
        "benchmark": edition.benchmark.name,
        "edition": edition.name,
        "auc_target": edition.auc_target,
        "settings": changed_values(settings),
        "system": system_facts(device),
    }


def defined(value: Any) -> Any:
    """Return a value with None in place of NaN and infinite numbers, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: defined(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [defined(each) for each in value]
    return value
