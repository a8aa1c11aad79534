"""Settings of a run as a whole: where its settings come from, and the folder in which its files are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlperf.settings.flags import flag
from mlperf.settings.kinds import file_name, folder_name, positive, switch

# Names in the folder of --output-dir.
SETTINGS_FILE = Path("settings.toml")
METRICS_FILE = Path("metrics.jsonl")
LOG_FILE = Path("mlperf.log")
TIME_FILE = Path("time.json")
BEST_MODEL = Path("model.pt")
LAST_MODEL = Path("last.pt")
# Name of a folder for TensorBoard if none is given.
TENSOR_BOARD_FOLDER = Path("run_kaggle_pt")


@dataclass(frozen=True)
class RunSettings:
    """Source of the settings, and the folder of the run."""

    config: Path | None = flag(
        "--config",
        file_name,
        None,
        "file (.toml) with flags, such as settings.toml of an earlier run; flags on the command line override it",
    )
    output_dir: Path | None = flag(
        "--output-dir",
        folder_name,
        None,
        "keep the files of the run in this new folder: settings.toml, metrics.jsonl, model.pt, and those of other "
        "flags that are given no path",
    )
    resume: bool = flag(
        "--resume",
        switch,
        False,
        "continue the run in --output-dir with its settings from its newest intact checkpoint; start it if there "
        "is none",
    )

    checkpoint_minutes: float | None = flag(
        "--checkpoint-every",
        positive,
        None,
        "save the newest weights to last.pt in --output-dir every so many minutes, at a progress line, and at the "
        "end",
    )

    dry_run: bool = flag(
        "--dry-run",
        switch,
        False,
        "print the plan of the run, and the memory, disk and time that it needs, and end",
    )

    def path(self, name: Path) -> Path:
        """Return where a file is written that has a fixed name: in the folder of the run, or the current one."""
        return name if self.output_dir is None else self.output_dir / name
