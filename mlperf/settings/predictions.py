"""Settings of the predictions of an evaluation: which rows are scored, and where the predictions are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlperf.settings.flags import flag
from mlperf.settings.kinds import file_ending_in, file_name

PREDICTION_ENDINGS = (".npy", ".csv", ".parquet")
PREDICTIONS_FILE = Path("predictions.npy")


@dataclass(frozen=True)
class PredictionSettings:
    """Where predictions are written. file: its ending is the format. text: scored in place of a split."""

    file: Path | None = flag(
        "--save-predictions",
        file_ending_in(*PREDICTION_ENDINGS, default=PREDICTIONS_FILE),
        None,
        "with --inference-only: file (.npy, .csv or .parquet) for the row number, label and predicted probability "
        f"of each row ({PREDICTIONS_FILE} if no value is given)",
    )
    text: Path | None = flag(
        "--score-text",
        file_name,
        None,
        "with --inference-only: score this raw text, with or without labels, in place of a split; its ids get the "
        "numbers of --processed-data-file",
    )
