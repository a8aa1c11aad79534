"""Create a submission package: run the benchmark or take logs, describe the system, copy the code.

The environment variables DATADIR, CONFIG and NPROC of run_and_time.sh select the data, the configuration and the
number of processes, BENCHMARK selects the benchmark like --benchmark. Flags after -- are passed to the trainer.
Repeating the command resumes an interrupted set of runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlperf.benchmarks import BENCHMARKS, DIVISIONS, DLRM, EDITIONS, STATUSES, Benchmark, SampleSize
from mlperf.compliance.log_reader import Log, as_text, read_log
from mlperf.compliance.warm_start import require_from_scratch
from mlperf.distributed.launchers import require_one_process
from mlperf.settings.argument_parser import Parser
from mlperf.settings.dataset import MAX_SEED
from mlperf.settings.kinds import reason, whole_between
from mlperf.settings.reports import EDITION
from mlperf.settings.timed_run import check_timed_run
from mlperf.submission.check import check_result
from mlperf.submission.choices import choose_division, choose_edition, require_common_division
from mlperf.submission.package import NAME, Package, write_package
from mlperf.submission.processes import LoggedProcesses, processes_of_environment
from mlperf.submission.rcp import make_rcp
from mlperf.submission.report import render
from mlperf.submission.results import find_results
from mlperf.submission.run_inputs import RunInputs
from mlperf.submission.run_set import ROOT, RunSettings, make_runs
from mlperf.submission.system_description import (
    AVAILABILITY,
    FIELDS,
    Description,
    describe_machine,
    missing_fields,
    read_description,
    required_kind,
)
from mlperf.submission.verified_data import DataVerification
from mlperf.util.errors import RunError, UsageError
from mlperf.util.files import write_atomically
from mlperf.util.output_files import NamedFile, named, require_distinct, require_writable_folder
from mlperf.util.program import program_name, run_program

SAMPLE_REASON = (
    "the runs use the synthetic sample of tools/make_sample.py, which has no reference convergence; "
    "this package is an example, not a result"
)

# Trainer flags that are not allowed, by key, with the reasons: anywhere, and after --.
_NOT_IN_A_RESULT = {
    "num_batches": "the runs of a result train on whole epochs",
    "output_dir": "the runs of a result would share a folder",
    "metrics_file": "the runs of a result would share a file",
}
_NOT_AFTER_DASHES = {
    **_NOT_IN_A_RESULT,
    "mlperf_logging": "this program always sets it",
    "mlperf_submitter": "use --submitter instead",
    "mlperf_platform": "use --system instead",
    "mlperf_edition": "use --edition instead",
    "mlperf_division": "use --division instead",
    "mlperf_status": "use --status instead",
    "numpy_rand_seed": "use --seed instead",
    "mlperf_log_file": "use --output instead",
}
# The same for environment variables of run_and_time.sh and for fields of the system description.
_RESERVED_VARIABLES = {"EDITION": "edition", "SEED": "seed"}  # BENCHMARK is one way of choosing it
_RESERVED_FIELDS = {
    "submitter": "--submitter",
    "division": "--division",
    "status": "--status",
    "system_name": "--system",
}
_LOG_FOLDERS = ("runs", "reference")  # in --output, beside the package


def main(arguments: Sequence[str] | None = None) -> int:
    """Create and check the package; return 0 if it passes, 1 if it fails, 2 on a usage error."""
    name = program_name("make_submission.py")
    return run_program(name, partial(_submit, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    add = parser.add_argument
    add("--submitter", type=_name, required=True, help="name of the organization")
    add("--system", type=_name, required=True, help="name of the system")
    add(
        "--output",
        type=Path,
        default=Path("submission"),
        help="folder for the package and the logs of the runs",
    )
    add(
        "--benchmark",
        choices=tuple(BENCHMARKS),
        help=f"benchmark of the runs (default: that of --edition, BENCHMARK in the environment, or {DLRM.name})",
    )
    add(
        "--edition",
        type=EDITION,
        metavar=EDITION.metavar,
        help=f"edition of MLPerf Training: {', '.join(EDITIONS)} (default: the latest of the benchmark)",
    )
    add(
        "--division",
        choices=DIVISIONS,
        help="division of the submission (default: closed; open for dlrm_dcnv2 on the sample)",
    )
    add("--status", choices=STATUSES, default="onprem", help="availability of the system")
    add(
        "--system-file",
        type=Path,
        help="JSON file with system description fields",
    )
    add(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="one such field; may be repeated",
    )
    add(
        "--logs",
        type=Path,
        nargs="+",
        help="use these logs instead of running the benchmark; the machine is not inspected",
    )
    add(
        "--seed",
        type=whole_between(0, MAX_SEED),
        help="seed of the first run, incremented for each later run (default: random)",
    )
    for flag, help in (
        ("--rcp-bypass", "bypass the convergence check, giving this reason"),
        ("--seed-bypass", "with --logs: bypass the seed check, giving this reason"),
    ):
        add(flag, type=reason, metavar=reason.metavar, help=help)
    add(
        "--reference",
        action="store_true",
        help="do twice as many runs and write reference convergence points instead of a package",
    )
    add("trainer_flags", nargs="*", help="after --: flags of dlrm_s_pytorch.py for each run")
    return parser


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} may contain only letters, digits and _.+-, and must not start with .+-"
        )
    return text


def _submit(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    require_one_process()
    edition = choose_edition(args.benchmark, args.edition, os.environ.get("BENCHMARK", ""))
    args.benchmark, args.edition = edition.benchmark.name, edition.name
    _check_contradictions(args)
    if not (ROOT / "run_and_time.sh").is_file():
        raise RunError(
            "requires a checkout, because the package contains its code: run tools/make_submission.py there"
        )
    try:
        return _make(args)
    except OSError as error:
        raise RunError(f"{error.filename or args.output}: {error.strerror or error}") from None


def _check_contradictions(args: argparse.Namespace) -> None:
    """Raise UsageError for arguments that would be ignored."""
    if args.submitter in _LOG_FOLDERS:
        raise UsageError(
            f"--submitter={args.submitter}: this name is reserved for the folder with the logs of the runs"
        )
    check_timed_run(args.trainer_flags, _NOT_AFTER_DASHES, where=" after --")
    for variable, flag in _RESERVED_VARIABLES.items():
        value = os.environ.get(variable, "")
        if value and value != str(getattr(args, flag)):
            raise UsageError(f"{variable}={value} in the environment: use --{flag} instead")
    if (drop_caches := os.environ.get("DROP_CACHES", "")) not in ("", "true", "false"):
        raise UsageError(f"DROP_CACHES={drop_caches} in the environment: must be true or false")
    if args.logs is not None and args.seed is not None:
        raise UsageError("--seed: not allowed with --logs, whose runs already have seeds")
    for flag, value in (("--rcp-bypass", args.rcp_bypass), ("--seed-bypass", args.seed_bypass)):
        if value is not None and args.reference:
            raise UsageError(f"{flag}: not allowed with --reference, which compares nothing")
    if args.seed_bypass is not None and args.logs is None:
        raise UsageError("--seed-bypass: only allowed with --logs, because runs of this program have seeds")


def _check_files(args: argparse.Namespace, inputs: RunInputs) -> None:
    """Raise UsageError if the package cannot be written, or would replace one of its inputs."""
    require_writable_folder("--output", args.output)
    given = [
        *(file for log in args.logs or () for file in named("--logs", log)),
        *named("--system-file", args.system_file),
        *named("CONFIG", inputs.configuration_file),
    ]
    folder, name = args.output / args.submitter, f"of --submitter={args.submitter} in --output={args.output}"
    package = NamedFile(folder, f"the package {name}", is_folder=True, is_private=True)
    runs = NamedFile(_logs_folder(args), f"the folder of the runs {name}", is_folder=True, is_private=True)
    if args.reference:
        require_distinct(given, [NamedFile(_reference_file(args), f"the file of the reference {name}")])
    else:
        require_distinct(given, [package] if args.logs is not None else [package, runs])


def _make(args: argparse.Namespace) -> int:
    edition = EDITIONS[args.edition]
    inputs = RunInputs.of_environment(edition.benchmark)
    _check_files(args, inputs)
    check_timed_run(
        inputs.trainer_flags, _NOT_IN_A_RESULT, where=f" in TRAINER_FLAGS of CONFIG={inputs.configuration}"
    )
    _choose_division(args, inputs)
    settings = _run_settings(args, inputs)
    description = None if args.reference else _description(args, inputs, settings.processes)
    count = edition.runs * 2 if args.reference else edition.runs
    configuration = inputs.configuration_file
    if args.logs is not None:
        if len(args.logs) != count:
            raise UsageError(f"--logs: {len(args.logs)} logs were given, {count} are required")
        paths = tuple(args.logs)
    else:
        before_run = DataVerification(inputs).before_run
        runs = make_runs(_logs_folder(args), settings, count, first_seed=args.seed, before_run=before_run)
        paths, configuration = runs.logs, runs.configuration
    logs = [read_log(path) for path in paths]
    _require_benchmark(logs, edition.benchmark)
    if description is None:
        return _write_reference(args, logs)
    for log in logs:
        require_from_scratch(log)
    sample = None if _has_foreign_data(args, inputs) else inputs.sample
    package = Package(
        folder=args.output,
        submitter=args.submitter,
        system=args.system,
        edition=edition,
        description=description,
        configuration=configuration,
        trainer_flags=settings.trainer_flags,
        data=_data_text(sample, inputs),
        bypass_reason=args.rcp_bypass or (SAMPLE_REASON if sample and args.division == "closed" else None),
        seed_bypass_reason=args.seed_bypass,
    )
    return _write_and_check(package, logs)


def _choose_division(args: argparse.Namespace, inputs: RunInputs) -> None:
    """Set --division if it is not given. UsageError if the data, a bypass or the package contradicts it."""
    is_sample = inputs.uses_sample and not _has_foreign_data(args, inputs)
    args.division = choose_division(args.division, inputs.benchmark, is_sample=is_sample)
    for flag, value in (("--rcp-bypass", args.rcp_bypass), ("--seed-bypass", args.seed_bypass)):
        if value is not None and args.division == "open":
            raise UsageError(f"{flag}: not allowed with the open division, which has no such check")
    if not args.reference:
        require_common_division(args.division, args.output / args.submitter, args.system, inputs.benchmark)


def _has_foreign_data(args: argparse.Namespace, inputs: RunInputs) -> bool:
    """Return whether it is unknown which data the runs use: those of given logs, without DATADIR."""
    return args.logs is not None and not inputs.data


def _require_benchmark(logs: list[Log], benchmark: Benchmark) -> None:
    """Raise UsageError, naming the line, if a log is of another benchmark that could be chosen."""
    for log in logs:
        for event in log.all("submission_benchmark"):
            if event.value != benchmark.name and event.value in list(BENCHMARKS):
                raise UsageError(
                    f"--logs: {log.path}:{event.line} is of {event.value}; use --benchmark={event.value}"
                )


def _write_and_check(package: Package, logs: list[Log]) -> int:
    folder = write_package(package, logs)
    own = folder / "results" / package.system / package.benchmark
    (result,) = (result for result in find_results(folder) if result.folder == own)
    report = check_result(result, package.edition)
    print(f"package in {folder}")
    if any(log.value("cache_clear") in (False, 0) for log in logs):
        print("the page cache was not dropped before every run, which the rules require")
    if package.configuration is None:
        print(
            f"without config_{package.system}.sh: CONFIG does not say with which configuration the logs were made"
        )
    if package.bypass_reason is not None:
        print(f"the convergence check is bypassed: {package.bypass_reason}")
    if package.seed_bypass_reason is not None:
        print(f"the seed check is bypassed: {package.seed_bypass_reason}")
    print(render(report), flush=True)
    return 0 if report.passed else 1


def _run_settings(args: argparse.Namespace, inputs: RunInputs) -> RunSettings:
    trainer_flags = (
        f"--mlperf-submitter={args.submitter}",
        f"--mlperf-platform={args.system}",
        f"--mlperf-division={args.division}",
        f"--mlperf-status={args.status}",
        *args.trainer_flags,
    )
    return RunSettings(
        args.benchmark,
        args.edition,
        inputs.data,
        inputs.configuration,
        inputs.configuration_hash,
        trainer_flags,
        processes_of_environment() if args.logs is None else 1,
    )


def _description(args: argparse.Namespace, inputs: RunInputs, processes: int) -> Description:
    """Return the complete system description. UsageError naming all missing fields at once."""
    description: Description = {"hw_notes": "", "sw_notes": ""}
    if args.logs is None:
        use_gpu = "--use-gpu" in args.trainer_flags or "--use-gpu" in inputs.configuration_text
        description = describe_machine(inputs.data_folder, use_gpu=use_gpu, processes=processes)
    else:
        description |= LoggedProcesses.of([read_log(path) for path in args.logs]).description
    if args.system_file is not None:
        description |= read_description(args.system_file)
    for text in args.set:
        name, equals, value = text.partition("=")
        if name in _RESERVED_FIELDS:
            raise UsageError(f"--set={text}: use {_RESERVED_FIELDS[name]} instead")
        if name not in FIELDS or not equals:
            raise UsageError(f"--set={text}: must be FIELD=VALUE, where FIELD is one of {', '.join(FIELDS)}")
        description[name] = value
    description |= {"submitter": args.submitter, "division": args.division}
    description |= {"status": AVAILABILITY[args.status], "system_name": args.system}
    missing = missing_fields(description)
    if missing:
        raise UsageError(
            f"the system description is missing {', '.join(missing)}; use --set FIELD=VALUE or --system-file"
        )
    for name, value in description.items():
        if (kind := required_kind(name, value)) is not None:
            raise UsageError(f"the system description: {name} is {as_text(value)}, must be {kind}")
    return {name: description[name] for name in FIELDS}


def _logs_folder(args: argparse.Namespace) -> Path:
    folder: Path = args.output / _LOG_FOLDERS[args.reference] / args.system / args.benchmark
    return folder


def _reference_file(args: argparse.Namespace) -> Path:
    return _logs_folder(args).with_name(f"rcps_{args.benchmark}.json")


def _data_text(sample: SampleSize | None, inputs: RunInputs) -> str:
    """Return the section about the data for the README of the package."""
    if sample is None and inputs.has_reference_files:
        return "`$DATA` holds the files day_K_*.npy or .npz that the reference implementation prepares."
    if sample is None:
        return (
            "`$DATA` holds day_0 ... day_23 of the Criteo Terabyte click logs, or the files "
            "that tools/prepare_criteo.py prepared from them."
        )
    return (
        "Synthetic, with a planted signal; the runs are an example, not a result:\n\n"
        "```\nDATA=$PWD/input\n"
        f"$(tools/setup.sh) tools/make_sample.py --folder=$DATA --rows={sample.rows} --seed={sample.seed}\n```"
    )


def _write_reference(args: argparse.Namespace, logs: list[Log]) -> int:
    rcp = make_rcp(logs, EDITIONS[args.edition].benchmark, args.submitter, args.system)
    file = _reference_file(args)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(rcp, indent=2) + "\n")
    print(f"convergence points of {len(logs)} runs in {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
