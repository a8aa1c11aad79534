"""Flags in a TOML file: read by --config, and written for each run with --output-dir.

    mini-batch-size = 512
    arch-mlp-bot = "13-64-16"
    use-gpu = true

A key is the name of a flag without the dashes in front. Values are those of the command line: numbers, texts, true
and false. Lists of numbers may also be TOML arrays. `version` is that of the program that wrote the file.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlperf.settings.flags import Flag, declared_flags, flag_values
from mlperf.settings.settings import Settings
from mlperf.settings.values import plain_value
from mlperf.util.errors import RunError, UsageError
from mlperf.util.files import read_regular
from mlperf.util.printable import shown_name
from mlperf.version import __version__

# They belong to one call of the program, not to the settings of a run.
_OF_THE_CALL = frozenset({"--config", "--output-dir", "--resume", "--dry-run", "--local_rank"})
_VERSION = "version"
_MAX_BYTES = 1 << 20


def read_config(path: Path, *, is_kept: bool = False) -> dict[str, Any]:
    """Return the values in a file by flag key, as the command line yields them.

    is_kept: whether it must have the version, with which `settings_text` begins: a file that was emptied has not.

    RunError if it cannot be read. UsageError, naming the file and the key, if it is not TOML, or if a flag is
    unknown or its value not allowed.
    """
    declared = {flag.name.removeprefix("--"): flag for _, flag in declared_flags(Settings)}
    values: dict[str, Any] = {}
    tables = _read_toml(path)
    if is_kept and _VERSION not in tables:
        raise UsageError(f"{path}: lacks {_VERSION}, so these are not the settings that a run has kept")
    for name, value in tables.items():
        if name == _VERSION:
            continue
        flag = declared.get(name)
        if flag is None:
            known = "; write dashes" if name.replace("_", "-") in declared else ""
            raise UsageError(f"{path}: {shown_name(name)} is not the name of a flag{known}")
        if flag.name in _OF_THE_CALL:
            raise UsageError(f"{path}: {name} must be given on the command line, not in a file")
        try:
            values[flag.key] = _value(flag, value)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{path}: {name}: {error}") from None
    return values


def settings_text(settings: Settings) -> str:
    """Return a file from which `read_config` reads the settings: flags that were given, or have not their default.

    UsageError if a path is not text in UTF-8, which TOML requires.
    """
    lines = [f"{_VERSION} = {_quoted(__version__)}"]
    for flag, value in flag_values(settings):
        is_set = value != flag.default or flag.key in settings.given
        if not is_set or value is None or flag.name in _OF_THE_CALL:
            continue
        shown = plain_value(flag, value)
        if isinstance(shown, bool):
            shown = "true" if shown else "false"
        elif isinstance(shown, str):
            if any("\ud800" <= character <= "\udfff" for character in shown):
                raise UsageError(f"{flag.name}: {shown_name(shown)} is not UTF-8, so it cannot be kept in a file")
            shown = _quoted(shown)
        lines.append(f"{flag.name.removeprefix('--')} = {shown}")
    return "\n".join(lines) + "\n"


def _read_toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(read_regular(path, _MAX_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise RunError(f"{path}: the settings cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8, which TOML requires") from None
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        text = "values are nested too deeply" if isinstance(error, RecursionError) else f"{error}"
        raise UsageError(f"{path}: is not TOML: {text}") from None


def _value(flag: Flag, value: Any) -> Any:
    """Return the value of a flag. ArgumentTypeError if it is not allowed."""
    if value is True and flag.kind.const is not None:
        return flag.kind.const
    if isinstance(value, list) and all(type(number) in (int, float) for number in value):
        return flag.kind("-".join(map(str, value)))
    if not isinstance(value, str | bool | int | float):
        raise argparse.ArgumentTypeError("must be a number, a text, true, false or a list of numbers")
    return flag.kind(value if isinstance(value, str) else json.dumps(value))


def _quoted(text: str) -> str:
    """Return a basic string of TOML, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
