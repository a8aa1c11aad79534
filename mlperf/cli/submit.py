"""Make a submission package: five runs of the benchmark, or five logs, the system's description and the code.

Data and configuration are those of run_and_time.sh, by DATADIR and CONFIG in the environment; flags after -- go to
the trainer. The same command goes on with an interrupted set of runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlperf.benchmarks import DEFAULT_EDITION, EDITIONS, STATUSES
from mlperf.cli.program import program_name, run_program
from mlperf.compliance.log import Log, as_text, read_log
from mlperf.settings.kinds import at_least
from mlperf.settings.parser import Parser
from mlperf.submission.check import check_result
from mlperf.submission.package import NAME, Package, write_package
from mlperf.submission.rcp import make_rcp
from mlperf.submission.report import render
from mlperf.submission.results import find_results
from mlperf.submission.run_set import ROOT, RunSettings, make_runs
from mlperf.submission.system_description import (
    FIELDS,
    Description,
    describe_machine,
    missing_fields,
    read_description,
    required_kind,
)
from mlperf.util.errors import RunError, UsageError
from mlperf.util.files import write_atomically

SAMPLE_REASON = (
    "the runs are on the made-up sample of tools/make_sample.py, for which there is no reference convergence; "
    "this package shows the way and is not a result"
)


# What this program gives the trainer itself, or what must differ from run to run.
_OWN_FLAGS = {
    **{"--mlperf-submitter": "--submitter", "--mlperf-platform": "--system", "--mlperf-edition": "--edition"},
    **{"--mlperf-division": "--division", "--mlperf-status": "--status", "--numpy-rand-seed": "--seed"},
    **{"--mlperf-log-file": "--output", "--mlperf-logging": "nothing, it is always on"},
}
_OWN_VARIABLES = {"EDITION": "edition", "SEED": "seed"}
_RUNS_FOLDERS = ("runs", "reference")  # in --output, beside the package
_OWN_FIELDS = ("submitter", "division", "status", "system_name")


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not letters, digits and _.+-, beginning with none of .+-")
    return text


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    add = parser.add_argument
    add("--submitter", type=_name, required=True, help="the organization")
    add("--system", type=_name, required=True, help="name of the system: of its description and its results")
    add("--output", type=Path, default=Path("submission"), help="folder for the package, and for the runs' logs")
    add("--edition", choices=tuple(EDITIONS), default=DEFAULT_EDITION.name, help="of MLPerf Training")
    add("--division", choices=("closed", "open"), default="closed", help="of the submission")
    add("--status", choices=STATUSES, default="onprem", help="availability of the system")
    add("--system-file", type=Path, help="JSON with fields of the system description; they win over what is found")
    add("--set", metavar="FIELD=VALUE", action="append", default=[], help="one field of it, may be repeated")
    add("--logs", type=Path, nargs="+", help="take these logs instead of running; the machine is not looked at")
    add("--seed", type=at_least(0), help="of the first run, the next count up (default: drawn)")
    add(
        "--rcp-bypass",
        metavar="REASON",
        help="the package checker's switch: convergence may fail, for this reason",
    )
    add("--reference", action="store_true", help="twice the runs, and convergence points instead of a package")
    add("trainer_flags", nargs="*", help="after --: flags of dlrm_s_pytorch.py, added to each run")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the package and check it; return 0 if it passes, 1 if it fails, 2 for a wrong call."""
    name = program_name("make_submission.py")
    return run_program(name, partial(_submit, name, arguments))


def _submit(name: str, arguments: Sequence[str] | None) -> int:
    flags = make_parser(name).parse_args(arguments)
    _refuse_contradictions(flags)
    try:
        return _make(flags)
    except OSError as error:
        raise RunError(f"{error.filename or flags.output}: {error.strerror or error}") from None


def _refuse_contradictions(flags: argparse.Namespace) -> None:
    """Raise UsageError for what would be passed over in silence otherwise."""
    if flags.submitter in _RUNS_FOLDERS:
        raise UsageError(f"--submitter={flags.submitter}: in --output that folder is for the runs' logs")
    for text in flags.trainer_flags:
        name = text.partition("=")[0]
        if name in _OWN_FLAGS:
            raise UsageError(f"{text} after --: what it says is given by {_OWN_FLAGS[name]}")
    for variable, flag in _OWN_VARIABLES.items():
        value = os.environ.get(variable, "")
        if value and value != str(getattr(flags, flag)):
            raise UsageError(f"{variable}={value} in the environment: here it is given by --{flag}")
    if flags.logs is not None and flags.seed is not None:
        raise UsageError("--seed: the runs of --logs have theirs")
    if flags.reference and flags.rcp_bypass is not None:
        raise UsageError("--rcp-bypass: with --reference nothing is compared")


