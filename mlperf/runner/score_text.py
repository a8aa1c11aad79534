"""Score raw text with the numbering of prepared data, as the command line and `Model.predict` do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from mlperf.data.memory_rows import MemoryRows
from mlperf.data.prepare.column_facts import counts_by_column, warn_of_missing_rows
from mlperf.data.prepare.scored_file import open_scored_file
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.prepared.id_numbering import IdNumbering
from mlperf.data.prepared.known_ids import KnownIds
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.scored_text import ScoredText, in_whole_batches
from mlperf.data.source import MIN_GROUP_ROWS
from mlperf.engines.choose import choose_engine
from mlperf.evaluation.evaluate import Scorer, metrics_of_run, scores_of
from mlperf.evaluation.metrics import are_probabilities, diverged
from mlperf.models.dlrm import DLRM_Net
from mlperf.reporting.console import print_metrics
from mlperf.reporting.undefined_metrics import report_one_class
from mlperf.runner.data import prepared_prefix, reading_threads
from mlperf.runner.data_shape import row_source
from mlperf.runner.evaluate import load_model, predictions_of
from mlperf.runner.quantized import quantize
from mlperf.runner.remarks import report_unused_flags
from mlperf.runner.result import Result
from mlperf.settings.settings import Settings
from mlperf.training.events import Outcome
from mlperf.util.errors import RunError, UsageError
from mlperf.util.failures import system_failures
from mlperf.util.printable import one_line
from mlperf.util.threads import Threads, available_cores

_ROWS_AT_A_TIME = 8 * MIN_GROUP_ROWS

_log = logging.getLogger(__name__)


def score_text(settings: Settings, device: torch.device, prepared: PreparedData) -> Result:
    """Score the text of --score-text; print the metrics if it has labels."""
    path = settings.predictions.text
    assert path is not None
    require_file(path)
    text = open_text(path, settings, prepared, load_numbering(settings, prepared))
    if not text.has_labels and settings.predictions.file is None:
        raise UsageError(f"--score-text={path}: has no labels, so there are no metrics; pass --save-predictions")
    model = load_model(settings, device, prepared)
    report_unused_flags(settings)
    scorer = prepared_scorer(settings, model)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    with predictions_of(settings) as receive:
        for scores, labels in scores_of_text(settings, prepared, scorer, text):
            if labels is not None:
                kept.append((scores, labels))
            if receive is not None:
                receive(scores.cpu(), None if labels is None else labels.cpu())
    report_ids(text, prepared)
    if not kept:
        return Result(Outcome.SUCCESS)
    all_metrics = settings.compliance.enabled
    metrics = metrics_of_run(*map(torch.cat, zip(*kept, strict=True)), all_metrics=all_metrics)
    print(one_line(f"Testing on {path}"), flush=True)
    print_metrics(metrics, metrics, all_metrics=all_metrics)
    if metrics.only_label is not None:
        report_one_class(metrics, settings, f"{path}")
    return Result(Outcome.SUCCESS, metrics=metrics, best_metrics=metrics)


def prepared_scorer(settings: Settings, model: DLRM_Net) -> Scorer:
    """Return the scorer of the model, quantized if the flags say so."""
    engine = choose_engine(model, settings)
    if settings.quantization.requested:
        quantize(settings, model)
    return engine.make_scorer(model, settings)


def require_file(path: Path) -> None:
    """Raise RunError if the text is not a file: to be known before the ids are loaded, which can take minutes."""
    with system_failures(path, "cannot be read"):
        if not path.is_file():
            raise RunError(f"{path}: {'not a file' if path.exists() else 'no such file'}")


def load_numbering(settings: Settings, prepared: PreparedData) -> KnownIds:
    """Return the numbers of the ids of the prepared data. RunError if they were not kept or are damaged."""
    if prepared.numbering is None or prepared.reference is not None:
        raise RunError(
            f"{prepared.train}: text cannot be scored, because the ids of the data were not kept: it was prepared "
            "by another program or an earlier version; prepare it again from its text"
        )
    paths = DatasetPaths.from_name(prepared_prefix(settings.data))
    ids = KnownIds(IdNumbering.read(paths.ids, prepared.numbering), prepared.columns, settings.data.traits)
    with Threads(available_cores()) as pool:
        ids.load(pool)
    return ids


def open_text(path: Path, settings: Settings, prepared: PreparedData, ids: KnownIds) -> ScoredText:
    """Return the text to be scored. RunError if it cannot be read or is empty."""
    ids.unknown = [0] * len(ids.unknown)
    with system_failures(path, "cannot be read"):
        return ScoredText(path, open_scored_file(path, prepared, settings.data.traits), ids)


def scores_of_text(
    settings: Settings, prepared: PreparedData, scorer: Scorer, text: ScoredText
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Yield the probabilities and the labels of the next rows, float32 [n] each; None: the text has no labels.

    RunError if a row is bad; DivergedError, its subclass, if a prediction is not a probability.
    """
    form = row_source(settings, prepared, text.path)
    batch_size = settings.data.test_batch_size
    parts = text.rows(reading_threads(settings, train=False))
    for rows in in_whole_batches(parts, batch_size, _ROWS_AT_A_TIME):
        source = MemoryRows(rows, form, batch_size, pin_memory=settings.use_gpu, multi_hot=prepared.multi_hot)
        scores, labels = scores_of(scorer, source)
        if not are_probabilities(scores):
            raise diverged()
        yield scores, labels if text.has_labels else None


def report_ids(text: ScoredText, prepared: PreparedData) -> None:
    """Log how many ids of each column the numbering lacks, and how many fields have more ids than are kept."""
    columns = [column.source for column in prepared.columns.categorical]
    if unknown := sum(text.ids.unknown):
        _log.warning(
            "%s: ids that %s lacks: %s (%s); they get the row of the empty id",
            *(text.path, text.ids.numbering.path, f"{unknown:,}", counts_by_column(columns, text.ids.unknown)),
        )
    warn_of_missing_rows(text.ids)
    if any(text.cut_fields):
        cut = counts_by_column(columns, text.cut_fields.tolist())
        _log.warning("%s: fields with more ids than are kept: %s", text.path, cut)
