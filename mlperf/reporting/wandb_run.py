"""A run in Weights & Biases (--track=wandb): its settings, curves and outcome."""

from __future__ import annotations

import os

import torch

from mlperf.reporting.metrics_reader import Record
from mlperf.reporting.points import iteration_of, points_of
from mlperf.reporting.records import RecordListener
from mlperf.reporting.sender import first_line
from mlperf.settings.settings import Settings
from mlperf.training.events import Outcome, Position
from mlperf.util.errors import RunError, UsageError

_SUCCESSFUL = (Outcome.SUCCESS, Outcome.TARGET_MISSED)


def require_wandb() -> None:
    """Raise UsageError if wandb is missing, or if nobody is logged in. Called before the training."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its developers
    try:
        import wandb
    except ImportError as error:
        raise UsageError(f"--track=wandb: needs wandb (pip install wandb): {error}") from None
    wandb.setup(wandb.Settings(silent=True))
    if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login(prompt=False):
        wandb.teardown()
        raise UsageError("--track=wandb: run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")


class WandbRun(RecordListener):
    """Creates a run in the project of WANDB_PROJECT. wandb's own process sends the records.

    Its files are in the folder `wandb` of --output-dir or, without one, where wandb puts them. The constructor and
    all methods raise RunError if wandb fails.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        super().__init__(settings, device)
        import wandb

        self._end_process = wandb.teardown
        folder = settings.run.output_dir
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", settings.edition.benchmark.name),
                name=None if folder is None else folder.name,
                dir=None if folder is None else str(folder.absolute()),  # also read by wandb's process
                settings=wandb.Settings(silent=True, console="off"),
            )
        except Exception as error:  # also of a server that does not answer
            wandb.teardown()
            raise RunError(f"--track=wandb: the run cannot be created: {first_line(error)}") from None

    def add(self, record: Record) -> None:
        """Pass a record to wandb."""
        try:
            self._pass_on(record)
        except Exception as error:  # such as the end of its process
            raise RunError(f"--track=wandb: records cannot be written: {first_line(error)}") from None

    def _pass_on(self, record: Record) -> None:
        event = record["event"]
        if event == "run_start":
            facts = {name: value for name, value in record.items() if name not in ("event", "time", "settings")}
            self._run.config.update({**record["settings"], **facts})
        elif event == "checkpoint":
            self._run.summary[f"checkpoint/{record['kind']}"] = record["path"]
        elif points := points_of(record):
            self._run.log(points, step=iteration_of(record))

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Write the outcome and end the run of wandb, which sends what is left."""
        try:
            self._run.summary["outcome"] = outcome.value
            self._run.finish(exit_code=0 if outcome in _SUCCESSFUL else 1)
        except Exception as error:
            raise RunError(f"--track=wandb: the run cannot be ended: {first_line(error)}") from None
        finally:
            self._end_process()