def _make(flags: argparse.Namespace) -> int:
    edition = EDITIONS[flags.edition]
    description = None if flags.reference else _description(flags)
    count = edition.runs * 2 if flags.reference else edition.runs
    configuration = _configuration_file()
    if flags.logs is not None:
        paths = _collect(flags.logs, count)
    else:
        runs = make_runs(_runs_folder(flags), _run_settings(flags), count, first_seed=flags.seed)
        paths, configuration = runs.logs, runs.configuration
    logs = [read_log(path) for path in paths]
    if description is None:
        return _write_reference(flags, logs)
    sample = _sample() if flags.logs is None or os.environ.get("DATADIR") else None
    reason = flags.rcp_bypass or (SAMPLE_REASON if sample is not None else None)
    package = Package(
        folder=flags.output,
        submitter=flags.submitter,
        system=flags.system,
        edition=edition,
        description=description,
        logs=tuple(paths),
        configuration=configuration,
        trainer_flags=_run_settings(flags).trainer_flags,
        data=_data_text(sample),
        bypass_reason=reason,
    )
    folder = write_package(package, logs)
    (result,) = (result for result in find_results(folder) if result.system == flags.system)
    report = check_result(result, edition)
    print(f"package in {folder}")
    if configuration is None:
        print(f"without config_{flags.system}.sh: CONFIG does not say with which configuration the logs were made")
    if reason is not None:
        print(f"the convergence check is bypassed: {reason}")
    print(render(report), flush=True)
    return 0 if report.passed else 1


def _description(flags: argparse.Namespace) -> Description:
    """Return the whole system description. UsageError names all fields that are missing, at once."""
    description: Description = {}
    if flags.logs is None:
        description |= describe_machine(_data_folder(), use_gpu=_uses_gpu(flags.trainer_flags))
    else:
        description |= {"hw_notes": "", "sw_notes": ""}
    if flags.system_file is not None:
        description |= read_description(flags.system_file)
    for text in flags.set:
        name, equals, value = text.partition("=")
        if name in _OWN_FIELDS:
            flag = name.removesuffix("_name")
            raise UsageError(f"--set={text}: that field is given by --{flag}")
        if name not in FIELDS or not equals:
            raise UsageError(f"--set={text}: allowed is FIELD=VALUE, with FIELD one of {', '.join(FIELDS)}")
        description[name] = value
    description |= {"submitter": flags.submitter, "division": flags.division}
    description |= {"status": flags.status, "system_name": flags.system}
    missing = missing_fields(description)
    if missing:
        raise UsageError(
            f"the description of the system lacks {', '.join(missing)}: to be given by --set FIELD=VALUE "
            "or --system-file"
        )
    for name, value in description.items():
        if (kind := required_kind(name, value)) is not None:
            raise UsageError(f"the description of the system: {name} is {as_text(value)}, not {kind}")
    return {name: description[name] for name in FIELDS}


def _data_folder() -> Path:
    """Return where run_and_time.sh takes its data from."""
    return Path(os.environ["DATADIR"]) if os.environ.get("DATADIR") else ROOT / "input"


def _uses_gpu(trainer_flags: list[str]) -> bool:
    """Say whether the runs use a GPU, by the flags or by the configuration."""
    return "--use-gpu" in trainer_flags or "--use-gpu" in _configured()


def _configuration_file() -> Path | None:
    """Return the file that CONFIG names, as run_and_time.sh finds it; None without CONFIG. UsageError if none."""
    name = os.environ.get("CONFIG", "")
    files = (Path(name), ROOT / "mlperf" / "systems" / f"config_{name}.sh")
    found = next((file for file in files if file.is_file()), None)
    if name and found is None:
        raise UsageError(f"CONFIG={name}: neither a file nor config_{name}.sh in mlperf/systems")
    return found


def _configured() -> str:
    file = _configuration_file()
    return "" if file is None else file.read_text(encoding="utf-8", errors="replace")


def _collect(paths: list[Path], count: int) -> tuple[Path, ...]:
    if len(paths) != count:
        raise UsageError(f"--logs: {len(paths)} are given, {count} are needed")
    return tuple(paths)


def _runs_folder(flags: argparse.Namespace) -> Path:
    kind = _RUNS_FOLDERS[flags.reference]
    folder: Path = flags.output / kind / flags.system
    return folder


def _run_settings(flags: argparse.Namespace) -> RunSettings:
    given = (
        f"--mlperf-submitter={flags.submitter}",
        f"--mlperf-platform={flags.system}",
        f"--mlperf-division={flags.division}",
        f"--mlperf-status={flags.status}",
    )
    data, configuration = (os.environ.get(name, "") for name in ("DATADIR", "CONFIG"))
    digest = hashlib.sha256(_configured().encode()).hexdigest()
    return RunSettings(flags.edition, data, configuration, digest, (*given, *flags.trainer_flags))


def _sample() -> dict[str, object] | None:
    """Return what sample.json says of the data that run_and_time.sh takes, None if it is no sample."""
    file = _data_folder() / "sample.json"
    if not file.is_file():
        return None
    try:
        sample = dict(json.loads(file.read_text(encoding="utf-8")))
        return {name: sample[name] for name in ("rows", "seed")}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RunError(f"{file}: damaged, does not say rows and seed of the sample") from None


def _data_text(sample: dict[str, object] | None) -> str:
    if sample is None:
        return (
            "`$DATA` holds day_0 ... day_23 of the Criteo Terabyte click logs, or what tools/prepare_criteo.py "
            "made of them."
        )
    rows, seed = sample["rows"], sample["seed"]
    return (
        "Made up, with a planted signal; the runs show the way and are not a result:\n\n"
        "```\nDATA=$PWD/input\n"
        f"$(tools/setup.sh) tools/make_sample.py --folder=$DATA --rows={rows} --seed={seed}\n```"
    )


def _write_reference(flags: argparse.Namespace, logs: list[Log]) -> int:
    rcp = make_rcp(logs, EDITIONS[flags.edition].benchmark, flags.submitter, flags.system)
    file = _runs_folder(flags) / "rcps_dlrm.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(rcp, indent=2) + "\n")
    print(f"convergence points of {len(logs)} runs in {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
