"""A run in MLflow (--track=mlflow): its settings, curves and outcome."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch

from mlperf.reporting.metrics_reader import Record
from mlperf.reporting.points import iteration_of, points_of
from mlperf.reporting.records import RecordListener
from mlperf.reporting.sender import Sender, first_line
from mlperf.settings.settings import Settings
from mlperf.training.events import Outcome, Position
from mlperf.util.errors import RunError, UsageError

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SERVER = "MLFLOW_TRACKING_URI"
# If the environment does not say otherwise: a server that does not answer is given up after a minute, not after
# many, and a benchmark sends nothing about the use of MLflow to its developers.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where the results are
}
_STATUS = {Outcome.SUCCESS: "FINISHED", Outcome.TARGET_MISSED: "FINISHED", Outcome.INTERRUPTED: "KILLED"}
# What a server accepts in one request, and of a value.
_MAX_METRICS, _MAX_PARAMS, _MAX_CHARACTERS = 1000, 100, 6000
_STOP_SECONDS, _ABANDON_SECONDS = 60.0, 3.0


def require_mlflow() -> None:
    """Raise UsageError if MLflow is missing. Called before the training."""
    try:
        import mlflow.tracking  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--track=mlflow: needs mlflow (pip install mlflow-skinny): {error}") from None


class MLflowRun(RecordListener):
    """Creates a run on the server of MLFLOW_TRACKING_URI, in the experiment of MLFLOW_EXPERIMENT_NAME.

    The constructor raises RunError if that fails. Later failures are logged: the training goes on.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        super().__init__(settings, device)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        for library in ("mlflow", "urllib3"):  # whose warnings are several lines long; errors are raised
            logging.getLogger(library).setLevel(logging.ERROR)
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient()
            folder = settings.run.output_dir
            experiment = self._experiment()
            run = self._client.create_run(experiment, run_name=None if folder is None else folder.name)
        except Exception as error:  # of MLflow, of its HTTP client, or of a store
            hint = (
                ""
                if os.environ.get(_SERVER)
                else f"; {_SERVER} is not set: it names the server, such as http://localhost:5000"
            )
            raise RunError(f"--track=mlflow: the run cannot be created: {first_line(error)}{hint}") from None
        self._id: str = run.info.run_id
        uri = self._client.tracking_uri
        _log.info("--track=mlflow: run %s in experiment %s of %s", self._id, experiment, uri)
        self._sender = Sender("--track=mlflow", self._send)

    def _experiment(self) -> str:
        """Return the id of the experiment, which is created if it is missing."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", self._settings.edition.benchmark.name)
        found = self._client.get_experiment_by_name(name)
        experiment: str = self._client.create_experiment(name) if found is None else found.experiment_id
        return experiment

    def add(self, record: Record) -> None:
        """Send a record soon."""
        self._sender.put(record)

    def run_stop(self, position: Position | None, outcome: Outcome) -> None:
        """Send the outcome and all that is left."""
        super().run_stop(position, outcome)
        self._sender.close(_STOP_SECONDS)

    def abandon(self, position: Position | None, outcome: Outcome) -> None:
        """Do what `run_stop` does, in less time."""
        super().run_stop(position, outcome)
        self._sender.close(_ABANDON_SECONDS)

    def _send(self, records: Sequence[Record]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(name, value, round(1e3 * record["time"]), iteration_of(record))
            for record in records
            for name, value in points_of(record).items()
        ]
        for some in _groups(metrics, _MAX_METRICS):
            self._client.log_batch(self._id, metrics=some)
        for record in records:
            event = record["event"]
            if event == "run_start":
                params = [Param(name, _text(value)) for name, value in record["settings"].items()]
                for group in _groups(params, _MAX_PARAMS):
                    self._client.log_batch(self._id, params=group)
                self._client.log_batch(self._id, tags=[RunTag(*tag) for tag in _tags(record)])
            elif event == "checkpoint":
                self._client.set_tag(self._id, f"checkpoint.{record['kind']}", record["path"])
            elif event == "run_stop":
                outcome = Outcome(record["outcome"])
                self._client.set_tag(self._id, "outcome", outcome.value)
                self._client.set_terminated(self._id, _STATUS.get(outcome, "FAILED"))


def _tags(start: Record) -> Iterator[tuple[str, str]]:
    """Yield what a run is, besides its flags."""
    for name in ("version", "engine", "started_from", "seed", "benchmark", "edition"):
        if start[name] is not None:
            yield name, _text(start[name])
    for name, value in start["system"].items():
        if value is not None:
            yield f"system.{name}", _text(value)


def _text(value: Any) -> str:
    """Return a value as text, shortened to what a server accepts."""
    text = str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 3]}..."


def _groups(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(items), size):
        yield list(items[first : first + size])
