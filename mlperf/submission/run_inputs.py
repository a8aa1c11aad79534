"""Data and configuration that run_and_time.sh reads from the environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mlperf.benchmarks import DLRM, Benchmark, SampleSize
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.submission.run_set import ROOT
from mlperf.util.errors import RunError, UsageError
from mlperf.util.files import read_regular
from mlperf.util.strict_json import SchemaError, parse_json, whole

_MAX_BYTES = 1 << 20  # of sample.json, which has a kilobyte

# Prints the flags in a configuration file, each followed by a null byte. Other output of the file goes to stderr.
# Text as Windows writes it is accepted, as by run_and_time.sh.
_PRINT_FLAGS = (
    r"""TRAINER_FLAGS=() && if grep -q $'\r\|^\xef\xbb\xbf' "$1"; then """
    r"""source <(sed -e $'1s/^\xef\xbb\xbf//' -e $'s/\r//g' "$1"); else source "$1"; fi >&2 && """
    'for flag in "${TRAINER_FLAGS[@]}"; do printf "%s\\0" "$flag"; done'
)


@dataclass(frozen=True)
class RunInputs:
    """data, configuration: DATADIR and CONFIG, "" if the variable is not set. benchmark: that of the runs."""

    data: str
    configuration: str
    benchmark: Benchmark = DLRM

    @classmethod
    def of_environment(cls, benchmark: Benchmark = DLRM) -> RunInputs:
        """Read the environment variables DATADIR and CONFIG."""
        return cls(os.environ.get("DATADIR", ""), os.environ.get("CONFIG", ""), benchmark)

    @property
    def data_folder(self) -> Path:
        """The folder with the data: DATADIR or input/ of the checkout."""
        return Path(self.data) if self.data else ROOT / "input"

    @property
    def prepared(self) -> DatasetPaths | None:
        """The prepared data that run_and_time.sh uses, None if it finds none, or several. It may not exist yet."""
        folder = self.data_folder
        data_set = self.benchmark.data.name
        if not self.data and (self.sample is not None or not self._has_days):
            return DatasetPaths(folder / f"{data_set.replace('terabyte', 'sample')}_processed")
        # As for the shell, names with a leading dot, such as those of macOS on other disks, are none of the data.
        names = [str(path) for path in folder.glob("*_train.bin") if not path.name.startswith(".")]
        all_paths = [DatasetPaths(Path(name.removesuffix("_train.bin"))) for name in names]
        found = [paths for paths in all_paths if _data_set(paths, data_set) == data_set]
        return found[0] if len(found) == 1 else None

    @property
    def has_text(self) -> bool:
        """Whether run_and_time.sh prepares the data from raw text, unless that is done."""
        return not self.data or self._has_days

    @property
    def _has_days(self) -> bool:
        days = self.data_folder.glob("day_[0-9]*")
        return any(not day.name.endswith((".npy", "_sparse_multi_hot.npz")) for day in days)

    @property
    def has_reference_files(self) -> bool:
        """Whether run_and_time.sh trains on the files of the reference implementation of DLRM-DCNv2, in place."""
        return self.benchmark.data.traits.has_reference_files and (self.data_folder / "day_0_labels.npy").is_file()

    @property
    def uses_sample(self) -> bool:
        """Whether run_and_time.sh uses the sample, which it may still have to make."""
        return self.sample is not None or not (self.data or any(self.data_folder.glob("day_[0-9]*")))

    @property
    def sample(self) -> SampleSize | None:
        """The sample in the data folder, None if it holds other data. RunError if sample.json is invalid."""
        file = self.data_folder / "sample.json"
        if not file.is_file():
            return None
        try:
            content = parse_json(read_regular(file, _MAX_BYTES))
            if not isinstance(content, dict):
                raise SchemaError("it is not an object")
            return SampleSize(whole(content.get("rows"), "rows", 1), whole(content.get("seed"), "seed", 0))
        except OSError as error:
            raise RunError(f"{file}: cannot be read: {error.strerror}") from None
        except SchemaError as error:
            raise RunError(f"{file}: invalid: {error}") from None

    @property
    def configuration_file(self) -> Path | None:
        """The file that CONFIG names, None if it is not set. UsageError if there is no such file."""
        if not self.configuration:
            return None
        name = self.configuration
        folder = f"mlperf/systems/{self.benchmark.name}"
        for file in (Path(name), ROOT / folder / f"config_{name}.sh"):
            if file.is_file():
                return file
        raise UsageError(f"CONFIG={name}: neither a file nor config_{name}.sh in {folder}")

    @property
    def configuration_text(self) -> str:
        """The content of the configuration file, "" without one."""
        file = self.configuration_file
        return "" if file is None else file.read_text(encoding="utf-8", errors="replace")

    @property
    def trainer_flags(self) -> tuple[str, ...]:
        """TRAINER_FLAGS of the configuration file, read by bash. UsageError if that fails."""
        file = self.configuration_file
        if file is None:
            return ()
        done = subprocess.run(
            ["bash", "-c", _PRINT_FLAGS, "bash", str(file.resolve())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise UsageError(f"CONFIG={self.configuration}: cannot be read by bash: {reason}")
        return tuple(done.stdout.split("\0")[:-1])

    @property
    def configuration_hash(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.configuration_text.encode()).hexdigest()


def _data_set(paths: DatasetPaths, default: str) -> str:
    """Return --data-set of the preparation. default: for files without a manifest, which other programs wrote.

    What was converted from files of another program has no data set in its manifest, and is of dlrm.
    """
    from mlperf.data.prepared.manifest import Manifest  # late, because --help needs no numpy

    manifest = Manifest.read(paths.manifest)
    return default if manifest is None else str(manifest.flags.get("data_set", DLRM.data.name))
