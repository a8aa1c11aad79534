"""Choose the engine: that of --engine, or the fastest one that supports the model and the settings of a run."""

from __future__ import annotations

import logging

from mlperf.distributed.processes import current
from mlperf.engines.autograd.engine import AutogradEngine
from mlperf.engines.cpu.engine import CpuEngine
from mlperf.engines.cpu.loops.parallel import shown_in_profiles
from mlperf.engines.gpu.engine import GpuEngine
from mlperf.engines.observer import Observer, ProfilerRanges, observe, observe_step
from mlperf.engines.protocol import Engine, TrainingStep
from mlperf.evaluation.evaluate import Scorer
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError

_log = logging.getLogger(__name__)

# Ranges of a profile around the parts of a step.
_IN_PROFILES = {"train": "training on a batch", "score": "evaluation of a batch"}


def uses_torchrec(settings: Settings, size: int | None = None) -> bool:
    """Return whether the engine of the run is torchrec. size: number of processes; None: of this run."""
    size = current().size if size is None else size
    return settings.processes.engine == "torchrec" or (settings.processes.engine == "auto" and size > 1)


def make_step(
    model: DLRM_Net, settings: Settings, optimizer: Optimizer, observer: Observer | None = None
) -> TrainingStep:
    """Return the training step of the engine of the run, and log the choice in one line. UsageError: see below.

    observer: is told which part of the step runs.
    """
    return make_step_of(choose_engine(model, settings), model, settings, optimizer, observer)


def make_step_of(
    engine: Engine,
    model: DLRM_Net,
    settings: Settings,
    optimizer: Optimizer,
    observer: Observer | None = None,
) -> TrainingStep:
    """Return the training step of an engine that supports the run. observer: as above."""
    with shown_in_profiles(settings.report.profile):
        step = engine.make_step(model, settings, optimizer)
    if settings.report.profile:
        observer = ProfilerRanges(step.device)
        observe(step, _IN_PROFILES, observer)
    if observer is not None:
        observe_step(step, observer)
    return step


def make_scorer(model: DLRM_Net, settings: Settings) -> Scorer:
    """Return the scorer of the engine of the run, and log the choice in one line. UsageError: see below."""
    return choose_engine(model, settings).make_scorer(model, settings)


def make_scorer_of(
    engine: Engine, model: DLRM_Net, settings: Settings, observer: Observer | None = None
) -> Scorer:
    """Return the scorer of an engine that supports the run. observer: as above."""
    scorer = engine.make_scorer(model, settings)
    if observer is not None:
        observe_step(scorer, observer)
    return scorer


def choose_engine(model: DLRM_Net, settings: Settings) -> Engine:
    """Return the engine of --engine, or the fastest that supports the run, and log in one line which and why.

    UsageError if the engine of --engine does not support the run.
    """
    name = "torchrec" if uses_torchrec(settings) else settings.processes.engine
    if name != "auto":
        engine = _make_engine(name)
        if (reason := engine.supports(model, settings)) is not None:
            raise UsageError(f"--engine={name}: {reason}")
        _log.info("engine: %s, %s", engine.description, _why(name, settings))
        return engine
    device = "gpu" if settings.use_gpu else "cpu"
    fast = _make_engine(device)
    reason = fast.supports(model, settings)
    if reason is None:
        _log.info("engine: %s", fast.description)
        return fast
    general = AutogradEngine()
    _log.info("engine: %s on the %s, because %s", general.description, device.upper(), reason)
    return general


def _why(name: str, settings: Settings) -> str:
    if settings.processes.engine == name:
        return f"chosen by --engine={name}"
    return f"because {current().size} processes were started"


def _make_engine(name: str) -> Engine:
    if name == "torchrec":
        from mlperf.engines.torchrec.engine import TorchRecEngine  # needs torchrec

        return TorchRecEngine()
    engines: dict[str, Engine] = {"cpu": CpuEngine(), "gpu": GpuEngine(), "autograd": AutogradEngine()}
    return engines[name]
