"""File names of a prepared data set."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mlperf.data.criteo.days import SPLITS
from mlperf.util.errors import UsageError

# Endings of the files of the DLRM-DCNv2 reference, PREFIX_DAY_ENDING.
REFERENCE_ENDINGS = ("dense.npy", "labels.npy", "sparse.npy", "sparse_multi_hot.npz")
AFTER_PREFIX = re.compile(rf"_\d+_({'|'.join(map(re.escape, REFERENCE_ENDINGS))})")


@dataclass(frozen=True)
class DatasetPaths:
    """Paths of the prepared data set X: X_train.bin, X_test.bin, X_val.bin, X.ids and the manifest X.json.

    prefix: the path X, with which all of them begin.
    """

    prefix: Path

    @classmethod
    def from_name(cls, processed_data_file: Path, flag: str = "--processed-data-file") -> DatasetPaths:
        """Return the paths of the data set that X, X.npz or X.bin names.

        UsageError, which names `flag`, if X is a folder: its files would be written beside it, not in it. The same
        if X is a file of another data set, also one of the DLRM-DCNv2 reference: what belongs to that would be
        prepared again under a longer name.
        """
        prefix = processed_data_file
        if prefix.suffix in (".npz", ".bin"):
            prefix = prefix.with_suffix("")
        paths = cls(prefix)
        if paths.any_exists():
            return paths
        must = "must be a prefix of file names: write"
        if os.path.isdir(processed_data_file):
            found = sorted(
                str(path).removesuffix("_train.bin") for path in processed_data_file.glob("*_train.bin")
            )
            names = " or ".join(found) or processed_data_file / "NAME"
            raise UsageError(f"{flag}={processed_data_file} is a folder; {must} {names}")
        if (whole := paths._whole()) is not None:
            raise UsageError(f"{flag}={processed_data_file} is one of the prepared files; {must} {whole}")
        named = AFTER_PREFIX.search(processed_data_file.name)
        if named is not None and named.end() == len(named.string) and os.path.isfile(processed_data_file):
            raise UsageError(
                f"{flag}={processed_data_file} is one of the files of the DLRM-DCNv2 reference; must be their "
                f"folder: write {processed_data_file.parent}"
            )
        return paths

    def _whole(self) -> Path | None:
        """Return the prefix of the data set of which X or X.bin is a file, or None."""
        for ending in (".json", ".ids", *(f"_{split}.bin" for split in SPLITS)):
            file = self.prefix if ending in (".json", ".ids") else self.with_ending(".bin")
            whole = DatasetPaths(file.with_name(file.name.removesuffix(ending)))
            if file.name.endswith(ending) and os.path.isfile(file) and os.path.isfile(whole.split("train")):
                return whole.prefix
        return None

    def any_exists(self) -> bool:
        """Whether a file or the work folder of the data set exists: a folder may have the same name."""
        splits = (self.split(name) for name in SPLITS)
        return any(map(os.path.exists, (self.manifest, self.archive, self.work_folder, *splits)))

    @property
    def manifest(self) -> Path:
        """The manifest."""
        return self.with_ending(".json")

    @property
    def archive(self) -> Path:
        """The NumPy archive with the same rows, in the format of the original DLRM implementation."""
        return self.with_ending(".npz")

    @property
    def ids(self) -> Path:
        """The ids of each column, in order of their numbers."""
        return self.with_ending(".ids")

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
