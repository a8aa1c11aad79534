"""What the process of a case does: run a program, or load a checkpoint and record what was loaded."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from program import main_of

from hostile.oracle import fingerprint

# Imported by the server, so that the processes of the cases need no time for it.
IMPORTED = (
    "small_runs",
    "mlperf.runner.benchmark",
    "mlperf.cli.train",
    "mlperf.cli.prepare",
    "mlperf.cli.verify",
    "mlperf.cli.check",
    "mlperf.cli.submit",
    "mlperf.cli.plot",
    "mlperf.cli.stack_distances",
    "mlperf.data.prepare.pipeline",
    "mlperf.training.checkpoint",
    "mlperf.engines.choose",
    "mlperf.submission.check",
)

# What code in a file would do, and reading a checkpoint never does.
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")


def run_main(record: int, program: str, flags: list[str]) -> int:
    """Run a program of this repository in this process and return its exit status."""
    sys.argv = [program, *flags]
    return main_of(program)(flags)


def run_preparation(record: int, raw: str, processed: str) -> int:
    """Prepare text in small pieces, saving the state after each, so that it can be disturbed anywhere."""
    from mlperf.data.prepare import shuffle
    from mlperf.data.prepare.pipeline import prepare
    from mlperf.data.text import blocks
    from mlperf.settings.dataset import PreparationSettings
    from mlperf.util.program import run_program

    blocks.BLOCK_BYTES = shuffle.SMALL_BUCKET_BYTES = 8000
    settings = PreparationSettings(
        *("terabyte", Path(raw), Path(processed)), randomize="total", seed=7, checkpoint_seconds=0.0
    )

    def work() -> int:
        prepare(settings)
        return 0

    return run_program("prepare_criteo.py", work)


def use_checkpoint(record: int, path: str, flags: list[str]) -> int:
    """Evaluate a checkpoint with the program; record what is loaded to resume from it, and code that was run."""
    events: list[str] = []
    sys.addaudithook(lambda name, arguments: events.append(name) if name in _FORBIDDEN else None)
    loaded = _loaded(Path(path), flags)
    status = run_main(record, "dlrm_s_pytorch.py", [*flags, "--inference-only", f"--load-model={path}"])
    os.write(record, json.dumps({**loaded, "code": sorted(set(events))}).encode())
    return status


def _loaded(path: Path, flags: list[str]) -> dict[str, Any]:
    """Return the fingerprints of model, optimizer and position after loading, or the error."""
    import torch

    from mlperf.models.dlrm import DLRM_Net
    from mlperf.optim.optimizer import make_optimizer
    from mlperf.runner.data import open_splits, prepared_data
    from mlperf.runner.model import architecture_of
    from mlperf.settings.from_flags import parse
    from mlperf.training.checkpoint import load_training, load_weights
    from mlperf.training.checkpoint_flags import recorded_flags
    from mlperf.util.errors import RunError

    settings = parse([*flags, f"--load-model={path}"], "dlrm_s_pytorch.py")
    prepared = prepared_data(settings.data)
    model = DLRM_Net(architecture_of(settings, prepared), torch.device("cpu"))
    optimizer = make_optimizer(settings.training.optimizer, model)
    try:
        rest = load_weights(path, model, recorded_flags(settings, prepared), optimizer=optimizer)
        state = load_training(
            *(path, rest),
            batches_per_epoch=open_splits(settings, prepared).train.batches_per_epoch,
            accumulate=settings.training.accumulate,
            batch_size=settings.data.batch_size,
            seed=settings.seed if settings.data.shuffle_batches else None,
        )
    except RunError as error:
        return {"error": str(error)}
    return {
        "weights": fingerprint(dict(model.state_dict())),
        "optimizer": fingerprint(optimizer.state_dict()),
        "state": fingerprint(vars(state)),
    }


def sleep(record: int, seconds: float) -> int:
    """Do nothing, as a program that hangs."""
    time.sleep(seconds)
    return 0


ACTIONS: dict[str, Callable[..., int]] = {
    "program": run_main,
    "prepare": run_preparation,
    "checkpoint": use_checkpoint,
    "sleep": sleep,
}
