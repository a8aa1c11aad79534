"""Choose the engine: the fastest one that supports the model and the settings of a run."""

from __future__ import annotations

import logging

from torch.profiler import record_function

from mlperf.distributed.processes import current
from mlperf.engines.autograd.engine import AutogradEngine
from mlperf.engines.cpu.engine import CpuEngine
from mlperf.engines.gpu.engine import GpuEngine
from mlperf.engines.protocol import Engine, TrainingStep
from mlperf.evaluation.evaluate import Scorer
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import Optimizer
from mlperf.settings.settings import Settings

_log = logging.getLogger(__name__)


def uses_torchrec(settings: Settings) -> bool:
    """Return whether the engine of the run is torchrec."""
    engine = settings.processes.engine
    return engine == "torchrec" or (engine == "auto" and current().size > 1)


def make_step(model: DLRM_Net, settings: Settings, optimizer: Optimizer) -> TrainingStep:
    """Return the training step of the fastest engine that supports the run, and log the choice in one line."""
    step = choose_engine(model, settings).make_step(model, settings, optimizer)
    if settings.report.profile:
        _name_ranges(step)
    return step


def _name_ranges(step: TrainingStep) -> None:
    """Make the parts of a step appear in its profile. A step that is not profiled spends no time on this."""
    for method, name in step.ranges.items():
        setattr(step, method, record_function(name)(getattr(step, method)))


def make_scorer(model: DLRM_Net, settings: Settings) -> Scorer:
    """Return the scorer of the fastest engine that supports the run, and log the choice in one line."""
    return choose_engine(model, settings).make_scorer(model, settings)


def choose_engine(model: DLRM_Net, settings: Settings) -> Engine:
    """Return the fastest engine that supports the run, and log in one line which it is and why."""
    if uses_torchrec(settings):
        from mlperf.engines.torchrec.engine import TorchRecEngine  # needs torchrec

        sharded: Engine = TorchRecEngine()
        _log.info("engine: %s", sharded.description)
        return sharded
    fast: Engine = GpuEngine() if settings.use_gpu else CpuEngine()
    reason = fast.supports(model, settings)
    if reason is None:
        _log.info("engine: %s", fast.description)
        return fast
    general = AutogradEngine()
    device = "GPU" if settings.use_gpu else "CPU"
    _log.info("engine: %s on the %s, because %s", general.description, device, reason)
    return general
