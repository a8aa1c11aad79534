"""How text is read that is scored with the numbering of prepared data."""

from __future__ import annotations

from pathlib import Path

from mlperf.benchmarks.data_sets import DataSetTraits
from mlperf.data.prepare.text_format import CriteoText, TextFormat
from mlperf.data.prepare.unlabelled_text import UnlabelledCriteoText, lacks_label
from mlperf.data.prepared.dataset import PreparedData
from mlperf.settings.dataset import PreparationSettings


def open_scored_format(path: Path, prepared: PreparedData, traits: DataSetTraits) -> TextFormat:
    """Return how a text is read whose rows have the columns of prepared data, with or without the label.

    RunError if the text is empty or damaged, OSError if it cannot be read.
    """
    assert prepared.max_ind_range is not None
    settings = PreparationSettings(traits.name, path, prepared.train, max_ind_range=prepared.max_ind_range)
    return UnlabelledCriteoText(settings) if lacks_label(path) else CriteoText(settings)
