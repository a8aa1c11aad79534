"""Where prepared data is, and how a file gets there whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "test", "val")


@dataclass(frozen=True)
class DatasetPaths:
    """Where prepared data is: X.npz, X.bin and X all stand for X_train.bin, X_test.bin, X_val.bin, X.json."""

    prefix: Path

    @classmethod
    def named(cls, processed_data_file: Path) -> DatasetPaths:
        """Return the place that `processed_data_file` names."""
        if processed_data_file.suffix in (".npz", ".bin"):
            processed_data_file = processed_data_file.with_suffix("")
        return cls(processed_data_file)

    @property
    def manifest(self) -> Path:
        """The manifest."""
        return self.beside(".json")

    @property
    def archive(self) -> Path:
        """The rows as other programs keep Kaggle's."""
        return self.beside(".npz")

    @property
    def preparation(self) -> Path:
        """The folder that a preparation works in, gone when it is finished."""
        return self.beside(".preparation")

    def split(self, name: str) -> Path:
        """Return the binary file of a split: train, test or val."""
        return self.beside(f"_{name}.bin")

    def beside(self, ending: str) -> Path:
        """Return the file whose name goes on with `ending`."""
        return self.prefix.with_name(self.prefix.name + ending)
