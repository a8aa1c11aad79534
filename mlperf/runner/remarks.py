"""Remarks on stderr about a run: flags without effect, nothing to train, and how it ended."""

from __future__ import annotations

import logging
import math

from mlperf.runner.checkpoints import replaces_another
from mlperf.settings.settings import Settings
from mlperf.settings.unused import unused_flags
from mlperf.training.events import Outcome
from mlperf.training.loop import TrainingLoop
from mlperf.training.schedule import unreached_steps
from mlperf.training.state import TrainingState
from mlperf.training.stopping import describe_target
from mlperf.util.plural import counted

_log = logging.getLogger(__name__)


def report_unused_flags(settings: Settings) -> None:
    """Log the flags that have no effect. Called once the flags and the files of the run are known to be valid."""
    for line in unused_flags(settings):
        _log.warning(line)


def report_replaced_checkpoint(settings: Settings) -> None:
    """Log if the run will replace the checkpoint of another one."""
    if replaces_another(settings):
        _log.warning(
            "--save-model=%s: the first checkpoint of this run replaces an older one", settings.save_model
        )


def report_length(settings: Settings, state: TrainingState, batches_per_epoch: int) -> None:
    """Log from where a run resumes, or that nothing is left to train; log a schedule longer than the run."""
    training = settings.training
    epochs = state.epoch + (state.iteration >= batches_per_epoch)
    steps = training.epochs * math.ceil(batches_per_epoch / training.accumulate)
    if epochs >= training.epochs:
        _log.warning(
            "--load-model=%s: already trained for %s, so --nepochs=%d leaves nothing to train; pass a "
            "larger --nepochs to continue, or --inference-only to evaluate",
            *(settings.load_model, counted(epochs, "epoch"), training.epochs),
        )
        return
    if settings.load_model is not None:
        _log.info(
            "%s: resuming after iteration %d of %d of epoch %d",
            *(settings.load_model, state.iteration, batches_per_epoch, state.epoch),
        )
    if unreached := unreached_steps(training.schedule, steps):
        _log.warning(unreached)


def report_end(settings: Settings, outcome: Outcome, loop: TrainingLoop) -> None:
    """Log if nothing was saved, and which threshold was reached or how far the best metrics are from it."""
    if settings.save_model is not None and loop.last_saved is None and loop.last_metrics is not None:
        _log.warning("--save-model=%s: not written, because the test metric did not improve", settings.save_model)
    if not settings.training.has_target:
        return
    if loop.last_metrics is None:
        _log.warning("the target was not reached: nothing was evaluated")
    elif outcome is Outcome.SUCCESS:
        _log.info("the target was reached: %s", describe_target(settings.training, loop.last_metrics))
    else:
        _log.warning("the target was not reached: best %s", describe_target(settings.training, loop.state.best))
