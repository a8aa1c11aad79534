"""Data and configuration that run_and_time.sh reads from the environment."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mlperf.benchmarks import DLRM, DLRM_DCNV2, Benchmark, SampleSize
from mlperf.data.criteo.prepared.paths import DatasetPaths
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
        folder, data_set = self.data_folder, self.benchmark.data.name
        if not self.data and (self.sample is not None or not any(folder.glob("day_[0-9]*"))):
            return DatasetPaths(folder / f"{data_set.replace('terabyte', 'sample')}_processed")
        # As for the shell, names with a leading dot, such as those of macOS on other disks, are none of the data.
        files = [path for path in folder.glob("*_train.bin") if not path.name.startswith(".")]
        prefixes = [Path(str(file).removesuffix("_train.bin")) for file in files]
        found = [prefix for prefix in prefixes if _made_with(prefix, data_set) == data_set]
        return DatasetPaths(found[0]) if len(found) == 1 and not self.is_official else None

    @property
    def is_official(self) -> bool:
        """Whether run_and_time.sh reads the day_K_*.npy files of the reference implementation in place."""
        labels = self.data_folder / "day_0_labels.npy"
        return self.benchmark is DLRM_DCNV2 and labels.exists() and (bool(self.data) or self.sample is None)

    @property
    def has_text(self) -> bool:
        """Whether run_and_time.sh prepares the data from raw text, unless that is done."""
        arrays = (".npy", "_sparse_multi_hot.npz")
        days = (path for path in self.data_folder.glob("day_[0-9]*") if not path.name.endswith(arrays))
        return not self.is_official and (not self.data or any(days))

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


def _made_with(prefix: Path, data_set: str) -> str:
    """Return the value of --data-set with which the files of a prefix were prepared, as run_and_time.sh finds it.

    data_set: that of files without a manifest. Files that were converted from another program's name none, and are
    of DLRM.
    """
    manifest = DatasetPaths(prefix).manifest
    if not manifest.is_file():
        return data_set
    text = manifest.read_text(encoding="utf-8", errors="replace")
    named = re.search(r'^ *"data_set": "([a-z0-9_]*)"', text, re.MULTILINE)
    return DLRM.data.name if named is None else named[1]
