"""File names of a prepared data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DatasetPaths:
    """Paths of the prepared data set X: X_train.bin, X_test.bin, X_val.bin and the manifest X.json.

    prefix: the path X, with which all of them begin.
    """

    prefix: Path

    @classmethod
    def from_name(cls, processed_data_file: Path) -> DatasetPaths:
        """Return the paths of the data set that X, X.npz or X.bin names."""
        if processed_data_file.suffix in (".npz", ".bin"):
            processed_data_file = processed_data_file.with_suffix("")
        return cls(processed_data_file)

    @property
    def manifest(self) -> Path:
        """The manifest."""
        return self.with_ending(".json")

    @property
    def archive(self) -> Path:
        """The NumPy archive with the same rows, in the format of the original DLRM implementation."""
        return self.with_ending(".npz")

    @property
    def work_folder(self) -> Path:
        """The working folder of a preparation."""
        return self.with_ending(".preparation")

    @property
    def lock(self) -> Path:
        """The lock file of a running preparation."""
        return self.with_ending(".lock")

    def split(self, name: str) -> Path:
        """Return the binary file of a split: train, test or val."""
        return self.with_ending(f"_{name}.bin")

    def with_ending(self, ending: str) -> Path:
        """Return the path X followed by `ending`."""
        return self.prefix.with_name(self.prefix.name + ending)
