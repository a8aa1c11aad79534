"""Choose the data of a Criteo script, and check the flags. common.sh calls this and evaluates the output.

    python bench/find_data.py {kaggle,terabyte,terabyte_dcnv2} [flags of the script] -- [flags of the user]

Searches the folder DATADIR, by default input/. Prints assignments for the shell: `data_flags`, the flags that
select the data, `sample`, the folder of the synthetic sample if it is chosen, and `evaluates`, whether the test
split is used. The user's flags are obeyed: they may name the data or the data set, or request generated data.
A wrong flag is reported as by the trainer.
"""

from __future__ import annotations

import checkout  # noqa: F401

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlperf.benchmarks.data_sets import DATA_SETS
from mlperf.data.prepared.paths import DatasetPaths
from mlperf.data.prepared.raw_files import raw_files
from mlperf.settings.from_flags import make_trainer_parser, parse
from mlperf.util.errors import UsageError
from mlperf.util.program import run_program

_INPUT = Path(__file__).resolve().parent.parent / "input"
# Files that show that there is raw data. The last is the archive of a day by the original implementation.
_RAW_FILES = {
    "kaggle": ("train.txt", "train.txt.gz"),
    "terabyte": ("day_0", "day_0.gz", "day_0_reordered.npz"),
    "terabyte_dcnv2": ("day_0", "day_0.gz"),
}
_SAMPLE_FILE = "sample.json"
_SAMPLE_DATA_SETS = ("terabyte", "terabyte_dcnv2")  # the first is that of a script that trains on the sample


@dataclass(frozen=True)
class Choice:
    """The flags that select the data; the folder of the sample if that is chosen; a note for the user."""

    flags: list[str] = field(default_factory=list)
    sample: Path | None = None
    note: str = ""


def choose_data(script: str, given: Mapping[str, Any], datadir: str, *, default: Path = _INPUT) -> Choice:
    """Return the data for a script.

    script: its data set. given: the user's flags, by key. datadir: folder that the user named, or "". default:
    the folder otherwise, in which a sample is generated if it has no data. UsageError if a named folder has no
    data, the raw data is a folder, or the sample does not have the format that the user requires.
    """
    if given.get("data_generation", "dataset") != "dataset":
        return Choice()
    data_set = given.get("data_set", script)
    folder = Path(datadir) if datadir else default
    flags = [f"--data-set={data_set}", "--data-generation=dataset"]
    if "raw_data_file" in given:
        raw_files(given["raw_data_file"], data_set)
    raw = _raw_flags(folder, data_set)
    if "processed_data_file" in given:
        # Prepared data may have been made from other raw data. Missing data is made from what is found.
        is_complete = "raw_data_file" in given or _is_prepared(given["processed_data_file"])
        return Choice(flags if is_complete else [*flags, *raw])
    rate, usual_name = given.get("data_sub_sample_rate", 0), DATA_SETS[data_set].prepared_name
    name = usual_name + (f"_sub{rate:g}" if rate else "")
    if "raw_data_file" in given:
        return Choice([*flags, f"--processed-data-file={given['raw_data_file'].with_name(name)}"])
    if not raw and not _is_prepared(folder / name):
        name = usual_name  # prepared with other settings: the trainer decides whether it can be used
    if raw or _is_prepared(folder / name):
        return Choice([*flags, f"--processed-data-file={folder / name}", *raw])
    missing = f"contains neither {_RAW_FILES[data_set][0]} nor {usual_name}_train.bin"
    if datadir and not (folder / _SAMPLE_FILE).is_file():
        raise UsageError(f"DATADIR={datadir}: {missing}")
    sample_set = given.get("data_set", _SAMPLE_DATA_SETS[0])
    if sample_set not in _SAMPLE_DATA_SETS:
        raise UsageError(f"--data-set={data_set}: {folder} {missing}, and the synthetic sample has another format")
    flags = [f"--data-set={sample_set}", "--data-generation=dataset", f"--raw-data-file={folder / 'day'}"]
    name = script if sample_set == _SAMPLE_DATA_SETS[0] else sample_set
    prepared = folder / "bench" / f"{name}{_suffix(given)}"
    note = "" if datadir else f"{folder} {missing}: using the synthetic sample"
    return Choice([*flags, f"--processed-data-file={prepared}"], folder, note)


def _raw_flags(folder: Path, data_set: str) -> list[str]:
    """Return the flag for the raw data in a folder; nothing if there is none, or only the sample."""
    if data_set in _SAMPLE_DATA_SETS and (folder / _SAMPLE_FILE).is_file():
        return []
    raw = "day" if DATA_SETS[data_set].has_days else "train.txt"
    found = any((folder / name).is_file() for name in _RAW_FILES[data_set])
    return [f"--raw-data-file={folder / raw}"] if found else []


def _is_prepared(path: Path) -> bool:
    paths = DatasetPaths.from_name(path)
    return paths.split("train").is_file() or paths.archive.is_file()


def _suffix(given: Mapping[str, Any]) -> str:
    """Return the ending of the name of a sample that is prepared with the user's settings."""
    keys = {"data_sub_sample_rate": "sub", "max_ind_range": "mod", "data_randomize": "order"}
    return "".join(f"_{short}{given[key]}" for key, short in keys.items() if given.get(key))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the assignments; return 0, or 2 after reporting a usage error."""

    def work() -> int:
        script, *flags = sys.argv[1:] if arguments is None else arguments
        end = flags.index("--")
        of_script, of_user = flags[:end], flags[end + 1 :]
        given = vars(make_trainer_parser().parse_args(of_user))
        choice = choose_data(script, given, os.environ.get("DATADIR", ""))
        settings = parse([*of_script, *choice.flags, *of_user])
        evaluates = settings.inference_only or settings.training.evaluates
        if choice.note:
            print(choice.note, file=sys.stderr)
        print(f"data_flags=({shlex.join(choice.flags)}) sample={shlex.quote(str(choice.sample or ''))}", end=" ")
        print(f"evaluates={str(evaluates).lower()}")
        return 0

    return run_program("dlrm_s_pytorch.py", work)


if __name__ == "__main__":
    sys.exit(main())
