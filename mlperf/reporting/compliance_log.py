"""Writer of the MLPerf training log.

Each edition requires the keys of earlier editions and some more, and none forbids keys of another. The log for the
latest edition therefore satisfies all of them.
"""

from __future__ import annotations

import logging
import threading
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO

from mlperf_logging.mllog import constants
from mlperf_logging.mllog.mllog import MLLogger

from mlperf.compliance.process_keys import ACCELERATORS_PER_NODE, NUMBER_OF_NODES, PROCESSES_PER_NODE
from mlperf.compliance.warm_start import MARK
from mlperf.data.source import BatchSource
from mlperf.distributed.processes import current
from mlperf.evaluation.metrics import Metrics
from mlperf.reporting.compliance_log_file import open_log_file
from mlperf.settings.settings import Settings
from mlperf.training.events import Listener, Outcome, Position, RunStart
from mlperf.util.clock import UnixClock
from mlperf.util.errors import RunError
from mlperf.util.signals import deferred
from mlperf.util.whole_lines import WholeLines

_log = logging.getLogger(__name__)

_ABANDON_SECONDS = 3.0  # for an event that is being written


class ComplianceLog(Listener):
    """Writes the log. The constructor opens the file and logs init_start.

    An existing file is never overwritten: UsageError, or, for the default name and for a run that torchrun starts
    again, the next free one of mlperf_dlrm_2.log, mlperf_dlrm_3.log, ... A run that fails before its first step,
    such as one that is given the checkpoint of another model, leaves no log: it would only take the name from the
    run that follows.

    The status of run_stop is success if the run reached its threshold or, without one, the edition's target.

    All methods raise RunError if the file cannot be written. It then ends with the last complete line, and the
    next event is written if that is possible: the run_stop of the failed run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._edition = settings.edition
        self._first_epoch = self._edition.benchmark.first_epoch
        self._path, self._file = open_log_file(settings)
        # Created directly, not by logging.getLogger, so that no other code can write to this file.
        logger = logging.Logger("mlperf.compliance_log", logging.INFO)
        self._lines = _LineWriter(self._file)
        logger.addHandler(self._lines)
        root = str(Path(__file__).resolve().parents[2])
        self._log = MLLogger(logger, default_stack_offset=2, root_dir=root)
        self._clock = UnixClock()
        self._best_auc = 0.0
        self._run_started = False
        self._trained = False
        self._open: set[str] = set()  # keys of the starts whose end is not yet logged
        self._lock = threading.RLock()  # held while an event is written
        self._stopped = False
        try:
            self._point(constants.CACHE_CLEAR, settings.compliance.cache_cleared)
            self._start(constants.INIT_START)
            self._log_submission()
            self._log_hyperparameters()
        except BaseException:
            self._discard()
            raise

    def init_stop(self) -> None:
        """Log the initialized tensors and init_stop, before the clock starts."""
        architecture = self._settings.model.architecture
        layers = {"bottom": len(architecture.mlp_bot) - 1, "top": len(architecture.mlp_top)}
        names = [f"{mlp}_mlp_dense{layer}" for mlp, count in layers.items() for layer in range(1, count + 1)]
        for tensor in ("embeddings", *names):
            self._required_point(constants.WEIGHTS_INITIALIZATION, tensor=tensor)
        self._end(constants.INIT_STOP)

    def run_start(self, start: RunStart) -> None:
        """Log run_start: the clock starts before the data is opened.

        If the run does not start from initial weights, its metadata state from what: the log is not a result.
        """
        self._run_started = True
        self._start(constants.RUN_START, **({} if start.started_from is None else {MARK: start.started_from}))

    def data_opened(self, train: BatchSource, test: BatchSource | None) -> None:
        """Log the number of samples in each split."""
        self._point(constants.TRAIN_SAMPLES, train.samples)
        self._point(constants.EVAL_SAMPLES, 0 if test is None else test.samples)

    def epoch_start(self, position: Position) -> None:
        """Log the start of an epoch, which is one block in the log."""
        if not self._trained:
            self._trained = True
            self._report_name()
        self._start(constants.BLOCK_START, first_epoch_num=self._epoch_num(position), epoch_count=1)
        self._start(constants.EPOCH_START, epoch_num=self._epoch_num(position))

    def evaluation_start(self, position: Position) -> None:
        """Log the start of an evaluation."""
        self._start(constants.EVAL_START, epoch_num=self._epoch_num(position))

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """Log the AUC and the end of an evaluation."""
        self._best_auc = best.auc
        self._point(constants.EVAL_ACCURACY, metrics.auc, epoch_num=self._epoch_num(position))
        self._end_evaluation(position)

    def epoch_stop(self, position: Position) -> None:
        """Log the end of an epoch."""
        self._end_epoch(position)

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Log the end of an open evaluation or epoch and the outcome of the run, and close the file."""
        with self._lock:
            self._stopped = True
            self._stop(position, outcome)

    def abandon(self, position: Position | None, outcome: Outcome) -> None:
        """Do what `run_stop` does, unless it was called. The log then stays locked against further events."""
        if self._lock.acquire(timeout=_ABANDON_SECONDS) and not self._stopped:
            self._stopped = True
            self._stop(position, outcome)

    def _stop(self, position: Position | None, outcome: Outcome) -> None:
        if not self._trained:
            if outcome is Outcome.FAILED:
                self._discard()
                return
            self._report_name()
        reached = self._settings.training.has_target or self._best_auc >= self._edition.auc_target
        success = outcome is Outcome.SUCCESS and self._run_started and reached
        status = constants.SUCCESS if success else constants.ABORTED
        with self._file:
            if position is not None:
                self._end_evaluation(position)
                self._end_epoch(position)
            self._end(constants.RUN_STOP, status=status, outcome=outcome.value)
            self._lines.sync()

    def _end_evaluation(self, position: Position) -> None:
        """Log the end of an evaluation, if one is open."""
        if constants.EVAL_START in self._open:
            self._end(constants.EVAL_STOP, epoch_num=self._epoch_num(position))

    def _end_epoch(self, position: Position) -> None:
        """Log the end of an epoch and of its block, if they are open."""
        if constants.EPOCH_START in self._open:
            self._end(constants.EPOCH_STOP, epoch_num=self._epoch_num(position))
        if constants.BLOCK_START in self._open:
            self._end(constants.BLOCK_STOP, first_epoch_num=self._first_epoch + position.epoch)

    def _epoch_num(self, position: Position) -> float:
        """Return the epochs trained plus the number of the first: if it is 1, 1.5 is halfway through it."""
        return self._first_epoch + position.epochs_done

    def _report_name(self) -> None:
        named = self._settings.compliance.log_file
        if self._path != named:
            _log.info("%s exists; the compliance log of this run is %s", named, self._path)

    def _discard(self) -> None:
        self._file.discard()

    def _log_submission(self) -> None:
        settings = self._settings.compliance
        self._point(constants.SUBMISSION_BENCHMARK, self._edition.benchmark.name, edition=self._edition.name)
        self._point(constants.SUBMISSION_ORG, settings.submitter)
        self._point(constants.SUBMISSION_DIVISION, settings.division)
        self._point(constants.SUBMISSION_STATUS, settings.status)
        self._point(constants.SUBMISSION_PLATFORM, settings.platform)
        if (processes := current()).size > 1:
            self._point(NUMBER_OF_NODES, processes.nodes)
            self._point(ACCELERATORS_PER_NODE, processes.local_size if self._settings.use_gpu else 0)
            self._point(PROCESSES_PER_NODE, processes.local_size)

    def _log_hyperparameters(self) -> None:
        training = self._settings.training
        self._point(constants.SEED, self._settings.seed)
        self._point(constants.GLOBAL_BATCH_SIZE, self._settings.data.batch_size * training.accumulate)
        self._required_point(constants.GRADIENT_ACCUMULATION_STEPS, training.accumulate)
        self._point(constants.OPT_NAME, training.optimizer)
        for logged in self._edition.benchmark.hyperparameters:
            value = logged.value if logged.setting is None else attrgetter(logged.setting)(training)
            self._point(logged.key, value)

    def _point(self, key: str, value: object = None, **metadata: Any) -> None:
        with self._lock:
            self._log.event(key=key, value=value, metadata=metadata, time_ms=self._clock.milliseconds())
            self._lines.raise_failure()

    def _required_point(self, key: str, value: object = None, **metadata: Any) -> None:
        """Log a key only if the edition requires it."""
        if key in self._edition.required_keys:
            self._point(key, value, **metadata)

    def _start(self, key: str, **metadata: Any) -> None:
        with deferred(), self._lock:  # a signal in between would leave it open, or end it twice
            self._log.start(key=key, metadata=metadata, time_ms=self._clock.milliseconds())
            self._open.add(key)
        self._lines.raise_failure()

    def _end(self, key: str, **metadata: Any) -> None:
        with deferred(), self._lock:
            self._log.end(key=key, metadata=metadata, time_ms=self._clock.milliseconds())
            self._open.discard(key.replace("_stop", "_start"))
        self._lines.raise_failure()


class _LineWriter(logging.Handler):
    """Writes records to an open file at once, so that no part of the log is lost.

    MLLogger would take an exception for an event that cannot be encoded, and log that. A failure is therefore kept
    until `raise_failure`.
    """

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._name = file.name
        self._lines = WholeLines(file.fileno())
        self._failure: OSError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. If that fails, remove what was written of it."""
        try:
            self._lines.write(self.format(record))
        except OSError as error:
            self._failure = error

    def raise_failure(self) -> None:
        """Raise RunError if the last line was not written."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise RunError(f"--mlperf-log-file={self._name}: cannot be written: {failure.strerror}")

    def sync(self) -> None:
        """Flush the file to the disk. RunError if that fails; the last line, the end of the run, is removed."""
        try:
            self._lines.sync()
        except OSError as error:
            self._failure = error
            self.raise_failure()
