"""Conversion of flags, from a command line or Python keywords, to validated settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlperf.settings.argument_parser import Parser
from mlperf.settings.config_file import read_config
from mlperf.settings.contradictions import check_preparation, check_settings
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.flags import build, changed_flags, declared_flags
from mlperf.settings.run import SETTINGS_FILE, RunSettings
from mlperf.settings.settings import Settings
from mlperf.util.errors import UsageError

# What `check_settings` refuses with --inference-only, and with --score-text.
_OF_A_TRAINING = (
    *("save_model", "checkpoint_every", "load_weights"),
    *("debug_mode", "enable_profiling", "tensor_board_filename", "track"),
)
_OF_A_SPLIT = ("metrics_file", "time_breakdown", "save_onnx", "plot_compute_graph", "verify_data")


def make_trainer_parser(prog: str = "dlrm_s_pytorch.py") -> Parser:
    """Return the parser of the trainer's flags."""
    parser = Parser(prog, "Train or evaluate DLRM, the MLPerf recommendation benchmark.", usage="%(prog)s [flags]")
    parser.add_settings(Settings)
    return parser


def make_preparation_parser(prog: str = "prepare_criteo.py", description: str | None = None) -> Parser:
    """Return the parser of the flags of `prepare_criteo.py`."""
    parser = Parser(prog, description, usage="%(prog)s [flags]")
    parser.add_settings(PreparationSettings)
    return parser


def parse(arguments: Sequence[str] | None, prog: str = "dlrm_s_pytorch.py") -> Settings:
    """Return the settings for the trainer's flags; if `arguments` is None, for those of the command line.

    Flags in a file (--config, --resume) apply if they are not among the arguments.

    UsageError if a flag is invalid or two flags contradict each other.
    """
    given = vars(make_trainer_parser(prog).parse_args(arguments))
    given = {**_without_training(_stored(given), given), **given}
    settings = replace(build(Settings, given), given=frozenset(given))
    check_settings(settings)
    return settings


def _stored(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags in the file of --config or, with --resume, in the folder of the run that is continued."""
    run = build(RunSettings, given)
    if run.config is not None:
        return read_config(run.config)
    if run.resume and run.output_dir is not None and (path := run.path(SETTINGS_FILE)).exists():
        return read_config(path, is_kept=True)
    return {}


def _without_training(stored: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of a file; if they are those of a training, and an evaluation was asked for, without those
    that only a training allows."""
    if not given.get("inference_only") or stored.get("inference_only"):
        return stored
    refused = {*_OF_A_TRAINING, *(_OF_A_SPLIT if "score_text" in given else ())}
    return {key: value for key, value in stored.items() if key not in refused}


def parse_preparation(arguments: Sequence[str] | None, prog: str, description: str | None) -> PreparationSettings:
    """Return the settings for the flags of `prepare_criteo.py`. UsageError as in `parse`."""
    given = vars(make_preparation_parser(prog, description).parse_args(arguments))
    settings = build(PreparationSettings, given)
    check_preparation(settings, given)
    return settings


def settings_from(flags: Mapping[str, Any]) -> Settings:
    """Return the settings for flags given as keywords: `mini_batch_size=2` for `--mini-batch-size=2`.

    Values are Python objects, or strings as on the command line; None omits a flag. UsageError as in `parse`.
    """
    declared = {flag.key: flag for _, flag in declared_flags(Settings)}
    arguments: list[str] = []
    for key, value in flags.items():
        if key not in declared:
            raise UsageError(f"{key}: unknown flag")
        if value is not None:
            arguments += declared[key].arguments(value)
    return parse(arguments)


def checked(settings: Settings) -> Settings:
    """Validate and convert settings created in Python like those from flags. UsageError as in `parse`."""
    return parse([argument for flag, value in changed_flags(settings) for argument in flag.arguments(value)])
