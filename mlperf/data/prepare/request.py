"""What a preparation is to make, besides the input files, and whether prepared data is just that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlperf.data.columns.description import CRITEO_COLUMNS, ColumnsDescription
from mlperf.data.columns.description_file import read_description
from mlperf.data.columns.description_json import to_json
from mlperf.data.prepare.columns_text import ColumnsText
from mlperf.data.prepare.earlier_ids import EarlierIds
from mlperf.data.prepare.text_format import CriteoText, TextFormat
from mlperf.data.prepared.manifest import Manifest
from mlperf.data.prepared.named_files import named_described_files
from mlperf.data.prepared.raw_files import raw_files
from mlperf.settings.dataset import PreparationSettings
from mlperf.util.errors import UsageError
from mlperf.util.output_files import NamedFile


@dataclass(frozen=True)
class Request:
    """columns: description of the columns; None if they are Criteo's.

    earlier: data set whose numbering is used (--ids-from); None: the ids are numbered anew.
    """

    settings: PreparationSettings
    columns: ColumnsDescription | None = None
    earlier: EarlierIds | None = None

    @classmethod
    def of(cls, settings: PreparationSettings) -> Request:
        """Read the files that the settings name. UsageError if they contradict each other, RunError if damaged."""
        columns = None
        if settings.traits.has_columns_file:
            if settings.columns is None:
                raise UsageError(f"--data-set={settings.data_set}: preparing the data requires --columns")
            columns = read_description(settings.columns)
        earlier = None if settings.ids_from is None else EarlierIds.open(settings.ids_from, settings, columns)
        return cls(settings, columns, earlier)

    @property
    def description(self) -> ColumnsDescription:
        """The columns, of Criteo's data sets, too."""
        return self.columns or CRITEO_COLUMNS

    def raw_files(self) -> list[Path]:
        """Return the paths of the raw text; see `raw_files`."""
        settings = self.settings
        return raw_files(settings.raw_data_file, settings.data_set, self.columns, settings.day_numbers)

    def input_files(self) -> list[NamedFile]:
        """Return the files besides the raw text that the preparation reads."""
        return named_described_files(self.settings, () if self.columns is None else self.raw_files())

    def text_format(self, inputs: Sequence[Path]) -> TextFormat:
        """Return the format of the input files."""
        numbering = None if self.earlier is None else self.earlier.numbering
        if self.columns is None:
            return CriteoText(inputs, self.settings, numbering)
        return ColumnsText(inputs, self.settings, numbering, self.columns)

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the result besides the inputs, as JSON."""
        return {
            "flags": self.settings.flags(),
            "columns": None if self.columns is None else to_json(self.columns),
            "ids_from": None if self.earlier is None else self.earlier.numbering.fingerprint,
        }

    def differences(self, manifest: Manifest) -> list[str]:
        """Return how prepared data was asked for otherwise, as flags; empty if it was asked for just so."""
        flags, recorded = self.settings.flags(), manifest.flags
        changed = [
            f"--{name.replace('_', '-')}={recorded[name]}" if name in recorded else f"no --{name}"
            for name in {**flags, **recorded}
            if recorded.get(name) != flags.get(name)
        ]
        if manifest.columns != self.columns and manifest.columns is not None:
            changed.append("other --columns")
        numbering = manifest.numbering
        ids_from = None if numbering is None else numbering.ids_from
        if self.earlier is None and ids_from is not None:
            changed.append(f"--ids-from={ids_from}")
        elif self.earlier is not None and (
            ids_from is None or numbering is None or numbering.fingerprint != self.earlier.numbering.fingerprint
        ):
            changed.append("no --ids-from" if ids_from is None else f"another --ids-from={ids_from}")
        return changed
