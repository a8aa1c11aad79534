"""The MLPerf training log, in a file of its own.

What later editions ask for they add to the earlier ones' keys, and none forbids another's: the log of a run for
the last edition satisfies them all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants
from mlperf_logging.mllog.mllog import MLLogger

from mlperf.benchmarks import Edition
from mlperf.data.source import BatchSource
from mlperf.evaluation.metrics import Metrics
from mlperf.training.events import Listener, Outcome, Position
from mlperf.util.errors import RunError


@dataclass(frozen=True)
class ComplianceSettings:
    """What the log says of the run before it begins.

    cache_cleared: whether the page cache was dropped before the run, as somebody saw it. has_target: whether
    the run stops at a threshold of its own; otherwise it succeeds if it reaches the edition's.
    """

    path: Path
    seed: int
    global_batch_size: int
    learning_rate: float
    warmup_steps: int
    decay_start_step: int
    decay_steps: int
    accumulate: int
    optimizer: str
    bottom_layers: int
    top_layers: int
    edition: Edition
    division: str
    status: str
    submitter: str
    platform: str
    cache_cleared: bool
    has_target: bool


class ComplianceLog(Listener):
    """Writes the log; creating it opens the file, replacing an old one, and logs init_start."""

    def __init__(self, settings: ComplianceSettings) -> None:
        self._settings = settings
        try:
            self._handler = logging.FileHandler(settings.path, mode="w", encoding="utf-8")
        except OSError as error:
            raise RunError(f"--mlperf-log-file={settings.path}: cannot be written: {error.strerror}") from None
        # A logger of its own, unknown to the logging module's registry: nothing else writes to this file.
        logger = logging.Logger("mlperf.compliance_log", logging.INFO)
        logger.addHandler(self._handler)
        root = str(Path(__file__).resolve().parents[2])
        self._log = MLLogger(logger, default_stack_offset=2, root_dir=root)
        self._best_auc = 0.0
        self._run_started = False
        self._open_epoch = False
        self._open_evaluation = False
        self._point(constants.CACHE_CLEAR, settings.cache_cleared)
        self._start(constants.INIT_START)
        self._log_submission()
        self._log_hyperparameters()

    def init_stop(self) -> None:
        """The weights are there; the clock is not running yet."""
        layers = {"bottom": self._settings.bottom_layers, "top": self._settings.top_layers}
        names = [f"{mlp}_mlp_dense{layer}" for mlp, count in layers.items() for layer in range(1, count + 1)]
        for tensor in ("embeddings", *names):
            self._asked(constants.WEIGHTS_INITIALIZATION, tensor=tensor)
        self._end(constants.INIT_STOP)

    def run_start(self) -> None:
        """The clock starts; the data has not been touched."""
        self._run_started = True
        self._start(constants.RUN_START)

    def data_opened(self, train: BatchSource, test: BatchSource | None) -> None:
        """Log the number of samples found."""
        self._point(constants.TRAIN_SAMPLES, train.samples)
        self._point(constants.EVAL_SAMPLES, 0 if test is None else test.samples)

    def epoch_start(self, position: Position) -> None:
        """Log the start of an epoch, which is one block."""
        self._start(constants.BLOCK_START, first_epoch_num=_epoch_num(position), epoch_count=1)
        self._start(constants.EPOCH_START, epoch_num=_epoch_num(position))
        self._open_epoch = True

    def evaluation_start(self, position: Position) -> None:
        """Log the start of an evaluation."""
        self._start(constants.EVAL_START, epoch_num=_epoch_num(position))
        self._open_evaluation = True

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        """Log the AUC and the end of an evaluation."""
        self._best_auc = best.auc
        epoch_num = _epoch_num(position)
        self._point(constants.EVAL_ACCURACY, metrics.auc, epoch_num=epoch_num)
        self._end(constants.EVAL_STOP, epoch_num=epoch_num)
        self._open_evaluation = False

    def epoch_stop(self, position: Position) -> None:
        """Log the end of an epoch."""
        self._end(constants.EPOCH_STOP, epoch_num=_epoch_num(position))
        self._end(constants.BLOCK_STOP, first_epoch_num=position.epoch + 1)
        self._open_epoch = False

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Close what is open, say how the run ended, and close the file."""
        if position is not None:
            if self._open_evaluation:
                self._end(constants.EVAL_STOP, epoch_num=_epoch_num(position))
            if self._open_epoch:
                self.epoch_stop(position)
        reached = self._settings.has_target or self._best_auc >= self._settings.edition.auc_target
        success = outcome is Outcome.SUCCESS and self._run_started and reached
        status = constants.SUCCESS if success else constants.ABORTED
        self._end(constants.RUN_STOP, status=status, outcome=outcome.value)
        self._handler.close()

    def _log_submission(self) -> None:
        settings = self._settings
        edition = settings.edition
        self._point(constants.SUBMISSION_BENCHMARK, edition.benchmark.name, edition=edition.name)
        self._point(constants.SUBMISSION_ORG, settings.submitter)
        self._point(constants.SUBMISSION_DIVISION, settings.division)
        self._point(constants.SUBMISSION_STATUS, settings.status)
        self._point(constants.SUBMISSION_PLATFORM, settings.platform)

    def _log_hyperparameters(self) -> None:
        settings = self._settings
        self._point(constants.SEED, settings.seed)
        self._point(constants.GLOBAL_BATCH_SIZE, settings.global_batch_size)
        self._asked(constants.GRADIENT_ACCUMULATION_STEPS, settings.accumulate)
        self._point(constants.OPT_NAME, settings.optimizer)
        for logged in settings.edition.benchmark.hyperparameters:
            self._point(logged.key, logged.value if logged.setting is None else getattr(settings, logged.setting))

    def _point(self, key: str, value: object = None, **metadata: Any) -> None:
        self._log.event(key=key, value=value, metadata=metadata)

    def _asked(self, key: str, value: object = None, **metadata: Any) -> None:
        """Log what not every edition asks for."""
        if key in self._settings.edition.required_keys:
            self._log.event(key=key, value=value, metadata=metadata)

    def _start(self, key: str, **metadata: Any) -> None:
        self._log.start(key=key, metadata=metadata)

    def _end(self, key: str, **metadata: Any) -> None:
        self._log.end(key=key, metadata=metadata)


def _epoch_num(position: Position) -> float:
    """Epochs count from 1: 1.5 is half of the first one done."""
    return 1 + position.epochs_done
